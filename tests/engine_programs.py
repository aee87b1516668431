"""One-operator programs, straight through the compiled core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lowprec._ext import _core

# Models of instruction sets that the machine lacks, too: their kernels are products.
ISAS = [*_core.available_isas(), *_core.model_isas()]


def run_operator(
    op: str,
    x: np.ndarray,
    constants: Sequence[np.ndarray | None],
    attributes: Mapping[str, Any],
    isa: str,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return (output, plan rows) of `op` on `x` and constant operands, on one instruction set."""
    program = _core.Program(isa)
    assert program.isa == isa
    source = program.add_value("x", x.dtype)
    ids = [-1 if c is None else program.add_constant(f"c{i}", c) for i, c in enumerate(constants)]
    target = program.add_value("y", np.float32)
    program.add_node(op, "node", [source, *ids], [target], dict(attributes))
    program.set_io([source], [target])
    plan = program.plan([x.shape])
    (result,), _ = plan.run([np.ascontiguousarray(x)])
    return result, plan.rows()
