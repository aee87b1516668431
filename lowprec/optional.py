"""Import what only some need; where it is missing, say which extra brings it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lowprec.errors import UnsupportedError


def require(module: str, extra: str, purpose: str) -> Any:
    """Return the imported `module`.

    Args:
        module: Its import name, such as 'sklearn.metrics'.
        extra: The extra of lowprec that installs it.
        purpose: What needs it, as the beginning of a sentence: 'the metric F1'.

    Raises:
        UnsupportedError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise UnsupportedError(
            f"{purpose} needs {module.partition('.')[0]} ({reason}); "
            f"install it with: pip install 'lowprec[{extra}]'"
        ) from None
