"""Resizing images."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator, translates


@translates("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")
def _resize(translator: Translator, node: Node) -> ir.Value:
    sizes = translator.constant(node, 1).astype(np.int64)
    mode = {"ResizeBilinear": "linear", "ResizeBicubic": "cubic"}.get(node.op, "nearest")
    if node.attributes.get("align_corners"):
        transformation = "align_corners"
    elif node.attributes.get("half_pixel_centers"):
        transformation = "half_pixel"
    else:
        transformation = "asymmetric"
    attributes = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        # TensorFlow takes floor((x + 0.5) * scale) with half-pixel centres: rounding up at .5.
        half = transformation == "half_pixel"
        attributes["nearest_mode"] = (
            "round_prefer_ceil" if half or transformation == "align_corners" else "floor"
        )
    elif mode == "cubic":
        attributes |= {"cubic_coeff_a": -0.5, "exclude_outside": 1}  # type: ignore[dict-item]
    first = translator.emit(
        "Transpose",
        [translator.value(node, 0)],
        {"perm": [0, 3, 1, 2]},
        name=f"{node.name}/channels_first",
    )
    empty = None
    shape = translator.emit("Shape", [first], {"end": 2}, name=f"{node.name}/kept")
    target = translator.emit(
        "Concat",
        [shape, translator.new_constant(sizes, f"{node.name}/sizes")],
        {"axis": 0},
        name=f"{node.name}/target",
    )
    made = translator.emit("Resize", [first, empty, empty, target], attributes, name=node.name)
    return translator.emit(
        "Transpose", [made], {"perm": [0, 2, 3, 1]}, name=f"{node.name}/channels_last"
    )
