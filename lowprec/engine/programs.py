"""From a segment of the hub to the plain data that a Program is filled from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.engine.forms import NodeForm, ProgramForm
from lowprec.engine.lower import NativeSegment
from lowprec.engine.tensors import TensorInfo
from lowprec.errors import ModelError

Attribute = int | float | str | list[int] | list[float]


def form_of(segment: NativeSegment, observers: Mapping[str, Any]) -> ProgramForm:
    """Return `segment` as plain data, with the observers tapped in."""
    form = ProgramForm(segment.inputs, segment.keyed, segment.outputs)
    ids: dict[str, int] = {name: form.add(name) for name in segment.inputs}

    def read(value: ir.Value | None) -> int:
        if value is None or not value.name:
            return -1
        if value.name not in ids:
            if value.const_value is None:
                raise ModelError(f"value '{value.name}' is read but never made")
            ids[value.name] = form.add(value.name)
            form.constants[ids[value.name]] = value.const_value.numpy()
        return ids[value.name]

    for node in segment.nodes:
        inputs = [read(value) for value in node.inputs]
        outputs = []
        for value in node.outputs:
            used = bool(value.name) and (value.uses() or value.is_graph_output())
            if value.name and used:
                ids[value.name] = form.add(value.name)
            outputs.append(ids.get(value.name or "", -1) if used else -1)
        name = node.name or ""
        form.nodes.append(NodeForm(node.op_type, name, inputs, outputs, attributes_of(node)))
        for value in node.outputs:
            observer = observers.get(value.name or "")
            if observer is not None and value.name in ids:
                tap, seen = {"observer": observer}, [ids[value.name]]
                form.nodes.append(
                    NodeForm(observer.OPERATOR, f"observe {value.name}", seen, [], tap)
                )
    form.results = [ids[name] for name in segment.outputs]
    return form


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
