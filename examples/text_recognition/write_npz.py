"""Write the float model and words to calibrate with as files, for the command line.

    python examples/text_recognition/write_npz.py
    cd out/text_recognition
    lowprec quantize rec.onnx --calibration words.npz -o rec.int8.onnx
    lowprec compare rec.onnx rec.int8.onnx --data words.npz

Words have different widths, so each is a whole feed of the model: `x/00000`, `x/00001`, ...
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from recognizer import INPUT, model_path
from words import draw_words, to_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=128, help="words to write (128)")
    parser.add_argument("--seed", type=int, default=1, help="which words (1)")
    parser.add_argument("--out", type=Path, default=Path("out/text_recognition"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (words,) = draw_words(options.seed, options.count)
    feeds = {f"{INPUT}/{index:05}": to_input(word) for index, word in enumerate(words)}
    np.savez(options.out / "words.npz", **feeds)
    shutil.copyfile(model_path(), options.out / "rec.onnx")
    print(f"wrote rec.onnx and words.npz ({len(words)} words) to {options.out}")


if __name__ == "__main__":
    main()
