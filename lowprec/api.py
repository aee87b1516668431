"""quantize(), load() and compile(): the order of calls, no arithmetic.

capture ─► Workbench ─► QuantizedModel ─► rebuild
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import ConfigError, DataError, ModelError, UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

    from lowprec.config import Config
    from lowprec.hookspecs import Captured, CapturedParts
    from lowprec.models import CompiledModel, QuantizedModel
    from lowprec.tuning import TuningResult
    from lowprec.workbench import Workbench

Feed = dict[str, NDArray[np.generic]]

WITHOUT_DATA = ("bf16", "int8-dynamic", "int8-weight-only", "f16-weight-only")
Evaluate = Callable[[Any], float]


def quantize(
    model: object,
    calibration_data: object = None,
    *,
    precision: str = "int8",
    config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    evaluate: Evaluate | Mapping[str, Evaluate] | None = None,
    example_inputs: object = None,
    progress: Callable[..., None] | bool | None = None,
) -> Any:
    """Return a low-precision model of the same kind as `model`, with a report of what was done.

    Layers that gain nothing from int8 stay in float; `report` names each with its reason.

    Args:
        model: What an adapter accepts: an onnx.ModelProto, an onnx_ir.Model or the path of an .onnx
            file; `lowprec doctor` lists the adapters.
        calibration_data: Samples that are typical for the model's use; only int8 and auto need
            them. One item of an iterable is one complete feed: a dict by input name, a tuple in
            input order, or an array for a single input; a function that returns such an iterable,
            an .npz file and a folder of them work too. It is read once. None takes what the
            configuration names (`data.calibration`).
        precision: "int8" (ranges from data), "int8-dynamic" (ranges in every run),
            "int8-weight-only", "bf16", "f16-weight-only", or "auto": each layer the lowest
            precision that keeps the accuracy and wins time on this machine.
        config: A Config, a dict, or the path of a YAML file.
        evaluate: A function from a model to a score, or several by name. Given, a search tries
            configurations until one meets the criterion `tuning.accuracy`, and the best one found
            is returned, whether it does or not; the report says which, and lists the trials. None
            takes what the configuration names (`evaluation.metric` on `data.evaluation`).
        example_inputs: For adapters that trace models.
        progress: Called as progress(done, total) while samples are consumed, or for each trial of
            a search; True shows a bar on stderr.

    Returns:
        A QuantizedModel for ONNX; for other kinds what their adapter makes of it.

    Raises:
        ModelError: no adapter takes the model, or it cannot be used.
        DataError: the data is missing, used up, misshapen, or holds NaN or infinity.
        ConfigError: the configuration has an unknown key or value.
        UnsupportedError: the model or configuration needs what this version does not do.

    Example:
        >>> q = lowprec.quantize("model.onnx", samples)  # doctest: +SKIP
        >>> y = q(x)  # doctest: +SKIP
    """
    from lowprec.config import Config
    from lowprec.sources import resolve

    settings = with_precision(Config.of(config), precision)
    settings, calibration_data, evaluate = resolve(settings, calibration_data, evaluate)
    if calibration_data is None and example_inputs is None and settings.precision in WITHOUT_DATA:
        deferred = defer(
            model,
            lambda example: quantize(
                model, config=settings, evaluate=evaluate, example_inputs=example, progress=progress
            ),
        )
        if deferred is not None:
            return deferred
    captured = capture_any(
        model,
        example_inputs=example_inputs,
        calibration_data=calibration_data,
        samples=settings.calibration.samples,
    )
    parts = parts_of(captured)
    if evaluate is not None and parts is not None:
        raise UnsupportedError(
            "evaluate= searches a whole model, and this one is quantised in parts: "
            f"{captured.notes[0]}; quantise it without, or with precision auto"
        )
    with _progress(progress) as report_progress:

        def quantized(part: Captured) -> QuantizedModel:
            workbench = open_workbench(part, calibration_data, settings)
            verify(part, workbench.original)
            if evaluate is None and settings.precision != "auto":
                return workbench.quantize(settings, report_progress)
            return search(workbench, part, settings, evaluate, report_progress).model

        if parts is None:
            return rebuild(quantized(captured), captured)
        return rebuild({name: quantized(part) for name, part in parts.items()}, captured)


def load(path: str | os.PathLike[str]) -> QuantizedModel:
    """Return the model that `save` wrote to `path`, with its bits, configuration and report.

    A quantised file of another tool loads too; its report says that there is nothing to report.

    Raises:
        ModelError: the file is missing or is not a usable ONNX model.
    """
    from lowprec.engine.kept import Keeper
    from lowprec.models import QuantizedModel

    name = os.path.basename(os.fspath(path))
    keeper = Keeper(path, "load")
    kept = keeper.open(lambda hub: hub)
    if kept is None:
        from lowprec.graph import load as load_graph
        from lowprec.models import REPORT_KEY

        loaded = QuantizedModel.from_hub(load_graph(path), name)
        text = loaded.hub.metadata_props.get(REPORT_KEY)
        kept = keeper.open(lambda hub: hub) if keeper.keep(loaded.session, text) else None
        if kept is None:
            loaded.session.prepare()
            return loaded
    kept.session.prepare()
    return QuantizedModel.from_report(kept.note, name, kept.load, kept.session)


def compile(model: object, *, example_inputs: object = None) -> Any:
    """Return `model` compiled for the engine, its precision unchanged.

    Args:
        model: As for `quantize`; float or QDQ, also one that another tool quantised.
        example_inputs: For adapters that trace models.

    Returns:
        A CompiledModel for ONNX; for other kinds what their adapter makes of it.

    Raises:
        ModelError: no adapter takes the model, or it cannot be used.
    """
    from lowprec.engine.kept import Keeper
    from lowprec.models import CompiledModel

    keeper = Keeper(model, "compile") if isinstance(model, (str, os.PathLike)) else None
    kept = keeper.open(_simplified) if keeper is not None else None
    if kept is not None:
        kept.session.prepare()
        return CompiledModel(kept.session)

    if example_inputs is None:
        deferred = defer(model, lambda example: compile(model, example_inputs=example))
        if deferred is not None:
            return deferred
    captured = capture_any(model, example_inputs=example_inputs)
    parts = parts_of(captured)
    if parts is not None:
        made = {name: compile_verified(part) for name, part in parts.items()}
        for part in made.values():
            part.session.prepare()
        return rebuild(made, captured)
    compiled = compile_verified(captured)
    if keeper is not None and captured.kind == "onnx" and keeper.keep(compiled.session):
        kept = keeper.open(_simplified)
        compiled = compiled if kept is None else CompiledModel(kept.session)
    compiled.session.prepare()
    return rebuild(compiled, captured)


# ---- The steps -----------------------------------------------------------------------------------


def defer(model: object, build: Callable[[object], Any]) -> object | None:
    """Return an object that calls `build` with what it is first called with, if an adapter can."""
    from lowprec.plugins import active_plugins

    deferred: object | None = active_plugins().hook.lowprec_defer(model=model, build=build)
    return deferred


def capture(
    model: object,
    *,
    example_inputs: object = None,
    calibration_data: object = None,
    samples: int = 128,
) -> Captured:
    """Return what the first adapter that takes `model` makes of it, which must be one graph.

    Raises:
        ModelError: no adapter takes it, or it can be captured in parts only.
    """
    captured: Captured = capture_any(
        model, example_inputs=example_inputs, calibration_data=calibration_data, samples=samples
    )
    if parts_of(captured) is not None:
        raise ModelError("the model can be captured in parts only, and one graph is needed here")
    return captured


def parts_of(captured: Captured | CapturedParts) -> Mapping[str, Captured] | None:
    """Return the parts by name of what was captured in parts; None for one graph."""
    return getattr(captured, "parts", None)


def capture_any(
    model: object,
    *,
    example_inputs: object = None,
    calibration_data: object = None,
    samples: int = 128,
) -> Any:
    """Return what the first adapter that takes `model` makes of it: Captured or CapturedParts.

    Args:
        model: As for `quantize`.
        example_inputs: As for `quantize`.
        calibration_data: As for `quantize`.
        samples: Items of the data that may be asked for.

    Raises:
        ModelError: no adapter takes it.
    """
    from lowprec.plugins import active_plugins

    plugins = active_plugins()
    captured: Captured | CapturedParts | None = plugins.hook.lowprec_capture(
        model=model,
        example_inputs=example_inputs,
        calibration_data=calibration_data,
        samples=samples,
    )
    if captured is None:
        what = (
            f"'{model}'" if isinstance(model, (str, os.PathLike)) else f"a {type(model).__name__}"
        )
        raise ModelError(
            f"no adapter takes {what}; accepted are: {plugins.accepted_kinds()} "
            "(`lowprec doctor` lists the adapters)"
        )
    return captured


def verify(captured: Captured, compiled: CompiledModel) -> None:
    """Run the captured graph on what the framework itself computed before, and compare.

    Raises:
        ModelError: the graph computes something else.
    """
    if not captured.samples:
        return
    from lowprec.agreement import disagreement
    from lowprec.quantization.recognition import find_quantized_operator

    through_codes = find_quantized_operator(captured.graph) is not None
    for feeds, outputs in captured.samples:
        results = zip(compiled.outputs, outputs, compiled.run(feeds), strict=True)
        for info, expected, actual in results:
            wrong = disagreement(info.name, expected, actual, through_codes=through_codes)
            if wrong:
                shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in feeds.items())
                raise ModelError(
                    f"the {captured.kind} model computes something else than the graph that was "
                    f"captured of it: {wrong} (for {shapes}); it may do something that a trace "
                    "does not see, as reading a number from a tensor: give an ONNX file instead, "
                    "or only the part of it that computes"
                )


def compile_verified(captured: Captured) -> CompiledModel:
    """Return the captured graph on the engine, once it computes what the framework does."""
    compiled = compile_captured(captured)
    verify(captured, compiled)
    return compiled


def compile_captured(captured: Captured) -> CompiledModel:
    """Return the captured graph, simplified, on the engine."""
    from lowprec.models import CompiledModel

    return CompiledModel(_simplified(captured.graph))


def rebuild(
    quantized: CompiledModel | Mapping[str, CompiledModel], captured: Captured | CapturedParts
) -> Any:
    """Return `quantized`, or the parts by name, as the adapter makes it: of the captured kind."""
    from lowprec.plugins import active_plugins

    rebuilt = active_plugins().hook.lowprec_rebuild(quantized=quantized, captured=captured)
    return quantized if rebuilt is None else rebuilt


def search(
    workbench: Workbench,
    captured: Captured,
    config: Config,
    evaluate: Evaluate | Mapping[str, Evaluate] | None,
    progress: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Return the best model that a search finds, with all its trials.

    Args:
        workbench: Of `captured`, with the calibration data.
        captured: What `evaluate` scores is of its kind.
        config: `precision: auto` chooses precisions layer by layer; otherwise `tuning.strategy`
            says how to search.
        evaluate: As for `quantize`; None only with `precision: auto`.
        progress: Called as progress(trials done, trials at most).
    """
    from lowprec.plugins import active_plugins
    from lowprec.tuning import choose_precisions, tune

    # An ONNX model's own kind is ours: a CompiledModel. Nothing has to be sent to other processes.
    is_ours = captured.kind == "onnx"
    original = None if is_ours else captured.source
    made = None if is_ours else partial(rebuild, captured=captured)

    if config.precision == "auto":
        return choose_precisions(
            workbench, config, evaluate, rebuild=made, original=original, progress=progress
        )
    assert evaluate is not None
    return tune(
        workbench,
        config,
        evaluate,
        rebuild=made,
        original=original,
        strategies=active_plugins().strategies(),
        progress=progress,
    )


