"""Text that is safe to put into HTML, and numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape
from typing import Any

# What XML and HTML do not allow in a document, and halves of pairs that UTF-8 cannot encode.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = ("meta", "input", "br")
SHAPES = ("line", "path", "rect", "circle")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return `value` as text inside an element or a quoted attribute; markup stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(escape(_FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return an element; attribute names have `_` for `-`, and a trailing `_` is dropped.

    Args:
        tag: Its name.
        content: Text (escaped here) or markup.
        attributes: None and False leave one out, True gives one without a value.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    if tag in SHAPES and not content:
        return Html(f"<{tag}{written}/>")
    return Html(f"<{tag}{written}>{''.join(map(text, content))}</{tag}>")


def joined(parts: Iterable[object], separator: str = "") -> Html:
    """Return the parts one after the other."""
    return Html(separator.join(map(text, parts)))


# ---- Numbers -------------------------------------------------------------------------------------


def number(value: Any) -> float | None:
    """Return `value` as a float; infinite ratios are the texts "inf" and "-inf"; else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    return {"inf": math.inf, "-inf": -math.inf}.get(value) if isinstance(value, str) else None


def finite(value: Any) -> float | None:
    """Return `value` as a finite float, or None."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def significant(value: float, digits: int = 3) -> str:
    """Return 0.0123, 1.23, 12.3, 123, 1,234: at least `digits` digits, no exponent if small."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "∞" if value > 0 else "−∞"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return the same with its sign, also for positive numbers."""
    shown = significant(value, digits)
    return f"+{shown}" if value > 0 else shown


def score(value: float) -> str:
    """Return a metric's value with four decimals where it is a share, else four digits."""
    return f"{value:.4f}".replace("-", "−") if abs(value) <= 1 else significant(value, 4)


def decibels(value: Any) -> str:
    """Return '41.3', '∞' for equal, or '' for None."""
    found = number(value)
    if found is None:
        return ""
    return f"{found:.1f}".replace("-", "−") if math.isfinite(found) else significant(found)


def gained(value: float | None) -> str:
    """Return '+1.2' for a difference in dB, or '' for None."""
    if value is None:
        return ""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else significant(value)


def size(count: int) -> str:
    """Return '2.71 MB' (10^6 bytes)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{significant(count / scale)} {unit}"
    return f"{count} bytes"


def times_fast(before: float, after: float) -> str:
    """Return '2.50 × as fast'."""
    return f"{significant(before / after)} × as fast" if after > 0 else ""
