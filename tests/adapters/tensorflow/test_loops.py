"""Loops of TensorFlow: recurrent layers become one operator each, other loops run as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec import api
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras
from lowprec.adapters.tensorflow.source import Source, source_of
from lowprec.hookspecs import Captured

LAYERS = keras.layers
RECURRENT = ("LSTM", "GRU", "RNN", "Loop", "If")


def reader(layer: Any, *, masked: bool = False, length: int | None = None) -> keras.Model:
    """Return a model of one layer over sequences of 4 numbers, all of its weights random."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((length, 4))
    model = keras.Model(inputs, layer(LAYERS.Masking()(inputs) if masked else inputs))
    random = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(weight + random.normal(0, 0.3, weight.shape))
    return model


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sequences(batch: int, length: int) -> np.ndarray:
    """Return sequences with steps of zeros: on the right, on the left, between, and all of one."""
    x = numbers(batch, length, 4)
    for row in range(batch):
        kind = row % 4
        if kind == 0:
            x[row, (length + 1) // 2 :] = 0
        elif kind == 1:
            x[row, : length // 2] = 0
        elif kind == 2:
            x[row] = 0
        else:
            x[row, 1::2] = 0
    return x


def compare(source: Source, feeds: Sequence[Sequence[np.ndarray]]) -> Counter[str]:
    """Check the hub of `source` against TensorFlow; return how many loops and cells it has."""
    hub = hub_of(source, "tested")
    session = lowprec.compile(hub)
    for arrays in feeds:
        made = session.run(dict(zip(source.inputs, arrays, strict=True)))
        for wanted, found in zip(source.run(arrays), made, strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    return Counter(node.op_type for node in hub.graph if node.op_type in RECURRENT)


def check(
    model: keras.Model, sizes: Sequence[tuple[int, int]] = ((1, 1), (4, 1), (5, 6))
) -> Counter[str]:
    source, _ = source_of_keras(model)
    return compare(source, [[sequences(*size)] for size in sizes])


LAYERS_AND_OPERATORS: dict[str, tuple[Callable[[], Any], str]] = {
    "lstm": (lambda: LAYERS.LSTM(3, return_sequences=True, return_state=True), "LSTM"),
    "lstm, last": (lambda: LAYERS.LSTM(3), "LSTM"),
    "lstm, no bias": (lambda: LAYERS.LSTM(3, use_bias=False), "LSTM"),
    "lstm, hard": (
        lambda: LAYERS.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid"),
        "LSTM",
    ),
    "lstm, linear": (lambda: LAYERS.LSTM(3, activation=None), "LSTM"),
    "lstm, dropout": (lambda: LAYERS.LSTM(3, dropout=0.3, recurrent_dropout=0.2), "LSTM"),
    "gru": (lambda: LAYERS.GRU(3, return_sequences=True, return_state=True), "GRU"),
    "gru, reset before": (lambda: LAYERS.GRU(3, reset_after=False), "GRU"),
    "gru, softsign": (
        lambda: LAYERS.GRU(3, reset_after=False, activation="softsign", use_bias=False),
        "GRU",
    ),
    "gru, elu": (lambda: LAYERS.GRU(3, activation="elu"), "GRU"),
    "rnn": (lambda: LAYERS.SimpleRNN(3, return_sequences=True), "RNN"),
    "rnn, leaky": (lambda: LAYERS.SimpleRNN(3, activation="leaky_relu"), "RNN"),
    "backwards": (lambda: LAYERS.LSTM(3, return_sequences=True, go_backwards=True), "LSTM"),
    "zeros": (
        lambda: LAYERS.RNN(LAYERS.LSTMCell(3), return_sequences=True, zero_output_for_mask=True),
        "LSTM",
    ),
    "zeros, last": (lambda: LAYERS.RNN(LAYERS.GRUCell(3), zero_output_for_mask=True), "GRU"),
}


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("name", LAYERS_AND_OPERATORS)
def test_a_layer_is_one_operator(name: str, masked: bool) -> None:
    make, operator = LAYERS_AND_OPERATORS[name]
    assert check(reader(make(), masked=masked)) == {operator: 1}


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_both_directions(masked: bool) -> None:
    for merge in ("concat", "ave") if masked else ("concat", "sum", "mul", "ave", None):
        layer = LAYERS.Bidirectional(LAYERS.GRU(3, return_sequences=True), merge_mode=merge)
        assert check(reader(layer, masked=masked)) == {"GRU": 2}


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_stacked_cells_are_an_operator_each(masked: bool) -> None:
    cells = [LAYERS.LSTMCell(3), LAYERS.GRUCell(5), LAYERS.SimpleRNNCell(2)]
    layer = LAYERS.RNN(cells, return_sequences=True, return_state=True)
    assert check(reader(layer, masked=masked)) == {"LSTM": 1, "GRU": 1, "RNN": 1}


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_a_fixed_length_and_steps_written_out(masked: bool) -> None:
    sizes = [(1, 5), (4, 5)]
    fixed = reader(LAYERS.GRU(3, return_sequences=True), masked=masked, length=5)
    assert check(fixed, sizes) == {"GRU": 1}
    unrolled = LAYERS.LSTM(3, return_sequences=True, unroll=True)
    assert check(reader(unrolled, masked=masked, length=5), sizes) == {}


def test_states_from_outside() -> None:
    x, h, c = keras.Input((None, 4)), keras.Input((3,)), keras.Input((3,))
    made = LAYERS.LSTM(3, return_sequences=True)(x, initial_state=[h, c])
    source, _ = source_of_keras(keras.Model([x, h, c], made))
    feeds = [[numbers(2, n, 4), numbers(2, 3, seed=1), numbers(2, 3, seed=2)] for n in (1, 5)]
    assert compare(source, feeds) == {"LSTM": 1}


def test_tokens_of_which_zero_is_none() -> None:
    tokens = keras.Input((None,))
    x = LAYERS.Embedding(5, 6, mask_zero=True)(tokens)
    model = keras.Model(tokens, LAYERS.Bidirectional(LAYERS.LSTM(3, return_sequences=True))(x))
    source, _ = source_of_keras(model)
    given = np.array([[1, 2, 0, 0], [0, 0, 3, 4], [0, 0, 0, 0], [4, 0, 1, 0]], np.float32)
    assert compare(source, [[given], [given[:, :1]]]) == {"LSTM": 2}


@keras.saving.register_keras_serializable("lowprec_tests")
class Waves(LAYERS.Layer):  # type: ignore[name-defined, misc]
    """A cell that is no operator of ONNX."""

    state_size = output_size = 3

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 3))
        self.recurrent = self.add_weight(shape=(3, 3))
        self.factors = self.add_weight(shape=(3,))

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        made = keras.ops.cos(x @ self.kernel + states[0] @ self.recurrent) * self.factors
        return made * 2, [made + states[0]]


@keras.saving.register_keras_serializable("lowprec_tests")
class Parts(Waves):
    """An RNN as someone else would write it: one product of x and h side by side."""

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        weights = keras.ops.concatenate([self.kernel, self.recurrent], 0)
        joined = keras.ops.matmul(keras.ops.concatenate([x, states[0]], -1), weights)
        made = keras.ops.tanh(self.factors + joined)
        return made, [made]


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_cells_of_ones_own(masked: bool) -> None:
    def layer(cell: Any) -> Any:
        return LAYERS.RNN(cell, return_sequences=True, return_state=True)

    assert check(reader(layer(Waves()), masked=masked)) == {"Loop": 1}
    assert check(reader(layer(Parts()), masked=masked)) == {"RNN": 1}


def test_an_activation_that_onnx_lacks_makes_a_loop() -> None:
    assert check(reader(LAYERS.LSTM(3, activation="swish"))) == {"Loop": 1}


def test_convolutions_in_a_loop() -> None:
    images = keras.Input((None, 6, 6, 2))
    model = keras.Model(images, LAYERS.ConvLSTM2D(3, 3, padding="same")(images))
    source, _ = source_of_keras(model)
    assert compare(source, [[numbers(2, n, 6, 6, 2)] for n in (1, 3)]) == {"Loop": 1}
    lines = keras.Input((None, 8, 2))
    model = keras.Model(lines, LAYERS.ConvLSTM1D(3, 3, return_sequences=True)(lines))
    source, _ = source_of_keras(model)
    assert compare(source, [[numbers(2, n, 8, 2)] for n in (1, 3)]) == {"Loop": 1}


# ---- Loops and branches that a user writes ----


def traced(function: Callable[..., Any], *specs: tf.TensorSpec) -> Source:
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    return source_of(concrete, [f"x{number}" for number in range(len(specs))])


ROWS = tf.TensorSpec([None, 3], tf.float32)


def test_a_loop_over_an_open_length() -> None:
    def running(x: Any) -> Any:
        size = tf.shape(x)[0]
        made = tf.TensorArray(tf.float32, size)

        def body(i: Any, total: Any, made: Any) -> Any:
            total = total * 0.5 + x[i]
            return i + 1, total, made.write(i, tf.sin(total))

        _, total, made = tf.while_loop(lambda i, *_: i < size, body, (0, tf.zeros([3]), made))
        return total, made.stack()

    assert compare(traced(running, ROWS), [[numbers(n, 3)] for n in (1, 4)]) == {"Loop": 1}


def test_a_loop_that_a_number_ends() -> None:
    def halved(x: Any) -> Any:
        count, made = tf.while_loop(
            lambda i, x: tf.reduce_max(tf.abs(x)) > 0.1,
            lambda i, x: (i + 1, x * 0.5),
            (0, x),
        )
        return tf.cast(count, tf.float32), made

    small = numbers(2, 3) * 0.01
    assert compare(traced(halved, ROWS), [[numbers(2, 3)], [small]]) == {"Loop": 1}


def test_a_list_that_is_not_filled_holds_zeros() -> None:
    def some(x: Any) -> Any:
        made = tf.TensorArray(tf.float32, 6, element_shape=[3])
        _, made = tf.while_loop(
            lambda i, _: i < tf.shape(x)[0],
            lambda i, made: (i + 1, made.write(i, x[i] * 2)),
            (0, made),
        )
        return made.stack()

    assert compare(traced(some, ROWS), [[numbers(n, 3)] for n in (2, 6)]) == {"Loop": 1}


def test_a_loop_over_less_than_the_sequence() -> None:
    weights = tf.constant(numbers(3, 3))

    def first(x: Any, count: Any) -> Any:
        parts = tf.TensorArray(tf.float32, tf.shape(x)[0]).unstack(x)
        _, state = tf.while_loop(
            lambda i, _: i < count,
            lambda i, h: (i + 1, tf.tanh(parts.read(i) @ weights + h @ weights)),
            (0, tf.zeros([2, 3])),
        )
        return state

    specs = tf.TensorSpec([None, 2, 3], tf.float32), tf.TensorSpec([], tf.int32)
    feeds = [[numbers(5, 2, 3), np.array(n, np.int32)] for n in (1, 3, 5)]
    assert compare(traced(first, *specs), feeds) == {"RNN": 1}


def test_branches() -> None:
    def either(x: Any) -> Any:
        return tf.cond(
            tf.reduce_sum(x) > 0, lambda: (x * 2, tf.constant(1.0)), lambda: (tf.sin(x), x[0, 0])
        )

    feeds = [[np.abs(numbers(2, 3))], [-np.abs(numbers(2, 3))]]
    assert compare(traced(either, ROWS), feeds) == {"If": 1}

    def numbered(x: Any) -> Any:
        return tf.switch_case(
            tf.cast(tf.reduce_sum(x) > 0, tf.int32), [lambda: x * 2, lambda: tf.exp(x)]
        )

    assert compare(traced(numbered, ROWS), feeds) == {"If": 1}


def test_a_branch_that_is_known_is_taken() -> None:
    def known(x: Any) -> Any:
        shape = tf.shape(x)
        return tf.cond(shape[1] > 2, lambda: x * 2, lambda: tf.sin(x))

    assert compare(traced(known, ROWS), [[numbers(2, 3)]]) == {}


def test_calls_that_hold_loops() -> None:
    """Keras 2 put the loop of a layer into a function called standard_lstm."""
    kernel, recurrent, bias = (tf.Variable(numbers(*shape)) for shape in ((3, 8), (2, 8), (8,)))

    @tf.function(autograph=False)
    def standard_lstm(x: Any, h: Any, c: Any) -> Any:
        x = tf.transpose(x, [1, 0, 2])
        size = tf.shape(x)[0]
        parts = tf.TensorArray(tf.float32, size).unstack(x)
        made = tf.TensorArray(tf.float32, size)

        def body(i: Any, made: Any, h: Any, c: Any) -> Any:
            z = tf.nn.bias_add(parts.read(i) @ kernel + h @ recurrent, bias)
            z0, z1, z2, z3 = tf.split(z, 4, axis=1)
            c = tf.sigmoid(z1) * c + tf.sigmoid(z0) * tf.tanh(z2)
            h = tf.sigmoid(z3) * tf.tanh(c)
            return i + 1, made.write(i, h), h, c

        _, made, h, c = tf.while_loop(lambda i, *_: i < size, body, (0, made, h, c))
        return tf.transpose(made.stack(), [1, 0, 2]), h, c

    def layer(x: Any) -> Any:
        start = tf.zeros([tf.shape(x)[0], 2])
        return standard_lstm(x, start, start)

    source = traced(layer, tf.TensorSpec([None, None, 3], tf.float32))
    assert compare(source, [[numbers(2, n, 3)] for n in (1, 4)]) == {"LSTM": 1}


def test_layers_that_remember_are_refused() -> None:
    inputs = keras.Input(batch_shape=(2, 5, 4))
    model = keras.Model(inputs, LAYERS.LSTM(3, stateful=True)(inputs))
    source, _ = source_of_keras(model)
    with pytest.raises(lowprec.LowprecError, match="stateful=False"):
        hub_of(source, "remembers")


def test_a_loop_that_keeps_part_of_its_list_unread_is_refused() -> None:
    def backwards(x: Any) -> Any:
        size = tf.shape(x)[0]
        made = tf.TensorArray(tf.float32, size)
        _, made = tf.while_loop(
            lambda i, _: i < size,
            lambda i, made: (i + 1, made.write(size - 1 - i, x[i])),
            (0, made),
        )
        return made.stack()

    with pytest.raises(lowprec.LowprecError, match="write entry i in iteration i"):
        hub_of(traced(backwards, ROWS), "backwards")


def test_what_a_cell_replaces_leaves_no_weights() -> None:
    source, _ = source_of_keras(reader(LAYERS.LSTM(3)))
    hub = hub_of(source, "tested")
    numbers_kept = sum(
        value.const_value.size
        for value in hub.graph.initializers.values()
        if value.const_value is not None
    )
    assert numbers_kept < 12 * (4 + 3 + 2) + 60  # W, R and B, and a few axes


def test_a_saved_model_has_its_cells(tmp_path: Any) -> None:
    model = reader(LAYERS.GRU(3, return_sequences=True), masked=True)
    model.export(str(tmp_path / "saved"), verbose=False)
    captured = api.capture(str(tmp_path / "saved"))
    assert isinstance(captured, Captured)
    assert [node.op_type for node in captured.graph.graph].count("GRU") == 1
