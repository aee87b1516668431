"""The examples in the docstrings of lowprec.numerics do what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["convert", "gemm", "histogram", "qparams"])
def test_examples_hold(name):
    module = importlib.import_module(f"lowprec.numerics.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
