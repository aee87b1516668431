"""onnxruntime and OpenVINO on a model: their quantised files, made once, and runners.

A quantised file is kept in out/bench/peers under a name that holds what it was made from: the
model's bytes, the tool's version, its settings. A tool that fails leaves a file with the reason.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter
from real_models import Feeds, Outputs, RealModel

FOLDER = Path("out/bench/peers")
CALIBRATION = 24  # samples, for every tool and for ours
OPSET = 17  # what onnxruntime's quantiser is given: per-channel scales need 13
PRODUCTS = ["Conv", "MatMul", "Gemm"]  # an expert's choice where quantising everything ruins it

Run = Callable[[Feeds], Outputs]


class Failed(Exception):
    """A tool could not make or open its model; the message is its first line."""


def digest(*parts: bytes | str) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part)
        sha.update(b"\0")
    return sha.hexdigest()[:16]


def first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:160]


def slug(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_")


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, made by `make` if it is not there; a failure is remembered.

    Raises:
        Failed: `make` failed, now or in an earlier run.
    """
    failure = path.with_suffix(".failed")
    if failure.exists():
        raise Failed(failure.read_text())
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{path.name}")
        try:
            make(partial)
        except Exception as error:  # other tools' errors have no common base
            failure.write_text(first_line(error))
            raise Failed(first_line(error)) from error
        for file in path.parent.glob(f"{partial.stem}.*"):
            file.rename(path.with_suffix(file.suffix))
    return path


def source_file(model: RealModel) -> Path:
    """Return the model's file; models that are made in memory are written once.

    Raises:
        importlib.metadata.PackageNotFoundError: names the package that is missing.
    """
    source = model.load()
    if isinstance(source, str):
        return Path(source)
    content = source.SerializeToString(deterministic=True)
    path = FOLDER.parent / "models" / f"{slug(model.name)}-{digest(content)}.onnx"
    return kept(path, lambda partial: partial.write_bytes(content) and None)


# ---- onnxruntime ---------------------------------------------------------------------------------
def onnxruntime_int8(model: RealModel, source: Path, *, only_products: bool = False) -> Path:
    """Return onnxruntime's quantised file: QDQ, u8 activations, s8 weights per channel.

    Args:
        model: Feeds the calibration.
        source: Its float file.
        only_products: Quantise nothing but convolutions and matrix products.
    """
    key = digest(source.read_bytes(), metadata.version("onnxruntime"), f"{CALIBRATION}")
    name = "products" if only_products else "all"
    path = FOLDER / f"{slug(model.name)}-onnxruntime-{name}-{key}.onnx"
    return kept(path, lambda partial: _quantize_static(model, source, partial, only_products))


def onnxruntime_dynamic(model: RealModel, source: Path) -> Path:
    """Return what onnxruntime's quantize_dynamic writes: s8 weights per channel.

    Raises:
        Failed: it fails.
    """
    key = digest(source.read_bytes(), metadata.version("onnxruntime"))
    path = FOLDER / f"{slug(model.name)}-onnxruntime-dynamic-{key}.onnx"
    tool = import_module("onnxruntime.quantization")

    def make(partial: Path) -> None:
        made = partial.absolute()  # where it works is another folder
        with _prepared(source, made) as prepared:
            tool.quantize_dynamic(
                str(prepared), str(made), weight_type=tool.QuantType.QInt8, per_channel=True
            )

    return kept(path, make)


@contextmanager
def _prepared(source: Path, path: Path) -> Iterator[Path]:
    """Yield a file of `source` in the form that onnxruntime's quantisers want, beside `path`."""
    prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    proto = onnx.load(str(source))
    if (
        max(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx"))
        < OPSET
    ):
        proto = version_converter.convert_version(proto, OPSET)
    prepared = path.with_name(f"prepared-{path.name}")
    with quiet(), scratch_folder():
        try:
            onnx.save(proto, str(prepared))
            try:
                prepare(str(prepared), str(prepared))
            except Exception:  # "Incomplete symbolic shape inference": its documented way out
                prepare(str(prepared), str(prepared), skip_symbolic_shape=True)
            yield prepared
        finally:
            prepared.unlink(missing_ok=True)


def _quantize_static(model: RealModel, source: Path, path: Path, only_products: bool) -> None:
    tool = import_module("onnxruntime.quantization")
    path, feeds = path.absolute(), model.feeds(CALIBRATION, 1)

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

    with _prepared(source, path) as prepared:
        tool.quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=tool.QuantFormat.QDQ,
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=PRODUCTS if only_products else None,
        )


def onnxruntime_session(path: Path, threads: int, shapes: Feeds | None = None) -> Any:
    """Return an InferenceSession; it is told the sizes of `shapes` where dimensions have names."""
    peer = import_module("onnxruntime")
    options = peer.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if shapes is not None:
        for value in onnx.load(str(path), load_external_data=False).graph.input:
            feed = shapes.get(value.name)
            sizes = feed.shape if feed is not None else ()
            for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=False):
                if dim.dim_param:
                    options.add_free_dimension_override_by_name(dim.dim_param, size)
    return peer.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnxruntime_run(path: Path, threads: int, shapes: Feeds | None = None) -> Run:
    try:
        session = onnxruntime_session(path, threads, shapes)
    except Exception as error:  # its exceptions have no common public base
        raise Failed(first_line(error)) from error
    return lambda feeds: session.run(None, feeds)


# ---- OpenVINO ------------------------------------------------------------------------------------
def openvino_int8(model: RealModel, source: Path) -> Path:
    """Return the IR that NNCF's quantisation after training writes, at its default settings."""
    key = digest(source.read_bytes(), metadata.version("nncf"), metadata.version("openvino"))
    path = FOLDER / f"{slug(model.name)}-openvino-{key}.xml"
    return kept(path, lambda partial: _quantize_nncf(model, source, partial))


def _quantize_nncf(model: RealModel, source: Path, path: Path) -> None:
    with quiet():
        openvino, nncf = import_module("openvino"), import_module("nncf")
        nncf.set_log_level(logging.ERROR)
        quantized = nncf.quantize(
            openvino.Core().read_model(str(source)),
            nncf.Dataset(model.feeds(CALIBRATION, 1)),
            subset_size=CALIBRATION,
            model_type=nncf.ModelType.TRANSFORMER if model.is_transformer else None,
        )
        openvino.save_model(quantized, str(path), compress_to_fp16=False)


def openvino_run(path: Path, threads: int, hint: str | None, shapes: Feeds | None = None) -> Run:
    """Return a run of OpenVINO tuned for latency.

    Args:
        path: .onnx or .xml.
        threads: How many it may use.
        hint: Its inference precision, "f32"; None leaves its default, bf16 on many processors.
        shapes: A feed whose shapes the model is compiled for; None leaves them open.
    """
    openvino = import_module("openvino")
    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    try:
        graph = core.read_model(str(path))
        if shapes is not None:
            graph.reshape({name: list(array.shape) for name, array in shapes.items()})
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
    except Exception as error:  # its exceptions have no common public base
        raise Failed(first_line(error)) from error

    def run(feeds: Feeds) -> Outputs:
        made = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [np.asarray(made[port]) for port in made]

    return run


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Work in a folder of its own: onnxruntime's tools leave files in the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep other tools' remarks out of the table."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def answers(run: Run, feeds: Sequence[Feeds]) -> list[list[np.ndarray[Any, Any]]]:
    """Return copies of the outputs for every feed; a peer may reuse its memory."""
    return [[np.array(output) for output in run(feed)] for feed in feeds]
