"""Calibration's memory does not grow with the number of samples: peak of 10 against 1,000.

    python benchmarks/memory.py

Each count is a process of its own that quantises the demo's recogniser. Exit code 1 when the larger
count needs more than 5 % more.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from recognition import draw_words, model_path, to_input

import lowprec

COUNTS = (10, 1000)
ALLOWED = 1.05


def endless_samples() -> Iterator[NDArray[np.float32]]:
    """Yield words without end: the same 100 pictures whatever the count."""
    (words,) = draw_words(1, 100)
    for word in itertools.cycle(words):
        yield to_input(word)


def peak_of(samples: int) -> dict[str, int]:
    """Return the samples that calibration consumed and this process's peak memory in kB."""
    quantized = lowprec.quantize(
        model_path(), endless_samples(), config={"calibration": {"samples": samples}}
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"samples": quantized.report.samples, "kilobytes": peak}


def main() -> int:
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak_of(int(sys.argv[2]))))
        return 0
    peaks = []
    for count in COUNTS:
        command = [sys.executable, __file__, "--peak", str(count)]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        peaks.append(result["kilobytes"])
        print(
            f"samples: {count:5}   consumed: {result['samples']:5}   "
            f"peak: {result['kilobytes'] / 1024:.1f} MiB",
            flush=True,
        )
    print(f"ratio: {peaks[1] / peaks[0]:.3f} (at most {ALLOWED})")
    return int(peaks[1] > ALLOWED * peaks[0])


if __name__ == "__main__":
    sys.exit(main())
