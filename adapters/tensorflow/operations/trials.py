"""What a graph computes of sizes that are open, tried with some sizes."""

from __future__ import annotations

import numpy as np

from lowprec.adapters.tensorflow.nodes import Tensor
from lowprec.adapters.tensorflow.translator import Array, Translator
from lowprec.errors import LowprecError

TRIED = ((11, 14, 17), (23, 10, 31), (40, 29, 12))  # open sizes: that of axis i is sizes[i % 3]


def with_sizes(
    translator: Translator, sizes: tuple[int, ...], wanted: list[Tensor]
) -> list[Array] | None:
    """Return tensors that depend on sizes only, for some sizes of what is open."""
    trial = Translator(translator.graph)
    for node in translator.graph.nodes.values():
        if node.op != "Shape":
            continue
        shape = translator.shape(node.inputs[0])
        if shape is None:
            return None
        filled = [size if size is not None else sizes[i % 3] for i, size in enumerate(shape)]
        trial.set_constant((node.name, 0), np.asarray(filled, node.attributes.get("out_type")))
    try:
        trial.run(wanted)
        found = [trial.found(tensor) for tensor in wanted]
    except (LowprecError, KeyError):
        return None
    arrays = [array for array in found if isinstance(array, np.ndarray)]
    return arrays if len(arrays) == len(found) else None
