"""A float ONNX graph through torch.nn.functional, operator by operator: torch as people run it.

Enough for convolutional networks and transformers; any other operator is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowprec.cli.peers import Feed, Refused, Run

Tensors = list[Any]
Attributes = dict[str, Any]


def torch_run(path: Path, feed: Feed, threads: int) -> Run:
    """Return a run of the file on torch.

    Raises:
        Refused: the graph has an operator, or a form of it, that is not translated here.
    """
    import onnx_ir as ir

    from lowprec.api import capture
    from lowprec.passes import simplify

    torch = import_module("torch")
    hub = capture(str(path)).graph.clone()
    simplify(hub)
    operators = _operators(torch)
    values: dict[str, Any] = {}
    numbers: dict[str, NDArray[Any]] = {}
    for name, value in hub.graph.initializers.items():
        if value.const_value is not None:
            numbers[name] = value.const_value.numpy()
            values[name] = torch.from_numpy(np.array(numbers[name]))
    steps: list[tuple[Callable[..., Any], list[str], list[str], Attributes]] = []
    for node in hub.graph:
        if node.domain not in ("", "ai.onnx") or node.op_type not in operators:
            raise Refused(f"operator {node.op_type} is not translated to torch")
        attributes = {name: _plain(ir, attribute) for name, attribute in node.attributes.items()}
        names = [value.name or "" if value is not None else "" for value in node.inputs]
        outputs = [value.name or "" for value in node.outputs]
        steps.append((operators[node.op_type], names, outputs, attributes))
    wanted = [value.name or "" for value in hub.graph.outputs]

    def run() -> list[NDArray[Any]]:
        torch.set_num_threads(threads)
        held = dict(values)
        held.update((name, torch.from_numpy(array)) for name, array in feed.items())
        with torch.inference_mode():
            for operator, names, outputs, attributes in steps:
                operands = [held[name] if name else None for name in names]
                made = operator(operands, attributes)
                results = made if isinstance(made, (list, tuple)) else [made]
                held.update(zip(outputs, results, strict=False))
        return [held[name].numpy() for name in wanted]

    return run


def _plain(ir: Any, attribute: Any) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().numpy()
    return attribute.value


def _operators(torch: Any) -> dict[str, Callable[[Tensors, Attributes], Any]]:
    functional = torch.nn.functional

    def ints(tensor: Any) -> list[int]:
        return [int(number) for number in tensor.reshape(-1).tolist()]

    def conv(x: Tensors, at: Attributes) -> Any:
        rank = x[0].dim() - 2
        pads = list(at.get("pads", [0] * 2 * rank))
        if at.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
            raise Refused("Conv with auto_pad is not translated to torch")
        begin, end = pads[:rank], pads[rank:]
        source = x[0]
        if begin != end:
            border = [size for pair in zip(begin, end, strict=True) for size in pair]
            order = [border[2 * axis : 2 * axis + 2] for axis in reversed(range(rank))]
            source = functional.pad(source, [size for pair in order for size in pair])
            begin = [0] * rank
        call = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
        bias = x[2] if len(x) > 2 else None
        one = [1] * rank
        strides, dilations = at.get("strides", one), at.get("dilations", one)
        return call(source, x[1], bias, list(strides), begin, list(dilations), at.get("group", 1))

    def gemm(x: Tensors, at: Attributes) -> Any:
        a = x[0].t() if at.get("transA") else x[0]
        b = x[1].t() if at.get("transB") else x[1]
        product = at.get("alpha", 1.0) * (a @ b)
        return product if len(x) < 3 or x[2] is None else product + at.get("beta", 1.0) * x[2]

    def pool(call: Any, x: Tensors, at: Attributes, **more: Any) -> Any:
        kernel = list(at["kernel_shape"])
        pads = list(at.get("pads", [0] * 2 * len(kernel)))
        half = len(kernel)
        if pads[:half] != pads[half:] or len(kernel) != 2:
            raise Refused("a pool with uneven padding is not translated to torch")
        strides = list(at.get("strides", [1] * half))
        return call(x[0], kernel, strides, pads[:half], ceil_mode=bool(at.get("ceil_mode")), **more)

    def average_pool(x: Tensors, at: Attributes) -> Any:
        counted = bool(at.get("count_include_pad"))
        return pool(functional.avg_pool2d, x, at, count_include_pad=counted)

    def reshape(x: Tensors, at: Attributes) -> Any:
        sizes = ints(x[1])
        if not at.get("allowzero"):
            sizes = [x[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x[0].reshape(sizes)

    def reduce_mean(x: Tensors, at: Attributes) -> Any:
        axes = ints(x[1]) if len(x) > 1 and x[1] is not None else list(at.get("axes", []))
        return x[0].mean(axes or None, keepdim=bool(at.get("keepdims", 1)))

    def clip(x: Tensors, at: Attributes) -> Any:
        low, high = (x[i] if len(x) > i else None for i in (1, 2))
        return torch.clamp(x[0], low, high)

    def unsqueeze(x: Tensors, at: Attributes) -> Any:
        made = x[0]
        axes = [axis % (x[0].dim() + x[1].numel()) for axis in ints(x[1])]
        for axis in sorted(axes):
            made = made.unsqueeze(axis)
        return made

    def gather(x: Tensors, at: Attributes) -> Any:
        axis = at.get("axis", 0)
        index = torch.where(x[1] < 0, x[1] + x[0].shape[axis], x[1])
        chosen = torch.index_select(x[0], axis, index.reshape(-1))
        shape = list(x[0].shape)
        axis %= x[0].dim()
        return chosen.reshape(shape[:axis] + list(x[1].shape) + shape[axis + 1 :])

    def slice_(x: Tensors, at: Attributes) -> Any:
        starts, ends = ints(x[1]), ints(x[2])
        axes = ints(x[3]) if len(x) > 3 and x[3] is not None else list(range(len(starts)))
        steps = ints(x[4]) if len(x) > 4 and x[4] is not None else [1] * len(starts)
        if any(step < 1 for step in steps):
            raise Refused("Slice backwards is not translated to torch")
        index = [slice(None)] * x[0].dim()
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            index[axis] = slice(start, end, step)
        return x[0][tuple(index)]

    def layer_norm(x: Tensors, at: Attributes) -> Any:
        shape = list(x[0].shape)[at.get("axis", -1) :]
        bias = x[2] if len(x) > 2 else None
        return functional.layer_norm(x[0], shape, x[1], bias, at.get("epsilon", 1e-5))

    def gelu(x: Tensors, at: Attributes) -> Any:
        kind = at.get("approximate", "none")
        return functional.gelu(x[0], approximate=kind if isinstance(kind, str) else kind.decode())

    def batch_norm(x: Tensors, at: Attributes) -> Any:
        return functional.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=at.get("epsilon", 1e-5))

    def hard_sigmoid(x: Tensors, at: Attributes) -> Any:
        return torch.clamp(at.get("alpha", 0.2) * x[0] + at.get("beta", 0.5), 0, 1)

    def expand(x: Tensors, at: Attributes) -> Any:
        return x[0] + torch.zeros(ints(x[1]), dtype=x[0].dtype)

    def cast(x: Tensors, at: Attributes) -> Any:
        kinds = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}
        if at["to"] not in kinds:
            raise Refused(f"Cast to type {at['to']} is not translated to torch")
        return x[0].to(getattr(torch, kinds[at["to"]]))

    return {
        "Add": lambda x, at: x[0] + x[1],
        "AveragePool": average_pool,
        "BatchNormalization": batch_norm,
        "Cast": cast,
        "Clip": clip,
        "Concat": lambda x, at: torch.cat(x, at["axis"]),
        "Conv": conv,
        "Div": lambda x, at: x[0] / x[1],
        "Dropout": lambda x, at: x[0],
        "Erf": lambda x, at: torch.erf(x[0]),
        "Expand": expand,
        "Flatten": lambda x, at: x[0].flatten(at.get("axis", 1)),
        "Gather": gather,
        "Gelu": gelu,
        "Gemm": gemm,
        "GlobalAveragePool": lambda x, at: x[0].mean(list(range(2, x[0].dim())), keepdim=True),
        "HardSigmoid": hard_sigmoid,
        "HardSwish": lambda x, at: functional.hardswish(x[0]),
        "Identity": lambda x, at: x[0],
        "LayerNormalization": layer_norm,
        "LRN": lambda x, at: functional.local_response_norm(
            x[0], at["size"], at.get("alpha", 1e-4), at.get("beta", 0.75), at.get("bias", 1.0)
        ),
        "MatMul": lambda x, at: x[0] @ x[1],
        "MaxPool": lambda x, at: pool(functional.max_pool2d, x, at),
        "Mul": lambda x, at: x[0] * x[1],
        "Pow": lambda x, at: x[0] ** x[1],
        "ReduceMean": reduce_mean,
        "Relu": lambda x, at: functional.relu(x[0]),
        "Reshape": reshape,
        "Shape": lambda x, at: torch.tensor(x[0].shape[at.get("start", 0) : at.get("end")]),
        "Sigmoid": lambda x, at: torch.sigmoid(x[0]),
        "Slice": slice_,
        "Softmax": lambda x, at: torch.softmax(x[0], at.get("axis", -1)),
        "Sqrt": lambda x, at: torch.sqrt(x[0]),
        "Squeeze": lambda x, at: x[0].squeeze(tuple(ints(x[1]))) if len(x) > 1 else x[0].squeeze(),
        "Sub": lambda x, at: x[0] - x[1],
        "Tanh": lambda x, at: torch.tanh(x[0]),
        "Transpose": lambda x, at: x[0].permute(list(at.get("perm", reversed(range(x[0].dim()))))),
        "Unsqueeze": unsqueeze,
        "Where": lambda x, at: torch.where(x[0], x[1], x[2]),
    }
