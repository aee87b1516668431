"""Fixtures that several rooms' tests share; being here puts this folder on sys.path for "
"`onnx_models`."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models
import pytest


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
