"""Tables of bench_tensorflow.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def families_table(rows: Sequence[Row]) -> str:
    """Return cost of capture, agreement and what is left over, one line a network."""
    heads = ["model", "M parameters", "trace s", "capture s", "capture GB", "tf2onnx s, GB"]
    heads += ["error", "int8 SQNR dB", "int8 share", "steps", "left over"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        other = f"{row['tf2onnx']:.1f}, {row['tf2onnx_memory']:.1f}" if "tf2onnx" in row else ""
        cells = [row["model"], f"{row['parameters'] / 1e6:.1f}", f"{row['trace']:.1f}"]
        cells += [f"{row['capture']:.2f}", f"{row['capture_memory']:.2f}", other]
        cells += [f"{row['error']:.1e}", f"{row['sqnr']:.1f}", f"{row['int8']:.3f}"]
        cells += [str(row["steps"]), ", ".join(row["left"])]
        lines.append(_line(cells))
    return "\n".join(lines)


def speed_table(rows: Sequence[Row]) -> str:
    """Return milliseconds of everyone, and ratios to int8 (above 1: ours is faster)."""
    runners = list(dict.fromkeys(who for row in rows for who in row["seconds"]))
    heads = ["model", "threads", *runners, "tf / int8", "both in tf.function", "openvino / int8"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        seconds = row["seconds"]
        cells = [row["model"], str(row["threads"])]
        cells += [f"{1e3 * seconds[who]:.3f}" if who in seconds else "" for who in runners]
        for theirs, ours in (
            ("tensorflow f32", "lowprec int8"),
            ("tensorflow f32", "int8 in tf.function"),
            ("openvino int8", "lowprec int8"),
        ):
            known = theirs in seconds and ours in seconds
            cells.append(f"{seconds[theirs] / seconds[ours]:.2f}" if known else "")
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
