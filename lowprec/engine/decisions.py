"""Ifs whose condition follows from the shapes of what is fed: decided once, then gone.

    run 1  x [1, 576]   If by If, in Python between the bodies; which way each one went is noted
    run 2  x [1, 576]   the graph with those Ifs replaced by their branches is compiled: one segment

A condition is decided when it is computed from shapes, constants and a few fed integers or booleans
(a sampling rate, a mode): the shapes and these numbers are the key. Shapes that come from data
(NonZero, a Reshape to computed sizes, the outputs of an If that is still there) decide nothing.
The decided graph gives the bits of the undecided one. Fusing float operators keeps bits; a layer on
codes whose result is quantised next is rounded once instead of twice, so where there are codes or
16-bit floats nothing is fused across what was the border of a branch.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from lowprec.engine.bodies import FEW_NUMBERS, MOST_NUMBERS, Compile
from lowprec.engine.lower import CONTENTS_NEEDED, NATIVE_DOMAINS, SHAPE_READERS, is_constant
from lowprec.passes.inline_branches import graphs_of, inline_branches
from lowprec.passes.matching import is_operator
from lowprec.passes.own import remove_dead_nodes
from lowprec.passes.remove_identity import remove_identity

if TYPE_CHECKING:
    from lowprec.engine.session import Session

KEYS_KEPT = 256
SESSIONS_KEPT = 8
# What these make has a shape, or contents, that no input's shape tells.
_SURPRISING = frozenset(
    {
        "Bernoulli",
        "Compress",
        "Dropout",
        "Multinomial",
        "NonMaxSuppression",
        "NonZero",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Unique",
    }
)
_NUMBERS = (
    ir.DataType.BOOL,
    ir.DataType.INT8,
    ir.DataType.INT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.UINT8,
)

_HALF_FLOATS = (int(ir.DataType.FLOAT16), int(ir.DataType.BFLOAT16))

Dependencies = frozenset[str] | None  # inputs whose numbers matter; None: the data itself does
Key = tuple[Any, ...]
_NOTHING: frozenset[str] = frozenset()


def decided_ifs(graph: ir.Graph) -> dict[str, frozenset[str]]:
    """Return the Ifs of `graph`, not of its bodies, that shapes decide.

    Returns:
        Name of the If -> the inputs whose numbers matter beside the shapes.
    """
    contents: dict[ir.Value, Dependencies] = {}
    shapes: dict[ir.Value, Dependencies] = {}
    for value in graph.inputs:
        contents[value] = frozenset([value.name or ""]) if _has_few_numbers(value) else None
        shapes[value] = _NOTHING

    def known(table: Mapping[ir.Value, Dependencies], value: ir.Value | None) -> Dependencies:
        return _NOTHING if value is None or is_constant(value) else table.get(value)

    decided = {}
    for node in graph:
        own_contents: Dependencies = None
        own_shape: Dependencies = None
        if is_operator(node, "If"):
            condition = known(contents, node.inputs[0])
            if condition is not None and node.name:
                decided[node.name] = condition
        elif (
            node.domain in NATIVE_DOMAINS
            and node.op_type not in _SURPRISING
            and not graphs_of(node)
        ):
            needed = CONTENTS_NEEDED.get(node.op_type, ())
            own_shape = _union(
                [known(shapes, value) for value in node.inputs]
                + [known(contents, node.inputs[i]) for i in needed if i < len(node.inputs)]
            )
            if node.op_type in SHAPE_READERS:
                own_contents = own_shape
            else:
                own_contents = _union([known(contents, value) for value in node.inputs])
        for output in node.outputs:
            contents[output], shapes[output] = own_contents, own_shape
    return decided


def _union(parts: Iterable[Dependencies]) -> Dependencies:
    whole = _NOTHING
    for part in parts:
        if part is None:
            return None
        whole |= part
    return whole


def _has_few_numbers(value: ir.Value) -> bool:
    if value.dtype not in _NUMBERS:
        return False
    if value.shape is None:
        return FEW_NUMBERS in value.meta
    return all(isinstance(size, int) and size <= MOST_NUMBERS // 8 for size in value.shape) and (
        len(value.shape) <= 1
    )


def _rounds(model: ir.Model) -> bool:
    """Return whether something in `model` is not f32: fusing may then round less often."""
    return any(
        "Quantize" in node.op_type
        or "Integer" in node.op_type
        or node.op_type.startswith("QLinear")
        or (is_operator(node, "Cast") and node.attributes.get_int("to", 1) in _HALF_FLOATS)
        for node in model.graph.all_nodes()
    )


@dataclass
class _Outcome:
    taken: dict[str, bool]
    session: Session | None = None


class Decisions:
    """What the Ifs of one graph decided, and sessions without them."""

    def __init__(self, model: ir.Model, compile_decided: Compile):
        """Look at the Ifs of `model`, which is not changed."""
        self._model = model
        self._compile = compile_decided
        decided = decided_ifs(model.graph)
        self.any = bool(decided)
        self._numbers = sorted(set().union(*decided.values())) if decided else []
        self._outcomes: OrderedDict[Key, _Outcome] = OrderedDict()
        self._sessions: OrderedDict[frozenset[tuple[str, bool]], Session] = OrderedDict()
        self._lock = threading.Lock()
        _all.add(self)

    def key(self, feeds: Mapping[str, Any]) -> Key | None:
        """Return what decides: shapes, element types, a few numbers; None for feeds too large."""
        if not all(isinstance(array, np.ndarray) for array in feeds.values()):
            return None
        numbers = [feeds[name] for name in self._numbers]
        if any(array.nbytes > MOST_NUMBERS for array in numbers):
            return None
        return (
            *((array.shape, array.dtype.char) for array in feeds.values()),
            *(array.tobytes() for array in numbers),
        )

    def note(self, key: Key, taken: dict[str, bool]) -> None:
        """Remember which way every If went, those in the bodies that ran included."""
        with self._lock:
            self._outcomes[key] = _Outcome(taken)
            if len(self._outcomes) > KEYS_KEPT:
                self._outcomes.popitem(last=False)

    def outcome(self, key: Key) -> tuple[Session, dict[str, bool]] | None:
        """Return the session without Ifs and what it decided; None where `key` is new."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            return None
        if outcome.session is None:
            with self._lock:
                if outcome.session is None:
                    outcome.session = self._session(outcome.taken)
        return outcome.session, outcome.taken

    def _session(self, taken: Mapping[str, bool]) -> Session:
        model = self._model.clone()
        used: dict[str, bool] = {}
        borders = _rounds(model)
        while True:
            here = {n: taken[n] for n in decided_ifs(model.graph) if n in taken}
            if not here:
                break
            used.update(here)
            # What was inside is on top now, and looked at again.
            inline_branches(model, here, keep_borders=borders)
            if not borders:
                remove_identity(model)
        signature = frozenset(used.items())
        session = self._sessions.get(signature)
        if session is None:
            remove_dead_nodes(model)
            session = self._sessions[signature] = self._compile(model)
            if len(self._sessions) > SESSIONS_KEPT:
                self._sessions.popitem(last=False)
        return session


def _renew_locks() -> None:
    for decisions in _all:
        decisions._lock = threading.Lock()


_all: weakref.WeakSet[Decisions] = weakref.WeakSet()
os.register_at_fork(after_in_child=_renew_locks)
