"""Find what `module:name` names: a user's function or class, from the command line or a config."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from lowprec.errors import DataError


def is_function_name(text: str) -> bool:
    """Return whether `text` has the form module:name."""
    module, separator, name = text.rpartition(":")
    return (
        bool(separator)
        and name.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
    )


def find_function(text: str, what: str) -> Callable[..., Any]:
    """Return the function that `module:name` names, from the working directory or the environment.

    Args:
        text: module:name.
        what: What asked for it, for messages: '--calibration'.

    Raises:
        DataError: the module cannot be imported, has no such name, or it cannot be called.
    """
    found = _named(text, what)
    if not callable(found):
        raise DataError(f"{what} {text}: it is not a function")
    return found  # type: ignore[no-any-return]


def find_functions(text: str, what: str) -> dict[str, Callable[..., Any]]:
    """Return by name the function, or the functions in the dict, that `module:name` names.

    Args:
        text: As for `find_function`; a single function is called by its own name.
        what: As for `find_function`.

    Raises:
        DataError: as for `find_function`.
    """
    if not is_function_name(text):
        raise DataError(f"{what} {text}: give MODULE:FUNCTION, for example scores:top1")
    found = _named(text, what)
    if isinstance(found, Mapping):
        return dict(found)
    if not callable(found):
        raise DataError(
            f"{what} {text}: it is a {type(found).__name__}; name a function from a model to a "
            "score, or a dict of such functions"
        )
    return {text.rpartition(":")[2]: found}


def _named(text: str, what: str) -> Any:
    module_name, _, name = text.rpartition(":")
    # As `python -m` finds modules. It stays: other processes that score trials import it, too.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(module_name), name)
    except ImportError as error:
        raise DataError(
            f"{what} {text}: module '{module_name}' cannot be imported: {error}"
        ) from None
    except AttributeError:
        raise DataError(f"{what} {text}: module '{module_name}' has no '{name}'") from None
