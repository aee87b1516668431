"""Run a compiled model: check what is fed, run the segments, keep plans by shape.

Thread-safe: plans are immutable and every run brings its own arena.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lowprec._ext import _core
from lowprec.engine.buffers import (
    check_target,
    checked_targets,
    direct_targets,
    in_order,
    plan_targets,
)
from lowprec.engine.explanation import Explanation, StepRow, StepTime
from lowprec.engine.native import (
    Allocate,
    NativeRunner,
    NotNative,
    engine_errors,
    native_rows,
    with_lock,
)
from lowprec.engine.tensors import TensorInfo, checked_input
from lowprec.errors import (
    ConfigError,
    InputError,
    LowprecError,
    ModelError,
    UnsupportedError,
)
from lowprec.threads import get_num_threads

if TYPE_CHECKING:
    import onnx_ir as ir

    from lowprec.engine.control_flow import ControlFlow
    from lowprec.engine.decisions import Decisions
    from lowprec.engine.fallback import ReferenceNode
    from lowprec.engine.forms import ProgramForm
    from lowprec.engine.lower import Segment

LIKELY_SIZE = 64  # of a dimension that a model leaves open, when weights are packed beforehand

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Sole:
    """The runner of a model that is a single program.

    Attributes:
        runner: Of all nodes.
        takes: Name and dtype of its inputs, in its order.
        input_order: For each of them its place among the model's inputs; None where it is the same.
        output_order: For each of the model's outputs its place among the runner's, or None.
    """

    runner: NativeRunner
    takes: list[tuple[str, np.dtype[Any]]]
    input_order: list[int] | None
    output_order: list[int] | None


def _order(have: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    order = [have.index(name) for name in wanted]
    return None if order == [*range(len(order))] else order


def _own(results: list[Array], others: Sequence[Array]) -> list[Array]:
    """Return results in memory of their own: what runs in NumPy or a body may return a view."""
    taken = [array for array in others if isinstance(array, np.ndarray)]
    owned = []
    for result in results:
        if isinstance(result, np.ndarray):
            if any(np.may_share_memory(result, array) for array in taken):
                result = result.copy()
            taken.append(result)
        owned.append(result)
    return owned


def _in_turn(arrays: list[Array] | None, order: list[int] | None) -> list[Array] | None:
    return arrays if arrays is None or order is None else [arrays[index] for index in order]


class Session:
    """A model on the engine. Made by `compile_model`; safe to use from several threads."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    _constants: dict[str, Array]
    _model: ir.Model | None
    _plain: ir.Model | None
    _decisions: Decisions | None
    _hubs: Callable[[], tuple[ir.Model, ir.Model]]  # of a session without one
    _compiled: tuple[Sequence[Segment | ProgramForm], list[Any], dict[str, Array]]
    _sole: _Sole | None
    _lock: threading.Lock

    def __init__(
        self,
        model: ir.Model,
        plain: ir.Model,
        observers: Mapping[str, Any],
        *,
        compile_part: Callable[[ir.Model], Session],
        fallback: bool = True,
    ):
        """Take a fused hub and the same hub before fusing; neither may be changed afterwards.

        `compile_part` makes a session of a body, or of this model without some of its Ifs.
        """
        from lowprec.engine.bodies import CAPTURED
        from lowprec.engine.decisions import Decisions
        from lowprec.engine.programs import tensor_infos

        self._begin(observers, compile_part, fallback)
        self._model, self._plain = model, plain
        decisions = Decisions(plain, compile_part)
        self._decisions = decisions if decisions.any else None
        self.inputs = tensor_infos(_fed(model))
        self.outputs = tensor_infos(model.graph.outputs)
        self._observed_inputs += (
            info.name
            for info, value in zip(self.inputs, _fed(model), strict=True)
            if info.name in self._observers and CAPTURED not in value.meta
        )
        self._constants = {
            value.name: value.const_value.numpy()
            for value in model.graph.outputs
            if value.is_initializer() and value.const_value is not None and value.name
        }
        self._lower()

    def _begin(
        self,
        observers: Mapping[str, Any],
        compile_part: Callable[[ir.Model], Session],
        fallback: bool,
    ) -> None:
        self._model = self._plain = None
        self._observers = dict(observers)
        self._falls_back = fallback
        self._fallbacks: dict[str, str] = {}
        self._compile_part = compile_part
        self._decisions = None
        self._decided: Session | None = None  # what ran last in this one's place
        self._flows: dict[str, ControlFlow] = {}
        self._observed_inputs: list[str] = []
        with_lock(self)

    @classmethod
    def from_forms(
        cls,
        forms: Sequence[ProgramForm],
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        constants: Mapping[str, Array],
        hubs: Callable[[], tuple[ir.Model, ir.Model]],
        *,
        fallback: bool,
    ) -> Session:
        """Return a session whose hub is not there.

        Args:
            forms: All that it runs, in order.
            inputs: Its inputs.
            outputs: Its outputs.
            constants: Arrays by name that segments or callers read.
            hubs: Returns the fused and the plain hub, once a shape turns up that some kernel
                refuses.
            fallback: Whether nodes may run in NumPy then.
        """
        session = cls.__new__(cls)
        session._begin(
            {}, lambda part: _compiled(part, {}, fused=True, fallback=fallback), fallback
        )
        session._hubs = hubs
        session.inputs, session.outputs = inputs, outputs
        session._constants = dict(constants)
        runners = [NativeRunner(form) for form in forms]
        session._take((list(forms), runners, dict(constants)))
        return session

    def forms(self) -> tuple[list[ProgramForm], dict[str, Array]] | None:
        """Return what runs and the constants that it reads, or None where a node falls back."""
        _, runners, constants = self._compiled
        if self._observers or not all(isinstance(runner, NativeRunner) for runner in runners):
            return None
        return [runner.segment for runner in runners], constants

    def prepare(self) -> None:
        """Pack weights now rather than in the first run, with likely sizes where they are open."""
        _, runners, _ = self._compiled
        if len(runners) != 1 or not isinstance(runners[0], NativeRunner):
            return
        by_name = {info.name: info for info in self.inputs}
        stand_ins = []
        for name in runners[0].segment.inputs:
            info = by_name.get(name)
            if info is None or info.shape is None or info.dtype == object:
                return
            sizes = [
                size if isinstance(size, int) else (LIKELY_SIZE if axis else 1)
                for axis, size in enumerate(info.shape)
            ]
            stand_ins.append(np.broadcast_to(np.zeros((), info.dtype), sizes))
        if runners[0].segment.keyed:
            return
        # What does not work with these sizes may work with others: the run will tell.
        with suppress(_core.EngineError, NotNative, MemoryError):
            runners[0].plan(stand_ins)
        runners[0].last = None  # nothing has run

    def _lower(self) -> None:
        from lowprec.engine.lower import FallbackSegment, OwnOperatorRefused, lower_graph

        if self._model is None or self._plain is None:
            self._model, self._plain = self._hubs()
        try:
            segments = lower_graph(self._model, self._fallbacks)
        except OwnOperatorRefused:
            self._model = self._plain
            # A fused node has the name of one of its parts, which may well be native.
            self._fallbacks.clear()
            segments = lower_graph(self._model, self._fallbacks)
        for segment in segments:
            if not self._falls_back and isinstance(segment, FallbackSegment):
                raise _refused(segment.node.name or "", segment.node.op_type, segment.why)
        runners = [self._runner(self._model, segment) for segment in segments]
        initializers = self._model.graph.initializers
        constants = dict(self._constants)
        for segment in segments:
            for name in segment.inputs:
                value = initializers.get(name)
                if value is not None and value.const_value is not None:
                    constants[name] = value.const_value.numpy()
        self._take((segments, runners, constants))

    def _take(
        self, compiled: tuple[Sequence[Segment | ProgramForm], list[Any], dict[str, Array]]
    ) -> None:
        # One assignment each: a run in another thread sees the old cut or the new one.
        self._compiled = compiled
        self._sole = self._sole_of(*compiled)

    def _sole_of(
        self, segments: Sequence[Segment | ProgramForm], runners: list[Any], _: dict[str, Array]
    ) -> _Sole | None:
        """Return the one runner that does all, where a single program takes every input."""
        if len(runners) != 1 or self._observers or self._decisions is not None:
            return None
        (segment,), (runner,) = segments, runners
        names, results = [info.name for info in self.inputs], [info.name for info in self.outputs]
        if (
            not isinstance(runner, NativeRunner)
            or sorted(names) != sorted(segment.inputs)
            or sorted(results) != sorted(segment.outputs)
            or len(set(results)) != len(results)
        ):
            return None
        dtypes = {info.name: info.dtype for info in self.inputs}
        return _Sole(
            runner,
            [(name, dtypes[name]) for name in segment.inputs],
            _order(names, segment.inputs),
            _order(list(segment.outputs), results),
        )

    def let_go(self, hubs: Callable[[], tuple[ir.Model, ir.Model]]) -> None:
        """Give up the hub, whose memory is large, where all runs natively without it.

        Args:
            hubs: Returns the fused and the plain hub again, once a shape turns up that some kernel
                refuses.
        """
        content = self.forms()
        if content is None or self._decisions is not None:
            return
        with self._lock:
            _, runners, constants = self._compiled
            self._hubs = hubs
            self._model = self._plain = None
            self._flows.clear()
            self._take((content[0], runners, constants))

    def _runner(
        self, model: ir.Model, segment: Segment
    ) -> NativeRunner | ControlFlow | ReferenceNode:
        from lowprec.engine.fallback import ReferenceNode
        from lowprec.engine.lower import ControlSegment, NativeSegment
        from lowprec.engine.programs import form_of

        if isinstance(segment, NativeSegment):
            return NativeRunner(form_of(segment, self._observers))
        if isinstance(segment, ControlSegment):
            from lowprec.engine.control_flow import FLOWS

            node = segment.node
            flow = self._flows.get(node.name or "")
            if flow is None or flow.node is not node:
                opsets = model.graph.opset_imports
                flow = FLOWS[node.op_type](node, opsets, self._compile_part)
                self._flows[node.name or ""] = flow
            return flow
        return ReferenceNode(model, segment.node, segment.inputs, segment.outputs)

    # ------------------------------------------------------------------------------- running
    def run(
        self, feeds: Mapping[str, npt.ArrayLike], *, out: Sequence[Array] | None = None
    ) -> list[Array]:
        """Return the outputs, in order, for one set of inputs.

        Args:
            feeds: Every input by name. Dtypes must match; shapes may change from run to run.
            out: Arrays that take the outputs, in order; returned in place of new ones. The engine
                writes into those that are C-contiguous and share no memory with an input; others
                are copied into.

        Raises:
            InputError: a name, dtype, rank or size does not fit the model, or an array of `out`
                does not fit its output.
        """
        if out is None:
            planned = self._run_planned(feeds)
            return self._run(self._checked(feeds), timed=False)[0] if planned is None else planned
        checked = self._checked(feeds)
        targets = checked_targets(out, self.outputs)
        direct = direct_targets(self.outputs, targets, checked)
        results, _ = self._run(checked, timed=False, direct=direct)
        for info, target, result in zip(self.outputs, targets, results, strict=True):
            if result is not target:
                check_target(info.name, target, result.shape, result.dtype)
                np.copyto(target, result)
        return targets

    def run_ordered(
        self, arrays: list[Array], allocate: Allocate | None = None
    ) -> list[Array] | None:
        """Return the outputs for shapes that ran before; None where `run` must look closer.

        Args:
            arrays: In the order of `inputs`: C-contiguous, aligned, of the inputs' dtypes.
            allocate: Called as allocate(index, shape, dtype), returns memory of its own for that
                output, which the engine writes into; not called for what it must allocate itself.
        """
        sole = self._sole
        if sole is None:
            return None
        if sole.input_order is not None:
            arrays = [arrays[index] for index in sole.input_order]
        order = sole.output_order
        if allocate is not None and order is not None:
            wanted, of = allocate, {made: index for index, made in enumerate(order)}

            def allocate(index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
                return wanted(of[index], shape, dtype)

        return _in_turn(sole.runner.run_planned(arrays, allocate), order)

    def _run_planned(self, feeds: Mapping[str, npt.ArrayLike]) -> list[Array] | None:
        """Return the outputs if nothing about `feeds` is new; None where it must be checked."""
        sole = self._sole
        if sole is None or type(feeds) is not dict or len(feeds) != len(sole.takes):
            return None
        arrays = []
        for name, dtype in sole.takes:
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                return None
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                return None
            arrays.append(array)
        return _in_turn(sole.runner.run_planned(arrays), sole.output_order)

    def _run(
        self,
        feeds: dict[str, Array],
        *,
        timed: bool,
        direct: Mapping[str, Array] = MappingProxyType({}),
        taken: dict[str, bool] | None = None,
    ) -> tuple[list[Array], list[tuple[StepRow, float]]]:
        if self._decisions is None:
            return self._run_undecided(feeds, timed=timed, direct=direct, taken=taken)
        key = self._decisions.key(feeds)
        outcome = None if key is None else self._decisions.outcome(key)
        if outcome is not None:
            self._decided, decided = outcome
            if taken is not None:
                taken.update(decided)
            return self._decided._run(feeds, timed=timed, direct=direct, taken=taken)
        self._decided = None
        noted: dict[str, bool] = {}
        results = self._run_undecided(feeds, timed=timed, direct=direct, taken=noted)
        if key is not None:
            self._decisions.note(key, noted)
        if taken is not None:
            taken.update(noted)
        return results

    def _run_undecided(
        self,
        feeds: dict[str, Array],
        *,
        timed: bool,
        direct: Mapping[str, Array],
        taken: dict[str, bool] | None,
    ) -> tuple[list[Array], list[tuple[StepRow, float]]]:
        # Nodes that refuse at plan time move to the fall-back and the graph is cut again: each
        # round makes at least one node less native, so this ends.
        while True:
            try:
                return self._run_segments(feeds, timed=timed, direct=direct, taken=taken)
            except NotNative as refusal:
                with self._lock:
                    if refusal.node in self._fallbacks:
                        continue
                    self._fallbacks[refusal.node] = refusal.why
                    try:
                        self._lower()
                    except UnsupportedError:
                        del self._fallbacks[refusal.node]
                        raise

    def _run_segments(
        self,
        feeds: dict[str, Array],
        *,
        timed: bool,
        direct: Mapping[str, Array],
        taken: dict[str, bool] | None,
    ) -> tuple[list[Array], list[tuple[StepRow, float]]]:
        from time import perf_counter

        segments, runners, constants = self._compiled
        values: dict[str, Array] = {**constants, **feeds}
        for name in self._observed_inputs:
            self._observe(name, feeds[name])
        times: list[tuple[StepRow, float]] = []
        with engine_errors():
            for segment, runner in zip(segments, runners, strict=True):
                if isinstance(runner, NativeRunner):
                    arrays = [in_order(values[name]) for name in segment.inputs]
                    plan = runner.plan(arrays)
                    targets = plan_targets(plan, segment.outputs, direct) if direct else None
                    made, nanoseconds = plan.run(arrays, targets, timed)
                    if nanoseconds is not None:
                        rows = native_rows(plan, runner.last[1] if runner.last else "")
                        clock = nanoseconds or []
                        times += [(r, t / 1e9) for r, t in zip(rows, clock, strict=True)]
                else:
                    start = perf_counter()
                    inner: list[tuple[StepRow, float]] = []
                    if hasattr(runner, "bodies"):
                        made, inner = self._run_flow(runner, values, timed, taken)
                    else:
                        made = runner.run({name: values[name] for name in segment.inputs})
                    if timed:
                        own = perf_counter() - start - sum(seconds for _, seconds in inner)
                        times += [(self._row(segment), own), *inner]
                    for name, array in zip(segment.outputs, made, strict=True):
                        self._observe(name, array)
                values.update(zip(segment.outputs, made, strict=True))
        results = [values[info.name] for info in self.outputs]
        others = [*feeds.values(), *constants.values()]
        if all(isinstance(runner, NativeRunner) for runner in runners):
            shared = {id(array) for array in others}
            return [r.copy() if id(r) in shared else r for r in results], times
        return _own(results, others), times

    def _run_flow(
        self,
        flow: ControlFlow,
        values: dict[str, Array],
        timed: bool,
        taken: dict[str, bool] | None,
    ) -> tuple[list[Array], list[tuple[StepRow, float]]]:
        node = flow.node.name or ""
        for name in flow.reads():
            if not isinstance(values[name], np.ndarray):
                raise NotNative(node, f"it reads '{name}', a {type(values[name]).__name__}")
        made, times = flow.run(values, timed=timed, taken=taken)
        outputs = flow.node.outputs
        if len(made) < len(outputs):
            raise InputError(
                f"the model cannot run: node '{node}' ({flow.node.op_type}) has {len(outputs)} "
                f"outputs, its body makes {len(made)}; export the model again"
            )
        return [array for array, value in zip(made, outputs, strict=False) if value.name], times

    def _observe(self, name: str, array: Array) -> None:
        observer = self._observers.get(name)
        if observer is not None:
            observer.update(array)

    def _checked(self, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        if not isinstance(feeds, Mapping):
            raise InputError(
                f"feeds must be a dict of arrays by input name, got {type(feeds).__name__}"
            )
        accepted = [info.name for info in self.inputs]
        for name in feeds:
            if name not in accepted:
                raise InputError(f"the model has no input '{name}'; its inputs: {accepted}")
        return {info.name: checked_input(info, feeds) for info in self.inputs}

    # ---------------------------------------------------------------------------- explaining
    def explain(self) -> Explanation:
        """Return the steps of the most recent run.

        Raises:
            LowprecError: the session has not run yet: kernels are chosen for concrete shapes.
        """
        if self._decided is not None:
            return self._decided.explain()
        segments, runners, _ = self._compiled
        steps: list[StepRow] = []
        arena = 0
        for segment, runner in zip(segments, runners, strict=True):
            if isinstance(runner, NativeRunner):
                if runner.last is None:
                    raise LowprecError(
                        "explain() describes a run: call run() once, with shapes that matter to you"
                    )
                plan, isa = runner.last
                steps += native_rows(plan, isa)
                arena = max(arena, plan.arena_bytes)
            else:
                steps.append(self._row(segment))
                for body in runner.ran() if hasattr(runner, "bodies") else ():
                    inner = body.session.explain() if body.session is not None else None
                    if inner is not None:
                        steps += inner.steps
                        arena = max(arena, inner.arena_bytes)
        return Explanation(tuple(steps), arena, get_num_threads())

    def _row(self, segment: Any) -> StepRow:
        node, why = segment.node, getattr(segment, "why", None)
        if why is None:
            return StepRow(node.op_type, node.name or "", "bodies", "python", "", 0.0, "", True)
        return StepRow(
            node.op_type, node.name or "", "reference", "numpy", "", 0.0, f"native: {why}", False
        )

    def profile(
        self, feeds: Mapping[str, npt.ArrayLike], *, repeats: int = 10, warm: bool = False
    ) -> list[StepTime]:
        """Return the median time of each step over `repeats` runs.

        Args:
            feeds: As for `run`.
            repeats: Runs that count.
            warm: They need no run before them that does not count.
        """
        import statistics

        checked = self._checked(feeds)
        if not warm:
            self._run(checked, timed=True)
        rounds = [self._run(checked, timed=True)[1] for _ in range(max(1, repeats))]
        return [
            StepTime(rounds[0][i][0], statistics.median(r[i][1] for r in rounds))
            for i in range(len(rounds[0]))
        ]


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _refused(node: str, op_type: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"node '{node}' ({op_type}) does not run natively: {why}; the fall-back to NumPy is off: "
        "allow it (fallback=True, or unset LOWPREC_FALLBACK) or replace the operator"
    )


def falls_back(fallback: bool | None) -> bool:
    """Return the keyword, where it says nothing the environment, where that neither True."""
    if fallback is not None:
        return fallback
    text = os.environ.get("LOWPREC_FALLBACK", "")
    if text not in ("", "on", "off"):
        raise ConfigError(f"LOWPREC_FALLBACK is '{text}'; it must be 'on' or 'off'")
    return text != "off"


def compile_model(
    model: ir.Model,
    *,
    observers: Mapping[str, Any] | None = None,
    fused: bool = True,
    fallback: bool | None = None,
) -> Session:
    """Return a Session that runs `model` with its precision unchanged.

    Args:
        model: A hub from `lowprec.graph.load`; it is not changed.
        observers: Float value name -> `TensorObserver` that sees the value in every run.
        fused: False runs the graph operator by operator (the reference for fused chains).
        fallback: Whether nodes without a native kernel may run through ONNX's reference
            implementation, in NumPy. None: yes, unless LOWPREC_FALLBACK=off. Some nodes show
            only for concrete shapes that no kernel does them: then `run()` raises.

    Raises:
        ModelError: an observed name is not a value of the model.
        UnsupportedError: a node has no native kernel and may not fall back.
        ConfigError: LOWPREC_FALLBACK is neither "on" nor "off".
        IsaError: LOWPREC_ISA names what this machine lacks.
    """
    from lowprec.engine.programs import value_names

    watched = dict(observers or {})
    missing = sorted(set(watched) - value_names(model))
    if missing:
        raise ModelError(f"no value is called '{missing[0]}': it cannot be observed")
    with engine_errors():
        _core.chosen_isa()
    return _compiled(model, watched, fused=fused, fallback=falls_back(fallback))


def _compiled(
    model: ir.Model, watched: Mapping[str, Any], *, fused: bool, fallback: bool
) -> Session:
    def compile_part(part: ir.Model) -> Session:
        return _compiled(part, watched, fused=fused, fallback=fallback)

    whole, plain = hubs_of(model, watched, fused=fused)
    return Session(whole, plain, watched, compile_part=compile_part, fallback=fallback)


def hubs_of(
    model: ir.Model, watched: Container[str] = (), *, fused: bool = True
) -> tuple[ir.Model, ir.Model]:
    """Return what the engine makes of `model`: the fused hub, and the one before fusing."""
    from lowprec.engine.programs import clone
    from lowprec.passes import expand_functions, fuse, widen_operands
    from lowprec.passes.fuse_attention import needs_body

    plain = clone(model)
    bodies = {node.name or "" for node in plain.graph if needs_body(node)}
    expand_functions(plain, frozenset(_core.native_operators()), bodies)
    widen_operands(plain)
    whole = plain
    if fused:
        whole = clone(plain)
        fuse(whole, keep=watched)
    return whole, plain
