"""Reading the report's plain data: it may come from a file, so nothing about it is taken on trust.

What has the wrong kind is treated as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowprec.report_html.markup import finite

Values = Mapping[str, Any]


def mapping(value: Any) -> Values:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Values]:
    """Return the mappings in a list."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def items(value: Any) -> Sequence[Any]:
    """Return `value` if it is a list, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def precision(values: Values) -> str:
    """Return what the configuration asked for."""
    return str(mapping(values.get("config")).get("precision", "int8"))


def layers(values: Values) -> list[Values]:
    """Return the operators with multiply-adds or codes, in graph order."""
    return [layer for layer in mappings(values.get("layers")) if is_layer(layer)]


def is_layer(layer: Values) -> bool:
    """Return whether an operator has multiply-adds or reads codes."""
    return bool(finite(layer.get("macs")) or layer.get("tensor"))


def pair(values: Any, name: str) -> tuple[float | None, float | None]:
    """Return what was measured of float, and of the precision called `name`."""
    both = mapping(values)
    return finite(both.get("float")), finite(both.get(name))