def open_workbench(captured: Captured, calibration_data: object, config: Config) -> Workbench:
    """Return the captured model with its data, ready to be quantised; nothing is read yet.

    Args:
        captured: From `capture`.
        calibration_data: As for `quantize`.
        config: Unused data beyond `calibration.samples` is never asked for.

    Raises:
        DataError: no adapter takes the data.
    """
    from lowprec.plugins import active_plugins
    from lowprec.workbench import Workbench

    source = captured.source
    name = os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else ""
    batches = None if calibration_data is None else _batches(calibration_data, captured)
    return Workbench(
        captured.graph,
        batches,
        name=name,
        kind=captured.kind,
        notes=captured.notes,
        rules=active_plugins().observers(),
    )


def _simplified(hub: ir.Model) -> ir.Model:
    from lowprec.passes import simplify

    model = hub.clone()
    simplify(model)
    return model


def _batches(data: object, captured: Captured) -> Iterable[Feed]:
    from lowprec.plugins import active_plugins

    batches: Iterable[Feed] | None = active_plugins().hook.lowprec_batches(
        data=data, captured=captured
    )
    if batches is None:
        raise DataError(f"no adapter takes calibration data of type {type(data).__name__}")
    return batches


def with_precision(config: Config, precision: str) -> Config:
    """Return `config` with the precision that was asked for by argument, if it was."""
    from lowprec.config import Config

    default = Config().precision
    if precision in (default, config.precision):
        return config
    if config.precision != default:
        raise ConfigError(
            f"precision is '{precision}' as an argument and '{config.precision}' in the "
            "configuration; give it once"
        )
    return Config.from_dict({**config.to_dict(), "precision": precision})


@contextmanager
def _progress(progress: Callable[..., None] | bool | None) -> Iterator[Callable[..., None] | None]:
    if progress is True:
        from lowprec.progress import progress_bar

        with progress_bar("calibrating") as show:
            yield show
    else:
        yield progress or None
