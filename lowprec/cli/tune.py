"""`lowprec tune`: search for a configuration that keeps the accuracy, trial by trial, logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowprec.errors import ConfigError

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.tuning import Trial

MISSED = 1  # exit code: the best so far was saved, the criterion was missed
LOG_SUFFIX = ".trials.jsonl"


@click.command()
@click.argument("model", required=False)
@click.option(
    "--calibration",
    metavar="DATA",
    help="An .npz file, a folder of them, or module:function returning an iterable of feeds.",
)
@click.option(
    "--evaluate",
    metavar="MODULE:FUNCTION",
    help="A function from a model to a score, or a dict of such functions by name.",
)
@click.option(
    "--evaluation",
    metavar="DATA",
    help="Instead of --evaluate, with --metric: an .npz file with labels, or module:function "
    "returning (inputs, labels).",
)
@click.option("--metric", metavar="NAME", help="topk, Accuracy, F1 ... or module:function.")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="The best model found; without it, what the configuration says, or "
    "MODEL.PRECISION in the model's own form.",
)
@click.option(
    "-c",
    "--config",
    metavar="CONF.yaml",
    help="Configuration: lowprec's or Neural Compressor 1.x's.",
)
@click.option("--precision", metavar="PRECISION", help="What to start from; auto: by layer.")
@click.option("--strategy", metavar="NAME", help="Instead of tuning.strategy.")
@click.option("--max-trials", type=int, metavar="N", help="Instead of tuning.max_trials.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Instead of tuning.timeout.")
@click.option(
    "--log",
    metavar="LOG",
    help=f"Instead of tuning.log; by default OUT{LOG_SUFFIX}. A search goes on from it.",
)
@click.option(
    "--report", metavar="REPORT.html", help="Write the full report too: a page, or REPORT.json."
)
@click.pass_context
def tune(
    context: click.Context,
    model: str | None,
    calibration: str | None,
    evaluate: str | None,
    evaluation: str | None,
    metric: str | None,
    output: str | None,
    config: str | None,
    precision: str | None,
    strategy: str | None,
    max_trials: int | None,
    timeout: float | None,
    log: str | None,
    report: str | None,
) -> None:
    """Search for the best low-precision form of MODEL that keeps its accuracy.

    Exit code 0: the criterion is met. 1: it is missed, and the best so far is saved. A search that
    was stopped goes on from its log when it is started again.
    """
    from lowprec.atomic import resolve_target
    from lowprec.cli.display import is_saved_model, megabytes, size_on_disk
    from lowprec.compat import read_config
    from lowprec.config import Config
    from lowprec.flow import plan_run
    from lowprec.functions import find_functions
    from lowprec.progress import progress_bar

    settings, notes = (Config(), []) if config is None else read_config(config)
    changes = {"strategy": strategy, "max_trials": max_trials, "timeout": timeout, "log": log}
    run = plan_run(
        _changed(settings, precision, changes),
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        metric=metric,
        evaluate=None if evaluate is None else find_functions(evaluate, "--evaluate"),
        output=output,
        notes=notes,
    )
    if run.evaluate is None and run.config.precision != "auto":
        raise ConfigError(
            "nothing scores the models; give --evaluate MODULE:FUNCTION, or --evaluation with "
            "--metric, or the configuration's data.evaluation and evaluation.metric"
        )
    run = replace(run, config=_with_log(run.config, f"{run.output}{LOG_SUFFIX}"))
    for target in filter(None, (str(run.output), report)):
        if not is_saved_model(target):  # a folder that the new one replaces
            resolve_target(target)
    _say_what_is_reused(run.config.tuning.log)
    with progress_bar("tuning") as progress:
        result = run.execute(progress)
    result.model.save(run.output)
    if report is not None:
        result.model.report.save(report)
    if result.tuning is not None:
        _print_trials(result.tuning.trials, result.tuning.best)
    verdict = [note for note in result.model.report.notes if note.startswith("tuning:")]
    click.echo("\n".join(verdict))
    click.echo(f"wrote {run.output}: {megabytes(size_on_disk(run.output))}")
    if result.met is False:
        context.exit(MISSED)


def _changed(config: Config, precision: str | None, changes: Mapping[str, object]) -> Config:
    """Return `config` with what the options say."""
    from lowprec.config import Config

    values = config.to_dict()
    values["tuning"].update({key: value for key, value in changes.items() if value is not None})
    if precision is not None:
        values["precision"] = precision
    return Config.from_dict(values)


def _with_log(config: Config, log: str) -> Config:
    if config.tuning.log is not None:
        return config
    import msgspec

    return msgspec.structs.replace(config, tuning=msgspec.structs.replace(config.tuning, log=log))


def _say_what_is_reused(log: str | None) -> None:
    """Tell on stderr when there is a log to go on from: its scores are believed."""
    path = Path(log) if log else None
    if path is None or not path.is_file():
        return
    with open(path, "rb") as lines:
        trials = sum(b'"record": "trial"' in line for line in lines)
    if trials:
        click.echo(
            f"going on from {path}: {trials} trials; delete it to start afresh, for example when "
            "the evaluation changed",
            err=True,
        )


def _print_trials(trials: list[Trial], best: Trial) -> None:
    from lowprec.cli.display import megabytes, milliseconds, print_table

    rows = [
        (
            f"{trial.number}{' *' if trial.number == best.number else ''}",
            ", ".join(f"{score:.6g}" for score in trial.scores.values()),
            f"{100 * trial.loss:.2f} %",
            "-" if trial.latency is None else milliseconds(trial.latency),
            "-" if trial.latency is None else f"{trial.latency_ratio:.2f}",
            "-" if trial.size is None else megabytes(trial.size),
            "met" if trial.met else "",
            trial.error or trial.change,
        )
        for trial in trials
    ]
    scores = ", ".join(next((t.scores for t in trials if t.scores), {}))
    heads = ("trial", scores, "loss", "latency", "x float", "size", "criterion", "configuration")
    print_table(heads, rows, numbers=heads[:6])
