"""What a layer multiplies with its weights: rows of a matrix, patches of an image.

x (rows..., depth)  ──► (rows, 1, depth)
x (n, c, spatial...) ──► (positions, groups, c / groups * taps), positions drawn evenly
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowprec.passes.layers import Layer

Array = NDArray[np.float32]


def has_patches(layer: Layer) -> bool:
    """Return whether `sample_patches` knows how `layer` reads its input."""
    if layer.node.op_type in ("MatMul", "Gemm"):
        return True
    return layer.node.op_type == "Conv"


def sample_patches(x: Array, layer: Layer, count: int) -> Array:
    """Return what the weights of one output meet, at about `count` positions spread over `x`.

    Args:
        x: Input of the layer, f32.
        layer: Conv, MatMul or Gemm without transA.
        count: Positions wanted; fewer where there are fewer.

    Returns:
        f32, shape (positions, groups, depth); depth runs over channels of a group, then taps, as in
        the weights.
    """
    if layer.node.op_type != "Conv":
        depth = layer.weight_array.shape[1 - layer.weight_axis]
        rows = x.reshape(-1, depth)
        return rows[_spread(len(rows), count)][:, None, :]
    kernel = layer.weight_array.shape[2:]
    strides = _ints(layer, "strides", [1] * len(kernel))
    dilations = _ints(layer, "dilations", [1] * len(kernel))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_padding(layer, x.shape[2:], reach, strides)])
    if any(size < width for size, width in zip(padded.shape[2:], reach, strict=True)):
        return np.zeros((0, layer.groups, layer.weight_array[0].size), np.float32)
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    every = tuple(slice(None, None, stride) for stride in strides)
    taps = tuple(slice(None, None, dilation) for dilation in dilations)
    selection: tuple[slice, ...] = (slice(None), slice(None), *every, *taps)
    windows = windows[selection]
    places = (windows.shape[0], *windows.shape[2 : 2 + len(kernel)])
    chosen = np.unravel_index(_spread(int(np.prod(places)), count), places)
    # Positions first, then channels and taps.
    by_place = np.moveaxis(windows, 1, 1 + len(kernel))
    return by_place[chosen].reshape(len(chosen[0]), layer.groups, -1)


def _spread(length: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` positions of `length`, spread evenly but not in step with rows."""
    if length <= count:
        return np.arange(length)
    return np.sort(np.random.default_rng(length).choice(length, count, replace=False))


def _ints(layer: Layer, name: str, default: list[int]) -> list[int]:
    return list(layer.node.attributes.get_ints(name, default) or default)


def _padding(
    layer: Layer, sizes: tuple[int, ...], reach: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Return zeros before and behind along each spatial axis, as ONNX's Conv defines them."""
    rank = len(sizes)
    automatic = layer.node.attributes.get_string("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-size // stride) - 1) * stride + width - size)
            for size, stride, width in zip(sizes, strides, reach, strict=True)
        ]
        less = [(amount // 2, amount - amount // 2) for amount in total]
        return less if automatic == "SAME_UPPER" else [(b, a) for a, b in less]
    if automatic == "VALID":
        return [(0, 0)] * rank
    pads = _ints(layer, "pads", [0] * (2 * rank))
    return [(max(0, pads[i]), max(0, pads[rank + i])) for i in range(rank)]
