"""Products without rows, columns or depth have results, not crashes."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import run_node

MATRICES = [
    ((0, 5), (5, 4)),
    ((3, 0), (0, 4)),
    ((3, 5), (5, 0)),
    ((2, 0, 5), (5, 4)),
]
STACKS = [
    ((2, 3, 0), (2, 0, 4)),
    ((2, 0, 5), (2, 5, 4)),
    ((0, 3, 5), (0, 5, 2)),
]


@pytest.mark.parametrize(("a", "b"), MATRICES + STACKS)
def test_of_two_activations(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    first, second = np.ones(a, np.float32), np.ones(b, np.float32)
    (made,) = run_node("MatMul", [first, second])
    np.testing.assert_array_equal(made, first @ second)


@pytest.mark.parametrize(("a", "b"), MATRICES)
@pytest.mark.parametrize("op", ["MatMul", "QMatMul"])
def test_of_weights(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    types = (np.float32, np.float32) if op == "MatMul" else (np.uint8, np.int8)
    first, second = np.ones(a, types[0]), np.ones(b, types[1])
    scales = {"x_scale": 1.0, "w_scale": [1.0]} if op == "QMatMul" else {}
    (made,) = run_node(op, [first, second], scales, constant=(1,))
    np.testing.assert_array_equal(made, first.astype(np.float32) @ second.astype(np.float32))
