"""torch.onnx's table of operators, filled once and not in every export.

torch.onnx.export looks through a thousand translations each time, parsing the source of each: half
a second of processor time, most of what a small module takes, and a split one is many.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

_lock = RLock()
_kept: dict[Any, Any] = {}

# Brings operators of its own when it is imported, which a table from before lacks.
_EXTENDS = "torchvision"


@contextmanager
def kept_registry() -> Iterator[None]:
    """Within, torch.onnx.export takes a copy of the table that it filled at first."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another version of torch
        yield
        return
    kind: Any = ONNXRegistry
    with _lock:
        fill = vars(kind).get("from_torchlib")
        if fill is None:
            yield
            return
        kind.from_torchlib = classmethod(_copied(fill))
        try:
            yield
        finally:
            kind.from_torchlib = fill


def _copied(fill: Any) -> Any:
    """Return `fill`, a classmethod, as a function that fills once for the same arguments."""

    def from_torchlib(kind: Any, *args: Any, **options: Any) -> Any:
        key = (args, tuple(sorted(options.items())), _EXTENDS in sys.modules)
        if key not in _kept:
            _kept[key] = fill.__func__(kind, *args, **options)
        registry = copy.copy(_kept[key])
        # Lists grow by what the caller adds; what they hold says which operator, and stays.
        registry.functions = {name: [*found] for name, found in _kept[key].functions.items()}
        return registry

    return from_torchlib
