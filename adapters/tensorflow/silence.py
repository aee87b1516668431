"""TensorFlow's own advice, kept quiet where it does not apply."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow from warning: of its own old loader, of names and tags that are fine here."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
