"""Loops whose iterations are recurrent cells, as ONNX's operators: LSTM, GRU and RNN.

    x, mask ─► While ─► y, h        becomes        x ─► LSTM ─► y, h

A mask holds the states wherever it is false. So the steps that count are moved to the front, the
operator runs over so many of them (sequence_lens), and each step of the result is that of the last
step that counted: exact for any mask, wherever its gaps are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.cells import Cell, Cells
from lowprec.adapters.tensorflow.formulas import Choice, Formula, Formulas, Leaf, UnknownError
from lowprec.adapters.tensorflow.lists import FilledList, TensorList
from lowprec.adapters.tensorflow.loops import (
    Loop,
    counted_tensor,
    reversal,
    unreversed,
    with_counters,
    writes_last_only,
)
from lowprec.adapters.tensorflow.masks import Steps, reversed_in_time

_FAR = np.iinfo(np.int64).max


def recurrent_operators(loop: Loop) -> list[Any] | None:
    """Return what a While makes of its variables, by recurrent operators; None if it is no cells.

    Args:
        loop: The While, its body translated.
    """
    if not loop.trips or not loop.states:
        return None
    try:
        made = _emitted(_Plan(loop))
    except UnknownError:
        return None
    if made is not None:
        for node in loop.inner.nodes:  # left behind: they no longer read the cells' constants
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
    return made


class _Plan:
    """How the variables of a loop follow from its cells.

    Attributes:
        cells: Each after those that it reads.
        mask: One entry of the mask, as the body reads it; None without one.
        copies: States that hold the last output, and of which cell.
        zeroed: Those of them that are zero where the mask is false.
        lists: What is written into each list: its cell, and what stands for steps that do not
            count: None for the last one that did, else zeros.
    """

    def __init__(self, loop: Loop) -> None:
        """Find the cells.

        Raises:
            UnknownError: the loop is more than cells.
        """
        self.loop = loop
        self.formulas = Formulas(set(loop.inner.nodes))
        self.mask: ir.Value | None = None
        self.zeroed: set[int] = set()
        after = {k: self._state(k) for k in loop.states}
        before = {k: loop.inputs[k] for k in loop.states if k not in self.zeroed}
        self.cells = Cells(self.formulas, before, after, self.is_sequence)
        found = self.cells.search()
        taken = {state for cell in found for state in cell.states}
        self.copies = {k: self._cell(after[k]) for k in loop.states if k not in taken}
        self.lists = {k: self._filled(k) for k in loop.filled}
        if not found or not self._has_sound_mask():
            raise UnknownError

    def _has_sound_mask(self) -> bool:
        return self.mask is None or self.is_sequence(self.mask)

    def is_sequence(self, value: ir.Value) -> bool:
        """Return whether a value is the entry of a list that belongs to the iteration."""
        node = value.producer()
        if node is None or node.op_type != "Gather" or not self.formulas.made_here(value):
            return False
        items, index = node.inputs
        times = list(self.loop.time.values())
        return items is not None and not self.formulas.made_here(items) and index in times

    def _state(self, variable: int) -> Formula:
        """Return what an iteration makes of a state, the mask left out."""
        made = self.loop.made(variable)
        if not isinstance(made, ir.Value):
            raise UnknownError
        formula = self.formulas.of(made)
        choice = self.formulas.single(formula)
        if not isinstance(choice, Choice):
            if self.mask is not None:
                raise UnknownError
            return formula
        if self._is_zero(choice.no):
            self.zeroed.add(variable)
        elif self._leaf(choice.no) is not self.loop.inputs[variable]:
            raise UnknownError
        self._masked_by(choice, variable)
        return choice.yes

    def _masked_by(self, choice: Choice, variable: int) -> None:
        if self.mask is not None and choice.condition is not self.mask:
            raise UnknownError
        if self.mask is None and variable != self.loop.states[0]:
            raise UnknownError  # a state before it has no mask
        self.mask = choice.condition

    def _cell(self, formula: Formula) -> Cell:
        for cell in self.cells.found:
            if cell.output == formula:
                return cell
        raise UnknownError

    def _filled(self, variable: int) -> tuple[Cell, bool]:
        """Return whose output a list holds, and whether it is zero where the mask is false."""
        made = self.loop.made(variable)
        if not isinstance(made, FilledList) or not isinstance(made.item, ir.Value):
            raise UnknownError
        if made.index not in self.loop.time.values() and not writes_last_only(self.loop, variable):
            raise UnknownError
        formula = self.formulas.of(made.item)
        if self.mask is None:
            return self._cell(formula), False
        choice = self.formulas.single(formula)
        if not isinstance(choice, Choice) or choice.condition is not self.mask:
            raise UnknownError
        cell = self._cell(choice.yes)
        if self._is_zero(choice.no):
            return cell, True
        held = [k for k in self.copies if self._leaf(choice.no) is self.loop.inputs[k]]
        if not held or held[0] in self.zeroed or self.copies[held[0]] is not cell:
            raise UnknownError
        return cell, False

    def _leaf(self, formula: Formula) -> ir.Value | None:
        leaf = self.formulas.single(formula)
        return leaf.value if isinstance(leaf, Leaf) else None

    def _is_zero(self, formula: Formula) -> bool:
        value = self._leaf(formula)
        return not formula or (value is not None and is_zero(value))


def is_zero(value: Any) -> bool:
    """Return whether a value is zeros of some shape."""
    if not isinstance(value, ir.Value):
        return not np.any(value)
    node = value.producer()
    if node is not None and node.op_type == "Expand":
        source = node.inputs[0]
        return source is not None and is_zero(source)
    return value.const_value is not None and not value.const_value.numpy().any()


def _emitted(plan: _Plan) -> list[Any] | None:
    """Write the operators, and return what the variables are after the loop."""
    loop = plan.loop
    translator, name = loop.translator, loop.node.name
    if any(not is_zero(loop.outer[k]) for k in plan.copies):
        return None
    steps = None if plan.mask is None else Steps(translator, name, _sequence(loop, plan.mask, True))
    outputs: dict[int, ir.Value] = {}  # by the cell's id: [steps, batch, hidden]
    made: list[Any] = list(loop.outer)
    lasts: dict[int, ir.Value] = {}
    backward = _backward(plan)
    for cell in plan.cells.found:
        before = plan.cells.source_cell(cell.source)
        if before is not None:
            source = outputs[id(before)]
        else:
            source = _sequence(loop, cell.source, False)
            if backward:
                found = reversal(source)
                assert found is not None
                source = found[0]
            if steps is not None:
                source = steps.gathered(source)
        starts = [_start(loop, state) for state in cell.states]
        lengths = None if steps is None else steps.lengths
        output, *ends = _operator(loop, cell, source, lengths, starts, backward)
        outputs[id(cell)] = output
        lasts[id(cell)] = ends[0]
        for state, end in zip(cell.states, ends, strict=True):
            made[state] = end
    for variable, cell in plan.copies.items():
        last = lasts[id(cell)]
        if steps is None:
            made[variable] = last
        else:
            zeroed = variable in plan.zeroed
            made[variable] = steps.last(last) if zeroed else steps.where_any(last)
    for variable, (cell, zeros) in plan.lists.items():
        made[variable] = _list(
            loop, variable, outputs[id(cell)], lasts[id(cell)], steps, zeros, backward
        )
    return [*with_counters(loop, made)]


def _backward(plan: _Plan) -> bool:
    """Return whether all that the loop reads is reversed, so that the operator may go backwards."""
    if plan.mask is not None:
        return False
    sources = [cell.source for cell in plan.cells.found if plan.is_sequence(cell.source)]
    found = [reversal(_sequence(plan.loop, source, False)) for source in sources]
    return all(one is not None and one[1] == [0] for one in found)


def _sequence(loop: Loop, entry: ir.Value, always: bool) -> ir.Value:
    """Return the tensor of which an iteration reads one entry, cut to what the loop reads.

    Args:
        loop: The loop.
        entry: What the body reads of it.
        always: Whether it is cut even where it surely has the loop's length.
    """
    node = entry.producer()
    items = None if node is None else node.inputs[0]
    assert items is not None
    lists = [found for found in loop.outer if isinstance(found, TensorList)]
    whole = any(
        loop.runs_through(found) and _is_items(found, items) for found in lists
    ) or _counted(loop, items)
    if whole:
        return items
    translator, name = loop.translator, loop.node.name
    zero, one, axis = (
        translator.new_constant(np.asarray([number], np.int64), f"{name}/cut")
        for number in (0, 1, 0)
    )
    end = translator.emit("Reshape", [loop.count(), one], name=f"{name}/end")
    return translator.emit("Slice", [items, zero, end, axis], name=f"{name}/cut")


def _is_items(found: TensorList, items: ir.Value) -> bool:
    return found.items is items


def _counted(loop: Loop, items: ir.Value) -> bool:
    if len(loop.trips) != 1 or not isinstance(loop.trips[0], ir.Value):
        return False
    counted = counted_tensor(loop.trips[0])
    return counted is not None and counted is unreversed(items)


def _start(loop: Loop, state: int) -> ir.Value | None:
    """Return a state before the first step as ONNX takes it; None for zeros."""
    found = loop.outer[state]
    if is_zero(found):
        return None
    translator, name = loop.translator, loop.node.name
    at = translator.new_constant(np.zeros(1, np.int64), f"{name}/axis")
    value = translator.as_value(found, f"{name}/start")  # type: ignore[arg-type]
    return translator.emit("Unsqueeze", [value, at], name=f"{name}/start")


def _operator(
    loop: Loop,
    cell: Cell,
    source: ir.Value,
    lengths: ir.Value | None,
    starts: Sequence[ir.Value | None],
    backward: bool,
) -> list[ir.Value]:
    """Return a cell's output of all steps, and its last states."""
    translator, name = loop.translator, loop.node.name
    weights, recurrent, bias = (
        translator.new_constant(array[np.newaxis], f"{name}/{what}")
        for array, what in ((cell.weights, "W"), (cell.recurrent, "R"), (cell.bias, "B"))
    )
    attributes: dict[str, Any] = {"hidden_size": cell.recurrent.shape[1], **cell.activations}
    if backward:
        attributes["direction"] = "reverse"
    if cell.before:
        attributes["linear_before_reset"] = 1
    inputs: list[ir.Value | None] = [source, weights, recurrent, bias, lengths, *starts]
    while inputs[-1] is None:
        inputs.pop()
    first = translator.emit(cell.kind, inputs, attributes, name=name, outputs=1 + len(cell.states))
    producer = first.producer()
    assert producer is not None
    axes = [
        translator.new_constant(np.asarray([axis], np.int64), f"{name}/direction")
        for axis in (1, 0)
    ]
    return [
        translator.emit("Squeeze", [value, axes[0 if number == 0 else 1]], name=f"{name}/{what}")
        for number, (value, what) in enumerate(zip(producer.outputs, ("y", "h", "c"), strict=False))
    ]


def _list(
    loop: Loop,
    variable: int,
    output: ir.Value,
    last: ir.Value,
    steps: Steps | None,
    zeros: bool,
    backward: bool,
) -> TensorList:
    """Return the list that the loop fills with a cell's output."""
    translator, name = loop.translator, loop.node.name
    before = loop.outer[variable]
    assert isinstance(before, TensorList)
    if writes_last_only(loop, variable):
        if steps is not None:
            last = steps.last(last) if zeros else steps.where_any(last)
        at = translator.new_constant(np.zeros(1, np.int64), f"{name}/axis")
        only = translator.emit("Unsqueeze", [last, at], name=f"{name}/only")
        return TensorList(before.dtype, before.size, only, before.shape)
    if steps is not None:
        output = steps.spread(output, zeros)
    elif backward:
        output = reversed_in_time(translator, name, output)
    return TensorList(before.dtype, before.size, output, before.shape)
