"""TensorFlow's lists of tensors, which exist only while a graph is translated.

    TensorListFromTensor(x) ─► While ─► TensorListStack     becomes     x ─► Loop ─► its outputs

A list that a loop reads is the tensor that it was made of; one that a loop fills is an output of
the loop that keeps one entry for each iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class TensorList:
    """A list: as one tensor, or reserved and written entry by entry.

    Attributes:
        dtype: Of its entries.
        size: How many there are, int32; None where only `items` tells.
        items: The entries, stacked along axis 0; None for a list that was only reserved.
        shape: Of an entry, as far as it is known; None where not even its rank is.
        written: Entries by their index, where the indices are known.
    """

    dtype: np.dtype[Any]
    size: ir.Value | Array | None
    items: ir.Value | Array | None = None
    shape: tuple[int | None, ...] | None = None
    written: Mapping[int, ir.Value | Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FilledList:
    """A list inside the body of the loop that fills it.

    Attributes:
        number: Which of the loop's variables it is.
        dtype: Of its entries.
        index: Where this iteration wrote; None before it did.
        item: What it wrote.
    """

    number: int
    dtype: np.dtype[Any]
    index: ir.Value | Array | None = None
    item: ir.Value | Array | None = None


Lists = (TensorList, FilledList)
AnyList = TensorList | FilledList
