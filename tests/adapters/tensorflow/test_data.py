"""Calibration data of every kind that TensorFlow and Keras have."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.batches import batches_of
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.api import capture, open_workbench
from lowprec.errors import DataError
from lowprec.metrics import TopK, make_evaluate

Feeds = list[dict[str, np.ndarray]]
Dataset = tf.data.Dataset

PICTURES = np.random.default_rng(0).random((10, 6, 6, 2), np.float32)
LABELS = np.arange(10)
WEIGHTS = np.ones(10, np.float32)
LEFT, RIGHT = PICTURES[:, 0, 0], PICTURES[:, 0, :3, 0]  # (10, 2), (10, 3)


def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="picture"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def pair(form: Callable[[Any, Any], Any]) -> keras.Model:
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    layers = keras.layers
    x = layers.Dense(4)(layers.Concatenate()([left, right]))
    return keras.Model(form(left, right), x)


class Unbuilt(keras.Model):
    """Says nothing about its input before it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            inputs = keras.ops.concatenate([inputs["left"], inputs["right"]], axis=-1)
        return self.dense(inputs)


class Batches(keras.utils.PyDataset):
    """Pictures with labels; counts what is asked of it."""

    def __init__(self, count: int | None = 5) -> None:
        super().__init__()
        self.count, self.asked = count, 0

    @property
    def num_batches(self) -> int | None:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        rows = slice(index * 2 % 10, index * 2 % 10 + 2)
        return PICTURES[rows], LABELS[rows], WEIGHTS[rows]


