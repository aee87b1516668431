"""Padding, repeating, and tensors that are made of sizes: fills, ranges, bands."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import (
    affordable,
    as_int64,
    axis_of,
    sizes,
    vector,
)
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError, UnsupportedError


@translates("Pad", "PadV2", "MirrorPad")
def _pad(translator: Translator, node: Node) -> ir.Value | Array:
    amounts = translator.known(node, 1)
    mode = "constant"
    if node.op == "MirrorPad":
        mode = "reflect"
        if str(node.attributes["mode"]) == "SYMMETRIC":
            return _mirrored(translator, node)
    if amounts is None:
        turned = translator.emit(
            "Transpose",
            [as_int64(translator, node, 1)],
            {"perm": [1, 0]},
            name=f"{node.name}/turned",
        )
        flat = vector(translator, [-1], f"{node.name}/flat")
        pads = translator.emit("Reshape", [turned, flat], name=f"{node.name}/pads")
    else:
        pairs = amounts.reshape(-1, 2).astype(np.int64)
        if (pairs < 0).any() or len(pairs) != translator.rank(node, 0) or (pairs > 2**24).any():
            raise ModelError(f"node '{node.name}' ({node.op}) pads by {pairs.tolist()}")
        if not pairs.any():
            known = translator.known(node, 0)
            return translator.value(node, 0) if known is None else known
        pads = translator.new_constant(pairs.T.reshape(-1), f"{node.name}/pads")
    inputs: list[ir.Value | None] = [translator.value(node, 0), pads]
    if node.op == "PadV2":
        number = translator.known(node, 2)
        if number is None or number.reshape(()) != 0:
            inputs.append(translator.value(node, 2))
    return translator.emit("Pad", inputs, {"mode": mode}, name=node.name)


def _mirrored(translator: Translator, node: Node) -> ir.Value:
    """Mirror with the edge twice, which ONNX cannot: by taking positions."""
    pairs = translator.constant(node, 1).reshape(-1, 2)
    shape = translator.shape(node.inputs[0])
    value = translator.value(node, 0)
    for axis, (before, after) in enumerate(pairs.tolist()):
        if not before and not after:
            continue
        size = None if shape is None else shape[axis]
        if size is None:
            raise UnsupportedError(f"node '{node.name}' mirrors an axis whose size is open")
        if not 0 <= before <= size or not 0 <= after <= size:
            raise ModelError(f"node '{node.name}' (MirrorPad) pads {size} by {before} and {after}")
        positions = np.pad(np.arange(size, dtype=np.int64), (before, after), "symmetric")
        at = translator.new_constant(positions, f"{node.name}/positions")
        value = translator.emit("Gather", [value, at], {"axis": axis}, name=node.name)
    return value


@translates("Tile")
def _tile(translator: Translator, node: Node) -> ir.Value | Array:
    known, times = translator.known(node, 0), translator.known(node, 1)
    if known is not None and times is not None:
        affordable(node, (n * int(by) for n, by in zip(known.shape, times, strict=True)))
        return np.tile(known, [int(by) for by in times])
    inputs = [translator.value(node, 0), sizes(translator, node, 1)]
    return translator.emit("Tile", inputs, name=node.name)


@translates("Fill")
def _fill(translator: Translator, node: Node) -> ir.Value | Array:
    shape, number = translator.known(node, 0), translator.known(node, 1)
    if shape is not None and number is not None:
        return np.full(affordable(node, shape.reshape(-1)), number.reshape(()))
    inputs = [translator.value(node, 1), sizes(translator, node, 0)]
    return translator.emit("Expand", inputs, name=node.name)


@translates("BroadcastTo")
def _broadcast(translator: Translator, node: Node) -> ir.Value | Array:
    known, shape = translator.known(node, 0), translator.known(node, 1)
    if known is not None and shape is not None:
        return np.array(np.broadcast_to(known, affordable(node, shape.reshape(-1))))
    inputs = [translator.value(node, 0), sizes(translator, node, 1)]
    return translator.emit("Expand", inputs, name=node.name)


@translates("ZerosLike", "OnesLike")
def _like(translator: Translator, node: Node) -> ir.Value | Array:
    known, dtype = translator.known(node, 0), node.attributes["T"]
    one = np.full((1,), 0 if node.op == "ZerosLike" else 1, dtype)
    shape = translator.shape(node.inputs[0])
    if known is not None:
        return np.full_like(known, one[0])
    if shape is not None and None not in shape:
        return np.full(affordable(node, (size or 0 for size in shape)), one[0])
    if shape == ():
        return one.reshape(())
    found = translator.emit("Shape", [translator.value(node, 0)], name=f"{node.name}/shape")
    return translator.emit("Expand", [translator.new_constant(one), found], name=node.name)


@translates("Range")
def _range(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        start, stop, step = (array.reshape(()).item() for array in known)
        if not step or not all(map(math.isfinite, (start, stop, step))):
            raise ModelError(f"node '{node.name}' (Range) goes from {start} to {stop} by {step}")
        affordable(node, [max(math.ceil((stop - start) / step), 0)])
        return np.asarray(np.arange(start, stop, step), known[0].dtype)
    inputs = [translator.value(node, index) for index in range(3)]
    return translator.emit("Range", inputs, name=node.name)


@translates("LinSpace")
def _line(translator: Translator, node: Node) -> ir.Value | Array:
    count = int(translator.constant(node, 2).reshape(()))
    affordable(node, [count])
    dtype = np.dtype(node.attributes["T"])
    known = [translator.known(node, index) for index in range(2)]
    if known[0] is not None and known[1] is not None:
        ends = [array.reshape(()).item() for array in known if array is not None]
        return np.linspace(ends[0], ends[1], count, dtype=dtype)
    first, last = (translator.value(node, index) for index in range(2))
    steps = np.arange(count) / max(count - 1, 1)
    part = translator.new_constant(steps.astype(dtype), f"{node.name}/steps")
    span = translator.emit("Sub", [last, first], name=f"{node.name}/span")
    way = translator.emit("Mul", [span, part], name=f"{node.name}/way")
    return translator.emit("Add", [first, way], name=node.name)


@translates("MatrixBandPart")
def _band(translator: Translator, node: Node) -> ir.Value | Array:
    lower, upper = (int(translator.constant(node, index).reshape(())) for index in (1, 2))
    known = translator.known(node, 0)
    if known is not None:
        made = known if lower < 0 else np.triu(known, -lower)
        return np.asarray(made if upper < 0 else np.tril(made, upper), known.dtype)
    value = translator.value(node, 0)
    for is_upper, at in ((1, -lower if lower >= 0 else None), (0, upper if upper >= 0 else None)):
        if at is not None:
            k = translator.new_constant(np.asarray(at, np.int64), f"{node.name}/diagonal")
            value = translator.emit("Trilu", [value, k], {"upper": is_upper}, name=node.name)
    return value


@translates("MatrixDiagV3", "MatrixDiagV2", "MatrixDiag", "Diag")
def _diagonal(translator: Translator, node: Node) -> ir.Value | Array:
    """A square matrix with the input on its main diagonal."""
    if node.op in ("MatrixDiagV2", "MatrixDiagV3"):
        offsets = translator.constant(node, 1).reshape(-1)
        others = [translator.constant(node, index).reshape(-1)[0] for index in (2, 3, 4)]
        if (offsets != 0).any() or others[0] != -1 or others[1] != -1 or others[2] != 0:
            raise UnsupportedError(f"node '{node.name}' fills more than the main diagonal")
    known = translator.known(node, 0)
    if known is not None and known.ndim == 1:
        affordable(node, [known.size, known.size])
        return np.diag(known)
    shape = translator.shape(node.inputs[0])
    size = None if not shape else shape[-1]
    if size is None or (node.op == "Diag" and len(shape or ()) != 1):
        raise UnsupportedError(f"node '{node.name}' ({node.op}): the size of its diagonal is open")
    affordable(node, [size, size])
    last = vector(translator, [-1], f"{node.name}/last")
    column = translator.emit(
        "Unsqueeze", [translator.value(node, 0), last], name=f"{node.name}/column"
    )
    dtype = np.dtype(node.attributes["T"])
    eye = np.eye(size, dtype=dtype)
    if dtype.kind == "f":  # what is not finite stays on the diagonal
        none = translator.new_constant(np.zeros((), dtype))
        at = translator.new_constant(eye.astype(bool), f"{node.name}/eye")
        return translator.emit("Where", [at, column, none], name=node.name)
    return translator.emit(
        "Mul", [column, translator.new_constant(eye, f"{node.name}/eye")], name=node.name
    )


@translates("MatrixDiagPartV3", "MatrixDiagPartV2", "MatrixDiagPart", "DiagPart")
def _diagonal_part(translator: Translator, node: Node) -> ir.Value | Array:
    """The main diagonal of matrices."""
    known, shape = translator.known(node, 0), translator.shape(node.inputs[0])
    offset = translator.constant(node, 1).reshape(-1) if len(node.inputs) > 1 else np.zeros(1)
    if shape is None or len(shape) < 2 or None in shape[-2:] or offset.any() or len(offset) != 1:
        raise UnsupportedError(f"node '{node.name}' ({node.op}) reads more than a main diagonal")
    if node.op == "DiagPart" and len(shape) != 2:
        raise UnsupportedError(f"node '{node.name}' (DiagPart) reads a tensor of rank {len(shape)}")
    size = min(shape[-2] or 0, shape[-1] or 0)
    if known is not None:
        return np.asarray(np.diagonal(known, axis1=-2, axis2=-1))
    # Positions of the diagonal in the rows laid end to end.
    places = np.arange(size, dtype=np.int64) * ((shape[-1] or 0) + 1)
    ends = vector(translator, [0] * (len(shape) - 2) + [-1], f"{node.name}/flat")
    flat = translator.emit("Reshape", [translator.value(node, 0), ends], name=f"{node.name}/flat")
    at = translator.new_constant(places, f"{node.name}/places")
    return translator.emit("Gather", [flat, at], {"axis": -1}, name=node.name)


@translates("MatrixSetDiagV3", "MatrixSetDiagV2", "MatrixSetDiag")
def _with_diagonal(translator: Translator, node: Node) -> Array:
    known = translator.constant(node, 0), translator.constant(node, 1)
    offset = translator.constant(node, 2).reshape(-1) if len(node.inputs) > 2 else np.zeros(1)
    if offset.any() or len(offset) != 1:
        raise UnsupportedError(f"node '{node.name}' ({node.op}) writes more than a main diagonal")
    made: Array = known[0].copy()
    places = np.arange(min(made.shape[-2:]))
    made[..., places, places] = known[1]
    return made


@translates("Roll")
def _roll(translator: Translator, node: Node) -> ir.Value | Array:
    shifts = [int(by) for by in translator.constant(node, 1).reshape(-1)]
    axes = [int(axis) for axis in translator.constant(node, 2).reshape(-1)]
    known = translator.known(node, 0)
    if known is not None:
        return np.roll(known, shifts, axes)
    value, shape = translator.value(node, 0), translator.shape(node.inputs[0])
    for by, axis in zip(shifts, axes, strict=True):
        at = axis_of(node, axis, translator.rank(node, 0))
        size = None if shape is None else shape[at]
        if size is None:
            raise UnsupportedError(f"node '{node.name}' rolls an axis whose size is open")
        cut = (size - by) % size if size else 0
        if not cut:
            continue
        lengths = vector(translator, [cut, size - cut], f"{node.name}/lengths")
        first, second = translator.emit_all(
            "Split", [value, lengths], {"axis": at}, name=f"{node.name}/parts", outputs=2
        )
        value = translator.emit("Concat", [second, first], {"axis": at}, name=node.name)
    return value
