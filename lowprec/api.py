"""quantize(), load() and compile(): the order of calls, no arithmetic.

capture ─► simplify ─► calibrate ─► quantize_graph ─► QuantizedModel ─► rebuild
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

    from lowprec.calibration import CalibrationResult
    from lowprec.config import Config
    from lowprec.hookspecs import Captured
    from lowprec.models import CompiledModel, QuantizedModel
    from lowprec.report import Report

Feed = dict[str, NDArray[np.generic]]
Evaluate = Callable[[Any], float]

LOW_SQNR = 10.0  # dB of an output: below, the report says so in a note
FEEDS_KEPT = 8  # calibration feeds on which float and int8 outputs are compared for the report


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
    """Return an int8 or bf16 model of the same kind as `model`, with a report of what was done.

    Layers that gain nothing from int8 stay in float; `report` names each with its reason.

    Args:
        model: What an adapter accepts: an onnx.ModelProto, an onnx_ir.Model or the path of an .onnx
            file; `lowprec doctor` lists the adapters.
        calibration_data: Samples that are typical for the model's use; bf16 needs none. One item of
            an iterable is one complete feed: a dict by input name, a tuple in input order, or an
            array for a single input; a function that returns such an iterable, an .npz file and a
            folder of them work too. It is read once.
        precision: "int8", or "bf16": layers multiply bf16 numbers and sum in f32.
        config: A Config, a dict, or the path of a YAML file.
        evaluate: A function from a model to a score, or several by name. It is called with the
            float and with the int8 model, and the report says whether the configuration's
            criterion `tuning.accuracy` holds. A search for a configuration that meets it comes in
            a later version.
        example_inputs: For adapters that trace models.
        progress: Called as progress(done, total) while samples are consumed; True shows a bar on
            stderr.

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
    from lowprec.plugins import active_plugins

    settings = _with_precision(Config.of(config), precision)
    settings.check_supported()
    captured = capture(model, example_inputs=example_inputs)
    with _progress(progress) as report_progress:
        quantized = quantize_captured(captured, calibration_data, settings, report_progress)
    rebuilt = active_plugins().hook.lowprec_rebuild(quantized=quantized, captured=captured)
    if rebuilt is None:
        rebuilt = quantized
    if evaluate is not None:
        is_ours = rebuilt is quantized
        original = compile_captured(captured) if is_ours else captured.source
        _evaluate(evaluate, original, rebuilt, settings, quantized.report)
    return rebuilt


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
    from lowprec.plugins import active_plugins

    captured = capture(model, example_inputs=example_inputs)
    compiled = compile_captured(captured)
    if keeper is not None and captured.kind == "onnx" and keeper.keep(compiled.session):
        kept = keeper.open(_simplified)
        compiled = compiled if kept is None else CompiledModel(kept.session)
    compiled.session.prepare()
    rebuilt = active_plugins().hook.lowprec_rebuild(quantized=compiled, captured=captured)
    return compiled if rebuilt is None else rebuilt


# ---- The steps -----------------------------------------------------------------------------------


