"""One operator at a time through the compiled engine, in any layout and on any instruction set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lowprec._ext import _core

ISAS = _core.available_isas()
Array = np.ndarray


def run_node(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int | Sequence[bool] = 1,
    constant: Sequence[int] = (),
    known: Sequence[int] = (),
    channels_last: Sequence[int] = (),
    isa: str | None = None,
) -> list[Array]:
    """Return the outputs of one node.

    Args:
        op: Operator name.
        inputs: Operands; None for an absent one.
        attributes: Plain numbers, lists and strings.
        outputs: How many, or which of them are read.
        constant: Operands that are constants of the program.
        known: Operands whose contents the plan may rely on.
        channels_last: Operands (N, C, spatial...) that arrive in the engine's image layout.
        isa: Instruction set; by default the best one.
    """
    program = _core.Program(isa)
    ids: list[int] = []
    fed: list[Array] = []
    fed_ids: list[int] = []
    relied: list[Array | None] = []
    for i, array in enumerate(inputs):
        if array is None:
            ids.append(-1)
            continue
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        if i in constant:
            ids.append(program.add_constant(f"x{i}", array))
            continue
        if i in channels_last:
            # A transpose from channels last is not a copy: it only names the layout.
            axes = list(range(array.ndim))
            turned = np.ascontiguousarray(array.transpose([0, *axes[2:], 1]))
            source = program.add_value(f"turned{i}", turned.dtype)
            value = program.add_value(f"x{i}", array.dtype)
            back = [0, array.ndim - 1, *axes[1:-1]]
            program.add_node("Transpose", f"turn {i}", [source], [value], {"perm": back})
            array = turned
        else:
            source = value = program.add_value(f"x{i}", array.dtype)
        ids.append(value)
        fed_ids.append(source)
        fed.append(array)
        relied.append(array if i in known else None)
    wanted = [True] * outputs if isinstance(outputs, int) else list(outputs)
    made = [program.add_value(f"y{i}", np.float32) if w else -1 for i, w in enumerate(wanted)]
    program.add_node(op, op, ids, made, dict(attributes or {}))
    program.set_io(fed_ids, [i for i in made if i >= 0])
    plan = program.plan([array.shape for array in fed], relied)
    return plan.run(fed)[0]


def run_everywhere(op: str, inputs: Sequence[Array | None], *args: Any, **kwargs: Any) -> Array:
    """Return output 0, having checked that every instruction set gives the same bytes."""
    results = [run_node(op, inputs, *args, isa=isa, **kwargs)[0] for isa in ISAS]
    for isa, result in zip(ISAS, results, strict=True):
        assert result.dtype == results[0].dtype
        assert result.shape == results[0].shape
        assert result.tobytes() == results[0].tobytes(), f"{op}: {isa} differs from {ISAS[0]}"
    return results[0]


def run_both_layouts(op: str, inputs: Sequence[Array | None], *args: Any, **kwargs: Any) -> Array:
    """As run_everywhere, and operand 0 in either layout gives the same bytes."""
    plain = run_everywhere(op, inputs, *args, **kwargs)
    last = run_everywhere(op, inputs, *args, channels_last=(0,), **kwargs)
    assert last.shape == plain.shape
    assert last.tobytes() == plain.tobytes(), f"{op}: the layout changes the result"
    return plain
