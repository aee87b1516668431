"""The public names are the promised ones, with the promised signatures and documentation."""

from __future__ import annotations

import inspect
import re

import pytest

import lowprec

PROMISED = {
    "quantize",
    "load",
    "compile",
    "QuantizedModel",
    "Config",
    "numerics",
    "errors",
    "LowprecError",
    "cpu_info",
    "get_include",
}


def test_promised_names_are_public():
    assert set(lowprec.__all__) >= PROMISED
    assert set(lowprec.__all__) <= set(dir(lowprec))


def test_every_public_name_resolves_and_is_documented():
    undocumented = [name for name in lowprec.__all__ if not inspect.getdoc(getattr(lowprec, name))]
    assert [name for name in undocumented if not name.startswith("__")] == []


def test_quantize_takes_the_model_and_data_by_position_and_the_rest_by_name():
    parameters = inspect.signature(lowprec.quantize).parameters
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    positional, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    assert list(kinds.items())[:2] == [("model", positional), ("calibration_data", positional)]
    assert parameters["precision"].default == "int8"
    assert {"precision", "config", "progress"} <= {n for n, k in kinds.items() if k is named}


@pytest.mark.parametrize(
    "member", ["run", "save", "to_onnx", "report", "explain", "inputs", "outputs"]
)
def test_quantized_model_has_the_promised_members(member):
    assert hasattr(lowprec.QuantizedModel, member)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="quantise_everything"):
        lowprec.quantise_everything  # noqa: B018


def test_version_is_the_distributions():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", lowprec.__version__)
