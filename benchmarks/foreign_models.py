"""Models that other tools quantised, on lowprec and on onnxruntime: agreement and speed.

    python benchmarks/foreign_models.py [MODEL ...] [--nncf] [--feeds 12]

Each model is quantised by onnxruntime's quantizer in every way that its users pick, and by NNCF.
Agreement is with onnxruntime's graph optimisations off and on: off, it runs Q/DQ graphs in float;
on, it makes integer kernels of them, as we do, and the two disagree with each other, too.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import quantization as tool

import lowprec

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]
_TYPES = {"u8": tool.QuantType.QUInt8, "s8": tool.QuantType.QInt8}
_OPSET = 17  # per-channel Q/DQ needs 13


@dataclass(frozen=True)
class Options:
    """What a user of onnxruntime's quantizer chooses."""

    form: str  # "QDQ", "QOperator" or "dynamic"
    activations: str
    weights: str
    per_channel: bool
    symmetric: bool = False  # activations
    reduce_range: bool = False

    def __str__(self) -> str:
        words = [self.form, f"{self.activations}/{self.weights}"]
        words += ["per channel" if self.per_channel else "per tensor"]
        words += ["symmetric"] * self.symmetric + ["reduced range"] * self.reduce_range
        return " ".join(words)


STATIC = (
    Options("QDQ", "u8", "s8", True),
    Options("QDQ", "u8", "s8", False, reduce_range=True),
    Options("QDQ", "u8", "u8", False),
    Options("QDQ", "s8", "s8", True),
    Options("QDQ", "s8", "s8", False, symmetric=True),
    Options("QOperator", "u8", "s8", True),
    Options("QOperator", "u8", "u8", False),
    Options("QOperator", "s8", "s8", True),
)
DYNAMIC = (
    Options("dynamic", "u8", "s8", True),
    Options("dynamic", "u8", "u8", False),
)


class _Reader(tool.CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def prepare(source: str | onnx.ModelProto, path: Path) -> None:
    """Write the float model as onnxruntime's quantizer wants it: preprocessed, at opset 17."""
    model = onnx.load(source) if isinstance(source, str) else source
    opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    raw = path.with_suffix(".raw.onnx")
    onnx.save(model, raw)
    tool.shape_inference.quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)


def write(prepared: Path, feeds: Sequence[Feeds], options: Options, path: Path) -> None:
    """Quantise the model in `prepared` by onnxruntime's quantizer, calibrated on `feeds`."""
    logging.getLogger().setLevel(logging.ERROR)  # it warns of what was asked for
    if options.form == "dynamic":
        tool.quantize_dynamic(
            str(prepared),
            str(path),
            per_channel=options.per_channel,
            weight_type=_TYPES[options.weights],
        )
        return
    tool.quantize_static(
        str(prepared),
        str(path),
        _Reader(feeds),
        quant_format=tool.QuantFormat[options.form],
        per_channel=options.per_channel,
        reduce_range=options.reduce_range,
        activation_type=_TYPES[options.activations],
        weight_type=_TYPES[options.weights],
        extra_options={"ActivationSymmetric": options.symmetric},
    )


def write_nncf(prepared: Path, feeds: Sequence[Feeds], preset: str, path: Path) -> None:
    """Quantise the model in `prepared` by NNCF's ONNX back end."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        onnx.load(prepared),
        nncf.Dataset(list(feeds)),
        preset=nncf.QuantizationPreset[preset],
        subset_size=len(feeds),
    )
    onnx.save(quantized, path)


@dataclass(frozen=True)
class Session:
    """onnxruntime on one thread."""

    session: onnxruntime.InferenceSession

    def run(self, feeds: Feeds) -> list[Array]:
        return self.session.run(None, dict(feeds))


def onnxruntime_session(path: Path, *, optimised: bool) -> Session:
    """Return a session with all graph optimisations, or without any."""
    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return Session(
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    )


def last_step(model: onnx.ModelProto, output: str) -> float:
    """Return the scale of the last quantised tensor before `output`; inf where there is none.

    Only data movement may lie between.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    while (node := makers.get(output)) is not None:
        if node.op_type == "DequantizeLinear":
            return float(numpy_helper.to_array(constants[node.input[1]]).max())
        if node.op_type not in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"):
            return float("inf")
        output = node.input[0]
    return float("inf")


