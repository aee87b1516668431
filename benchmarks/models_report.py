"""Tables and means of bench_models.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PRECISIONS = ("f32", "bf16", "int8")
PEERS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Accuracy:
    """One runner against its own tool's float, on feeds that nobody calibrated with.

    Attributes:
        sqnr: Of the worst output of the worst feed, dB.
        agreement: Share of decisions that are the same (RealModel.agreement).
        holds: Whether the model still does what it is for.
    """

    model: str
    runner: str
    sqnr: float
    agreement: float
    holds: bool


@dataclass
class Row:
    """Median seconds of one model by runner name, and which of them hold its accuracy."""

    model: str
    threads: int
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
    holds: dict[str, bool] = field(default_factory=dict)

    def ours(self, precision: str) -> float | None:
        return self.seconds.get(f"ours {precision}")

    def peer(self, who: str, precision: str) -> float | None:
        """Return the tool's best time in that precision among those that hold; None: no peer."""
        times = [
            seconds
            for name, seconds in self.seconds.items()
            if name.startswith(f"{who} {precision}") and self.holds.get(name, True)
        ]
        return min(times, default=None)

    def lost(self, who: str, precision: str) -> float | None:
        """Return the tool's best time among those that lost the model."""
        times = [
            seconds
            for name, seconds in self.seconds.items()
            if name.startswith(f"{who} {precision}") and not self.holds.get(name, True)
        ]
        return min(times, default=None)

    def ratio(self, precision: str, peers: Sequence[str] = PEERS) -> float | None:
        """Return best peer / ours; None where either is missing."""
        ours = self.ours(precision)
        times = [time for who in peers if (time := self.peer(who, precision)) is not None]
        return min(times) / ours if ours and times else None


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.2f}"


def _peer_cell(row: Row, who: str, precision: str) -> str:
    time = row.peer(who, precision)
    if time is not None:
        return _milliseconds(time)
    lost = row.lost(who, precision)
    return "no peer" if lost is None else f"no peer ({_milliseconds(lost)})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def speed_table(rows: Sequence[Row]) -> str:
    """Return milliseconds of everyone and best peer / ours, as a Markdown table."""
    heads = ["model", "threads", "batch"]
    shown = [p for p in PRECISIONS if any(_has(rows, who, p) for who in ("ours", *PEERS))]
    for precision in shown:
        heads += [f"{precision}, ms: ours", *(p for p in PEERS if _has(rows, p, precision))]
        heads.append("best / ours")
    heads.append("our f32 / int8")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row.model, str(row.threads), str(row.batch)]
        for precision in shown:
            ours = _milliseconds(row.ours(precision))
            if ours and not row.holds.get(f"ours {precision}", True):
                ours += " (lost)"
            cells.append(ours)
            cells += [_peer_cell(row, p, precision) for p in PEERS if _has(rows, p, precision)]
            cells.append(_ratio(row.ratio(precision)))
        cells.append(_ratio(_gain(row)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _has(rows: Iterable[Row], who: str, precision: str) -> bool:
    return any(name.startswith(f"{who} {precision}") for row in rows for name in row.seconds)


def _gain(row: Row) -> float | None:
    floating, integer = row.ours("f32"), row.ours("int8")
    return floating / integer if floating and integer else None


def accuracy_table(accuracies: Sequence[Accuracy]) -> str:
    """Return SQNR and agreement of each runner against its own float, as a Markdown table."""
    lines = ["| model | runner | SQNR, dB | agreement | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {a.model} | {a.runner} | {a.sqnr:.1f} | {a.agreement:.4f} "
        f"| {'yes' if a.holds else 'no'} |"
        for a in accuracies
    ]
    return "\n".join(lines)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def summary(rows: Sequence[Row]) -> str:
    """Return geometric means and least ratios by precision, threads and batch."""
    lines = ["| what | threads | batch | geometric mean | least | models |", "|---" * 6 + "|"]

    def line(what: str, threads: int, batch: int, ratios: dict[str, float | None]) -> None:
        known = {model: ratio for model, ratio in ratios.items() if ratio is not None}
        if known:
            least = min(known, key=lambda model: known[model])
            lines.append(
                f"| {what} | {threads} | {batch} | {geometric_mean(list(known.values())):.3f} "
                f"| {known[least]:.2f} ({least}) | {len(known)} |"
            )

    for batch, threads in sorted({(row.batch, row.threads) for row in rows}):
        part = [row for row in rows if (row.batch, row.threads) == (batch, threads)]
        for precision in PRECISIONS:
            choices = {"best peer": PEERS, **{peer: (peer,) for peer in PEERS}}
            for what, peers in choices.items():
                ratios = {row.model: row.ratio(precision, peers) for row in part}
                line(f"{precision}: {what} / ours", threads, batch, ratios)
        line("our f32 / our int8", threads, batch, {row.model: _gain(row) for row in part})
    return "\n".join(lines)
