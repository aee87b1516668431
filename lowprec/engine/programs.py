"""Fill a compiled Program from a segment of the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from lowprec._ext import _core
from lowprec.engine.lower import NativeSegment
from lowprec.engine.session import TensorInfo
from lowprec.errors import ModelError

_core.hold_dtype(int(ir.DataType.BFLOAT16), ml_dtypes.bfloat16)

Attribute = int | float | str | list[int] | list[float]


def build_program(
    segment: NativeSegment, dtypes: Sequence[np.dtype[Any]], observers: Mapping[str, Any]
) -> _core.Program:
    """Return the Program of `segment` for inputs of these dtypes, with the observers tapped in."""
    program = _core.Program()
    ids: dict[str, int] = {}
    for name, dtype in zip(segment.inputs, dtypes, strict=True):
        ids[name] = program.add_value(name, dtype)

    def read(value: ir.Value | None) -> int:
        if value is None or not value.name:
            return -1
        if value.name not in ids:
            if value.const_value is None:
                raise ModelError(f"value '{value.name}' is read but never made")
            ids[value.name] = program.add_constant(value.name, value.const_value.numpy())
        return ids[value.name]

    for node in segment.nodes:
        inputs = [read(value) for value in node.inputs]
        outputs = []
        for value in node.outputs:
            used = bool(value.name) and (value.uses() or value.is_graph_output())
            if value.name and used:
                # The engine works out dtypes; this one is a placeholder.
                ids[value.name] = program.add_value(value.name, np.float32)
            outputs.append(ids.get(value.name or "", -1) if used else -1)
        program.add_node(node.op_type, node.name or "", inputs, outputs, attributes_of(node))
        for value in node.outputs:
            observer = observers.get(value.name or "")
            if observer is not None and value.name in ids:
                program.add_node(
                    "Observe",
                    f"observe {value.name}",
                    [ids[value.name]],
                    [],
                    {"observer": observer},
                )
    program.set_io([ids[name] for name in segment.inputs], [ids[name] for name in segment.outputs])
    return program


def attributes_of(node: ir.Node) -> dict[str, Attribute]:
    """Return the attributes that kernels read, as plain numbers, lists and strings."""
    result: dict[str, Attribute] = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.INT:
            result[name] = attribute.as_int()
        elif attribute.type == ir.AttributeType.FLOAT:
            result[name] = attribute.as_float()
        elif attribute.type == ir.AttributeType.STRING:
            result[name] = attribute.as_string()
        elif attribute.type == ir.AttributeType.STRINGS:
            result[name] = ",".join(attribute.as_strings())
        elif attribute.type == ir.AttributeType.INTS:
            result[name] = list(attribute.as_ints())
        elif attribute.type == ir.AttributeType.FLOATS:
            result[name] = [float(number) for number in attribute.as_floats()]
        elif attribute.type == ir.AttributeType.TENSOR:
            array = attribute.as_tensor().numpy()
            result[name] = array.reshape(-1).tolist()
            result[f"{name}_dtype"] = int(attribute.as_tensor().dtype)
    return result


def tensor_infos(values: Iterable[ir.Value]) -> tuple[TensorInfo, ...]:
    """Describe inputs or outputs; dimensions without a size are None or their name."""
    infos = []
    for value in values:
        shape: tuple[int | str | None, ...] | None = None
        if not isinstance(value.type, ir.TensorType):  # a sequence or an optional: passed through
            infos.append(TensorInfo(value.name or "", np.dtype(object), None))
            continue
        dtype = value.type.dtype.numpy()
        if value.shape is not None:
            shape = tuple(
                size if isinstance(size, int) else (size.value or None) for size in value.shape
            )
        infos.append(TensorInfo(value.name or "", np.dtype(dtype), shape))
    return tuple(infos)


def value_names(model: ir.Model) -> set[str]:
    """Return the names of all values, those of control-flow bodies included."""
    names: set[str | None] = set()
    for graph in model.graphs():
        names.update(value.name for value in graph.inputs)
        names.update(graph.initializers)
        names.update(value.name for node in graph for value in node.outputs)
    return {name for name in names if name}


def clone(model: ir.Model) -> ir.Model:
    """Return a copy of the graph that shares the tensors."""
    return model.clone()
