"""What one algorithm did, for the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The account of one algorithm.

    Attributes:
        name: As the configuration's section `algorithms` names it.
        changed: How many places it changed: tensors, layers, or whatever `note` says; 0: none.
        gain: Signal to noise gained, dB, measured or computed as `note` says; None when it was not
            measured.
        note: One sentence: what was changed and how the gain was found, or why nothing was done.
    """

    name: str
    changed: int
    gain: float | None
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line."""
        gain = "" if self.gain is None else f" ({self.gain:+.1f} dB)"
        return f"{self.name}: {self.note}{gain}"
