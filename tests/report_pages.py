"""Reports to draw: everything that a page can show, made up, with hostile names."""

from __future__ import annotations

import math

from lowprec.report import LayerRecord, Report

EVIL = (
    "<script>document.title='owned'</script><img src=x onerror=\"alert('1')\">&amp;\x00\x1b\ud800"
)
"""A node's name as an attacker writes it: markup, quotes, control characters, half a pair."""


def full_report(layers: int = 12) -> Report:
    """Return a report with every part, of `layers` layers."""
    records, times, sensitivity, histograms = [], {}, [], {}
    for index in range(layers):
        name = EVIL if index == 1 else f"conv{index}"
        tensor = f"x{index}"
        low = index % 5 != 4
        records.append(
            LayerRecord(
                name=name,
                op_type="Conv" if index else "Gemm",
                precision="int8" if low else "f32",
                reason=""
                if low
                else f"eight bits would leave its input {index} dB above the noise",
                macs=1000 * (index + 1) ** 2,
                tensor=tensor if low else None,
                rmin=-1.5 * index if low else None,
                rmax=2.5 + index if low else None,
                method="percentile 99.99" if low else None,
                clipped=1e-4 * index if low else None,
                scale=0.01 if low else None,
                zero_point=96 if low else None,
                weight_sqnr=41.0 - index if low else None,
                activation_sqnr=38.5 + math.sin(index) if low else None,
                raised_channels=2 * (index == 3),
            )
        )
        times[name] = {"float": 0.1 * (index + 1), "int8": 0.05 * (index + 2)}
        histograms[tensor] = {
            "low": -2.0 * index - 1,
            "high": 4.0 + index,
            "counts": [int(1e5 * math.exp(-((bin - 32) ** 2) / 60)) for bin in range(64)],
        }
        if low:
            sensitivity.append(
                {
                    "name": name,
                    "isolated": "inf" if index == 2 else 50.0 - index,
                    "accumulated": 30.0 - index,
                    "gain": 3.0 - index,
                }
            )
    records += [LayerRecord(f"act{n}", "Sigmoid", "f32", f"runs in f32 {EVIL}") for n in range(3)]
    trials = [
        {
            "number": n,
            "change": f"{EVIL if n == 2 else 'head'} in f32",
            "scores": {} if n == 3 else {"top-1": 0.9 - 0.002 * (5 - n)},
            "loss": None if n == 3 else 0.002 * (5 - n) / 0.9,
            "latency_ms": None if n == 3 else 4.0 + n,
            "float_latency_ms": 10.0,
            "size": 1000 * n,
            "met": n > 3,
            "same_as": 1 if n == 5 else None,
            "error": "weights are not finite" if n == 3 else "",
        }
        for n in range(1, 6)
    ]
    total = sum(record.macs or 0 for record in records)
    return Report(
        model=f"words {EVIL}",
        config={
            "version": 1,
            "precision": "int8",
            "tuning": {"accuracy": {"relative": 0.005, "absolute": None, "higher_is_better": True}},
            "layers": [{"match": EVIL, "precision": "f32"}],
        },
        samples=128,
        versions={"lowprec": "0.1.0"},
        layers=records,
        int8_macs=sum(r.macs or 0 for r in records if r.precision == "int8"),
        total_macs=total,
        float_bytes=4_000_000,
        int8_bytes=1_100_000,
        notes=[f"labels were dropped {EVIL}"],
        agreement=[{"name": EVIL, "sqnr": 28.3, "argmax": 0.987, "samples": 8}],
        algorithms=[
            {"name": "equalization", "changed": 3, "gain": 2.1, "note": f"of {EVIL}"},
            {"name": "rounding", "changed": 0, "gain": None, "note": "nearest"},
        ],
        trials=trials,
        accuracy={f"top-1 {EVIL}": {"float": 0.9, "int8": 0.896}},
        histograms=histograms,
        speed={"latency of the first sample, ms": {"float": 10.0, "int8": 4.0}},
        times=times,
        sensitivity=sensitivity,
        advice={"sentence": f"Put {EVIL} in bf16", "layers": [EVIL], "yaml": f"layers: {EVIL}"},
    )
