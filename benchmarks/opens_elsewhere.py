"""The saved int8 model opens in onnxruntime and OpenVINO, and they read what our engine reads.

    python benchmarks/opens_elsewhere.py

OpenVINO gets the f32 precision hint: by default it computes in bf16 where the CPU can. Exit code 1
when onnxruntime reads fewer than 299, or OpenVINO fewer than 295, of the 300 words the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import openvino
from recognition import (
    INPUT,
    as_runner,
    model_path,
    onnxruntime_runner,
    quantize_recognizer,
    read_characters,
    read_words,
)

import lowprec

LEAST_SAME = {"onnxruntime": 299, "OpenVINO": 295}


def openvino_runner(path: Path):
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(str(path), "CPU", settings)
    return lambda pixels: compiled({INPUT: pixels})[0]


def main() -> int:
    characters = read_characters(model_path())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rec.int8.onnx"
        words = quantize_recognizer(path)
        ours = read_words(as_runner(lowprec.load(path)), words, characters)
        print(f"{'lowprec':12} reads {ours.exact:.4f} of {len(words)} words exactly")
        failed = False
        peers = {"onnxruntime": onnxruntime_runner(path), "OpenVINO": openvino_runner(path)}
        for name, run in peers.items():
            theirs = read_words(run, words, characters)
            same = sum(a == b for a, b in zip(ours.texts, theirs.texts, strict=True))
            failed |= same < LEAST_SAME[name]
            print(
                f"{name:12} reads {theirs.exact:.4f}; the same as lowprec: {same} of {len(words)}"
                f" (at least {LEAST_SAME[name]})"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
