"""Extremes and moments of every channel of a tensor, observed on a few feeds.

The reductions are part of the graph that runs, so no activation is ever copied out of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from lowprec.engine import Session, compile_model
from lowprec.graph.constants import add_constant
from lowprec.passes.matching import NameSource

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ChannelMoments:
    """What was seen of a tensor, by channel; every array is f64 of shape (channels,), real units.

    Attributes:
        lowest: Smallest value of all feeds.
        highest: Largest value of all feeds.
        mean: Average of the feeds' means.
        square: Average of the feeds' mean squares.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest magnitude."""
        return np.maximum(np.abs(self.lowest), np.abs(self.highest))

    def affine(
        self, factor: NDArray[np.float64], shift: NDArray[np.float64] | float = 0.0
    ) -> ChannelMoments:
        """Return the moments of `factor * x + shift`, factors being positive."""
        mean = factor * self.mean + shift
        variance = np.maximum(self.square - self.mean**2, 0) * factor**2
        return ChannelMoments(
            factor * self.lowest + shift, factor * self.highest + shift, mean, mean**2 + variance
        )


@dataclass(frozen=True)
class ChannelAxis:
    """Where the channels of a value are.

    Attributes:
        name: The value, of the main graph.
        channels: How many.
        rank: Of an image or a sequence, whose channels are along axis 1; None where they are along
            the last axis, whatever the rank.
    """

    name: str
    channels: int
    rank: int | None

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape of a constant by channel that meets the value in a binary operator."""
        if self.rank is None:
            return (self.channels,)
        return (self.channels,) + (1,) * (self.rank - 2)


class Probe:
    """A copy of a graph that computes reductions of its values instead of its outputs.

    Args:
        model: Not changed.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model.clone()
        self._values = {value.name: value for value in self._model.graph.inputs}
        for node in self._model.graph:
            self._values.update({value.name: value for value in node.outputs})
        self._names = NameSource(self._model)
        self._outputs: list[ir.Value] = []

    def add_moments(self, axis: ChannelAxis) -> None:
        """Ask for the extremes and moments of a value by channel."""
        value = self._rows(axis)
        square = self._node("Mul", [value, value])
        for op_type, source in (
            ("ReduceMin", value),
            ("ReduceMax", value),
            ("ReduceMean", value),
            ("ReduceMean", square),
        ):
            self._reduce(op_type, source, axis)

    def add_mean(self, axis: ChannelAxis) -> None:
        """Ask for the mean of a value by channel."""
        self._reduce("ReduceMean", self._rows(axis), axis)

    def add_recentred(self, axis: ChannelAxis) -> str:
        """Ask for the mean of a value by channel, and shift it so that its mean is what is fed.

        Returns:
            The name of the input, shape (channels,), that holds the mean to have.
        """
        value = self._values[axis.name]
        uses = list(value.uses())
        self._reduce("ReduceMean", self._rows(axis), axis)
        wanted = ir.Value(
            name=self._names.fresh("probe_mean"),
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape([axis.channels]),
        )
        self._model.graph.inputs.append(wanted)
        shift = self._node("Sub", [wanted, self._outputs[-1]])
        if len(axis.broadcast) > 1:
            shape = np.array(axis.broadcast, np.int64)
            constant = add_constant(self._model.graph, self._names.fresh("probe_shape"), shape)
            shift = self._node("Reshape", [shift, constant])
        moved = self._node("Add", [value, shift])
        for use in uses:
            use.node.replace_input_with(use.idx, moved)
        return wanted.name or ""

    def add_value(self, name: str) -> None:
        """Ask for the value `name` itself."""
        copy = self._node("Identity", [self._values[name]])
        self._outputs.append(copy)

    def compile(self) -> Session:
        """Return a session whose outputs are what was asked for, in order."""
        self._model.graph.outputs[:] = self._outputs
        RemoveUnusedNodesPass()(self._model)
        self._model.graph.sort()
        return compile_model(self._model)

    def _rows(self, axis: ChannelAxis) -> ir.Value:
        """Return the value, as a matrix where its rank is not known."""
        value = self._values[axis.name]
        if axis.rank is not None:
            return value
        shape = np.array([-1, axis.channels], np.int64)
        constant = add_constant(self._model.graph, self._names.fresh("probe_shape"), shape)
        return self._node("Reshape", [value, constant])

    def _reduce(self, op_type: str, source: ir.Value, axis: ChannelAxis) -> None:
        axes = np.array([i for i in range(axis.rank or 2) if i != 1], np.int64)
        constant = add_constant(self._model.graph, self._names.fresh("probe_axes"), axes)
        self._outputs.append(self._node(op_type, [source, constant], {"keepdims": 0}))

    def _node(
        self, op_type: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        (output,) = node.outputs
        node.name = output.name = self._names.fresh("probe")
        output.type = ir.TensorType(ir.DataType.FLOAT)
        self._model.graph.append(node)
        return output


def fed(session: Session, feed: Feed) -> dict[str, NDArray[Any]]:
    """Return the part of `feed` that `session` takes: a probe may need fewer inputs."""
    return {info.name: feed[info.name] for info in session.inputs}


def observe_moments(
    model: ir.Model, wanted: Sequence[ChannelAxis], feeds: Iterable[Feed]
) -> list[ChannelMoments]:
    """Return the moments of values by channel.

    Args:
        model: Float hub, not changed.
        wanted: Values of its main graph.
        feeds: At least one.
    """
    if not wanted:
        return []
    probe = Probe(model)
    for axis in wanted:
        probe.add_moments(axis)
    session = probe.compile()
    count = 0
    sums: list[list[NDArray[np.float64]]] = []
    for feed in feeds:
        found = [np.asarray(array, np.float64) for array in session.run(fed(session, feed))]
        rows = [found[4 * i : 4 * i + 4] for i in range(len(wanted))]
        if not sums:
            sums = rows
        else:
            sums = [
                [np.minimum(a[0], b[0]), np.maximum(a[1], b[1]), a[2] + b[2], a[3] + b[3]]
                for a, b in zip(sums, rows, strict=True)
            ]
        count += 1
    return [ChannelMoments(low, high, mean / count, sq / count) for low, high, mean, sq in sums]
