"""ATen operators in ONNX's words where torch.onnx has none, or none that is right or quick.

Each function takes the operator's arguments, tensors as onnx_ir values, and builds nodes. What one
cannot express it refuses by raising; `translate` reports the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset23

from lowprec.adapters.torch.tensors import to_numpy
from lowprec.errors import UnsupportedError

op: Any = opset23  # its annotations are of ONNX Script's own values, not of onnx_ir's
_CODES = (
    (ir.DataType.UINT8, 0, 255),
    (ir.DataType.INT8, -128, 127),
    (ir.DataType.UINT16, 0, 65535),
    (ir.DataType.INT16, -32768, 32767),
)
_SUM, _MEAN, _MAX = 0, 1, 2  # modes of embedding_bag


@cache
def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the functions by operator, as torch.onnx.export takes them."""
    # The operators of PT2E are defined by this import.
    import torch.ao.quantization.fx._decomposed

    aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
    return {
        aten.conv1d.default: _conv,
        aten.conv2d.default: _conv,
        aten.conv3d.default: _conv,
        aten.dropout.default: _dropout,
        aten.hardtanh.default: _hardtanh,
        aten.batch_norm.default: _batch_norm,
        aten.rms_norm.default: _rms_norm,
        aten.rrelu.default: _rrelu,
        aten.avg_pool2d.default: _average_pool_2d,
        aten.avg_pool3d.default: _average_pool_3d,
        aten.adaptive_avg_pool1d.default: _adaptive_average_pool_1d,
        aten.adaptive_avg_pool2d.default: _adaptive_average_pool_2d,
        aten.adaptive_avg_pool3d.default: _adaptive_average_pool_3d,
        aten.scaled_dot_product_attention.default: _attention,
        aten.cdist.default: _distances,
        aten.hypot.default: _hypotenuse,
        aten.embedding_bag.padding_idx: _embedding_bag,
        aten.embedding_bag.default: _embedding_bag,
        decomposed.quantize_per_tensor.default: _quantize,
        decomposed.quantize_per_channel.default: _quantize_channels,
    }


# ---- Layers ----


