"""A While of TensorFlow as an ONNX Loop, or as a recurrent operator where it is one.

variables of the loop            in ONNX
a tensor that never changes      read from outside the body
a counter 0, 1, 2 ...            the number of the iteration
a list that the body reads       a tensor from outside, from which Gather takes one entry
a list that the body fills       an output of the Loop that keeps an entry per iteration
everything else                  a state of the Loop
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.lists import FilledList, Lists, TensorList
from lowprec.adapters.tensorflow.nodes import Function, Graph, Node, Tensor
from lowprec.adapters.tensorflow.translator import Array, Found, Translator
from lowprec.errors import UnsupportedError

_INT64 = int(ir.DataType.INT64)
_FAR = np.iinfo(np.int64).max


@dataclass
class Loop:
    """A While whose body is translated.

    Attributes:
        translator: Of the graph around it.
        node: The While.
        outer: What its variables are before the first iteration; None for handles of nothing.
        inner: Translator of the body.
        function: The body.
        trips: How often the body runs: the smallest of these; empty where the condition has to be
            computed.
        number: The number of the iteration, inside the body.
        time: The counters' value inside the body, by variable.
        inputs: The states inside the body, by variable.
        filled: The lists that the body fills.
    """

    translator: Translator
    node: Node
    outer: list[Found | None]
    inner: Translator
    function: Function
    trips: list[ir.Value | Array]
    number: ir.Value
    time: dict[int, ir.Value]
    inputs: dict[int, ir.Value]
    filled: list[int]

    @property
    def states(self) -> list[int]:
        """The variables that an iteration computes from their values before it."""
        return [k for k in self.inputs if k not in self.time or not self.trips]

    def made(self, variable: int) -> Found:
        """Return what an iteration makes of a variable."""
        return self.inner.found(self.function.outputs[variable])

    def count(self) -> ir.Value:
        """Return how often the body runs, int64."""
        values = []
        for found in self.trips:
            if isinstance(found, ir.Value):
                cast = self.translator.emit(
                    "Cast", [found], {"to": _INT64}, name=f"{self.node.name}/trips"
                )
                values.append(cast)
            else:
                values.append(
                    self.translator.new_constant(
                        np.asarray(found, np.int64), f"{self.node.name}/trips"
                    )
                )
        if len(values) == 1:
            return values[0]
        return self.translator.emit("Min", values, name=f"{self.node.name}/trips")

    def runs_through(self, found: TensorList) -> bool:
        """Return whether the body surely runs once for each entry of a list."""
        if len(self.trips) != 1:
            return False
        (trips,) = self.trips
        if not isinstance(trips, ir.Value):
            return (
                found.size is not None
                and not isinstance(found.size, ir.Value)
                and int(found.size) == int(trips)
            )
        if found.size is trips:
            return True
        counted = counted_tensor(trips)
        return counted is not None and counted is unreversed(found.items)


def open_loop(translator: Translator, node: Node) -> Loop:
    """Translate the body of a While."""
    body = translator.graph.function(node.attributes["body"])
    condition = translator.graph.function(node.attributes["cond"])
    outer = [translator.found(x) if translator.has(x) else None for x in node.inputs]
    kept = {k for k in range(len(outer)) if origin(body.graph, body.outputs[k]) == body.inputs[k]}
    counters = [k for k in range(len(outer)) if k not in kept and _counts(body, k, outer[k])]
    bounds = _bounds(condition, condition.outputs[0], counters, kept)
    trips = _different([outer[b] if isinstance(b, int) else b for b in bounds or ()])
    inner = Translator(body.graph, translator, f"{translator.prefix}{node.name}/", body=True)
    scalar = ir.Shape([])
    number = ir.Value(
        name=inner.unique("iteration"), type=ir.TensorType(ir.DataType.INT64), shape=scalar
    )
    loop = Loop(translator, node, outer, inner, body, trips, number, {}, {}, [])
    for k, (argument, found) in enumerate(zip(body.inputs, outer, strict=True)):
        if k in kept:
            if found is not None:
                inner.give(argument, found)
        elif isinstance(found, TensorList):
            inner.give(argument, FilledList(k, found.dtype))
            loop.filled.append(k)
        elif k in counters and trips:
            to = {"to": int(ir.DataType.from_numpy(node.attributes["T"][k]))}
            loop.time[k] = inner.emit("Cast", [number], to, name="time")
            inner.give(argument, loop.time[k])
        else:
            loop.inputs[k] = _input(inner, argument, node.attributes["T"][k], body.graph)
            inner.give(argument, loop.inputs[k])
            if k in counters:
                loop.time[k] = loop.inputs[k]
    inner.run([body.outputs[k] for k in (*loop.states, *loop.filled)])
    return loop


def _input(inner: Translator, argument: Tensor, dtype: Any, graph: Graph) -> ir.Value:
    if dtype is None:
        raise UnsupportedError(
            f"the loop variable '{argument[0]}' is a handle that changes, which ONNX has no form of"
        )
    shape = graph.shapes.get(argument)
    return ir.Value(
        name=inner.unique(argument[0].rpartition("/")[2]),
        type=ir.TensorType(ir.DataType.from_numpy(dtype)),
        shape=None if shape is None else ir.Shape(shape),
    )


def origin(graph: Graph, tensor: Tensor) -> Tensor:
    """Return what `tensor` is a plain copy of."""
    while (node := graph.nodes.get(tensor[0])) is not None and node.op == "Identity":
        tensor = node.inputs[0]
    return tensor


def _counts(body: Function, variable: int, start: Found | None) -> bool:
    """Return whether a variable counts iterations: 0, 1, 2 ..."""
    if not isinstance(start, np.ndarray) or start.ndim or start.dtype.kind not in "iu":
        return False
    node = body.graph.nodes.get(origin(body.graph, body.outputs[variable])[0])
    if int(start) != 0 or node is None or node.op not in ("Add", "AddV2"):
        return False
    operands = [origin(body.graph, tensor) for tensor in node.inputs]
    if body.inputs[variable] not in operands:
        return False
    other = operands[1 - operands.index(body.inputs[variable])]
    one = body.graph.nodes.get(other[0])
    return one is not None and one.op == "Const" and int(one.attributes["value"]) == 1


def _bounds(
    condition: Function, tensor: Tensor, counters: Sequence[int], kept: set[int]
) -> list[int | Array] | None:
    """Return what bounds the counters, variables or constants; None if more decides the end."""
    node = condition.graph.nodes.get(origin(condition.graph, tensor)[0])
    if node is None:
        return None
    if node.op == "LogicalAnd":
        parts = [_bounds(condition, part, counters, kept) for part in node.inputs]
        return None if None in parts else [bound for part in parts for bound in part or ()]
    if node.op == "Const":
        return [] if node.attributes["value"].all() else None
    if node.op not in ("Less", "Greater"):
        return None
    less, more = (origin(condition.graph, part) for part in node.inputs[:: _ORDER[node.op]])
    places = {argument: k for k, argument in enumerate(condition.inputs)}
    if places.get(less) not in counters:
        return None
    if more in places:
        return [places[more]] if places[more] in kept else None
    constant = condition.graph.nodes[more[0]]
    return [constant.attributes["value"]] if constant.op == "Const" else None


_ORDER = {"Less": 1, "Greater": -1}


def _different(found: Sequence[Any]) -> list[ir.Value | Array]:
    """Return numbers without those that are there twice."""
    values: list[ir.Value | Array] = []
    known: list[int] = []
    for one in found:
        if isinstance(one, ir.Value):
            if not any(one is other for other in values):
                values.append(one)
        else:
            known.append(int(one))
    if known:
        values.append(np.asarray(min(known), np.int64))
    return values


def counted_tensor(value: ir.Value | None) -> ir.Value | None:
    """Return the tensor whose axis 0 has `value` entries, where `value` is read from its shape."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Shape":
            tensor = node.inputs[0]
            return tensor if not node.attributes.get_int("start", 0) else None
        if node.op_type == "Slice":
            bounds = [None if v is None or v.const_value is None else v.const_value.numpy().tolist()
                      for v in node.inputs[1:3]]  # fmt: skip
            if bounds != [[0], [1]]:
                return None
        elif node.op_type not in ("Cast", "Squeeze", "Identity"):
            return None
        value = node.inputs[0]
    return None