class OldSequence:
    """As Keras 2 had them: a length and items, nothing else; iterating it would never end."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return PICTURES[index * 2 % 10 :][:2], LABELS[index * 2 % 10 :][:2]


@pytest.fixture(scope="module")
def single() -> Any:
    return capture_keras(small())


@pytest.fixture(scope="module")
def double() -> Any:
    return capture_keras(pair(lambda left, right: [left, right]))


def read(data: object, captured: Any) -> tuple[Feeds, list[str]]:
    found = batches_of(data, captured)
    return list(found), found.notes


def batched(size: int = 2) -> Dataset:
    return Dataset.from_tensor_slices((PICTURES, LABELS)).batch(size)


DROPPED = "calibration data: dropped what follows the inputs in each item ({} more)"
SINGLE = "calibration data: its items are single samples; each was given a batch axis"


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (lambda: batched(), [DROPPED.format(1)]),
        (lambda: batched().unbatch(), [DROPPED.format(1), SINGLE]),
        (lambda: Dataset.from_tensor_slices(PICTURES).batch(5), []),
        (
            lambda: Dataset.from_tensor_slices((PICTURES, LABELS, WEIGHTS)).batch(3),
            [DROPPED.format(2)],
        ),
        (
            lambda: Dataset.from_tensor_slices({"picture": PICTURES, "label": LABELS}).batch(2),
            ["calibration data: dropped label: not an input of the model"],
        ),
        (
            lambda: Dataset.from_tensor_slices(({"picture": PICTURES}, LABELS)).batch(2),
            [DROPPED.format(1)],
        ),
        (lambda: Dataset.from_tensor_slices(((PICTURES,), LABELS)).batch(2), [DROPPED.format(1)]),
        (Batches, [DROPPED.format(2)]),
        (OldSequence, [DROPPED.format(1)]),
        (lambda: PICTURES, []),
        (lambda: tf.constant(PICTURES), []),
        (lambda: (PICTURES, LABELS), [DROPPED.format(1)]),
        (
            lambda: {"picture": PICTURES, "y": LABELS},
            ["calibration data: dropped y: not an input of the model"],
        ),
        (lambda: list(tf.split(PICTURES, 5)), []),
        (lambda: (PICTURES[i : i + 2] for i in range(0, 10, 2)), []),
        (lambda: lambda: batched().take(5), [DROPPED.format(1)]),
        (lambda: lambda: PICTURES, []),
        (lambda: batched().as_numpy_iterator(), [DROPPED.format(1)]),
        (lambda: [[PICTURES[:4]], [PICTURES[4:]]], []),
        (lambda: [PICTURES[0], PICTURES[1:]], [SINGLE]),
    ],
)
def test_every_form_holds_the_pictures(data, notes, single):
    feeds, found = read(data(), single)
    assert np.array_equal(np.concatenate([feed["picture"] for feed in feeds]), PICTURES)
    assert found == notes


@pytest.mark.parametrize(
    "data",
    [
        lambda: Dataset.from_tensor_slices(((LEFT, RIGHT), LABELS)).batch(5),
        lambda: Dataset.from_tensor_slices((LEFT, RIGHT, LABELS)).batch(5),
        lambda: Dataset.from_tensor_slices(({"left": LEFT, "right": RIGHT}, LABELS)),
        lambda: [({"right": RIGHT, "left": LEFT}, LABELS, WEIGHTS)],
        lambda: [[LEFT, RIGHT]],
        lambda: [([LEFT, RIGHT], LABELS)],
        lambda: [LEFT, RIGHT],
        lambda: (LEFT, RIGHT, LABELS),
        lambda: {"left": LEFT, "right": RIGHT},
    ],
)
def test_several_inputs(data, double):
    feeds, _ = read(data(), double)
    assert np.array_equal(np.concatenate([feed["left"] for feed in feeds]), LEFT)
    assert np.array_equal(np.concatenate([feed["right"] for feed in feeds]), RIGHT)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_keys_of_a_dict_model_may_differ_from_the_names_of_its_inputs():
    captured = capture_keras(pair(lambda left, right: {"a": left, "b": right}))
    data = Dataset.from_tensor_slices(({"a": LEFT, "b": RIGHT}, LABELS)).batch(5)
    feeds, _ = read(data, captured)
    assert np.array_equal(feeds[1]["left"], LEFT[5:])
    assert np.array_equal(feeds[1]["right"], RIGHT[5:])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (PICTURES[:, 0, 0], r"sample 1, input 'picture': shape \[10, 2\] has 2 dimensions, .* 4"),
        (PICTURES[:, :5], r"shape \[10, 5, 6, 2\] has 5 on axis 1, the model takes 6 there"),
        (PICTURES[:0], r"shape \[0, 6, 6, 2\] holds no values; leave the sample out"),
        (PICTURES * np.nan, "it holds NaN; remove or repair that sample"),
        (np.full_like(PICTURES, np.inf), "it holds infin"),
        (tf.constant(["a"]), "sample 1, input 'picture', is text; give arrays or tensors"),
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), r"is a RaggedTensor; .* \.to_tensor\(\)"),
        (tf.sparse.from_dense([[1.0]]), "is a SparseTensor; give dense tensors"),
        (object(), "sample 1, input 'picture', is a object; give arrays"),
        ({"image": PICTURES}, "sample 1 has no 'picture'; it holds image, the model's inputs are"),
        ([[1.0], [1.0, 2.0]], "is not an array of numbers"),
    ],
)
def test_an_item_that_does_not_fit_is_named(item, message, single):
    with pytest.raises(DataError, match=message):
        read([PICTURES, item], single)


def test_one_array_for_two_inputs_is_refused(double):
    with pytest.raises(DataError, match=r"sample 0 is one array, the model has 2 inputs \(left, r"):
        read([LEFT], double)
    with pytest.raises(DataError, match="sample 0 has 1 parts, the model has 2 inputs"):
        read([(LEFT,)], double)
    with pytest.raises(DataError, match=r"numbers of samples \(left: 10, right: 9\)"):
        read({"left": LEFT, "right": RIGHT[:9]}, double)


@pytest.mark.parametrize("data", [[], {}, (), iter(()), PICTURES[:0], list, batched().take(0)])
@pytest.mark.parametrize("make", [small, Unbuilt])
def test_no_data_is_said(data, make, single):
    with pytest.raises(
        DataError, match=r"holds no samples|data has no 'picture'; it holds nothing"
    ):
        capture(make(), calibration_data=data)


def test_what_is_no_data_is_said(single):
    for data in (3, b"x", small()):
        with pytest.raises(DataError, match=r"give a tf\.data.Dataset, a keras.utils.PyDataset"):
            read(data, single)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64"])
def test_keras_casts(dtype, single):
    whole = np.arange(72).reshape(1, 6, 6, 2).astype(dtype)
    feeds, notes = read([whole], single)
    assert feeds[0]["picture"].dtype == np.float32
    assert np.array_equal(feeds[0]["picture"], whole)
    assert notes == [f"calibration data: converted 'picture' from {dtype} to float32"]


def test_numbers_of_words_stay_whole():
    words = keras.Input((3,), name="words", dtype="int32")
    x = keras.layers.Dense(2)(keras.layers.Embedding(9, 4)(words))
    captured = capture_keras(keras.Model(words, x))
    feeds, _ = read([np.array([[1.0, 2.0, 8.0]])], captured)
    assert feeds[0]["words"].tolist() == [[1, 2, 8]]
    assert feeds[0]["words"].dtype == np.int32
    with pytest.raises(DataError, match="dtype float64, the model takes int32; convert with"):
        read([np.array([[1.5, 2.0, 3.0]])], captured)


def test_other_models_cast_among_like_kinds_only(single):
    from dataclasses import replace

    from lowprec.adapters.tensorflow.binding import KEY

    captured = type(single)(**{**vars(single), "binding": {}})
    captured.binding = {KEY: replace(single.binding[KEY], form="graph")}
    assert read([PICTURES.astype(np.float64)], captured)[0][0]["picture"].dtype == np.float32
    with pytest.raises(DataError, match=r"dtype uint8, the model takes float32; convert with"):
        read([PICTURES.astype(np.uint8)], captured)


# ---- No more is read than is asked for, and nothing else changes ---------------------------------


def calibrate(model: keras.Model, data: object, samples: int = 4) -> Any:
    config = lowprec.Config.from_dict({"calibration": {"samples": samples}})
    captured = capture(model, calibration_data=data, samples=samples)
    return open_workbench(captured, data, config).quantize(config)


@pytest.mark.parametrize("endless", [True, False])
def test_a_data_set_is_read_no_further_than_asked_for(endless):
    data = Batches(None if endless else 5)
    report = calibrate(small(), data, 4).report
    assert report.samples == 4
    assert data.asked == 4


def test_an_endless_dataset():
    report = calibrate(small(), batched().repeat(), 7).report
    assert report.samples == 7
    assert DROPPED.format(1) in report.notes


def test_a_one_shot_iterator_is_calibrated_from_its_first_item_on():
    def items() -> Iterator[Any]:
        for i in range(10):
            yield PICTURES[i : i + 1], LABELS[i : i + 1]

    once, kept = (calibrate(small(), data, 10) for data in (items(), list(items())))
    assert once.report.samples == 10
    assert np.array_equal(once(PICTURES), kept(PICTURES))


def test_random_state_is_left_alone():
    keras.utils.set_random_seed(7)
    tf.random.Generator.from_seed(7)
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    expected = tf.random.normal((3,)).numpy()
    keras.utils.set_random_seed(7)
    data = batched()
    model = small()
    keras.utils.set_random_seed(7)
    calibrate(model, data)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002
    assert np.array_equal(tf.random.normal((3,)).numpy(), expected)
    assert sum(len(labels) for _, labels in data) == 10


# ---- What the first items are used for -----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        Dataset.from_tensor_slices((LEFT, LABELS)).batch(5),
        Dataset.from_tensor_slices(({"left": LEFT, "right": RIGHT}, LABELS)).batch(5),
        LEFT.astype(np.float64),
        {"left": LEFT, "right": RIGHT},
        (LEFT[i : i + 2] for i in range(0, 10, 2)),
        lambda: iter([(LEFT, LABELS)]),
    ],
)
def test_a_model_that_was_never_built_is_called_with_the_first_item(data):
    model = Unbuilt()
    quantized = calibrate(model, data)
    assert quantized.report.samples >= 1
    assert model.dense.kernel.dtype == "float32"


def test_the_capture_is_compared_on_the_first_items():
    data = Dataset.from_tensor_slices((PICTURES, LABELS)).batch(2)
    captured = capture(small(), calibration_data=data, samples=9)
    fed = [feed["picture"] for feed, _ in captured.samples]
    assert [len(rows) for rows in fed] == [1, 3]
    assert np.array_equal(fed[0], PICTURES[:1])
    assert np.array_equal(fed[1], PICTURES[[2, 3, 2]])
    alone = capture(small(), calibration_data=data, samples=1)
    assert np.array_equal(alone.samples[1][0]["picture"], PICTURES[[0, 1, 0]])


def test_what_was_looked_at_is_yielded_again():
    opened = OpenedData(iter(range(5)))
    assert opened.peek(2) == [0, 1]
    assert opened.peek(1) == [0]
    assert list(opened) == [0, 1, 2, 3, 4]
    assert list(opened) == []
    again = OpenedData(iter(range(3)))
    again.keep()
    assert list(again) == list(again) == [0, 1, 2]


def test_parts_get_what_reaches_them():
    class Mixed(keras.Model):
        """Text between arithmetic: two parts around what TensorFlow keeps."""

        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = keras.layers.Dense(4), keras.layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            x = self.before(inputs)
            lengths = tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)
            return self.after(tf.concat([x, lengths], -1))

    model = Mixed()
    data = (LEFT[i : i + 5] for i in (0, 5))  # one shot, for several parts
    captured = lowprec.api.capture_any(model, calibration_data=data, samples=8)
    feeds = {name: list(batches_of(data, part)) for name, part in captured.parts.items()}
    assert len(feeds) >= 1
    for name, part in captured.parts.items():
        assert len(feeds[name]) == 2
        assert set(feeds[name][0]) == set(part.samples[0][0])
        assert all(len(array) == 5 for array in feeds[name][0].values() if array.ndim)


# ---- Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [(LEFT, RIGHT), {"left": LEFT, "right": RIGHT}])
def test_a_metric_scores_a_keras_model_of_several_inputs(inputs):
    model = pair(lambda left, right: {"left": left, "right": right})
    if isinstance(inputs, tuple):
        model = pair(lambda left, right: [left, right])
    expected = model.predict_on_batch(list(inputs) if isinstance(inputs, tuple) else inputs).argmax(
        -1
    )
    score = make_evaluate(TopK(k=1), [(inputs, expected)])
    assert score(model) == 1.0
    assert make_evaluate(TopK(k=1), [(inputs, (expected + 1) % 4)])(model) == 0.0
