"""The report survives JSON, holds no times there, and reads as a table."""

from __future__ import annotations

import json

import pytest

from lowprec.errors import ModelError
from lowprec.report import LayerRecord, Report


def report() -> Report:
    return Report(
        model="words",
        config={"version": 1, "layers": [{"match": "head*", "precision": "f32"}]},
        samples=128,
        versions={"lowprec": "0.1.0"},
        layers=[
            LayerRecord(
                name="conv1",
                op_type="Conv",
                precision="int8",
                reason="",
                macs=1000,
                tensor="x",
                rmin=-1.5,
                rmax=2.5,
                method="percentile 99.99",
                clipped=1e-4,
                scale=4 / 255,
                zero_point=96,
                weight_sqnr=41.0,
                activation_sqnr=38.5,
                raised_channels=2,
            ),
            LayerRecord("head", "Gemm", "f32", "excluded by the config: f32", macs=250),
            LayerRecord("act", "Sigmoid", "f32", "runs on the f32 result"),
            LayerRecord("act2", "Sigmoid", "f32", "runs on the f32 result"),
        ],
        int8_macs=1000,
        total_macs=1250,
        float_bytes=4000,
        int8_bytes=1000,
        notes=["labels were dropped"],
        accuracy={"words exact": {"float": 0.99, "int8": 0.985}},
        speed={"ms per word": {"float": 10.0, "int8": 4.0}},
    )


def test_json_and_back_is_equal_but_for_times() -> None:
    original = report()
    again = Report.from_json(original.to_json())
    assert again.speed == {}
    original.speed = {}
    assert again == original


def test_the_saved_text_is_the_same_whatever_the_times() -> None:
    other = report()
    other.speed = {"ms per word": {"float": 11.0, "int8": 3.0}}
    assert other.to_json() == report().to_json()
    assert "ms per word" not in report().to_json()


def test_a_later_versions_keys_are_left_out() -> None:
    values = json.loads(report().to_json())
    values["energy"] = 3
    values["layers"][0]["energy"] = 3
    assert Report.from_json(json.dumps(values)).to_json() == report().to_json()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"layers": 3}', '{"layers": [{}]}'])
def test_a_damaged_report_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ModelError, match="the report is damaged") as error:
        Report.from_json(text)
    assert "\n" not in str(error.value)


def test_text_shows_totals_layers_and_reasons() -> None:
    text = str(report())
    first = text.splitlines()[0]
    assert "80.0 %" in first
    assert "128 calibration samples" in first
    assert "4,000 -> 1,000 bytes (0.25)" in first
    (conv,) = [line for line in text.splitlines() if line.startswith("conv1")]
    for part in ("int8", "1,000", "-1.5 .. 2.5", "0.010 %", "38.5", "41.0", "2 channels"):
        assert part in conv
    assert "excluded by the config: f32" in text
    assert "2 x Sigmoid: runs on the f32 result" in text
    assert "note: labels were dropped" in text