def unreversed(value: Any) -> ir.Value | None:
    """Return what `value` is a reversal of along axis 0, or itself."""
    if not isinstance(value, ir.Value):
        return None
    found = reversal(value)
    return value if found is None or found[1] != [0] else found[0]


def reversal(value: ir.Value) -> tuple[ir.Value, list[int]] | None:
    """Return what `value` is the reverse of, and along which axes."""
    node = value.producer()
    if node is None or node.op_type != "Slice" or len(node.inputs) != 5:
        return None
    source, *bounds = node.inputs
    parts: list[list[int]] = []
    for bound in bounds:
        if bound is None or bound.const_value is None:
            return None
        parts.append(bound.const_value.numpy().tolist())
    starts, ends, axes, steps = parts
    backwards = [-1] * len(axes)
    if source is None or (starts, steps, ends) != (backwards, backwards, [-_FAR] * len(axes)):
        return None
    return source, axes


def as_loop(loop: Loop) -> list[Any]:
    """Return what a While makes of its variables, written as an ONNX Loop."""
    translator, node, inner, states = loop.translator, loop.node, loop.inner, loop.states
    keeps = ir.Value(
        name=inner.unique("goes_on"), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([])
    )
    begins, goes_on = translator.new_constant(np.ones((), np.bool_), f"{node.name}/begins"), None
    if not loop.trips:
        begins = translator.as_value(_condition(loop, translator, loop.outer))
        after = [
            loop.made(k) if k in states else (None if k in loop.filled else found)
            for k, found in enumerate(loop.outer)
        ]
        goes_on = _condition(loop, inner, after)
    results = [inner.emit("Identity", [inner.as_value(goes_on) if goes_on is not None else keeps],
                          name="goes_on")]  # fmt: skip
    results += [inner.emit("Identity", [inner.as_value(loop.made(k))], name="next") for k in states]
    results += [inner.emit("Identity", [_entry(loop, k)], name="entry") for k in loop.filled]
    inputs = [loop.number, keeps, *(loop.inputs[k] for k in states)]
    body = ir.Graph(inputs, results, nodes=inner.nodes, name=f"{node.name}/body")
    before = [translator.as_value(_known(loop, k), f"{node.name}/start") for k in states]
    count = loop.count() if loop.trips else None
    first = translator.emit(
        "Loop",
        [count, begins, *before],
        {"body": body},
        name=node.name,
        outputs=len(states) + len(loop.filled),
    )
    producer = first.producer()
    assert producer is not None
    made: list[Any] = list(loop.outer)
    for k, value in zip((*states, *loop.filled), producer.outputs, strict=True):
        made[k] = value if k in states else _list(loop, k, value)
    return [*with_counters(loop, made)]


