"""Plans: halos, memory that is reused, several threads, and several shapes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine_programs import ISAS, run_operator

from lowprec._ext import _core

ATTRIBUTES = {
    "x_scale": 0.02,
    "x_zero_point": 9,
    "w_scale": [1e-3],
    "y_dtype": 2,
    "y_scale": 0.05,
    "y_zero_point": 9,
}


def chain_of_convolutions() -> list[tuple[np.ndarray, dict]]:
    rng = np.random.default_rng(2)
    return [
        (rng.integers(-127, 128, (24, 16, 1, 1)).astype(np.int8), ATTRIBUTES),
        (
            rng.integers(-127, 128, (24, 1, 5, 5)).astype(np.int8),
            ATTRIBUTES | {"pads": [2] * 4, "group": 24},
        ),
        (
            rng.integers(-127, 128, (20, 24, 3, 3)).astype(np.int8),
            ATTRIBUTES | {"pads": [1, 0, 1, 2], "strides": [2, 1]},
        ),
    ]


def codes(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def chained_program(isa: str | None, *, second_reader: bool) -> _core.Program:
    program = _core.Program(isa)
    source = program.add_value("x", np.uint8)
    value, outputs = source, []
    for number, (weights, attributes) in enumerate(chain_of_convolutions()):
        target = program.add_value(f"y{number}", np.uint8)
        constant = program.add_constant("w", weights)
        program.add_node("QConv", f"conv{number}", [value, constant], [target], attributes)
        if second_reader and number == 0:
            # Reads the haloed tensor with another padding than its neighbour.
            other = program.add_value("other", np.uint8)
            more = program.add_constant("v", chain_of_convolutions()[2][0])
            program.add_node("QConv", "reader", [target, more], [other], ATTRIBUTES)
            outputs.append(other)
        value = target
    program.set_io([source], [value, *outputs])
    return program


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("second_reader", [False, True])
def test_halos_give_the_bits_of_separate_runs(isa, second_reader):
    x = codes((2, 16, 9, 10))
    expected = x
    for weights, attributes in chain_of_convolutions():
        expected, _ = run_operator("QConv", expected, [weights], attributes, isa)
    plan = chained_program(isa, second_reader=second_reader).plan([x.shape])
    for _ in range(2):  # the arena is dirty the second time
        results, _ = plan.run([x])
        np.testing.assert_array_equal(results[0], expected)
    if second_reader:
        first, _ = run_operator("QConv", x, [chain_of_convolutions()[0][0]], ATTRIBUTES, isa)
        weights = chain_of_convolutions()[2][0]
        np.testing.assert_array_equal(
            results[1], run_operator("QConv", first, [weights], ATTRIBUTES, isa)[0]
        )


def test_one_plan_serves_threads_at_once():
    plan = chained_program(None, second_reader=False).plan([(1, 16, 40, 40)])
    inputs = [codes((1, 16, 40, 40), seed) for seed in range(16)]
    expected = [plan.run([x])[0][0] for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda x: plan.run([x])[0][0], inputs * 8))
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, expected[number % 16])


def test_weights_are_packed_once_for_all_shapes():
    program = chained_program(None, second_reader=False)
    wide = program.plan([(1, 16, 9, 64)])
    narrow = program.plan([(1, 16, 9, 10)])
    x = codes((1, 16, 9, 64))
    (whole,), _ = wide.run([x])
    (part,), _ = narrow.run([np.ascontiguousarray(x[..., :10])])
    # Columns that do not see the right border agree.
    np.testing.assert_array_equal(whole[..., :6], part[..., :6])


def test_outputs_do_not_alias_inputs_or_each_other():
    program = _core.Program()
    source = program.add_value("x", np.float32)
    program.set_io([source], [source, source])
    x = np.arange(4, dtype=np.float32)
    (first, second), _ = program.plan([x.shape]).run([x])
    first[0] = 9
    assert x[0] == 0
    assert second[0] == 0


def test_a_plan_says_what_does_not_fit():
    with pytest.raises(_core.EngineError, match=r"node 'conv0' \(QConv\): input has 5 channels"):
        chained_program(None, second_reader=False).plan([(1, 5, 9, 9)])
    with pytest.raises(_core.EngineError, match="does not fit input of shape"):
        chained_program(None, second_reader=False).plan([(1, 16, 9, 0)])
