"""onnx_ir and onnx log what they find odd; the library itself never prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_onnx_ir() -> Iterator[None]:
    """Keep onnx_ir's warnings about odd graphs quiet: our checks turn what matters into errors."""
    logger = logging.getLogger("onnx_ir")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