def with_counters(loop: Loop, made: list[Any]) -> Iterator[Any]:
    """Yield the results of a While, those of its counters being how often the body ran."""
    for k, found in enumerate(made):
        if k in loop.time and loop.trips:
            to = {"to": int(ir.DataType.from_numpy(loop.node.attributes["T"][k]))}
            yield loop.translator.emit("Cast", [loop.count()], to, name=f"{loop.node.name}/ran")
        else:
            yield np.zeros((), np.int32) if found is None else found  # a handle, which nobody reads


def _known(loop: Loop, variable: int) -> Found:
    found = loop.outer[variable]
    if found is None:
        raise UnsupportedError(f"node '{loop.node.name}': a state of the loop has no value")
    return found


def _condition(loop: Loop, translator: Translator, variables: Sequence[Found | None]) -> Any:
    """Return the loop's condition on `variables`, computed where `translator` stands."""
    function = loop.translator.graph.function(loop.node.attributes["cond"])
    condition = Translator(function.graph, translator, translator.prefix)
    for argument, found in zip(function.inputs, variables, strict=True):
        if found is not None and not isinstance(found, Lists):
            condition.give(argument, found)
    condition.run(function.outputs)
    return condition.found(function.outputs[0])


def _entry(loop: Loop, variable: int) -> ir.Value:
    """Return what an iteration writes into a list."""
    filled = loop.made(variable)
    if not isinstance(filled, FilledList) or filled.number != variable or filled.item is None:
        raise UnsupportedError(
            f"node '{loop.node.name}': an iteration exchanges its lists; let each iteration write "
            "one entry of each list"
        )
    if filled.index not in loop.time.values() and not writes_last_only(loop, variable):
        raise UnsupportedError(
            f"node '{loop.node.name}': an iteration writes its list at an index other than its own "
            "number; write entry i in iteration i"
        )
    return loop.inner.as_value(filled.item, "entry")


