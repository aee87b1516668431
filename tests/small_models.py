"""Small models written as ONNX text, and how to run a hub model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


def build(text: str, constants: Arrays | None = None, *, opset: int = 21) -> ir.Model:
    """Return the hub of a graph in ONNX's text syntax, its shapes inferred."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def run(model: ir.Model | onnx.ModelProto, feeds: Arrays) -> list[NDArray[np.generic]]:
    """Run on onnxruntime where it is installed, else on ONNX's reference implementation."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(proto)
    return _run(proto, feeds)


def values_of(
    model: ir.Model, names: Sequence[str], feeds: Arrays
) -> dict[str, NDArray[np.generic]]:
    """Run and return the values called `names`, be they inputs, outputs or in between."""
    proto = ir.to_proto(model)
    outputs = {value.name for value in proto.graph.output}
    inner = [name for name in names if name not in outputs and name not in feeds]
    for name in inner:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    found = dict(zip([v.name for v in proto.graph.output], _run(proto, feeds), strict=True))
    return {name: found[name] if name in found else np.asarray(feeds[name]) for name in names}


def _run(proto: onnx.ModelProto, feeds: Arrays) -> list[NDArray[np.generic]]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(proto).run(None, dict(feeds)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def operators(model: ir.Model) -> list[str]:
    """Return the operator types of the main graph in order."""
    return [node.op_type for node in model.graph]


def assert_same_outputs(
    before: onnx.ModelProto, after: ir.Model, feeds: Arrays, *, relative: float = 1e-5
) -> None:
    """Fail unless max|a - b| / max|a| <= `relative` for each output."""
    for expected, actual in zip(run(before, feeds), run(after, feeds), strict=True):
        assert expected.shape == actual.shape
        assert expected.dtype == actual.dtype
        if expected.size:
            scale = max(float(np.abs(expected).max()), 1e-30)
            assert float(np.abs(expected - actual).max()) / scale <= relative
