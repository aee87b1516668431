"""Lists of tensors (tf.TensorArray), outside loops and inside their bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.lists import FilledList, TensorList
from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import UnsupportedError

_LAST = np.asarray([-1], np.int64)


def list_of(translator: Translator, node: Node, index: int = 0) -> TensorList | FilledList:
    """Return the list that `node` reads."""
    found = translator.found(node.inputs[index])
    if not isinstance(found, (TensorList, FilledList)):
        raise UnsupportedError(f"node '{node.name}' ({node.op}) reads a list that nothing makes")
    return found


def whole(translator: Translator, node: Node) -> ir.Value | Array:
    """Return the entries of the list that `node` reads, stacked."""
    made = list_of(translator, node)
    if isinstance(made, FilledList):
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) reads a list that the loop around it still fills; "
            "carry what it reads as a variable of the loop"
        )
    if made.items is not None and not made.written:
        return made.items
    size = None if made.size is None or isinstance(made.size, ir.Value) else int(made.size)
    if made.items is not None or size != len(made.written) or not size:
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) reads a list of which not every entry was written"
        )
    parts = [made.written[number] for number in range(size)]
    known = [part for part in parts if not isinstance(part, ir.Value)]
    if len(known) == size:
        return np.stack(known)
    at = translator.new_constant(np.zeros(1, np.int64), f"{node.name}/axis")
    return translator.emit(
        "Concat",
        [
            translator.emit(
                "Unsqueeze",
                [translator.as_value(part, f"{node.name}/entry"), at],
                name=f"{node.name}/entry",
            )
            for part in parts
        ],
        {"axis": 0},
        name=node.name,
    )


@translates("TensorListReserve", "EmptyTensorList")
def _reserve(translator: Translator, node: Node) -> TensorList:
    dtype = node.attributes["element_dtype"]
    if node.op == "EmptyTensorList":
        return TensorList(dtype, np.asarray(0, np.int32), shape=_entry(translator, node, 0))
    size = translator.found(node.inputs[1])
    assert not isinstance(size, (TensorList, FilledList))
    return TensorList(dtype, size, shape=_entry(translator, node, 0))


def _entry(translator: Translator, node: Node, index: int) -> tuple[int | None, ...] | None:
    """Return the shape of a list's entries, of which TensorFlow gives a vector, or -1."""
    known = translator.known(node, index)
    if known is None or not known.ndim:
        return None
    return tuple(int(size) if size >= 0 else None for size in known)


@translates("TensorListFromTensor")
def _from_tensor(translator: Translator, node: Node) -> TensorList:
    items = translator.found(node.inputs[0])
    assert not isinstance(items, (TensorList, FilledList))
    shape = translator.shape(node.inputs[0])
    size = None if not shape or shape[0] is None else np.asarray(shape[0], np.int32)
    entry = None if shape is None else tuple(shape[1:])
    return TensorList(node.attributes["element_dtype"], size, items, entry)


@translates("TensorListGetItem")
def _get(translator: Translator, node: Node) -> ir.Value | Array:
    found, at = list_of(translator, node), translator.known(node, 1)
    if isinstance(found, TensorList) and at is not None and int(at) in found.written:
        return found.written[int(at)]
    items = whole(translator, node)
    if not isinstance(items, ir.Value) and at is not None:
        return np.asarray(items[int(at)])
    return translator.emit(
        "Gather",
        [translator.as_value(items, node.inputs[0][0]), translator.value(node, 1)],
        {"axis": 0},
        name=node.name,
    )


@translates("TensorListSetItem")
def _set(translator: Translator, node: Node) -> TensorList | FilledList:
    made = list_of(translator, node)
    item: Any = translator.found(node.inputs[2])
    index: Any = translator.found(node.inputs[1])
    if isinstance(made, FilledList):
        if made.item is not None:
            raise UnsupportedError(
                f"node '{node.name}': its loop writes a list twice in one iteration; "
                "use a list for each"
            )
        return FilledList(made.number, made.dtype, index, item)
    if isinstance(index, ir.Value):
        raise UnsupportedError(f"node '{node.name}' writes a list at an entry that is computed")
    return TensorList(
        made.dtype, made.size, made.items, made.shape, {**made.written, int(index): item}
    )


@translates("TensorListStack")
def _stack(translator: Translator, node: Node) -> ir.Value | Array:
    return whole(translator, node)


@translates("TensorListGather")
def _gather(translator: Translator, node: Node) -> ir.Value:
    items = translator.as_value(whole(translator, node), node.inputs[0][0])
    indices = translator.value(node, 1)
    return translator.emit("Gather", [items, indices], {"axis": 0}, name=node.name)


@translates("TensorListConcatV2", "TensorListConcat")
def _concat(translator: Translator, node: Node) -> list[ir.Value]:
    """Return the entries one after another along their first axis, and how long each is."""
    items = translator.as_value(whole(translator, node), node.inputs[0][0])
    shape = translator.emit("Shape", [items], name=f"{node.name}/shape")
    tail = translator.emit(
        "Slice",
        [
            shape,
            *(
                translator.new_constant(np.asarray([number], np.int64), f"{node.name}/{name}")
                for name, number in (("starts", 2), ("ends", np.iinfo(np.int64).max))
            ),
        ],
        name=f"{node.name}/tail",
    )
    rows = translator.new_constant(_LAST, f"{node.name}/rows")
    joined = translator.emit("Concat", [rows, tail], {"axis": 0}, name=f"{node.name}/sizes")
    made = translator.emit("Reshape", [items, joined], name=node.name)
    first = translator.emit("Shape", [items], {"start": 0, "end": 1}, name=f"{node.name}/count")
    each = translator.emit("Shape", [items], {"start": 1, "end": 2}, name=f"{node.name}/each")
    return [made, translator.emit("Expand", [each, first], name=f"{node.name}/lengths")]


@translates("TensorListLength")
def _length(translator: Translator, node: Node) -> ir.Value | Array:
    found = list_of(translator, node)
    if isinstance(found, TensorList) and found.size is not None:
        return found.size
    items = translator.as_value(whole(translator, node), node.inputs[0][0])
    one = translator.emit("Shape", [items], {"start": 0, "end": 1}, name=f"{node.name}/shape")
    number = translator.emit("Squeeze", [one], name=f"{node.name}/number")
    return translator.emit("Cast", [number], {"to": int(ir.DataType.INT32)}, name=node.name)