def writes_last_only(loop: Loop, variable: int) -> bool:
    """Return whether each iteration writes over the one entry of a list."""
    before, made = loop.outer[variable], loop.made(variable)
    return (
        isinstance(before, TensorList)
        and isinstance(made, FilledList)
        and isinstance(before.size, np.ndarray)
        and isinstance(made.index, np.ndarray)
        and int(before.size) == 1
        and int(made.index) == 0
    )


def _list(loop: Loop, variable: int, entries: ir.Value) -> TensorList:
    """Return a list that the loop filled with `entries`."""
    translator, name = loop.translator, loop.node.name
    before = loop.outer[variable]
    assert isinstance(before, TensorList)
    if writes_last_only(loop, variable):
        last = translator.new_constant(np.asarray([-1], np.int64), f"{name}/last")
        only = translator.emit("Gather", [entries, last], {"axis": 0}, name=f"{name}/only")
        return TensorList(before.dtype, before.size, only, before.shape)
    grows = isinstance(before.size, np.ndarray) and int(before.size) == 0
    if before.size is None or grows or loop.runs_through(before):
        return TensorList(before.dtype, None if grows else before.size, entries, before.shape)
    return TensorList(before.dtype, before.size, _padded(loop, variable, entries), before.shape)


def _padded(loop: Loop, variable: int, entries: ir.Value) -> ir.Value:
    """Return `entries` with zeros for the entries of the list that no iteration wrote."""
    translator, name = loop.translator, loop.node.name
    before = loop.outer[variable]
    assert isinstance(before, TensorList)
    assert before.size is not None
    graph = loop.function.graph
    written = graph.nodes[origin(graph, loop.function.outputs[variable])[0]]
    shape = graph.shapes.get(written.inputs[2])
    if shape is None:
        raise UnsupportedError(f"node '{name}': the rank of what it writes into a list is unknown")
    one = translator.new_constant(np.asarray([1], np.int64), f"{name}/one")
    size = translator.as_value(before.size, f"{name}/size")
    wanted = translator.emit("Cast", [size], {"to": _INT64}, name=f"{name}/wanted")
    whole = translator.emit("Reshape", [wanted, one], name=f"{name}/wanted")
    there = translator.emit("Shape", [entries], {"start": 0, "end": 1}, name=f"{name}/there")
    missing = translator.emit("Sub", [whole, there], name=f"{name}/missing")
    rank = len(shape) + 1
    zeros = [
        translator.new_constant(np.zeros(count, np.int64), f"{name}/none")
        for count in (rank, rank - 1)
    ]
    parts = [zeros[0], missing, *zeros[1:]] if rank > 1 else [zeros[0], missing]
    pads = translator.emit("Concat", parts, {"axis": 0}, name=f"{name}/pads")
    return translator.emit("Pad", [entries, pads], name=f"{name}/padded")
