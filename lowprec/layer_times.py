"""How long each layer takes, before and after: the steps of two sessions, given to layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from lowprec.engine import Session
    from lowprec.report import LayerRecord

REPEATS = 3
# What rounds a tensor for its readers is called after the tensor.
SUFFIXES = ("_quantized", "_dequantized", "_bf16", "_rounded")


def layer_times(
    layers: Sequence[LayerRecord],
    original: Session,
    quantized: Session,
    feed: Mapping[str, NDArray[Any]],
    *,
    repeats: int = REPEATS,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return milliseconds by layer name, of the float and of the quantised model.

    Operators that run in the epilogue of a layer count as the layer's; what quantises a tensor, or
    the other way round, as that of the first layer that reads it.

    Args:
        layers: Of the quantised model's report.
        original: Float model.
        quantized: Quantised model.
        feed: What is run.
        repeats: Runs of which each step's shortest time counts: a busy machine only adds to it.
    """
    names = {record.name for record in layers}
    readers: dict[str, str] = {}
    for record in layers:
        if record.tensor:
            readers.setdefault(record.tensor, record.name)
    both = []
    for session in (original, quantized):
        rounds = [
            session.profile(feed, repeats=1, warm=number > 0) for number in range(max(repeats, 1))
        ]
        times: dict[str, float] = {}
        for index, step in enumerate(rounds[0]):
            owner = step.row.name if step.row.name in names else _owner(step.row.name, readers)
            # A branch that went another way in one of the rounds has other steps.
            seconds = min(r[index].seconds for r in rounds if len(r) == len(rounds[0]))
            if owner is not None:
                times[owner] = times.get(owner, 0.0) + 1e3 * seconds
        both.append(times)
    return both[0], both[1]


def _owner(step: str, readers: Mapping[str, str]) -> str | None:
    """Return the layer that reads what a quantising step makes."""
    for suffix in SUFFIXES:
        if step.endswith(suffix):
            return readers.get(step[: -len(suffix)])
    return None