def _conv(
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Any:
    assert x.shape is not None
    assert weight.shape is not None
    rank = len(weight.shape) - 2
    lacks_batch = len(x.shape) == rank + 1
    inputs = [op.Unsqueeze(x, _integers([0])) if lacks_batch else x, weight]
    y = op.Conv(
        *(inputs if bias is None else [*inputs, bias]),
        strides=_spread(stride, rank),
        pads=_spread(padding, rank) * 2,
        dilations=_spread(dilation, rank),
        group=groups,
    )
    return op.Squeeze(y, _integers([0])) if lacks_batch else y


def _dropout(x: ir.Value, p: float = 0.5, train: bool = False) -> Any:
    if train:
        raise UnsupportedError("dropout with training=True is random")
    return op.Identity(x)


def _hardtanh(x: ir.Value, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    bounds = torch.tensor([min_val, max_val], dtype=_torch_dtype(x))
    return op.Clip(x, _constant(bounds[0]), _constant(bounds[1]))


def _batch_norm(
    x: ir.Value,
    weight: ir.Value | None = None,
    bias: ir.Value | None = None,
    mean: ir.Value | None = None,
    variance: ir.Value | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Any:
    assert x.shape is not None
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise UnsupportedError("a batch norm over a number of channels that varies")
    ones = torch.ones(channels, dtype=_torch_dtype(x))
    weight = _constant(ones) if weight is None else weight
    bias = _constant(torch.zeros_like(ones)) if bias is None else bias
    if not training and mean is not None and variance is not None:
        return op.BatchNormalization(x, weight, bias, mean, variance, epsilon=eps)
    axes = [axis for axis in range(len(x.shape)) if axis != 1]
    shape = _integers([channels if axis == 1 else 1 for axis in range(len(x.shape))])
    centred = op.Sub(x, op.ReduceMean(x, _integers(axes)))
    power = op.ReduceMean(op.Mul(centred, centred), _integers(axes))
    scale = op.Div(op.Reshape(weight, shape), op.Sqrt(op.Add(power, _constant(ones[:1] * eps))))
    return op.Add(op.Mul(centred, scale), op.Reshape(bias, shape))


def _rms_norm(
    x: ir.Value,
    normalized_shape: Sequence[int],
    weight: ir.Value | None = None,
    eps: float | None = None,
) -> Any:
    if weight is None:
        weight = _constant(torch.ones(tuple(normalized_shape), dtype=_torch_dtype(x)))
    least = torch.finfo(_torch_dtype(x)).eps if eps is None else eps
    return op.RMSNormalization(x, weight, axis=-len(normalized_shape), epsilon=least)


def _rrelu(x: ir.Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Any:
    if training:
        raise UnsupportedError("rrelu with training=True is random")
    return op.LeakyRelu(x, alpha=(lower + upper) / 2)


def _average_pool_2d(
    x: ir.Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    return _average_pool(
        2, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _average_pool_3d(
    x: ir.Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    return _average_pool(
        3, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _average_pool(
    rank: int,
    x: ir.Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Any:
    sizes = _spread(kernel, rank)
    if divisor is not None and ceil_mode:
        raise UnsupportedError("avg_pool with divisor_override and ceil_mode")
    assert x.shape is not None
    lacks_batch = len(x.shape) == rank + 1
    y = op.AveragePool(
        op.Unsqueeze(x, _integers([0])) if lacks_batch else x,
        kernel_shape=sizes,
        strides=_spread(stride, rank) if stride else sizes,
        pads=_spread(padding, rank) * 2,
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad or divisor is not None),
    )
    if lacks_batch:
        y = op.Squeeze(y, _integers([0]))
    if divisor is None:
        return y
    return op.Mul(y, _constant(torch.tensor(prod(sizes) / divisor, dtype=_torch_dtype(x))))


def _adaptive_average_pool_1d(x: ir.Value, output_size: Sequence[int]) -> Any:
    return _adaptive_average_pool(1, x, output_size)


def _adaptive_average_pool_2d(x: ir.Value, output_size: Sequence[int]) -> Any:
    return _adaptive_average_pool(2, x, output_size)


def _adaptive_average_pool_3d(x: ir.Value, output_size: Sequence[int]) -> Any:
    return _adaptive_average_pool(3, x, output_size)


def _adaptive_average_pool(rank: int, x: ir.Value, output_size: Sequence[int]) -> Any:
    assert x.shape is not None
    wanted = _spread(output_size, rank)
    if all(size == 1 for size in wanted):
        return op.ReduceMean(x, _integers(range(-rank, 0)), keepdims=1)
    sizes = [*x.shape][-rank:]
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedError(f"adaptive_avg_pool{rank}d to {wanted} from a size that varies")
    pairs = [(int(size), cut) for size, cut in zip(sizes, wanted, strict=True)]
    if all(size % cut == 0 for size, cut in pairs):
        steps = [size // cut for size, cut in pairs]
        return _average_pool(rank, x, steps, steps, (0,), False, True, None)
    # Windows of different sizes: a product with constant shares, axis by axis.
    last = len(x.shape) - 1
    for offset, (size, cut) in enumerate(reversed(pairs)):
        order = [*range(last + 1)]
        order[last - offset], order[last] = last, last - offset
        turned = op.Transpose(x, perm=order) if offset else x
        product = op.MatMul(turned, _constant(_shares(size, cut).to(_torch_dtype(x))))
        x = op.Transpose(product, perm=order) if offset else product
    return x


def _shares(size: int, count: int) -> torch.Tensor:
    """Return (size, count): what each element gives to the mean of each window."""
    shares = torch.zeros(size, count)
    for window in range(count):
        start, stop = window * size // count, -(-(window + 1) * size // count)
        shares[start:stop, window] = 1 / (stop - start)
    return shares


def _attention(
    queries: ir.Value,
    keys: ir.Value,
    values: ir.Value,
    attn_mask: ir.Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p:
        raise UnsupportedError("attention with dropout_p is random")
    assert queries.shape is not None
    rank = len(queries.shape)
    if rank not in (3, 4):
        raise UnsupportedError(f"attention over {rank} axes; 3 and 4 are possible")
    given = [queries, keys, values]
    if rank == 3:  # the batch takes the place of the heads
        given = [op.Unsqueeze(value, _integers([0])) for value in given]
    if attn_mask is not None:
        given.append(attn_mask)
    options: dict[str, Any] = {"is_causal": int(is_causal)}
    if scale is not None:
        options["scale"] = scale
    attended = op.Attention(*given, **options)
    result = attended if isinstance(attended, ir.Value) else attended[0]
    return op.Squeeze(result, _integers([0])) if rank == 3 else result


def _distances(a: ir.Value, b: ir.Value, p: float = 2.0, compute_mode: int | None = None) -> Any:
    difference = op.Sub(op.Unsqueeze(a, _integers([-2])), op.Unsqueeze(b, _integers([-3])))
    if p == 2:
        return op.ReduceL2(difference, _integers([-1]), keepdims=0)
    if p == 1:
        return op.ReduceL1(difference, _integers([-1]), keepdims=0)
    raise UnsupportedError(f"cdist with p = {p}; 1 and 2 are possible")


def _hypotenuse(a: ir.Value, b: ir.Value) -> Any:
    return op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))


def _embedding_bag(
    table: ir.Value,
    indices: ir.Value,
    offsets: ir.Value,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: ir.Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Scatter the rows of all indices into their bags: i is in the last bag that begins <= i."""
    if padding_idx is not None and padding_idx >= 0:
        raise UnsupportedError("embedding_bag with padding_idx")
    dtype = _torch_dtype(table)
    if include_last_offset:
        offsets = op.Slice(offsets, _integers([0]), _integers([-1]))
    count = op.Shape(indices)
    # One more place than indices: an empty bag at the end begins there.
    places = op.Expand(_integers([0]), op.Add(count, _integers([1])))
    ones = op.Expand(_integers([1]), op.Shape(offsets))
    starts = op.ScatterElements(places, offsets, ones, axis=0, reduction="add")
    bags = op.Sub(op.CumSum(starts, _constant(torch.tensor(0))), _integers([1]))
    bags = op.Slice(bags, _integers([0]), count)
    rows = op.Gather(table, indices)
    if per_sample_weights is not None:
        rows = op.Mul(rows, op.Unsqueeze(per_sample_weights, _integers([1])))
    shape = op.Concat(op.Shape(offsets), op.Shape(table, start=1), axis=0)
    target = op.Unsqueeze(bags, _integers([1]))
    empty = op.Expand(_constant(torch.zeros(1, dtype=dtype)), op.Shape(offsets))
    each = op.Expand(_constant(torch.ones(1, dtype=dtype)), count)
    sizes = op.ScatterElements(empty, bags, each, axis=0, reduction="add")
    is_max = mode == _MAX
    least = torch.full((1,), torch.finfo(dtype).min if is_max else 0.0, dtype=dtype)
    result = op.ScatterND(
        op.Expand(_constant(least), shape), target, rows, reduction="max" if is_max else "add"
    )
    column = op.Unsqueeze(sizes, _integers([1]))
    if mode == _MEAN:
        result = op.Div(result, op.Max(column, _constant(torch.ones(1, dtype=dtype))))
    elif is_max:
        zero = _constant(torch.zeros(1, dtype=dtype))
        result = op.Where(op.Equal(column, zero), zero, result)
    return result, bags, sizes, bags


# ---- Codes ----


def _quantize(x: ir.Value, scale: float, zero_point: int, low: int, high: int, dtype: int) -> Any:
    codes = ir.DataType(dtype)
    is_narrow = (codes, low, high) not in _CODES
    if is_narrow and codes not in [kind for kind, _, _ in _CODES]:
        raise UnsupportedError(f"codes of type {codes.name}; 8 and 16 bits are possible")
    if is_narrow:
        bounds = torch.tensor([low - zero_point, high - zero_point]) * torch.tensor(scale)
        x = op.Clip(x, _constant(bounds[0]), _constant(bounds[1]))
    step = _constant(torch.tensor(scale, dtype=torch.float32))
    return op.QuantizeLinear(x, step, _code(zero_point, codes))


def _quantize_channels(
    x: ir.Value,
    scales: ir.Value,
    zero_points: ir.Value,
    axis: int,
    low: int,
    high: int,
    dtype: int,
) -> Any:
    codes = ir.DataType(dtype)
    steps = op.Cast(scales, to=ir.DataType.FLOAT)
    quantized = op.QuantizeLinear(x, steps, op.Cast(zero_points, to=codes), axis=axis)
    if (codes, low, high) in _CODES:
        return quantized
    return op.Clip(quantized, _code(low, codes), _code(high, codes))


# ---- Constants ----


def _constant(tensor: torch.Tensor) -> Any:
    return op.Constant(value=ir.tensor(to_numpy(tensor)))


def _integers(values: Sequence[int]) -> Any:
    return _constant(torch.tensor(list(values), dtype=torch.int64))


def _code(value: int, kind: ir.DataType) -> Any:
    return op.Constant(value=ir.tensor(value, dtype=kind))


def _torch_dtype(value: ir.Value) -> torch.dtype:
    kinds = {
        ir.DataType.FLOAT16: torch.float16,
        ir.DataType.BFLOAT16: torch.bfloat16,
        ir.DataType.DOUBLE: torch.float64,
    }
    return kinds.get(value.dtype or ir.DataType.FLOAT, torch.float32)


def _spread(values: Sequence[int], rank: int) -> list[int]:
    return [*values] if len(values) == rank else [values[0]] * rank