def decisions(array: Array) -> Array:
    """Return the position of the largest value of each row."""
    return array.argmax(axis=-1) if array.ndim else array


@dataclass(frozen=True)
class Agreement:
    """How two runs of the same feeds compare: equal decisions, and the largest distance."""

    same: float
    furthest: float  # in steps of the last quantised tensor, or as it is where there is none


def agreement(
    ours: Sequence[Sequence[Array]], theirs: Sequence[Sequence[Array]], steps: Sequence[float]
) -> Agreement:
    """Compare the outputs of one run per feed."""
    same, furthest = [], 0.0
    for mine, other in zip(ours, theirs, strict=True):
        for a, b, step in zip(mine, other, steps, strict=True):
            same.append(np.ravel(decisions(a) == decisions(b)))
            distance = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0))
            furthest = max(furthest, distance / (step if np.isfinite(step) else 1.0))
    return Agreement(float(np.concatenate(same).mean()), furthest)


def _times(ours: object, theirs: Session, feeds: Feeds, rounds: int = 30) -> tuple[float, float]:
    """Return the least time of each in ms, in turns."""
    least = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, runner in enumerate((ours, theirs)):
            start = time.perf_counter()
            runner.run(feeds)  # type: ignore[attr-defined]
            least[index] = min(least[index], 1e3 * (time.perf_counter() - start))
    return least[0], least[1]


def compare_file(path: Path, feeds: Sequence[Feeds]) -> str:
    """Return a line of the table."""
    try:
        ours = lowprec.compile(str(path))
        results = [ours.run(dict(feed)) for feed in feeds]
    except lowprec.errors.LowprecError as error:
        return f"{type(error).__name__}: {error}"
    model = onnx.load(path)
    steps = [last_step(model, value.name) for value in model.graph.output]
    plain, fast = (onnxruntime_session(path, optimised=on) for on in (False, True))
    off, on = ([list(session.run(feed)) for feed in feeds] for session in (plain, fast))
    a, b, c = (agreement(x, y, steps) for x, y in ((results, off), (results, on), (on, off)))
    mine, other = _times(ours, fast, feeds[0])
    columns = [f"{item.same:7.2%} {item.furthest:8.3g}" for item in (a, b, c)]
    return " | ".join([*columns, f"{mine:8.2f} {other:8.2f} {other / mine:6.2f}"])


def main() -> None:
    from real_models import real_models

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["PP-OCR cls", "PP-OCR rec", "Magika"])
    parser.add_argument("--nncf", action="store_true", help="NNCF's files, too")
    parser.add_argument("--feeds", type=int, default=12)
    arguments = parser.parse_args()
    known = {model.name: model for model in real_models()}
    lowprec.set_num_threads(1)
    print(f"{'':44} |  as ORT, no opt. |  as ORT, opt.    |  ORT with itself | ms ours, ORT, ratio")
    for name in arguments.models:
        model = known[name]
        calibration, feeds = model.feeds(4, 1), model.feeds(arguments.feeds, 7)
        with tempfile.TemporaryDirectory() as folder:
            prepared, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            prepare(model.load(), prepared)
            for options in (*STATIC, *DYNAMIC):
                title = f"{name}: {options}"
                try:
                    write(prepared, calibration, options, path)
                except Exception as error:
                    print(f"{title:44} | the quantizer failed: {str(error)[:60]}", flush=True)
                    continue
                print(f"{title:44} | {compare_file(path, feeds)}", flush=True)
            for preset in ("PERFORMANCE", "MIXED") if arguments.nncf else ():
                write_nncf(prepared, calibration, preset, path)
                print(f"{name + ': NNCF ' + preset:44} | {compare_file(path, feeds)}", flush=True)


if __name__ == "__main__":
    main()
