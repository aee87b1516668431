"""Sequences with steps that do not count: what counts is moved to the front, and back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.translator import Translator

_FAR = np.iinfo(np.int64).max


class Steps:
    """The steps that count, of each sequence of a batch.

    Attributes:
        lengths: How many there are, int32, one for each sequence.
    """

    def __init__(self, translator: Translator, name: str, mask: ir.Value) -> None:
        """Start.

        Args:
            translator: Takes the nodes.
            name: Of the loop.
            mask: Boolean [steps, batch, 1].
        """
        self._translator, self._name, self._mask = translator, name, mask
        number = self._emit("Cast", mask, to=int(ir.DataType.INT32))
        counted = self._emit("CumSum", number, self._number(0))
        self._place = self._emit("Sub", counted, self._number(1, np.int32))  # -1: none so far
        total = self._emit("ReduceSum", number, self._numbers(0, 2), keepdims=0)
        self.lengths = total
        # Steps that count sort before all others, each kind in its order.
        steps = self._emit("Shape", mask, start=0, end=1)
        flat = self._emit("Squeeze", steps)
        numbers = self._emit("Range", self._number(0), flat, self._number(1))
        column = self._emit("Unsqueeze", numbers, self._numbers(1, 2))
        later = self._emit("Add", column, flat)
        key = self._emit("Where", mask, column, later)
        order = self._translator.emit(
            "TopK",
            [key, steps],
            {"axis": 0, "largest": 0, "sorted": 1},
            name=f"{name}/order",
            outputs=2,
        ).producer()
        assert order is not None
        self._order = order.outputs[1]

    def gathered(self, sequence: ir.Value) -> ir.Value:
        """Return [steps, batch, size] with what counts in front."""
        return self._rows(sequence, self._order)

    def spread(self, output: ir.Value, zeros: bool) -> ir.Value:
        """Return the output of each step from that of the steps that count.

        Args:
            output: [steps, batch, size], what counts in front.
            zeros: Whether a step that does not count gives zeros, else the last one that did; there
                are zeros before the first.
        """
        place = self._emit("Max", self._place, self._number(0, np.int32))
        whole = self._rows(output, self._emit("Cast", place, to=int(ir.DataType.INT64)))
        has = self._emit("GreaterOrEqual", self._place, self._number(0, np.int32))
        return self._emit("Where", self._mask if zeros else has, whole, self._zero())

    def where_any(self, last: ir.Value) -> ir.Value:
        """Return [batch, size] with zeros for sequences of which no step counts."""
        some = self._emit("Greater", self.lengths, self._number(0, np.int32))
        column = self._emit("Unsqueeze", some, self._numbers(1))
        return self._emit("Where", column, last, self._zero())

    def last(self, last: ir.Value) -> ir.Value:
        """Return [batch, size] with zeros for sequences whose last step does not count."""
        at = self._numbers(-1)
        only = self._emit("Squeeze", self._emit("Gather", self._mask, at, axis=0), self._numbers(0))
        return self._emit("Where", only, last, self._zero())

    def _rows(self, sequence: ir.Value, order: ir.Value) -> ir.Value:
        shape = self._emit("Shape", sequence)
        whole = self._emit("Expand", order, shape)
        return self._emit("GatherElements", sequence, whole, axis=0)

    def _zero(self) -> ir.Value:
        return self._translator.new_constant(np.zeros((), np.float32), f"{self._name}/zero")

    def _number(self, number: int, dtype: type = np.int64) -> ir.Value:
        return self._translator.new_constant(np.asarray(number, dtype), f"{self._name}/number")

    def _numbers(self, *numbers: int) -> ir.Value:
        return self._translator.new_constant(np.asarray(numbers, np.int64), f"{self._name}/axes")

    def _emit(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = f"{self._name}/steps_{op_type}"
        return self._translator.emit(op_type, inputs, attributes, name=name)


def reversed_in_time(translator: Translator, name: str, sequence: ir.Value) -> ir.Value:
    """Return a sequence with its steps, axis 0, in the opposite order."""
    bounds = [
        translator.new_constant(np.asarray([number], np.int64), f"{name}/{what}")
        for what, number in (("starts", -1), ("ends", -_FAR), ("axes", 0), ("steps", -1))
    ]
    return translator.emit("Slice", [sequence, *bounds], name=f"{name}/reversed")
