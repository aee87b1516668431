"""`lowprec quantize`: a float model and data in, a low-precision model out."""

from __future__ import annotations

from typing import get_args

import click

MISSED = 1  # exit code: it ran, and the criterion is not met


@click.command()
@click.argument("model", required=False)
@click.option(
    "--calibration",
    metavar="DATA",
    help="An .npz file, a folder of them, or module:function returning an iterable of feeds; "
    "only int8 and auto need it.",
)
@click.option(
    "--precision",
    metavar="PRECISION",
    help="int8 (the default), int8-dynamic, int8-weight-only, bf16, f16-weight-only or auto.",
)
@click.option(
    "--evaluation",
    metavar="DATA",
    help="An .npz file with labels, or module:function returning (inputs, labels): with --metric, "
    "configurations are tried until one keeps the score.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="topk, Accuracy, F1, MSE ... or module:function (docs/metrics_and_data.md).",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="The model made; without it, what the configuration says, or "
    "MODEL.PRECISION in the model's own form.",
)
@click.option(
    "-c",
    "--config",
    metavar="CONF.yaml",
    help="Configuration: lowprec's (see `lowprec config`) or Neural Compressor 1.x's.",
)
@click.option(
    "--report", metavar="REPORT.html", help="Write the full report too: a page, or REPORT.json."
)
@click.pass_context
def quantize(
    context: click.Context,
    model: str | None,
    calibration: str | None,
    precision: str | None,
    evaluation: str | None,
    metric: str | None,
    output: str | None,
    config: str | None,
    report: str | None,
) -> None:
    """Quantise MODEL with typical data and save it as one ONNX file.

    A configuration may hold everything: model, data, metric, search, output; options replace what
    it says. Exit code 1: the model is written, but misses the criterion.
    """
    import msgspec

    from lowprec.atomic import resolve_target
    from lowprec.cli.display import is_saved_model, megabytes, size_on_disk
    from lowprec.compat import read_config
    from lowprec.config import Config, Precision
    from lowprec.errors import ConfigError
    from lowprec.flow import plan_run
    from lowprec.progress import progress_bar

    settings, notes = (Config(), []) if config is None else read_config(config)
    if precision is not None:
        if precision not in get_args(Precision):
            raise ConfigError(
                f"--precision is '{precision}'; accepted are {', '.join(get_args(Precision))}"
            )
        settings = msgspec.structs.replace(settings, precision=precision)
    run = plan_run(
        settings,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        metric=metric,
        output=output,
        notes=notes,
    )
    # What cannot be written or read is said before the work, not after it.
    for target in filter(None, (str(run.output), report)):
        if not is_saved_model(target):  # a folder that the new one replaces
            resolve_target(target)
    with progress_bar("calibrating" if run.evaluate is None else "trials") as progress:
        result = run.execute(progress)
    result.model.save(run.output)
    if report is not None:
        result.model.report.save(report)
    click.echo(str(result.model.report))
    click.echo(f"wrote {run.output}: {megabytes(size_on_disk(run.output))}")
    if result.met is False:
        context.exit(MISSED)
