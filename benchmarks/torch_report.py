"""Tables of bench_torch.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

OURS = "lowprec "
PRECISIONS = ("f32", "bf16", "int8")
EAGER = "torch eager f32"


@dataclass
class Row:
    """One model, batch and number of threads.

    Attributes:
        seconds: Of one call by runner.
        ready: Seconds from the module to its first result by runner.
        sqnr: dB of the worst output beside torch eager by runner, on feeds not calibrated with.
        agreement: Share of largest outputs along the classes that are torch eager's, by runner.
        failed: Why a runner has no figures.
    """

    model: str
    kind: str
    threads: int
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    sqnr: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.model}, batch {self.batch}" if self.batch > 1 else self.model

    def peers(self) -> dict[str, float]:
        return {who: s for who, s in self.seconds.items() if not who.startswith(OURS)}

    def over(self, precision: str, peer: str | None = None) -> float | None:
        """Return a peer's time over ours; None takes the best peer of any precision."""
        ours = self.seconds.get(OURS + precision)
        peers = self.peers()
        theirs = min(peers.values(), default=None) if peer is None else peers.get(peer)
        return theirs / ours if ours and theirs else None


def speed_table(rows: Sequence[Row]) -> str:
    """Return milliseconds of everyone, and ratios for int8 (above 1: ours is faster)."""
    peers = _runners(rows, lambda row: row.peers())
    ours = [OURS + precision for precision in PRECISIONS]
    heads = ["model", "threads", *peers, *ours, "eager / int8", "best peer / int8"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row.title, str(row.threads)]
        cells += [_number(row.seconds.get(who), 1e3, 3) for who in (*peers, *ours)]
        cells += [_number(row.over("int8", EAGER)), _number(row.over("int8"))]
        lines.append(_line(cells))
    return "\n".join(lines)


def accuracy_table(rows: Sequence[Row]) -> str:
    """Return the SQNR beside torch eager in dB, and how many decisions are the same."""
    rows = [row for row in rows if row.threads == rows[0].threads]
    runners = [who for who in _runners(rows, lambda row: row.sqnr) if who != EAGER]
    lines = [_line(["model", *runners]), "|---" * (1 + len(runners)) + "|"]
    for row in rows:
        cells = [
            f"{row.sqnr[who]:.1f} dB ({100 * row.agreement[who]:.1f} %)" if who in row.sqnr else ""
            for who in runners
        ]
        lines.append(_line([row.title, *cells]))
    return "\n".join(lines)


def ready_table(rows: Sequence[Row]) -> str:
    """Return the seconds from the module to the first result."""
    runners = [who for who in _runners(rows, lambda row: row.ready) if who != EAGER]
    lines = [_line(["model", "threads", *runners]), "|---" * (2 + len(runners)) + "|"]
    for row in rows:
        cells = [_number(row.ready.get(who), 1, 1) for who in runners]
        lines.append(_line([row.title, str(row.threads), *cells]))
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """Return geometric means and least ratios of int8 by kind of model and threads."""
    lines = ["| what | threads | geometric mean | least |", "|---" * 4 + "|"]
    for threads in sorted({row.threads for row in rows}):
        for kind in dict.fromkeys(row.kind for row in rows):
            part = [row for row in rows if (row.threads, row.kind) == (threads, kind)]
            for what, peer in (("torch eager", EAGER), ("best peer", None)):
                ratios = {row.title: r for row in part if (r := row.over("int8", peer)) is not None}
                if ratios:
                    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
                    least = min(ratios, key=lambda title: ratios[title])
                    lines.append(
                        f"| {kind}: {what} / int8 | {threads} | {mean:.2f} "
                        f"| {ratios[least]:.2f} ({least}) |"
                    )
    return "\n".join(lines)


def notes(rows: Sequence[Row]) -> str:
    """Return a line for everyone who failed."""
    return "\n".join(
        f"- {row.title}, {row.threads} threads: {who}: {why}"
        for row in rows
        for who, why in row.failed.items()
    )


def _runners(rows: Sequence[Row], column: Callable[[Row], dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(who for row in rows for who in column(row)))


def _number(value: float | None, factor: float = 1, digits: int = 2) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
