"""Run ONNX's own node tests end to end: load, simplify, compile, run; kernels and fall-backs alike.

    python benchmarks/onnx_node_tests.py [NAME ...]

Prints how many agree (the tests' own tolerances), and one line for each that does not.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from lowprec import graph, passes
from lowprec.engine import compile_model


def as_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def disagreement(case: Any) -> str | None:
    """Return why the engine's results are not the case's, or None where they agree."""
    hub = graph.load(case.model)
    passes.simplify(hub)
    session = compile_model(hub)
    names = [value.name for value in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        made = session.run(dict(zip(names, map(as_array, inputs), strict=True)))
        for got, expected in zip(made, map(as_array, outputs), strict=True):
            if isinstance(expected, list):  # a sequence: its parts are arrays of their own
                continue
            wanted = np.asarray(expected)
            if got.shape != wanted.shape or got.dtype != wanted.dtype:
                return f"{got.dtype}{list(got.shape)} for {wanted.dtype}{list(wanted.shape)}"
            if wanted.dtype.kind in "fiub" and not np.allclose(
                got, wanted, rtol=case.rtol, atol=max(case.atol, 1e-7), equal_nan=True
            ):
                return "other values"
    return None


def main(chosen: list[str]) -> None:
    from onnx.backend.test.case.node import collect_testcases

    warnings.simplefilter("ignore")
    cases = [case for case in collect_testcases(None) if case.model is not None]
    cases = [case for case in cases if not chosen or case.name in chosen]
    agreeing = 0
    for case in cases:
        try:
            why = disagreement(case)
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        agreeing += why is None
        if why is not None:
            print(f"{case.name}: {why}")
    print(f"{agreeing} of {len(cases)} agree")


if __name__ == "__main__":
    main(sys.argv[1:])
