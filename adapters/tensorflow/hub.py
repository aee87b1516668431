"""A Source as a checked hub graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import numpy_dtype, tensor_of
from lowprec.adapters.tensorflow.source import Source
from lowprec.adapters.tensorflow.translate import translate
from lowprec.adapters.tensorflow.translator import UntranslatableError
from lowprec.graph import load


def hub_of(source: Source, name: str) -> ir.Model:
    """Return `source` as the hub graph `name`.

    Raises:
        UntranslatableError: some nodes have no translation; it names them.
    """
    dtypes = []
    for label, tensor in source.inputs.items():
        dtype = numpy_dtype(tensor.dtype)
        if dtype is None or dtype.kind not in "biufV":
            raise UntranslatableError(
                f"input '{label}' holds {tensor.dtype.name}s, which lowprec does not take", ()
            )
        dtypes.append(np.dtype(dtype))
    hub = translate(
        source.graph,
        {label: tensor_of(tensor) for label, tensor in source.inputs.items()},
        {label: tensor_of(tensor) for label, tensor in source.outputs.items()},
        dtypes,
        source.constants,
    )
    hub.graph.name = name
    return load(hub)
