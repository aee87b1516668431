"""If, Loop and Scan: Python between the bodies, our kernels inside them.

A body is a session of its own (bodies.py). An iteration costs some tens of microseconds beside what
the body computes.

Model files are untrusted. A trip count may legally be 2**62, so it is no error; what a loop keeps
of each iteration is: its scan outputs together may not be larger than this machine's memory, and
where the trip count alone decides how many there are, that is checked after the first iteration. A
loop whose state no longer changes, that keeps nothing and never asks for its own number, has
nothing left to compute: it ends. Any other endless loop runs until it is interrupted (Ctrl-C works
between two iterations).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.engine.bodies import Body, Compile, Timed
from lowprec.engine.nested import is_random
from lowprec.errors import InputError, LowprecError
from lowprec.passes.inline_branches import graphs_of
from lowprec.passes.matching import constant_array, is_operator

_OBJECT = 128  # bytes that an array takes beside its elements, at least
_FEW_BYTES = 4096  # a state that is compared after each iteration

Made = tuple[list[Any], Timed]
Taken = dict[str, bool]


class ControlFlow:
    """A node with bodies. `run` gets the values that the node and its bodies read, by name."""

    def __init__(self, node: ir.Node, opsets: Mapping[str, int], compile_body: Compile):
        """Prepare the bodies of `node`; they are compiled when they first run."""
        self.node = node
        self.bodies = {
            name: Body(graph, opsets, compile_body) for name, graph in graphs_of(node).items()
        }
        self._inputs = [None if value is None else value.name for value in node.inputs]

    def run(
        self, values: Mapping[str, Any], *, timed: bool = False, taken: Taken | None = None
    ) -> Made:
        """Return the outputs in the node's order, and the time of each inner step.

        Args:
            values: What the node and its bodies read, by name.
            timed: Whether to time the inner steps.
            taken: Takes which way every If went, by name.
        """
        raise NotImplementedError

    def ran(self) -> list[Body]:
        """Return the bodies of the most recent run."""
        return [body for body in self.bodies.values() if body.session is not None]

    def reads(self) -> list[str]:
        """Return the names of what the node and its bodies read."""
        names = [name for name in self._inputs if name]
        return [*names, *(name for body in self.bodies.values() for name in body.captured)]

    def _operands(self, values: Mapping[str, Any]) -> list[Any]:
        return [values[name] if name else None for name in self._inputs]

    def _once(self, given: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
        """Return what an iteration would make where there is none: its shapes are asked for."""
        try:
            return self.bodies["body"].run(given, values)[0]
        except LowprecError:
            return []

    def _error(self, what: str) -> InputError:
        return InputError(
            f"the model cannot run on this input: node '{self.node.name}' "
            f"({self.node.op_type}): {what}"
        )

    def _one(self, array: Any, what: str) -> Any:
        if np.asarray(array).dtype.kind not in "biu":
            raise self._error(f"{what} must be boolean or an integer, it is {array.dtype}")
        if np.size(array) != 1:
            raise self._error(f"{what} must be one value, it has shape {list(np.shape(array))}")
        return np.asarray(array).reshape(())[()]


class IfFlow(ControlFlow):
    """If: one of two bodies without inputs of their own."""

    def __init__(self, node: ir.Node, opsets: Mapping[str, int], compile_body: Compile):
        """Prepare both branches of `node`."""
        super().__init__(node, opsets, compile_body)
        self._last: Body | None = None
        for name in ("then_branch", "else_branch"):
            if name not in self.bodies or self.bodies[name].inputs:
                raise self._error(f"{name} must be a graph without inputs")

    def run(
        self, values: Mapping[str, Any], *, timed: bool = False, taken: Taken | None = None
    ) -> Made:
        """Run the branch that the condition chooses."""
        condition = bool(self._one(values[self._inputs[0] or ""], "the condition"))
        if taken is not None:
            taken[self.node.name or ""] = condition
        self._last = self.bodies["then_branch" if condition else "else_branch"]
        return self._last.run((), values, timed=timed, taken=taken)

    def ran(self) -> list[Body]:
        """Return the branch that was taken last."""
        return [] if self._last is None else [self._last]


class LoopFlow(ControlFlow):
    """Loop: as often as the trip count and the condition say."""

    def __init__(self, node: ir.Node, opsets: Mapping[str, int], compile_body: Compile):
        """Prepare the body of `node`, and see what decides how often it runs."""
        super().__init__(node, opsets, compile_body)
        self._body = self.bodies["body"]
        graph = self._body.graph
        self._states = max(0, len(node.inputs) - 2)
        self._scans = len(graph.outputs) - 1 - self._states
        if self._scans < 0 or len(graph.inputs) != self._states + 2:
            raise self._error("its body does not have the inputs and outputs of a loop's")
        # Whether an iteration that changes no state is the last one that could.
        self._repeats = self._scans == 0 and not graph.inputs[0].uses() and not is_random(graph)
        self._only_counts = _passes_on(graph.outputs[0], graph.inputs[1])

    def run(
        self, values: Mapping[str, Any], *, timed: bool = False, taken: Taken | None = None
    ) -> Made:
        """Run the body until the trip count is reached or the condition is false."""
        operands = [*self._operands(values), None, None]  # both may be left out at the end
        trips = None if operands[0] is None else int(self._one(operands[0], "the trip count"))
        condition = True if operands[1] is None else bool(self._one(operands[1], "the condition"))
        state = operands[2 : 2 + self._states]
        kept = _Kept(self._scans, self._error)
        times = _Times(timed)
        number = 0
        while condition and (trips is None or number < trips):
            before = state
            given = (np.array(number, np.int64), np.array(condition), *state)
            made, spent = self._body.run(given, values, timed=timed)
            times.add(spent)
            condition = bool(self._one(made[0], "the condition"))
            state = made[1 : 1 + self._states]
            kept.add(made[1 + self._states :])
            number += 1
            if number == 1 and trips is not None and self._only_counts and condition:
                kept.foresee(trips)
            if self._repeats and condition and _same(before, state):
                if trips is None:
                    raise self._error("it never ends: its state no longer changes")
                break  # every further iteration would do the same once more
        if number == 0 and self._scans:
            given = (np.array(0, np.int64), np.array(True), *state)
            kept.learn(self._once(given, values), 1 + self._states)
        return [*state, *kept.stacked(self._body.graph.outputs[1 + self._states :])], times.all()


class ScanFlow(ControlFlow):
    """Scan: one iteration for each slice of the scanned inputs."""

    def __init__(self, node: ir.Node, opsets: Mapping[str, int], compile_body: Compile):
        """Prepare the body of `node` and read along which axes it scans."""
        super().__init__(node, opsets, compile_body)
        self._body = self.bodies["body"]
        scanned = node.attributes.get_int("num_scan_inputs", 0)
        self._states = len(node.inputs) - scanned
        kept = len(self._body.graph.outputs) - self._states
        if scanned < 1 or self._states < 0 or kept < 0:
            raise self._error("num_scan_inputs does not fit its inputs and its body's outputs")
        if len(self._body.graph.inputs) != len(node.inputs):
            raise self._error("its body must have as many inputs as it has itself")

        def listed(name: str, size: int) -> Sequence[int]:
            attribute = node.attributes.get(name)
            numbers = [0] * size if attribute is None else list(attribute.as_ints())
            if len(numbers) != size:
                raise self._error(f"{name} holds {len(numbers)} numbers, not {size}")
            return numbers

        self._axes = listed("scan_input_axes", scanned)
        self._backward = listed("scan_input_directions", scanned)
        self._output_axes = listed("scan_output_axes", kept)
        self._output_backward = listed("scan_output_directions", kept)

    def run(
        self, values: Mapping[str, Any], *, timed: bool = False, taken: Taken | None = None
    ) -> Made:
        """Run the body once for each slice."""
        operands = self._operands(values)
        state, scanned = operands[: self._states], operands[self._states :]
        slices = []
        for array, axis, backward in zip(scanned, self._axes, self._backward, strict=True):
            if not -np.ndim(array) <= axis < np.ndim(array):
                raise self._error(f"axis {axis} of an input of shape {list(np.shape(array))}")
            turned = np.ascontiguousarray(np.moveaxis(np.asarray(array), axis, 0))
            slices.append(turned[::-1] if backward else turned)
        lengths = {len(part) for part in slices}
        if len(lengths) != 1:
            raise self._error(f"its scanned inputs have different lengths: {sorted(lengths)}")
        kept = _Kept(len(self._output_axes), self._error)
        times = _Times(timed)
        for number in range(lengths.pop()):
            given = (*state, *(part[number] for part in slices))
            made, spent = self._body.run(given, values, timed=timed)
            times.add(spent)
            state = made[: self._states]
            kept.add(made[self._states :])
        if slices[0].shape[0] == 0:
            given = (*state, *(np.zeros(part.shape[1:], part.dtype) for part in slices))
            kept.learn(self._once(given, values), self._states)
        outputs = kept.stacked(self._body.graph.outputs[self._states :])
        for i, (axis, backward) in enumerate(
            zip(self._output_axes, self._output_backward, strict=True)
        ):
            if not -outputs[i].ndim <= axis < outputs[i].ndim:
                raise self._error(f"axis {axis} of an output of rank {outputs[i].ndim}")
            ordered = outputs[i][::-1] if backward else outputs[i]
            outputs[i] = np.ascontiguousarray(np.moveaxis(ordered, 0, axis))
        return [*state, *outputs], times.all()


FLOWS: Mapping[str, type[ControlFlow]] = {"If": IfFlow, "Loop": LoopFlow, "Scan": ScanFlow}


class _Kept:
    """What a loop keeps of every iteration."""

    def __init__(self, count: int, error: Callable[[str], InputError]):
        self._parts: list[list[np.ndarray]] = [[] for _ in range(count)]
        self._like: list[np.ndarray] = []
        self._bytes, self._last = 0, 0
        self._most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._error = error

    def add(self, made: Sequence[Any]) -> None:
        self._last = sum(array.nbytes + _OBJECT for array in made)
        self._bytes += self._last
        if self._bytes > self._most:
            raise self._error("what its iterations make is larger than this machine's memory")
        for parts, array in zip(self._parts, made, strict=True):
            if parts and parts[0].shape != array.shape:
                raise self._error(
                    f"an iteration made {list(array.shape)} where the first one made "
                    f"{list(parts[0].shape)}"
                )
            parts.append(array)

    def foresee(self, iterations: int) -> None:
        if self._last * iterations > self._most:
            raise self._error(
                f"what {iterations} iterations make is larger than this machine's memory"
            )

    def learn(self, made: Sequence[Any], first: int) -> None:
        """Remember element types and shapes of what an iteration would have made."""
        self._like = list(made[first:])

    def stacked(self, declared: Sequence[ir.Value]) -> list[np.ndarray]:
        """Return each list as one array; an empty one where there was no iteration."""
        if self._like:
            return [np.empty((0, *array.shape), array.dtype) for array in self._like]
        return [
            np.stack(parts) if parts else _empty(value)
            for parts, value in zip(self._parts, declared, strict=True)
        ]


def _empty(declared: ir.Value) -> np.ndarray:
    dtype = np.float32 if declared.dtype is None else declared.dtype.numpy()
    sizes = [] if declared.shape is None else list(declared.shape)
    return np.empty([0, *(size if isinstance(size, int) else 0 for size in sizes)], dtype)


class _Times:
    """The time of each inner step, summed over the iterations that had the same steps."""

    def __init__(self, timed: bool):
        self._timed = timed
        self._sums: Timed = []

    def add(self, spent: Timed) -> None:
        if not self._timed:
            return
        if not self._sums:
            self._sums = list(spent)
        elif len(spent) == len(self._sums):
            pairs = zip(self._sums, spent, strict=True)
            self._sums = [(row, total + own) for (_, total), (row, own) in pairs]

    def all(self) -> Timed:
        return self._sums


def _passes_on(output: ir.Value, condition: ir.Value) -> bool:
    """Return whether a body's condition is the one that comes in, or always true."""
    array = constant_array(output)
    if array is not None:
        return array.size == 1 and bool(array.reshape(()))
    producer = output.producer()
    while is_operator(producer, "Identity") and producer is not None:
        source = producer.inputs[0]
        if source is None:
            return False
        array = constant_array(source)
        if array is not None:
            return array.size == 1 and bool(array.reshape(()))
        output, producer = source, source.producer()
    return output is condition


def _same(before: Sequence[Any], after: Sequence[Any]) -> bool:
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape or old.dtype != new.dtype or new.nbytes > _FEW_BYTES:
            return False
        if old.tobytes() != new.tobytes():
            return False
    return True
