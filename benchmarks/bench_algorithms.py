"""What each algorithm gains on real models: signal to noise of the outputs, with and without it.

    python benchmarks/bench_algorithms.py                     # all of them
    python benchmarks/bench_algorithms.py "PP-OCR det" Lite0  # names that hold one of these

Each algorithm alone, then the default (`auto`), then all switched on. dB of the float outputs left
on feeds that neither calibration nor an algorithm has seen, before a last Softmax or Sigmoid, the
mean over outputs. A model with one scale for all weights of a tensor stands for tools and machines
that have no other. Prints the table of docs/algorithms.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from real_models import RealModel, real_models

import lowprec
from lowprec.api import capture
from lowprec.quantization.algorithms.trial import Trial
from lowprec.workbench import Workbench

CALIBRATED, HELD_OUT = 16, 16
CALIBRATION_SEED, HELD_OUT_SEED = 1, 2
NAMES = ("equalization", "smoothing", "bias_absorption", "rounding", "bias_correction")
NONE: dict[str, object] = {**dict.fromkeys(NAMES, False), "rounding": "nearest"}
ALL: dict[str, object] = {**dict.fromkeys(NAMES, True), "rounding": "adaptive"}
VARIANTS: dict[str, dict[str, object]] = {
    "none": NONE,
    **{name: {**NONE, name: ALL[name]} for name in NAMES},
    "rounding + correction": {**NONE, "rounding": "adaptive", "bias_correction": True},
    "default, rounding nearest": {"rounding": "nearest"},
    "default": {},
    "all": ALL,
}
MODELS = (
    "EfficientNet-Lite0",
    "PP-OCR det",
    "PP-OCR rec",
    "PP-OCR cls",
    "MiniLM 128",
    "Silero sequence",
    "Basic Pitch",
)
PER_TENSOR = ("EfficientNet-Lite0", "PP-OCR rec")


def gains(model: RealModel, granularity: str) -> Iterator[tuple[float, float]]:
    """Yield (dB, share of the multiply-adds in int8) for every variant."""
    hub = capture(model.load()).graph
    bench = Workbench(hub, model.feeds(CALIBRATED, CALIBRATION_SEED), name=model.name)
    held_out = model.feeds(HELD_OUT, HELD_OUT_SEED)
    trial = Trial(bench.hub, held_out, lowprec.Config(), count=HELD_OUT)
    for algorithms in VARIANTS.values():
        config = lowprec.Config.of(
            {"weights": {"granularity": granularity}, "algorithms": algorithms}
        )
        made = bench.quantize(config, measure=False)
        yield trial.sqnr_of(made.hub), made.report.int8_fraction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of model names")
    wanted = parser.parse_args().names
    print("| model | weights | " + " | ".join(VARIANTS) + " | int8 |")
    print("|---" * (len(VARIANTS) + 3) + "|")
    for model in real_models():
        if model.name not in MODELS:
            continue
        if wanted and not any(part in model.name for part in wanted):
            continue
        for granularity in ("per_channel", "per_tensor"):
            if granularity == "per_tensor" and model.name not in PER_TENSOR:
                continue
            print(f"| {model.name} | {granularity.replace('_', ' ')} ", end="", flush=True)
            share = 0.0
            for decibel, fraction in gains(model, granularity):
                print(f"| {decibel:.1f} ", end="", flush=True)
                share = fraction
            print(f"| {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
