"""The spatial axes of images, which TensorFlow has last-but-one and ONNX has last.

The transposes between the two orders cancel in `layout.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator
from lowprec.errors import ModelError

_PADDING = {"SAME": "SAME_UPPER", "VALID": "VALID"}


class Images:
    """The spatial axes of one node's images."""

    def __init__(self, node: Node, rank: int, left_out: int | None = None) -> None:
        """Read the data format.

        Args:
            node: A convolution, a pooling or the like.
            rank: Of its images, with batch and channels.
            left_out: A spatial axis, counted from 0, that the values handed in do not have: the
                node works on sequences, as images that are one pixel high.
        """
        self.format = str(node.attributes.get("data_format") or "NHWC")
        self.last = not self.format.startswith("NC")
        self.node = node
        self.left_out = left_out
        self._kept = [axis for axis in range(rank - 2) if axis != left_out]
        self.spatial = len(self._kept)
        first = 1 if self.last else 2
        self.positions = [first + axis for axis in self._kept]  # in attributes for each axis

    def kernel(self, sizes: tuple[int, ...]) -> list[int]:
        """Return the spatial sizes that are kept of those of a kernel, which start its shape."""
        return [int(sizes[axis]) for axis in self._kept]

    def sizes(self, name: str) -> list[int]:
        """Return the spatial part of an attribute with one number for each axis."""
        values = self.node.attributes.get(name) or [1] * (max(self.positions) + 2)
        found = [int(values[position]) for position in self.positions]
        if any(size < 1 for size in found):
            raise ModelError(f"node '{self.node.name}' ({self.node.op}) has {name} {found}")
        return found

    def first(self, translator: Translator, value: ir.Value) -> ir.Value:
        """Return `value` with its channels first."""
        if not self.last:
            return value
        axes = [0, self.spatial + 1, *range(1, self.spatial + 1)]
        return translator.emit(
            "Transpose", [value], {"perm": axes}, name=f"{self.node.name}/channels_first"
        )

    def back(self, translator: Translator, value: ir.Value) -> ir.Value:
        """Return a result, whose channels are first, in the node's own format."""
        if not self.last:
            return value
        axes = [0, *range(2, self.spatial + 2), 1]
        return translator.emit(
            "Transpose", [value], {"perm": axes}, name=f"{self.node.name}/channels_last"
        )

    def padding(self) -> dict[str, Any]:
        """Return ONNX's attributes for the node's padding."""
        kind = str(self.node.attributes["padding"])
        if kind != "EXPLICIT":
            return {"auto_pad": _PADDING[kind]}
        return pads(np.asarray(self.explicit()))

    def explicit(self) -> list[list[int]]:
        """Return how much is padded before and after each spatial axis."""
        pairs = np.asarray(self.node.attributes["explicit_paddings"]).reshape(-1, 2)
        return [[int(number) for number in pairs[position]] for position in self.positions]


def pads(pairs: np.ndarray) -> dict[str, Any]:
    """Return ONNX's attribute for pairs of sizes before and after each axis."""
    return {"pads": [int(size) for size in np.asarray(pairs).T.reshape(-1)]}
