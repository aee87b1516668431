"""Joining tensors and cutting them into parts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import axis_in, vector
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError, UnsupportedError


@translates("ConcatV2", "Concat")
def _concat(translator: Translator, node: Node) -> ir.Value | Array:
    at = len(node.inputs) - 1 if node.op == "ConcatV2" else 0
    parts = [index for index in range(len(node.inputs)) if index != at]
    if not parts:
        raise ModelError(f"node '{node.name}' ({node.op}) joins nothing")
    axis = int(translator.constant(node, at).reshape(()))
    known = [array for index in parts if (array := translator.known(node, index)) is not None]
    if len(known) == len(parts):
        return np.asarray(np.concatenate(known, axis))
    axis = axis_in(translator, node, parts[0], axis)
    inputs = [translator.value(node, index) for index in parts]
    return translator.emit("Concat", inputs, {"axis": axis}, name=node.name)


@translates("Pack")
def _pack(translator: Translator, node: Node) -> ir.Value | Array:
    axis = int(node.attributes.get("axis") or 0)
    known = translator.all_known(node)
    if known is not None:
        return np.stack(known, axis)
    axis = axis_in(translator, node, 0, axis, 1)
    at = vector(translator, [axis], f"{node.name}/axis")
    parts = [
        translator.emit("Unsqueeze", [translator.value(node, index), at], name=f"{node.name}/part")
        for index in range(len(node.inputs))
    ]
    return translator.emit("Concat", parts, {"axis": axis}, name=node.name)


@translates("Unpack")
def _unpack(translator: Translator, node: Node) -> list[ir.Value | Array]:
    axis, count = int(node.attributes.get("axis") or 0), int(node.attributes["num"])
    known = translator.known(node, 0)
    if known is not None:
        return [np.asarray(part).squeeze(axis) for part in np.split(known, count, axis)]
    axis = axis_in(translator, node, 0, axis)
    at = vector(translator, [axis], f"{node.name}/axis")
    if count == 1:
        return [translator.emit("Squeeze", [translator.value(node, 0), at], name=node.name)]
    parts = translator.emit_all(
        "Split",
        [translator.value(node, 0)],
        {"axis": axis, "num_outputs": count},
        name=f"{node.name}/parts",
        outputs=count,
    )
    return [translator.emit("Squeeze", [part, at], name=node.name) for part in parts]


@translates("Split", "SplitV")
def _split(translator: Translator, node: Node) -> list[ir.Value | Array]:
    data, at = (1, 0) if node.op == "Split" else (0, 2)
    known = translator.known(node, data)
    axis = axis_in(translator, node, data, int(translator.constant(node, at).reshape(())))
    count = int(node.attributes["num_split"])
    if node.op == "Split":
        if known is not None:
            return [np.asarray(part) for part in np.split(known, count, axis)]
        lengths = None
    else:
        lengths = translator.constant(node, 1).reshape(-1).astype(np.int64)
        if (lengths < 0).any():
            shape = translator.shape(node.inputs[data])
            total = None if shape is None else shape[axis]
            if total is None:
                raise UnsupportedError(f"node '{node.name}': the size that it splits is unknown")
            lengths = np.where(lengths < 0, total - lengths[lengths >= 0].sum(), lengths)
        if known is not None:
            cuts = np.cumsum(lengths)[:-1].tolist()
            return [np.asarray(part) for part in np.split(known, cuts, axis)]
    inputs: list[ir.Value | None] = [translator.value(node, data)]
    if count == 1:
        return [translator.value(node, data)]
    attributes = {"axis": axis}
    if lengths is None:
        attributes["num_outputs"] = count
    else:
        inputs.append(translator.new_constant(lengths, f"{node.name}/lengths"))
    return [*translator.emit_all("Split", inputs, attributes, name=node.name, outputs=count)]
