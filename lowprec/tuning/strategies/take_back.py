"""Undo a group of changes as far as the criterion allows, in few trials: whole, then by halves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from lowprec.config import Config
from lowprec.tuning.problem import Proposal
from lowprec.tuning.trial import Trial

T = TypeVar("T")


def take_back(
    items: Sequence[T], kept: set[T], build: Callable[[set[T]], Config], depth: int
) -> Generator[Proposal, Any, None]:
    """Remove from `kept` as many of `items` as the criterion allows.

    Args:
        items: What may go, first the one that may most likely.
        kept: What is there now, with which the criterion is met; changed in place.
        build: The configuration for a set of what is kept.
        depth: How often a group that cannot go as a whole is halved.
    """
    if not items:
        return
    rest = kept.difference(items)
    trial: Trial = yield build(rest)
    if trial.met:
        kept.intersection_update(rest)
        return
    if depth > 0 and len(items) > 1:
        half = (len(items) + 1) // 2
        yield from take_back(items[:half], kept, build, depth - 1)
        yield from take_back(items[half:], kept, build, depth - 1)
