"""TensorFlow's own advice, kept quiet where it does not apply."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import tensorflow as tf

from lowprec.graph.silence import at_level


def quiet() -> AbstractContextManager[None]:
    """Keep TensorFlow from warning: of its own old loader, of names and tags that are fine here."""
    return at_level(tf.get_logger(), logging.ERROR)
