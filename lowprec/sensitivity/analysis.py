"""Every layer of a quantised model measured alone and in company.

    isolated     only this layer is quantised: dB of the model's outputs against float
    accumulated  the whole model is quantised: dB of this layer's own output against float
    gain         the whole model is quantised but for this layer: dB that its outputs win

SQNR = 10 log10(sum of squared float values / sum of squared differences). Of several outputs the
noise-to-signal ratios are averaged, so that the worst one decides. What comes out of a Softmax or
a Sigmoid is compared before it: probabilities near 0 and 1 hide noise, and a near tie that falls
the other way drowns it. Everything is measured on the kernels that will run, on the calibration's
first feeds. `isolated` and `gain` are of layers as they are rounded, before biases are corrected
for the errors of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from glob import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.errors import ConfigError, DataError
from lowprec.layer_times import layer_times
from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES
from lowprec.passes.matching import is_operator
from lowprec.quantization import apply_precisions
from lowprec.sensitivity.switchboard import Switchboard

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.engine import Session
    from lowprec.report import LayerRecord, Report
    from lowprec.workbench import Prepared, Workbench

Array = NDArray[Any]
Feed = Mapping[str, Array]
Progress = Callable[[int, int], None]

LARGEST_WATCH = 128 << 20
"""Bytes of layer outputs that are held at once, of float and quantised model together."""
SATURATING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantising one layer does.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        precision: What the layer runs in when the whole model is quantised.
        macs: Multiply-adds for the shapes seen in calibration; None when not known.
        isolated: SQNR of the model's outputs, in dB, when this layer alone is quantised; infinite
            when nothing changes.
        accumulated: SQNR of the layer's own output in the whole quantised model, dB; None where it
            cannot be seen (in the body of an If, Loop or Scan).
        gain: dB of output SQNR that the quantised model wins when this layer alone is restored to
            float (or the precision asked for); negative where errors happened to cancel.
        float_ms: Time of its steps in the float model, milliseconds; None when not measured.
        int8_ms: The same in the quantised model, the quantising of its input included.
    """

    name: str
    op_type: str
    precision: str
    macs: int | None
    isolated: float
    accumulated: float | None
    gain: float
    float_ms: float | None = None
    int8_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; infinite ratios are the text "inf" or "-inf"."""
        return {key: _spelt(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerSensitivity:
        """Return what `to_dict` described; KeyError, TypeError or ValueError for anything else."""
        read = {item.name: values[item.name] for item in fields(cls)}
        for key in ("isolated", "gain"):
            read[key] = float(read[key])
        for key in ("accumulated", "float_ms", "int8_ms"):
            read[key] = None if read[key] is None else float(read[key])
        return cls(**read)


def analyse(
    workbench: Workbench,
    config: Config,
    *,
    feeds: int = 8,
    restore: str = "f32",
    only: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> list[LayerSensitivity]:
    """Return the sensitivity of every quantised layer, the most harmful one first.

    Args:
        workbench: The captured model and its data; calibrated at most once.
        config: What the whole model is quantised with.
        feeds: Calibration feeds to measure on.
        restore: Layer precision that a layer goes back to for `gain`.
        only: Names of the layers to look at; None looks at all.
        progress: Called as progress(layers done, layers).

    Raises:
        ConfigError: `only` names a layer that is not quantised.
        DataError: the workbench has no data.
    """
    prepared = workbench.prepared(config)
    quantized = workbench.quantize(config, prepared=prepared, measure=False)
    records = _chosen(quantized.report, only)
    if not records:
        return []
    samples = analysis_samples(workbench, feeds)
    names = [record.name for record in records]
    outputs = observable_outputs(prepared.hub, quantized.hub)
    expected = _results(watching(prepared.hub, outputs, keep=False), samples)
    accumulated = layer_sqnr(prepared.hub, quantized.hub, names, samples)
    float_ms, int8_ms = layer_times(
        quantized.report.layers, workbench.original.session, quantized.session, samples[0]
    )
    restored_hub = (
        prepared.hub
        if restore == "f32"
        else unrefined(prepared, with_rules(config, {}, others=restore), samples[0])
    )
    # Corrections of one layer's errors in another's bias would be wrong once the one is switched.
    raw = unrefined(prepared, config, samples[0])
    # Alone: float, and one layer switched. Restored: quantised, and one layer switched.
    alone = Switchboard(prepared.hub, raw, names, outputs)
    restored = Switchboard(raw, restored_hub, names, outputs)

    def measure(board: Switchboard, switched: Collection[str]) -> float:
        return output_sqnr(expected, (board.run(feed, switched) for feed in samples))

    def measure_rules(rules: Mapping[str, str], others: str | None) -> float:
        hub = unrefined(prepared, with_rules(config, rules, others=others), samples[0])
        return output_sqnr(expected, _results(watching(hub, outputs, keep=False), samples))

    whole = measure(restored, ())
    found = []
    for number, record in enumerate(records):
        name = record.name
        found.append(
            LayerSensitivity(
                name=name,
                op_type=record.op_type,
                precision=record.precision,
                macs=record.macs,
                isolated=measure(alone, (name,))
                if name in alone.layers
                else measure_rules({name: record.precision}, "f32"),
                accumulated=accumulated.get(name),
                gain=_difference(
                    measure(restored, (name,))
                    if name in restored.layers
                    else measure_rules({name: restore}, None),
                    whole,
                ),
                float_ms=float_ms.get(name),
                int8_ms=int8_ms.get(name),
            )
        )
        if progress is not None:
            progress(number + 1, len(records))
    return sorted(found, key=lambda layer: (-layer.gain, layer.isolated))


def with_rules(
    config: Config, precisions: Mapping[str, str], *, others: str | None = None
) -> Config:
    """Return `config` with a rule for each layer named, added after its own.

    Args:
        config: Not changed.
        precisions: Layer precision by the node's name, taken literally.
        others: Layer precision of every other layer; None leaves them as they are.
    """
    from lowprec.config import Config

    values = config.to_dict()
    rules = [*values["layers"]]
    if others is not None:
        rules.append({"match": "*", "precision": others})
    rules += [
        {"match": escape(name), "precision": precision} for name, precision in precisions.items()
    ]
    return Config.from_dict({**values, "layers": rules})


# ---- Ratios --------------------------------------------------------------------------------------


def output_sqnr(expected: Sequence[Sequence[Array]], actual: Iterable[Sequence[Array]]) -> float:
    """Return the SQNR of a model's outputs in dB, over all runs.

    Args:
        expected: Per run, the float model's outputs.
        actual: Per run, the other model's, in the same order.
    """
    sums = np.zeros((len(expected[0]), 2)) if expected else np.zeros((0, 2))
    for wanted, made in zip(expected, actual, strict=True):
        for row, a, b in zip(sums, wanted, made, strict=True):
            row += _signal_and_noise(a, b)
    ratios = [
        noise / signal if signal > 0 else math.inf if noise > 0 else 0.0 for signal, noise in sums
    ]
    return _decibels(1.0, sum(ratios) / len(ratios)) if ratios else math.inf


def layer_sqnr(
    original: ir.Model, quantized: ir.Model, layers: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Return by layer name the SQNR of the layer's own output in dB; layers in bodies are missing.

    Args:
        original: Float hub with the same values; not changed.
        quantized: Its quantised form; not changed.
        layers: Names of nodes of the main graph.
        feeds: What is run.
    """
    wanted = set(layers)
    values = {node.name: node.outputs[0].name for node in original.graph if node.name in wanted}
    there = {value.name for node in quantized.graph for value in node.outputs}
    watched = {layer: str(name) for layer, name in values.items() if layer and name in there}
    sums = {layer: np.zeros(2) for layer in watched}
    # What is small enough to be seen at once is not known before the first run.
    pending = [list(watched)] if watched and feeds else []
    while pending:
        group = pending.pop()
        names = [watched[layer] for layer in group]
        before, after = (watching(model, names) for model in (original, quantized))
        for number, feed in enumerate(feeds):
            first, second = (session.run(feed)[-len(names) :] for session in (before, after))
            if not number and len(group) > 1:
                size = sum(array.nbytes for array in (*first, *second))
                if size > LARGEST_WATCH:
                    half = len(group) // 2
                    pending += [group[:half], group[half:]]
                    break
            for layer, a, b in zip(group, first, second, strict=True):
                sums[layer] += _signal_and_noise(a, b)
    return {layer: _decibels(*total) for layer, total in sums.items()}


