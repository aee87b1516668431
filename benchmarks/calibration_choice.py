"""How much of EfficientNet-Lite0's agreement is the choice of the photos that calibrate it.

    python benchmarks/calibration_choice.py              # from the ONNX file, and from the module

Six disjoint sets of 64 photos calibrate; each time all others are measured on. One set's agreement
is that of 436 photos, of which some four are near a tie: bench_accuracy.py and bench_torch.py have
the first set only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

import numpy as np
from accuracy_pictures import photos
from accuracy_tasks import CALIBRATION, signal_to_noise
from exported_models import lite0_path
from numpy.typing import NDArray

import lowprec
from lowprec.hookspecs import Captured

SETS = 6
TOGETHER = 20  # photos in one call; no result depends on it


def captured_module() -> Any:
    """Return the hub graph of the PyTorch module."""
    import torch
    from peer_models import quiet
    from torch_networks import networks

    from lowprec.adapters.torch.capture import capture_module

    with quiet():
        module = next(n for n in networks() if n.name == "EfficientNet-Lite0").make()
        captured = capture_module(module, torch.from_numpy(photos()[0][:1]), None)
    assert isinstance(captured, Captured), "Lite0 is captured as a whole"
    return captured.graph


def logits_of(model: Any) -> NDArray[np.float32]:
    """Return the logits of all photos."""
    name, images = model.inputs[0].name, photos()[0]
    starts = range(0, len(images), TOGETHER)
    found = [np.array(model.run({name: images[i : i + TOGETHER]})[0]) for i in starts]
    return np.concatenate(found)


def measure(source: Any) -> list[tuple[float, float, float]]:
    """Return (top-1, agreement, dB) for each set."""
    compiled = lowprec.compile(source)
    name = compiled.inputs[0].name
    images, labels = photos()
    exact = logits_of(compiled)
    rows = []
    for start in range(0, SETS * CALIBRATION, CALIBRATION):
        chosen = range(start, start + CALIBRATION)
        made = logits_of(lowprec.quantize(source, [{name: images[i : i + 1]} for i in chosen]))
        rest = np.setdiff1d(np.arange(len(images)), chosen)
        best, expected = made[rest].argmax(1), exact[rest].argmax(1)
        rows.append(
            (
                float(np.mean(best == labels[rest])),
                float(np.mean(best == expected)),
                signal_to_noise(exact[rest], made[rest]),
            )
        )
    return rows


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sources: dict[str, Callable[[], Any]] = {"ONNX file": lite0_path, "module": captured_module}
    print("| from | top-1 | agreement, by set | mean | deviation | dB, by set |")
    print("|---|---|---|---|---|---|")
    for name, source in sources.items():
        top, agreement, levels = zip(*measure(source()), strict=True)
        print(
            f"| {name} | {mean(top):.4f} | {', '.join(f'{x:.4f}' for x in agreement)} | "
            f"{mean(agreement):.4f} | {stdev(agreement):.4f} | "
            f"{', '.join(f'{x:.1f}' for x in levels)} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
