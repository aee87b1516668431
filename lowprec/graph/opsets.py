"""Declare the oldest opset that says the same: a newer number keeps other tools from opening a
file.

Most operators of a new opset are the old ones with more types allowed. A node may be declared in
the older opset when it uses no input, output, attribute or type that the older definition lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

SAVED_OPSET = 23  # what the releases of onnxruntime and OpenVINO of the last year open


def lower_opset(model: ir.Model) -> None:
    """Declare opset 23 in place of a newer one if that changes no operator of `model`."""
    version = model.graph.opset_imports.get("", SAVED_OPSET)
    if version <= SAVED_OPSET:
        return
    newer = [
        node
        for graph in model.graphs()
        for node in graph
        if not node.domain
        and onnx.defs.get_schema(node.op_type, version, "").since_version > SAVED_OPSET
    ]
    dtypes = _dtypes(model) if newer else {}
    if all(_same_in_older(node, version, dtypes) for node in newer):
        model.graph.opset_imports[""] = SAVED_OPSET


def _dtypes(model: ir.Model) -> dict[str, ir.TypeProtocol]:
    """Return the type of every value for which it is known or can be inferred."""
    copy = model.clone()
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    types = {}
    for graph in copy.graphs():
        held = [*graph.inputs, *graph.initializers.values()]
        for value in (*held, *(output for node in graph for output in node.outputs)):
            if value.name and value.type is not None:
                types[value.name] = value.type
    return types


def _same_in_older(node: ir.Node, version: int, types: Mapping[str, ir.TypeProtocol]) -> bool:
    try:
        old = onnx.defs.get_schema(node.op_type, SAVED_OPSET, "")
    except onnx.defs.SchemaError:
        return False
    new = onnx.defs.get_schema(node.op_type, version, "")
    for name, attribute in new.attributes.items():
        older = old.attributes.get(name)
        if name in node.attributes:
            same = older is not None
        else:
            same = older is None or attribute.default_value == older.default_value
        if not same:
            return False
    return _fit(node.inputs, old.inputs, old, types) and _fit(node.outputs, old.outputs, old, types)


def _fit(
    values: Sequence[ir.Value | None],
    parameters: Sequence[onnx.defs.OpSchema.FormalParameter],
    schema: onnx.defs.OpSchema,
    types: Mapping[str, ir.TypeProtocol],
) -> bool:
    """Return whether every value that is present has a parameter, and a type that it allows."""
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    for position, value in enumerate(values):
        if value is None or not value.name:
            continue
        if position >= len(parameters):
            variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
            if not parameters or parameters[-1].option != variadic:
                return False
        parameter = parameters[min(position, len(parameters) - 1)]
        known = types.get(value.name)
        if known is None or _type_name(known) not in allowed.get(
            parameter.type_str, [parameter.type_str]
        ):
            return False
    return True


def _type_name(known: ir.TypeProtocol) -> str:
    """Return a type in the words of ONNX's schemas: 'tensor(float)', 'seq(tensor(int64))'."""
    if isinstance(known, ir.SequenceType):
        return f"seq({_type_name(known.elem_type)})"
    if isinstance(known, ir.OptionalType):
        return f"optional({_type_name(known.elem_type)})"
    return f"tensor({known.dtype.name.lower()})"
