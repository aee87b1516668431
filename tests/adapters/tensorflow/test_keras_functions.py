"""Functions that a call() is written with are what TensorFlow computes, or are refused by name."""

from __future__ import annotations

import itertools

import keras
import keras_functions as cases
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.source import Source, source_of
from lowprec.errors import LowprecError

SPECS = (
    tf.TensorSpec((None, 4, 6)),
    tf.TensorSpec((None, 4, 6)),
    tf.TensorSpec((None, 5), tf.int32),
)
FUNCTIONS: dict[str, cases.Function] = {
    **{f"ops.{name}": function for name, function in cases.OPS.items()},
    **{f"activations.{name}": cases.on_x(f) for name, f in cases.ACTIVATIONS.items()},
    **cases.OTHERS,
}
AT_ONCE = 40
GROUPS = [
    tuple(itertools.islice(FUNCTIONS, start, start + AT_ONCE))
    for start in range(0, len(FUNCTIONS), AT_ONCE)
]


def arrays(batch: int) -> list[np.ndarray]:
    random = np.random.default_rng(batch)
    x, y = random.standard_normal((2, batch, 4, 6)).astype(np.float32)
    return [x, y, random.integers(0, 4, (batch, 5)).astype(np.int32)]


def source_of_functions(functions: dict[str, cases.Function]) -> tuple[Source, list[str]]:
    """Return all the functions on the same inputs, and which one each output is of."""
    owners: list[str] = []

    def call(x: tf.Tensor, y: tf.Tensor, i: tf.Tensor) -> list[tf.Tensor]:
        made = []
        owners.clear()
        for name, function in functions.items():
            results = [tf.convert_to_tensor(r) for r in tf.nest.flatten(function(x, y, i))]
            made += results
            owners.extend([name] * len(results))
        return made

    concrete = tf.function(call, autograph=False).get_concrete_function(*SPECS)
    return source_of(concrete, ["x", "y", "i"]), owners


def test_no_function_of_keras_is_forgotten() -> None:
    functions = {
        name
        for name in dir(keras.ops)
        if callable(getattr(keras.ops, name)) and not name.startswith("_")
    }
    known = {*cases.OPS, *cases.LEFT_OUT}
    assert not functions - known, "neither compared nor left out"
    assert not {*cases.OPS} & {*cases.LEFT_OUT}
    assert len(functions & {*cases.OPS}) > 230


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_functions_compute_what_tensorflow_computes(names: tuple[str, ...]) -> None:
    source, owners = source_of_functions({name: FUNCTIONS[name] for name in names})
    session = lowprec.compile(hub_of(source, "functions"))
    for batch in (1, 4):
        given = arrays(batch)
        expected = source.run(given)
        found = session.run(dict(zip("xyi", given, strict=True)))
        for name, wanted, result in zip(owners, expected, found, strict=True):
            assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype), (name, batch)
            np.testing.assert_allclose(
                result, wanted, rtol=2e-5, atol=1e-5, err_msg=f"{name} at batch {batch}"
            )


@pytest.mark.parametrize("reason", cases.REFUSED)
def test_what_is_refused_is_named(reason: str) -> None:
    source, _ = source_of_functions({reason: cases.REFUSED[reason]})
    with pytest.raises(LowprecError, match=reason):
        hub_of(source, "function")
