"""The body of an If, Loop or Scan as a model of its own, compiled like any other.

outer a ──┐
input i ──┼► body ──► outputs       what the body reads from outside becomes an input
outer w ──┘                         (a constant from outside: a constant inside)
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from lowprec.engine.lower import is_constant
from lowprec.passes.inline_branches import captured_values

if TYPE_CHECKING:
    from lowprec.engine.explanation import StepRow
    from lowprec.engine.session import Session

MOST_NUMBERS = 64
"""Bytes of an integer or boolean tensor that may decide an If (decisions.py)."""
FEW_NUMBERS = "lowprec.few_numbers"
"""Mark in `ir.Value.meta`: an input without a declared shape that held few numbers."""
CAPTURED = "lowprec.captured"
"""Mark in `ir.Value.meta`: an input that is a value of the graph outside, observed there."""

Compile = Callable[[ir.Model], "Session"]
Timed = list[tuple["StepRow", float]]


class Body:
    """One body: compiled when it first runs, for the element types it then sees.

    Attributes:
        graph: The body.
        inputs: Names of its own inputs, in order.
        captured: Names of what it reads from outside, in order.
    """

    def __init__(self, graph: ir.Graph, opsets: Mapping[str, int], compile_body: Compile):
        """Describe `graph`; `compile_body` makes a session of a model."""
        self.graph = graph
        self.inputs = [value.name or "" for value in graph.inputs]
        values = captured_values(graph)
        self._variables = [value for value in values if not is_constant(value)]
        self._constants = [value for value in values if is_constant(value)]
        self.captured = [value.name or "" for value in self._variables]
        self._opsets = dict(opsets)
        self._compile = compile_body
        self._lock = threading.Lock()
        self.session: Session | None = None
        _bodies.add(self)

    def run(
        self,
        given: Sequence[Any],
        outer: Mapping[str, Any],
        *,
        timed: bool = False,
        taken: dict[str, bool] | None = None,
    ) -> tuple[list[Any], Timed]:
        """Return the outputs, and the time of each step where `timed`.

        Args:
            given: The body's own inputs, in order.
            outer: Everything that it reads from outside, by name.
            timed: Whether to time the steps.
            taken: Takes which way the Ifs in the body went, by name.
        """
        feeds = dict(zip(self.inputs, given, strict=True))
        for name in self.captured:
            feeds[name] = outer[name]
        if self.session is None:
            with self._lock:
                if self.session is None:
                    self.session = self._compile(self._model(feeds))
        return self.session._run(feeds, timed=timed, taken=taken)

    def _model(self, feeds: Mapping[str, np.ndarray]) -> ir.Model:
        view = ir.GraphView(
            inputs=[*self.graph.inputs, *self._variables],
            outputs=list(self.graph.outputs),
            nodes=list(self.graph),
            initializers=[*self.graph.initializers.values(), *self._constants],
            opset_imports=self._opsets,
            name=self.graph.name,
        )
        model = ir.Model(view.clone(), ir_version=10)
        for value in model.graph.inputs:
            # Element types are fixed, shapes may change from run to run, whatever is declared.
            array = np.asarray(feeds[value.name or ""])
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = None
            if array.nbytes <= MOST_NUMBERS:
                value.meta[FEW_NUMBERS] = True
            if value.name in self.captured:
                value.meta[CAPTURED] = True
        return model


def _renew_locks() -> None:
    for body in _bodies:
        body._lock = threading.Lock()


_bodies: weakref.WeakSet[Body] = weakref.WeakSet()
os.register_at_fork(after_in_child=_renew_locks)
