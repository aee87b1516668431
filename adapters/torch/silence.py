"""What torch's exporters say about themselves, kept from users: an error of ours says it better."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.export import _trace

TALKERS = ("torch", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporters from writing about what their caller cannot change."""
    found = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in TALKERS]
    loggers = [logging.getLogger(name) for name in {*found, *TALKERS}]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    vars(_trace)["print"] = _say_nothing  # it prints what it had of the graph when it failed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        vars(_trace).pop("print", None)


def _say_nothing(*values: object, **options: object) -> None:
    pass
