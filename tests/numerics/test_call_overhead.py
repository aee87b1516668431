"""A small product costs little more than a call of NumPy's: no Python stands in between."""

from __future__ import annotations

import pytest
from call_overhead import measure_call_overhead


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    return measure_call_overhead(rounds=15, middle=min)


@pytest.mark.parametrize(
    "name", ["matmul_integer", "matmul_integer, packed", "qlinear_matmul, packed", "gemm_f32"]
)
def test_a_small_product_costs_a_few_times_numpy_s_at_most(seconds, name):
    # Measured: 0.4 to 0.8 of it; with one Python function of checks in between, 20 times.
    assert seconds[name] < 3 * seconds["numpy.matmul f32"]
