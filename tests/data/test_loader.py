"""Batches: sizes, order, labels, repetition."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from lowprec.data import Loader, open_data
from lowprec.data.datasets import Arrays, Computed
from lowprec.data.geometry import RandomHorizontalFlip
from lowprec.data.transforms import LabelShift
from lowprec.errors import ConfigError, DataError

NUMBERS = Arrays((np.arange(10)[:, None],), np.arange(10))


def test_the_last_batch_rolls_over_or_is_discarded():
    kept = Loader(NUMBERS, batch_size=4)
    assert [len(labels) for _, labels in kept] == [4, 4, 2]
    assert len(kept) == 3
    full = Loader(NUMBERS, batch_size=4, last_batch="discard")
    assert [len(labels) for _, labels in full] == [4, 4]
    assert len(full) == 2
    with refused(DataError, "10 samples", "batch of 11"):
        Loader(NUMBERS, batch_size=11, last_batch="discard")


def test_limit_and_shuffle_repeat():
    shuffled = Loader(NUMBERS, batch_size=10, shuffle=True, seed=3)
    ((inputs, labels),) = list(shuffled)
    assert sorted(labels.tolist()) == list(range(10))
    assert labels.tolist() != list(range(10))
    np.testing.assert_array_equal(inputs[:, 0], labels)
    np.testing.assert_array_equal(next(iter(shuffled))[1], labels)
    some = [labels for _, labels in Loader(NUMBERS, batch_size=3, limit=5)]
    np.testing.assert_array_equal(np.concatenate(some), range(5))


def test_random_transforms_do_not_depend_on_batches_or_order():
    images = Arrays((np.arange(60).reshape(10, 2, 3),), np.arange(10))
    flips = (RandomHorizontalFlip(),)
    one = np.concatenate([part for part, _ in Loader(images, flips, batch_size=3)])
    ((other, labels),) = list(Loader(images, flips, batch_size=10, shuffle=True, seed=0))
    np.testing.assert_array_equal(one[labels], other)
    assert {tuple(image[0]) == tuple(range(6 * n, 6 * n + 3)) for n, image in enumerate(one)} == {
        True,
        False,
    }


def test_labels_go_through_transforms_and_may_be_missing_or_ragged():
    shifted = Loader(NUMBERS, (LabelShift(label_shift=2),), batch_size=10)
    ((_, labels),) = list(shifted)
    np.testing.assert_array_equal(labels, np.arange(10) - 2)
    ((_, labels),) = list(Loader(Arrays(NUMBERS.inputs, None), batch_size=10))
    assert labels is None
    ragged = Computed(2, lambda number: (np.zeros(3), np.zeros(number + 1)))
    ((_, labels),) = list(Loader(ragged, batch_size=2))
    assert [len(label) for label in labels] == [1, 2]


def test_samples_of_a_batch_have_one_shape():
    ragged = Computed(3, lambda number: (np.zeros(number // 2 + 1), 0))
    with refused(DataError, "samples 0 and 2", "[1]", "[2]", "batch_size: 1"):
        list(Loader(ragged, batch_size=3))
    assert len(list(Loader(ragged))) == 3


def test_all_mistakes_of_a_description_at_once():
    with pytest.raises(ConfigError) as caught:
        open_data({"dataset": "MNST", "transform": {"Resiz": {}}, "batch_size": 0, "suffle": True})
    assert len(caught.value.details) == 4
