"""Run two frozen graphs with the same code: accuracy, latency, throughput, size, and a bar chart.

    python compare.py out/alexnet.pb out/alexnet.int8.pb [--data FOLDER] [--chart compare.png]

The code is plain TensorFlow. The one line of lowprec's is the import that makes its operator known;
a float graph does not need it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf
from digits import read_digits
from numpy.typing import NDArray

import lowprec.adapters.tensorflow  # noqa: F401  the operator in graphs of lowprec

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
BATCH = 64  # pictures at a time, for the throughput
ROUNDS = 15  # the graphs take turns, so that a busy moment falls on both
SECONDS = 0.1  # of one turn

Array = NDArray[np.float32]


class FrozenGraph:
    """A .pb file in a session of its own."""

    def __init__(self, path: Path) -> None:
        """Import the file, and find the tensors to feed and to fetch."""
        definition = tf.compat.v1.GraphDef()
        definition.ParseFromString(path.read_bytes())
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(definition, name="")
        read = {tensor for op in graph.get_operations() for tensor in (i.name for i in op.inputs)}
        fed = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
        made = [op.outputs[0] for op in graph.get_operations() if op.outputs]
        fetched = [tensor for tensor in made if tensor.name not in read]
        session = tf.compat.v1.Session(graph=graph)
        self.name = path.name
        self.size = path.stat().st_size
        self.run = session.make_callable(fetched[-1], feed_list=fed)


def accuracy(graph: FrozenGraph, pictures: Array, labels: NDArray[np.int64]) -> float:
    """Return the share of pictures whose most probable digit is right."""
    right = 0
    for start in range(0, len(pictures), 500):
        scores = graph.run(pictures[start : start + 500])
        right += int((scores.argmax(-1) == labels[start : start + 500]).sum())
    return right / len(pictures)


def seconds_a_run(
    graphs: Sequence[FrozenGraph], batch: Array, rounds: int = ROUNDS, turn: float = SECONDS
) -> list[float]:
    """Return for each graph the time that a run takes, in the quickest of its turns."""
    counts = []
    for graph in graphs:
        graph.run(batch)
        start = time.perf_counter()
        graph.run(batch)
        counts.append(max(1, int(turn / (time.perf_counter() - start))))
    times: list[list[float]] = [[] for _ in graphs]
    for _ in range(rounds):
        for graph, count, taken in zip(graphs, counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                graph.run(batch)
            taken.append((time.perf_counter() - start) / count)
    return [min(taken) for taken in times]


def draw(rows: Sequence[dict[str, float | str]], path: Path) -> None:
    """Draw a panel of bars for each figure."""
    panels = {
        "accuracy": "accuracy",
        "latency_ms": "1 picture, ms",
        "throughput": f"pictures a second, {BATCH} at a time",
        "size_kb": "size, kB",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.4), layout="constrained")
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        bars = axis.bar(
            [str(row["name"]).removesuffix(".pb").replace(".", "\n") for row in rows],
            [float(row[key]) for row in rows],
            color=["#9aa5b1", "#0b7285", "#e8590c"][: len(rows)],
        )
        axis.bar_label(bars, fmt="%.4g")
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.15)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> list[dict[str, float | str]]:
    """Compare, print a table, draw; return the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", type=Path, nargs="+", metavar="GRAPH.pb")
    parser.add_argument("--data", type=Path, default=HERE / "out" / "data")
    parser.add_argument("--chart", type=Path, help="default: compare.png beside the last graph")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)

    digits = read_digits(options.data)
    graphs = [FrozenGraph(path) for path in options.graphs]
    pictures = digits.test_pictures
    single = seconds_a_run(graphs, pictures[:1], options.rounds)
    several = seconds_a_run(graphs, pictures[:BATCH], options.rounds)
    rows: list[dict[str, float | str]] = [
        {
            "name": graph.name,
            "accuracy": accuracy(graph, pictures, digits.test_labels),
            "latency_ms": 1e3 * one,
            "throughput": BATCH / many,
            "size_kb": graph.size / 1e3,
        }
        for graph, one, many in zip(graphs, single, several, strict=True)
    ]

    print(f"{'':24}{'accuracy':>10}{'1 picture':>13}{f'{BATCH} at a time':>18}{'size':>12}")
    for row in rows:
        print(
            f"{row['name']:24}{row['accuracy']:10.4f}{row['latency_ms']:10.3f} ms"
            f"{row['throughput']:14.0f} / s{row['size_kb']:9.0f} kB"
        )
    first = rows[0]
    for row in rows[1:]:
        print(
            f"{row['name']} against {first['name']}: accuracy "
            f"{float(row['accuracy']) - float(first['accuracy']):+.4f}, one picture "
            f"{float(first['latency_ms']) / float(row['latency_ms']):.2f} x as fast, {BATCH} "
            f"{float(row['throughput']) / float(first['throughput']):.2f} x, size "
            f"{float(row['size_kb']) / float(first['size_kb']):.2f}"
        )
    chart = options.chart or options.graphs[-1].parent / "compare.png"
    draw(rows, chart)
    print(f"wrote {chart}")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))
    return rows


if __name__ == "__main__":
    main()
