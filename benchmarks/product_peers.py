"""The same matrix product in other libraries: what bench_core.py compares with.

Every maker gets a Problem and the number of threads and returns a call without arguments that does
one product, weights prepared beforehand; or raises Missing with the reason why it cannot. Weights
are constant except where the problem is a batch, whose two operands both change from call to call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Call = Callable[[], object]


class Missing(Exception):
    """This peer is not installed here, or has no such product."""


@dataclass(frozen=True)
class Problem:
    """One product: batch times (M, K) by (K, N)."""

    name: str
    batch: int
    m: int
    n: int
    k: int

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k

    def operands(self, a: type, b: type) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return A and B with a leading batch axis if there is more than one entry."""
        random = np.random.default_rng(self.m + 7 * self.n + 13 * self.k)
        lead = (self.batch,) if self.batch > 1 else ()
        return tuple(
            draw(random, dtype, (*lead, *shape))
            for dtype, shape in ((a, (self.m, self.k)), (b, (self.k, self.n)))
        )


def draw(random: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        low = max(limits.min, -127)
        return random.integers(low, limits.max, shape, dtype, endpoint=True)
    return random.standard_normal(shape, np.float32).astype(dtype)


# ------------------------------------------------------------------------------------ onnxruntime
SCALES = {"a": 0.02, "b": 0.01, "y": 0.5}


def onnx_product(problem: Problem, kind: str) -> onnx.ModelProto:
    """Return a model of one product; kind as in KINDS, or "qdq" for the latter's portable form."""
    a_type, b_type = KINDS[kind.removeprefix("qdq ")].operands
    a, b = problem.operands(a_type, b_type)
    constant = problem.batch == 1
    scalars = {name: np.float32(value) for name, value in SCALES.items()}
    zeros = {"a": a.dtype.type(0), "b": b.dtype.type(0), "y": np.uint8(128)}
    if a.dtype == np.uint8:
        zeros["a"] = np.uint8(128)
    if b.dtype == np.uint8:
        zeros["b"] = np.uint8(128)
    initializers = []
    for name, value in scalars.items():
        initializers.append(numpy_helper.from_array(np.asarray(value), f"{name}_scale"))
    for name, zero in zeros.items():
        initializers.append(numpy_helper.from_array(np.asarray(zero), f"{name}_zero"))
    if constant:
        initializers.append(numpy_helper.from_array(b, "b"))

    def node(op: str, inputs: str, output: str) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), [output])

    form = KINDS[kind.removeprefix("qdq ")].form
    if kind.startswith("qdq "):
        nodes = [
            node("DequantizeLinear", "a a_scale a_zero", "a_real"),
            node("DequantizeLinear", "b b_scale b_zero", "b_real"),
            node("MatMul", "a_real b_real", "y_real"),
            node("QuantizeLinear", "y_real y_scale y_zero", "y"),
        ]
        y_type = TensorProto.UINT8
    elif form == "s32":
        nodes, y_type = [node("MatMulInteger", "a b a_zero b_zero", "y")], TensorProto.INT32
    elif form == "u8":
        inputs = "a a_scale a_zero b b_scale b_zero y_scale y_zero"
        nodes, y_type = [node("QLinearMatMul", inputs, "y")], TensorProto.UINT8
    else:
        nodes, y_type = [node("MatMul", "a b", "y")], helper.np_dtype_to_tensor_dtype(b.dtype)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in (("a", a), ("b", b))
        if name == "a" or not constant
    ]
    used = {name for n in nodes for name in n.input}
    graph = helper.make_graph(
        nodes,
        "product",
        inputs,
        [helper.make_tensor_value_info("y", y_type, None)],
        [tensor for tensor in initializers if tensor.name in used],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def onnxruntime_call(problem: Problem, kind: str, threads: int) -> Call:
    try:
        import onnxruntime
    except ImportError:
        raise Missing("onnxruntime is not installed") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = onnx_product(problem, kind).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        a, b = problem.operands(*KINDS[kind].operands)
        binding.bind_cpu_input("a", a)
        if problem.batch > 1:
            binding.bind_cpu_input("b", b)
        dtype = {"s32": np.int32, "u8": np.uint8}.get(KINDS[kind].form, np.float32)
        shape = (*a.shape[:-1], problem.n)
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu")
        binding.bind_ortvalue_output("y", y)
        call = functools.partial(session.run_with_iobinding, binding)
        call()
    except Exception as error:  # its own kinds, which it does not export
        raise Missing(str(error).splitlines()[0][:80]) from None
    return call


# ------------------------------------------------------------------------------------------ torch
def torch_module(threads: int) -> Any:
    try:
        import torch
    except ImportError:
        raise Missing("torch is not installed") from None
    torch.set_num_threads(threads)
    return torch


def torch_int_mm(problem: Problem, kind: str, threads: int) -> Call:
    """torch._int_mm: s8 x s8 to s32 (oneDNN)."""
    torch = torch_module(threads)
    if kind != "s8s8 to s32" or problem.batch > 1:
        raise Missing("s8 x s8 to s32 of two matrices only")
    a, b = (torch.from_numpy(x) for x in problem.operands(np.int8, np.int8))
    return functools.partial(torch._int_mm, a, b)


def torch_onednn(problem: Problem, kind: str, threads: int) -> Call:
    """oneDNN's quantised linear layer with packed weights, through torch."""
    torch = torch_module(threads)
    if kind != "u8s8 to u8" or problem.batch > 1:
        raise Missing("u8 x s8 to u8 with constant weights only")
    a, b = (torch.from_numpy(x) for x in problem.operands(np.uint8, np.int8))
    packed = torch.ops.onednn.qlinear_prepack(b.t().contiguous(), list(a.shape))
    scales = torch.full((problem.n,), SCALES["b"])
    zeros = torch.zeros(problem.n, dtype=torch.int32)
    arguments = (a, SCALES["a"], 128, packed, scales, zeros, None, SCALES["y"], 128, torch.uint8)
    return functools.partial(torch.ops.onednn.qlinear_pointwise, *arguments, "none", [], "")


def torch_fbgemm(problem: Problem, kind: str, threads: int) -> Call:
    """FBGEMM's quantised linear layer with packed weights, through torch."""
    torch = torch_module(threads)
    if kind != "u8s8 to u8" or problem.batch > 1:
        raise Missing("u8 x s8 to u8 with constant weights only")
    import warnings

    torch.backends.quantized.engine = "fbgemm"
    a, b = problem.operands(np.uint8, np.int8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "will be removed in a future PyTorch release"
        codes = torch._make_per_tensor_quantized_tensor(torch.from_numpy(a), SCALES["a"], 128)
        weights = torch._make_per_tensor_quantized_tensor(
            torch.from_numpy(np.ascontiguousarray(b.T)), SCALES["b"], 0
        )
        packed = torch.ops.quantized.linear_prepack(weights, None)
    return functools.partial(torch.ops.quantized.linear, codes, packed, SCALES["y"], 128)


def torch_linear(problem: Problem, kind: str, threads: int) -> Call:
    """oneDNN's linear layer with reordered weights, or torch.bmm for a batch."""
    torch = torch_module(threads)
    if kind not in ("f32", "bf16", "f16"):
        raise Missing("floats only")
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[kind]
    a, b = (torch.from_numpy(x).to(dtype) for x in problem.operands(np.float32, np.float32))
    if problem.batch > 1:
        return functools.partial(torch.bmm, a, b)
    weights = b.t().contiguous()
    plain = functools.partial(torch.nn.functional.linear, a, weights)
    return without_gradient(torch, plain)


def torch_prepacked(problem: Problem, kind: str, threads: int) -> Call:
    torch = torch_module(threads)
    if kind not in ("f32", "bf16") or problem.batch > 1:
        raise Missing("f32 and bf16 with constant weights only")
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
    a, b = (torch.from_numpy(x).to(dtype) for x in problem.operands(np.float32, np.float32))
    with torch.inference_mode():
        packed = torch.ops.mkldnn._reorder_linear_weight(b.t().contiguous(), problem.m)
    call = functools.partial(torch.ops.mkldnn._linear_pointwise, a, packed, None, "none", [], "")
    return without_gradient(torch, call)


def without_gradient(torch: Any, call: Call) -> Call:
    torch.set_grad_enabled(False)  # cheaper than a context at every call
    return call


# --------------------------------------------------------------------------------------- OpenVINO
def openvino_call(problem: Problem, kind: str, threads: int) -> Call:
    try:
        import openvino
    except ImportError:
        raise Missing("openvino is not installed") from None
    if KINDS[kind].form == "s32" or kind == "f16":
        raise Missing("no such operator")
    form = f"qdq {kind}" if KINDS[kind].form == "u8" else kind
    if kind == "bf16":
        form = "f32"  # rounds to bf16 inside
    core = openvino.Core()
    model = core.read_model(onnx_product(problem, form).SerializeToString())
    hint = "bf16" if kind == "bf16" else "f32"
    compiled = core.compile_model(
        model,
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint},
    )
    a, b = problem.operands(*KINDS["f32" if kind == "bf16" else kind].operands)
    request = compiled.create_infer_request()
    for index, x in enumerate((a, b)[: len(compiled.inputs)]):
        request.set_input_tensor(index, openvino.Tensor(x, shared_memory=True))
    return request.infer


@dataclass(frozen=True)
class Kind:
    """One type of product."""

    operands: tuple[type, type]
    form: str  # of the result: s32, u8, float
    peak: str  # peaks.py
    peers: dict[str, Callable[[Problem, str, int], Call]]


INTEGER = {"onnxruntime": onnxruntime_call, "torch._int_mm": torch_int_mm}
CODES = {
    "onnxruntime": onnxruntime_call,
    "torch oneDNN": torch_onednn,
    "torch FBGEMM": torch_fbgemm,
    "OpenVINO": openvino_call,
}
FLOATS = {
    "torch": torch_linear,
    "torch packed": torch_prepacked,
    "onnxruntime": onnxruntime_call,
    "OpenVINO": openvino_call,
}
BFLOATS = {name: make for name, make in FLOATS.items() if name != "onnxruntime"}  # it has none
KINDS = {
    "u8s8 to s32": Kind((np.uint8, np.int8), "s32", "u8s8", INTEGER),
    "u8s8 to u8": Kind((np.uint8, np.int8), "u8", "u8s8", CODES),
    "s8s8 to s32": Kind((np.int8, np.int8), "s32", "u8s8", INTEGER),
    "u8u8 to s32": Kind((np.uint8, np.uint8), "s32", "u8s8", INTEGER),
    "bf16": Kind((np.float32, np.float32), "float", "bf16", BFLOATS),
    "f32": Kind((np.float32, np.float32), "float", "f32", FLOATS),
}
