"""Pictures show what they are given: counted bars, the range held, trials in their place."""

from __future__ import annotations

import re

import pytest

from lowprec.report_html.markup import gained, significant, size
from lowprec.report_html.pictures import Point, Series, layer_bars, pareto_picture, range_picture


def path(picture: str, class_: str) -> str:
    found = re.search(rf'<path d="([^"]*)" class="{class_}"/>', picture)
    return "" if found is None else found[1]


def heights(drawn: str) -> list[float]:
    """Top of each bar, from left to right, as height above the floor."""
    return [25 - float(y) for y in re.findall(r"V([\d.]+)H", drawn)]


def test_bars_are_where_values_were_seen_and_red_where_they_are_cut() -> None:
    layer = {"rmin": -1.0, "rmax": 1.0}
    counts = [5, 0, 1000, 100, 0, 7, 0, 0]  # from -1 to 3
    picture = range_picture(layer, {"low": -1.0, "high": 3.0, "counts": counts})
    inside, outside = heights(path(picture, "seen")), heights(path(picture, "cut"))
    assert len(inside) == 3
    assert len(outside) == 1
    assert inside[1] > inside[2] > inside[0] > 0
    assert max(inside) == pytest.approx(22, abs=0.1)
    assert "codes hold −1.00 to 1.00; calibration saw −1.00 to 3.00" in picture
    held = re.search(r'<rect x="([\d.]+)" y="1" width="([\d.]+)"', picture)
    assert held is not None
    assert float(held[2]) == pytest.approx(130 / 2, abs=0.1)  # two of four units


def test_a_range_without_histogram_is_a_picture_too() -> None:
    picture = range_picture({"rmin": 0.0, "rmax": 6.0}, None)
    assert "codes hold 0 to 6.00" in picture
    assert path(picture, "seen") == ""
    assert range_picture({}, None) == ""
    assert "held" in range_picture({"rmin": 0.0, "rmax": 0.0}, None)


def test_losses_stand_below_zero() -> None:
    picture = layer_bars("t", "dB", ["a", "b"], [Series("gain", "a", [4.0, -2.0])])
    bars = re.findall(r'y="([\d.]+)" width="[\d.]+" height="([\d.]+)" class="bar', picture)
    (y_gain, height_gain), (y_loss, height_loss) = [(float(y), float(h)) for y, h in bars]
    assert y_gain + height_gain == pytest.approx(y_loss, abs=0.15)
    assert height_gain == pytest.approx(2 * height_loss, abs=0.2)


def trial(cost: float, quality: float, class_: str = "met", number: str = "") -> Point:
    return Point(cost, quality, f"at {cost}", class_, bool(number), number)


def test_better_trials_are_higher_and_cheaper_ones_farther_left() -> None:
    points = [trial(50, 0.9), trial(80, 0.95), trial(60, 0.92, "best", "3")]
    picture = pareto_picture("t", "ms", "score", points, 0.91)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture)
    (ax, ay), (bx, by) = [(float(x), float(y)) for x, y in circles]
    assert ax < bx
    assert ay > by
    assert 'class="point best"' in picture
    limit = re.search(r'y1="([\d.]+)" y2="\1" class="limit"', picture)
    assert limit is not None
    assert by < float(limit[1]) < ay
    assert ">3</text>" in picture


def test_a_ruined_trial_does_not_flatten_the_others() -> None:
    points = [trial(50, 0.0, "missed"), trial(60, 0.99), trial(70, 1.0)]
    picture = pareto_picture("t", "ms", "score", points, 0.99)
    circles = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', picture)]
    assert circles[0] - circles[1] > 20
    assert 'class="point below"' in picture


def test_one_trial_alone() -> None:
    picture = pareto_picture("t", "ms", "score", [trial(50, 0.5, "best", "1")], None)
    assert 'class="point best"' in picture
    assert "nan" not in picture


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (0.01234, "0.0123"), (-2.5, "−2.50"), (1e-9, "1.00e−09"),
     (float("inf"), "∞")],
)  # fmt: skip
def test_numbers_as_people_read_them(value: float, text: str) -> None:
    assert significant(value) == text


def test_units() -> None:
    assert [size(n) for n in (12, 2500, 3_371_189, 4_000_000_000)] == [
        "12 bytes",
        "2.50 kB",
        "3.37 MB",
        "4.00 GB",
    ]
    assert [gained(v) for v in (1.25, -0.04, None, float("inf"))] == ["+1.2", "−0.0", "", "∞"]