def observable_outputs(original: ir.Model, quantized: ir.Model) -> list[str]:
    """Return what to compare of two models: their outputs, or what a saturating function reads.

    Args:
        original: Float hub.
        quantized: Its quantised form: names that it does not have are not taken.
    """
    there = {value.name for node in quantized.graph for value in node.outputs}
    names = []
    for value in original.graph.outputs:
        node = value.producer()
        name = value.name
        if node is not None and is_operator(node, *SATURATING) and node.inputs[0] is not None:
            before = node.inputs[0].name
            name = before if before in there else name
        if name in there:
            names.append(str(name))
    return list(dict.fromkeys(names))


def watching(model: ir.Model, names: Sequence[str], *, keep: bool = True) -> Session:
    """Return a session of `model` with the values named as outputs, after its own if kept."""
    from lowprec.engine import compile_model

    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    if not keep:
        copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    return compile_model(copy)


def _results(session: Session, feeds: Sequence[Feed]) -> list[list[Array]]:
    return [session.run(feed) for feed in feeds]


def _signal_and_noise(expected: Array, actual: Array) -> tuple[float, float]:
    if expected.dtype.kind not in "biuf" or expected.shape != actual.shape:
        return 0.0, 0.0
    a = expected.astype(np.float64).ravel()
    error = a - actual.astype(np.float64).ravel()
    return float(a @ a), float(error @ error)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _difference(after: float, before: float) -> float:
    return 0.0 if after == before else after - before  # inf - inf is not a number


