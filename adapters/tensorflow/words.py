"""Messages of others as part of ours."""

from __future__ import annotations


def in_one_line(error: BaseException, most: int = 300) -> str:
    """Return what an exception says, without line breaks, at most so many characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__
