"""One compiled segment: its programs and plans, and what of the core's errors becomes ours."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lowprec._ext import _core
from lowprec.engine.explanation import StepRow
from lowprec.errors import InputError, IsaError, LowprecError, ThreadsError

if TYPE_CHECKING:
    from lowprec.engine.forms import ProgramForm

# Plans kept per segment: text lines come in every width, and a plan is cheap to make again.
PLANS_KEPT = 32

Array = npt.NDArray[Any]
Allocate = Callable[[int, "tuple[int, ...]", "np.dtype[Any]"], Array]


class _Holder(Protocol):
    _lock: threading.Lock


# What holds a lock: in a forked child, the thread that has taken it may be gone.
_holders: weakref.WeakSet[Any] = weakref.WeakSet()


def with_lock(holder: _Holder) -> None:
    """Give `holder` its lock, and a new one in every forked child."""
    holder._lock = threading.Lock()
    _holders.add(holder)


def _renew_locks() -> None:
    for holder in _holders:
        holder._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


_CORE_ERRORS = (
    _core.IsaUnavailable,
    _core.ThreadCountInvalid,
    _core.EngineError,
    MemoryError,
)


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise the compiled core's errors as ours."""
    try:
        yield
    except _CORE_ERRORS as error:
        raise _as_ours(error) from None


def _as_ours(error: BaseException) -> LowprecError:
    if isinstance(error, _core.IsaUnavailable):
        return IsaError(str(error))
    if isinstance(error, _core.ThreadCountInvalid):
        return ThreadsError(str(error))
    if isinstance(error, MemoryError):
        return InputError(
            f"the model cannot run on this input: not enough memory ({error}); feed a smaller one"
        )
    return InputError(f"the model cannot run on this input: {error}")


class NativeRunner:
    """A native segment: programs by input dtypes, plans by input shapes."""

    _lock: threading.Lock

    def __init__(self, segment: ProgramForm):
        self.segment = segment
        self._programs: dict[tuple[str, ...], _core.Program] = {}
        self._plans: OrderedDict[tuple[Any, ...], tuple[_core.Plan, str]] = OrderedDict()
        self._keyed = [name in segment.keyed for name in segment.inputs]
        with_lock(self)
        self.last: tuple[_core.Plan, str] | None = None

    def _program(self, arrays: Sequence[Array]) -> _core.Program:
        key = tuple(array.dtype.str for array in arrays)
        program = self._programs.get(key)
        if program is None:
            program = self.segment.program([array.dtype for array in arrays])
            self._programs[key] = program
        return program

    def plan(self, arrays: Sequence[Array]) -> _core.Plan:
        """Return the plan for arrays of these shapes and dtypes, a kept one where there is one.

        Raises:
            NotNative: a node has no kernel for them.
        """
        key = tuple(
            (array.shape, array.dtype.char, array.tobytes() if keyed else None)
            for array, keyed in zip(arrays, self._keyed, strict=True)
        )
        with self._lock:
            found = self._plans.get(key)
            if found is not None:
                self._plans.move_to_end(key)
            else:
                program = self._program(arrays)
                known = [a if k else None for a, k in zip(arrays, self._keyed, strict=True)]
                try:
                    plan = program.plan([array.shape for array in arrays], known)
                except _core.Unsupported as error:
                    raise NotNative(program.failed_node or "", str(error)) from None
                if not self._plans:
                    self.segment.release()
                found = self._plans[key] = (plan, program.isa)
                if len(self._plans) > PLANS_KEPT:
                    self._plans.popitem(last=False)
            self.last = found
        return found[0]

    def run_planned(
        self, arrays: list[Array], allocate: Allocate | None = None
    ) -> list[Array] | None:
        """Return the results for arrays as the engine reads them; None without a plan for them."""
        key = tuple([(array.shape, array.dtype.char, None) for array in arrays])
        found = self._plans.get(key)
        if found is None:
            return None
        self.last = found
        plan, targets = found[0], None
        if allocate is not None:
            targets = [
                None if plan.output_needs_slack(index) else allocate(index, shape, dtype)
                for index, (shape, dtype) in enumerate(
                    zip(plan.output_shapes, plan.output_dtypes, strict=True)
                )
            ]
        try:
            results: list[Array] = plan.run(arrays, targets)[0]
        except _CORE_ERRORS as error:
            raise _as_ours(error) from None
        return results


class NotNative(Exception):
    """A node that no kernel does for the shapes at hand, and why."""

    def __init__(self, node: str, why: str):
        super().__init__(why)
        self.node, self.why = node, why


def native_rows(plan: _core.Plan, isa: str) -> list[StepRow]:
    """Return the steps of a plan, for `explain()`."""
    return [
        StepRow(
            row["op"],
            row["name"],
            row["kernel"],
            isa,
            row["shape"],
            row["macs"],
            row["refused"],
            True,
            row["bytes"],
        )
        for row in plan.rows()
    ]