def capture(model: object, *, example_inputs: object = None) -> Captured:
    """Return what the first adapter that takes `model` makes of it.

    Raises:
        ModelError: no adapter takes it.
    """
    from lowprec.plugins import active_plugins

    plugins = active_plugins()
    captured: Captured | None = plugins.hook.lowprec_capture(
        model=model, example_inputs=example_inputs
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


def compile_captured(captured: Captured) -> CompiledModel:
    """Return the captured graph, simplified, on the engine."""
    from lowprec.models import CompiledModel

    return CompiledModel(_simplified(captured.graph))


def quantize_captured(
    captured: Captured,
    calibration_data: object,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
) -> QuantizedModel:
    """Return the captured graph quantised, as a session on NumPy arrays, with its report.

    Args:
        captured: From `capture`.
        calibration_data: As for `quantize`; consumed no further than needed.
        config: Checked: `Config.check_supported` has been called.
        progress: Called as progress(done, total).
    """
    from lowprec.calibration import calibrate
    from lowprec.graph import load as load_graph
    from lowprec.models import REPORT_KEY, CompiledModel, QuantizedModel
    from lowprec.plugins import active_plugins
    from lowprec.quantization import prepare, quantize_graph, refine, tensors_to_calibrate

    if config.precision == "bf16":
        return _use_bf16(captured, calibration_data, config)
    hub = _simplified(captured.graph)
    names = tensors_to_calibrate(hub, config)
    kept: list[Feed] = []
    notes: list[str] = []
    calibration: CalibrationResult | None = None
    if names:
        batches = _batches(calibration_data, captured)
        rules = active_plugins().observers()
        feeds = _keeping(batches, kept)
        first = list(itertools.islice(feeds, min(FEEDS_KEPT, config.calibration.samples)))
        notes += [str(outcome) for outcome in prepare(hub, first, config) if outcome.changed]
        feeds = itertools.chain(first, feeds)
        calibration = calibrate(hub, names, feeds, config, progress, rules=rules)
        notes += getattr(batches, "notes", ())
    result = quantize_graph(
        hub,
        calibration.ranges if calibration else {},
        config,
        input_shapes=calibration.input_shapes if calibration else None,
    )
    if kept:
        notes += [str(outcome) for outcome in refine(hub, result, kept, config) if outcome.changed]
    if result.note:
        notes.append(result.note)
        if REPORT_KEY in result.model.metadata_props:  # our own work: its report is still true
            earlier = QuantizedModel.from_hub(load_graph(result.model), captured.kind)
            earlier.report.notes += [note for note in notes if note not in earlier.report.notes]
            return earlier
    report = _report(captured, config, calibration, notes)
    report.layers = result.layers
    report.int8_macs, report.total_macs = result.int8_macs, result.total_macs
    report.float_bytes, report.int8_bytes = _constant_bytes(hub), _constant_bytes(result.model)
    # What is returned went through the same door as what is loaded from a file: the same bits.
    quantized = QuantizedModel(load_graph(result.model), config, report)
    if kept:
        _measure(CompiledModel(hub), quantized, kept, report)
    return quantized


def _use_bf16(captured: Captured, data: object, config: Config) -> QuantizedModel:
    """Return the captured graph with bf16 layers; `data`, where given, is only compared on."""
    from lowprec.graph import load as load_graph
    from lowprec.models import CompiledModel, QuantizedModel
    from lowprec.quantization import convert_to_bf16

    hub = _simplified(captured.graph)
    kept: list[Feed] = []
    if data is not None:
        wanted = min(FEEDS_KEPT, config.calibration.samples)
        batches = itertools.islice(iter(_batches(data, captured)), wanted)
        kept = [{name: array.copy() for name, array in feed.items()} for feed in batches]
    shapes = {name: array.shape for name, array in kept[0].items()} if kept else None
    result = convert_to_bf16(hub, config, input_shapes=shapes)
    report = _report(captured, config, None, [result.note] if result.note else [])
    report.samples = len(kept)
    report.layers, report.total_macs = result.layers, result.total_macs
    report.float_bytes, report.int8_bytes = _constant_bytes(hub), _constant_bytes(result.model)
    quantized = QuantizedModel(load_graph(result.model), config, report)
    if kept:
        _measure(CompiledModel(hub), quantized, kept, report)
    return quantized


def _simplified(hub: ir.Model) -> ir.Model:
    from lowprec.passes import simplify

    model = hub.clone()
    simplify(model)
    return model


def _batches(data: object, captured: Captured) -> Iterable[Feed]:
    from lowprec.plugins import active_plugins

    if data is None:
        raise DataError(
            "no calibration data was given; give an iterable of feeds, a function that returns "
            "one, an .npz file or a folder of them: a hundred typical samples are enough"
        )
    batches: Iterable[Feed] | None = active_plugins().hook.lowprec_batches(
        data=data, captured=captured
    )
    if batches is None:
        raise DataError(f"no adapter takes calibration data of type {type(data).__name__}")
    return batches


def _keeping(batches: Iterable[Feed], kept: list[Feed]) -> Iterator[Feed]:
    """Yield the feeds, the first few as copies that are kept: the source may reuse its arrays."""
    iterator = iter(batches)
    for feed in itertools.islice(iterator, FEEDS_KEPT):
        kept.append({name: array.copy() for name, array in feed.items()})
        yield kept[-1]
    yield from iterator


def _report(
    captured: Captured, config: Config, calibration: CalibrationResult | None, notes: list[str]
) -> Report:
    from importlib.metadata import version

    from lowprec.report import Report

    source = captured.source
    name = os.path.basename(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else ""
    return Report(
        model=name or captured.graph.graph.name or captured.kind,
        config=config.to_dict(),
        samples=calibration.samples if calibration else 0,
        versions={package: version(package) for package in ("lowprec", "onnx", "onnx_ir", "numpy")},
        notes=notes,
    )


def _constant_bytes(model: ir.Model) -> int:
    from lowprec.graph import constant_bytes

    return constant_bytes(model)


def _measure(
    original: CompiledModel, quantized: QuantizedModel, feeds: list[Feed], report: Report
) -> None:
    """Compare both models' outputs and latency on a few feeds, into the report."""
    from lowprec.agreement import AgreementSum
    from lowprec.timing import median_times

    sums = [AgreementSum(info.name) for info in original.outputs]
    for feed in feeds:
        results = zip(sums, original.run(feed), quantized.run(feed), strict=True)
        for total, expected, actual in results:
            total.update(expected, actual)
    agreements = [total.result() for total in sums]
    report.agreement = [agreement.to_dict() for agreement in agreements]
    report.notes += [
        f"output '{agreement.name}': only {agreement.sqnr:.1f} dB of the float output are left on "
        f"{agreement.samples} calibration samples; check it with your own measure, and keep layers "
        "in float with the configuration's `layers` where it matters"
        for agreement in agreements
        if agreement.sqnr < LOW_SQNR
    ]
    feed = feeds[0]
    times = median_times(
        {"float": lambda: original.run(feed), report.precision: lambda: quantized.run(feed)},
        seconds=0.2,
        least=3,
    )
    report.speed["latency of the first sample, ms"] = {
        name: 1e3 * seconds for name, seconds in times.items()
    }


def _evaluate(
    evaluate: Evaluate | Mapping[str, Evaluate],
    original: object,
    quantized: object,
    config: Config,
    report: Report,
) -> None:
    """Score both models, into the report; a missed criterion is noted."""
    functions = evaluate if isinstance(evaluate, Mapping) else {"score": evaluate}
    criterion = config.tuning.accuracy
    for name, function in functions.items():
        before, after = float(function(original)), float(function(quantized))
        report.accuracy[name] = {"float": before, report.precision: after}
        if not criterion.is_met(before, after):
            report.notes.append(
                f"{name} fell from {before:.6g} to {after:.6g}: more than {criterion.describe()} "
                "allows; keep layers in float with the configuration's `layers`"
            )


def _with_precision(config: Config, precision: str) -> Config:
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
