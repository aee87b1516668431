"""What bench_core.py prints and draws."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Row:
    """One product, one type, one number of threads."""

    kind: str
    name: str
    shape: tuple[int, int, int, int]
    threads: int
    macs: int
    ours: float  # seconds
    peak: float | None  # seconds that the bare instructions of as many multiply-adds take
    peers: dict[str, float] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        return min(self.peers, key=lambda name: self.peers[name], default="")

    @property
    def ratio(self) -> float:
        return self.peers[self.best_peer] / self.ours if self.peers else float("nan")

    @property
    def of_peak(self) -> float:
        return self.peak / self.ours if self.peak else float("nan")


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of one kind and number of threads."""
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    heads = ["shape", "ours, GOP/s", "of peak", *peers, "best peer / ours"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        speeds = [
            f"{2e-9 * row.macs / row.peers[name]:.0f}" if name in row.peers else ""
            for name in peers
        ]
        size = " x ".join(str(x) for x in row.shape[1:])
        size = f"{row.shape[0]} x ({size})" if row.shape[0] > 1 else size
        cells = [f"{row.name}: {size}", f"{2e-9 * row.macs / row.ours:.0f}", f"{row.of_peak:.2f}"]
        lines.append("| " + " | ".join([*cells, *speeds, f"{row.ratio:.2f}"]) + " |")
    ratios = [row.ratio for row in rows if row.peers]
    lines.append(f"geometric mean {geometric_mean(ratios):.2f}, least {min(ratios, default=0):.2f}")
    return "\n".join(lines)


def ratio_table(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of ratios by shape, its last line the least of each column."""
    heads = list(dict.fromkeys(name for row in ratios.values() for name in row))
    lines = ["| shape | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    rows = {**ratios, "least": {name: min(row[name] for row in ratios.values()) for name in heads}}
    for shape, row in rows.items():
        lines.append(f"| {shape} | " + " | ".join(f"{row[name]:.2f}" for name in heads) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[Row], bandwidth: float | None, path: Path) -> None:
    """Draw the products of one thread under the machine's roofs: multiply-adds a byte, speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    one_thread = [row for row in rows if row.threads == 1]
    intensities = np.geomspace(0.5, 2000, 200)
    for index, kind in enumerate(dict.fromkeys(row.kind for row in one_thread)):
        chosen = [row for row in one_thread if row.kind == kind]
        colour = f"C{index}"
        points = [(intensity(row), 2e-9 * row.macs / row.ours) for row in chosen]
        axes.scatter(*zip(*points, strict=True), color=colour, s=18, label=kind)
        best = [
            (intensity(row), 2e-9 * row.macs / row.peers[row.best_peer])
            for row in chosen
            if row.peers
        ]
        if best:
            axes.scatter(*zip(*best, strict=True), color=colour, s=18, marker="x", alpha=0.6)
        peaks = [row.macs / row.peak for row in chosen if row.peak]
        if peaks and bandwidth:
            roof = np.minimum(2e-9 * statistics.median(peaks), 2e-9 * bandwidth * intensities)
            axes.plot(intensities, roof, color=colour, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds a byte of operands and result")
    axes.set(
        ylabel="GOP/s, one thread", title="dots: lowprec, crosses: the best peer, lines: roofs"
    )
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def intensity(row: Row) -> float:
    """Return the multiply-adds for each byte of operands and result."""
    batch, m, n, k = row.shape
    element = {"f32": 4, "bf16": 2}.get(row.kind, 1)
    out = 1 if row.kind.endswith("to u8") else 4
    return row.macs / (batch * (element * (m * k + k * n) + out * m * n))
