"""Libraries below log what they find odd; the library itself never prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def at_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Let `logger` say nothing below `level` meanwhile."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def silent_onnx_ir() -> AbstractContextManager[None]:
    """Keep onnx_ir's warnings about odd graphs quiet: our checks turn what matters into errors."""
    return at_level(logging.getLogger("onnx_ir"), logging.CRITICAL)