# ---- Choosing ------------------------------------------------------------------------------------


def unrefined(prepared: Prepared, config: Config, feed: Feed) -> ir.Model:
    """Return the prepared graph with the precisions of `config`, not refined."""
    calibration = prepared.calibration
    shapes: Mapping[str, tuple[int, ...]] = (
        {name: array.shape for name, array in feed.items()}
        if calibration is None
        else calibration.input_shapes
    )
    ranges = {} if calibration is None else calibration.ranges
    return apply_precisions(prepared.hub, ranges, config, input_shapes=shapes).model


def analysis_samples(workbench: Workbench, count: int) -> list[dict[str, Array]]:
    """Return the first `count` feeds.

    Raises:
        DataError: there are none.
    """
    samples = [] if workbench.feeds is None else workbench.feeds.first(count)
    if not samples:
        raise DataError(
            "sensitivity is measured on data and there is none; give calibration data, a few "
            "typical samples are enough"
        )
    return samples


def _chosen(report: Report, only: Iterable[str] | None) -> list[LayerRecord]:
    records = [
        record
        for record in report.layers
        if record.precision != "f32" and record.op_type in (*LAYER_TYPES, *RECURRENT_TYPES)
    ]
    if only is None:
        return records
    wanted = set(only)
    missing = sorted(wanted - {record.name for record in records})
    if missing:
        raise ConfigError(
            f"layer '{missing[0]}' is not quantised by this configuration; quantised are "
            f"{', '.join(record.name for record in records) or 'none'}"
        )
    return [record for record in records if record.name in wanted]


def _spelt(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value > 0 else "-inf" if value < 0 else "nan"
    return value
