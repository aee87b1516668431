"""Resizing images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import affordable, cast, sizes
from lowprec.adapters.tensorflow.translator import Translator, translates
from lowprec.errors import UnsupportedError

_MODES = {"ResizeBilinear": "linear", "ResizeNearestNeighbor": "nearest"}


@translates(*_MODES)
def _resize(translator: Translator, node: Node) -> ir.Value:
    attributes: dict[str, Any] = {"mode": _MODES[node.op]}
    aligned = bool(node.attributes.get("align_corners"))
    half = bool(node.attributes.get("half_pixel_centers"))
    attributes["coordinate_transformation_mode"] = (
        "align_corners" if aligned else "half_pixel" if half else "asymmetric"
    )
    if node.op == "ResizeNearestNeighbor":
        # TensorFlow takes floor((x + 0.5) * scale) with half-pixel centres: rounding up at .5.
        attributes["nearest_mode"] = "round_prefer_ceil" if half or aligned else "floor"
    value = _as_f32(translator, node)
    first = translator.emit(
        "Transpose", [value], {"perm": [0, 3, 1, 2]}, name=f"{node.name}/channels_first"
    )
    shape = translator.emit("Shape", [first], {"end": 2}, name=f"{node.name}/kept")
    target = translator.emit(
        "Concat", [shape, sizes(translator, node, 1)], {"axis": 0}, name=f"{node.name}/target"
    )
    inputs = [first, None, None, target]
    made = translator.emit("Resize", inputs, attributes, name=node.name)
    return translator.emit(
        "Transpose", [made], {"perm": [0, 2, 3, 1]}, name=f"{node.name}/channels_last"
    )


@translates("ResizeBicubic", "ScaleAndTranslate", "ResizeArea")
def _resize_by_products(translator: Translator, node: Node) -> ir.Value:
    """Resize by a matrix for each axis, of fixed sizes: rows of weights of the pixels.

    TensorFlow's cubic looks its weights up in a table of 1024 steps, Keys' a = -0.5 with
    half-pixel centres and -0.75 without; pixels outside are left out with half-pixel centres and
    repeated without (resize_bicubic_op.cc).
    """
    shape = translator.shape(node.inputs[0])
    target = translator.constant(node, 1).reshape(-1)
    if node.op != "ResizeBicubic":
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) resizes with antialiasing or by areas; resize the "
            "images before the model"
        )
    if shape is None or shape[1] is None or shape[2] is None:
        raise UnsupportedError(f"node '{node.name}' ({node.op}) resizes images whose size is open")
    value = _as_f32(translator, node)
    for axis, given, wanted in ((1, shape[1], int(target[0])), (2, shape[2], int(target[1]))):
        affordable(node, [given, wanted])
        weights = translator.new_constant(_cubic(node, given, wanted), f"{node.name}/weights")
        letters = "bhwc"
        out = letters.replace(letters[axis], "o")
        equation = {"equation": f"o{letters[axis]},{letters}->{out}"}
        value = translator.emit("Einsum", [weights, value], equation, name=node.name)
    return value


def _as_f32(translator: Translator, node: Node) -> ir.Value:
    value = translator.value(node, 0)
    if np.dtype(node.attributes["T"]).kind == "f" or node.op == "ResizeNearestNeighbor":
        return value
    return cast(translator, value, np.float32, f"{node.name}/f32")


def _cubic(node: Node, given: int, wanted: int) -> np.ndarray:
    """Return the weights of `given` pixels in each of `wanted`."""
    aligned = bool(node.attributes.get("align_corners"))
    half = bool(node.attributes.get("half_pixel_centers"))
    scale = np.float32(
        (given - 1) / (wanted - 1) if aligned and wanted > 1 else given / max(wanted, 1)
    )
    a, steps = (-0.5, 1024) if half else (-0.75, 1024)
    matrix = np.zeros((wanted, given), np.float32)
    for row in range(wanted):
        place = (
            (np.float32(row) + np.float32(0.5)) * scale - np.float32(0.5) if half else row * scale
        )
        start = int(np.floor(place))
        offset = int(np.rint((place - start) * steps)) / steps
        near, far = offset, 1 - offset
        weights = [
            _far(a, near + 1),
            _near(a, near),
            _near(a, far),
            _far(a, far + 1),
        ]
        pixels = [start - 1 + step for step in range(4)]
        if half:
            inside = [0 <= pixel < given for pixel in pixels]
            weights = [w if i else 0.0 for w, i in zip(weights, inside, strict=True)]
            total = sum(weights)
            if abs(total) >= 1000 * np.finfo(np.float32).tiny:
                weights = [weight / total for weight in weights]
        for weight, pixel in zip(weights, pixels, strict=True):
            matrix[row, min(max(pixel, 0), given - 1)] += weight
    return matrix


def _near(a: float, x: float) -> float:
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _far(a: float, x: float) -> float:
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
