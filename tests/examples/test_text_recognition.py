"""The demo's own pieces: what it draws, decodes and counts must be right to mean anything."""

from __future__ import annotations

import numpy as np
import pytest
import recognizer
import words


def probabilities(best: list[int], classes: int = 5) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[best][None]


@pytest.mark.parametrize(
    ("best", "text"),
    [([0, 0], ""), ([1, 1, 0, 1], "aa"), ([1, 2, 2, 3, 0], "abc"), ([0, 4, 0, 4], "  ")],
)
def test_decode_merges_repeats_and_drops_blanks(best, text):
    assert recognizer.decode(probabilities(best), ["", "a", "b", "c", " "]) == text


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("kitten", "sitting", 3),
        ("abc", "", 3),
        ("flaw", "lawn", 2),
        ("same", "same", 0),
    ],
)
def test_edit_distance(a, b, distance):
    assert recognizer.edit_distance(a, b) == recognizer.edit_distance(b, a) == distance


def test_lists_of_words_share_no_word():
    calibration, test = words.draw_words(1, 20, 30)
    assert (len(calibration), len(test)) == (20, 30)
    assert not {word.text for word in calibration} & {word.text for word in test}


def test_same_seed_same_pixels():
    (first,), (again,), (other,) = (words.draw_words(seed, 8) for seed in (1, 1, 2))
    assert all((a.pixels == b.pixels).all() for a, b in zip(first, again, strict=True))
    assert [word.text for word in first] != [word.text for word in other]


def test_pictures_fit_the_recognizer():
    for word in words.draw_words(3, 40)[0]:
        assert word.text.isalpha()
        assert 3 <= len(word.text) <= 12
        assert word.pixels.dtype == np.uint8
        height, width, channels = word.pixels.shape
        assert (height, channels, width % 8) == (48, 3, 0)
        assert width >= 48
        pixels = words.to_input(word)
        assert pixels.shape == (1, 3, 48, width)
        assert np.abs(pixels).max() <= 1
        # Dark on light, with ink.
        assert np.percentile(word.pixels, 1) + 60 < np.percentile(word.pixels, 90)


def test_more_words_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="vocabulary has"):
        words.draw_words(1, 10**6)


def test_reading_counts_words_and_characters():
    (drawn,) = words.draw_words(1, 4)
    alphabet = ["", *sorted({letter for word in drawn for letter in word.text})]
    answers = iter([word.text for word in drawn[:3]] + [drawn[3].text[:-1]])

    def run(pixels: np.ndarray) -> np.ndarray:
        text = next(answers)
        best = [index for letter in text for index in (alphabet.index(letter), 0)]
        return probabilities(best, len(alphabet))

    reading = recognizer.read_words(run, drawn, alphabet)
    assert reading.exact == 0.75
    assert reading.character_errors == 1 / sum(len(word.text) for word in drawn)
