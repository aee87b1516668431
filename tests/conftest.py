"""Fixtures that several rooms' tests share, and how Hypothesis runs in all of them."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_models
import pytest
from hypothesis import settings

# Two threads: all tests run the shared paths too, and several test processes side by side do not
# take a large machine many times over. tests/threads goes through other numbers.
os.environ.setdefault("LOWPREC_NUM_THREADS", "2")
# Tests that want compiled programs on disk name a folder of their own.
os.environ["LOWPREC_CACHE"] = "off"

# No deadline: a shared machine, or a sanitized build, may stop for a moment anywhere.
settings.register_profile("lowprec", deadline=None, print_blob=True)
settings.load_profile("lowprec")


@pytest.fixture
def linear() -> onnx.ModelProto:
    """y = relu(x @ w + b), x (N, 4), y (N, 3)."""
    return onnx_models.linear()


@pytest.fixture
def linear_path(linear, tmp_path) -> Path:
    """The model `linear` in a file."""
    path = tmp_path / "linear.onnx"
    onnx.save(linear, path)
    return path
