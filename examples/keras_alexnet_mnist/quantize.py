"""Quantise the trained AlexNet: from a YAML file of Neural Compressor, and from Python.

    python quantize.py [--out FOLDER] [--only yaml|python]

The first is the command `lowprec quantize -c alexnet.yaml -o alexnet.int8.pb`, in the folder that
holds alexnet.pb. The second does the same in a dozen lines, and the Keras model as well.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import tensorflow as tf
from digits import read_digits

import lowprec

HERE = Path(__file__).resolve().parent


def from_yaml(out: Path) -> None:
    """Run the command on alexnet.yaml, which says model, data, metric and criterion."""
    shutil.copy(HERE / "alexnet.yaml", out)
    command = ["quantize", "-c", "alexnet.yaml", "-o", "alexnet.int8.pb"]
    done = subprocess.run([sys.executable, "-m", "lowprec.cli", *command], cwd=out)
    if done.returncode > 1:  # 1: it is written, and misses the criterion
        sys.exit(done.returncode)


def from_python(out: Path) -> None:
    """Quantise the frozen graph, and the Keras model with its accuracy as the criterion."""
    digits = read_digits(out / "data")
    train = tf.data.Dataset.from_tensor_slices((digits.train_pictures, digits.train_labels))
    batches = train.shuffle(2000, seed=1).batch(10)  # the labels are dropped
    test = digits.test_pictures[:2000], digits.test_labels[:2000]

    graph = lowprec.quantize(out / "alexnet.pb", batches, config={"calibration": {"samples": 32}})
    graph.save(out / "alexnet.python.pb")
    print(f"wrote {out / 'alexnet.python.pb'}")

    def top1(model: keras.Model) -> float:
        return float((model.predict(test[0], verbose=0).argmax(-1) == test[1]).mean())

    model = keras.models.load_model(out / "alexnet.keras")
    quantized = lowprec.quantize(
        model,
        batches,
        evaluate=top1,
        config={"calibration": {"samples": 32}, "tuning": {"accuracy": {"absolute": 0.003}}},
    )
    quantized.save(out / "alexnet.int8.keras")
    print(f"wrote {out / 'alexnet.int8.keras'}: top-1 {top1(model):.4f} -> {top1(quantized):.4f}")


def main(arguments: list[str] | None = None) -> None:
    """Quantise one way or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "out", help="where train.py wrote")
    parser.add_argument("--only", choices=("yaml", "python"))
    options = parser.parse_args(arguments)
    if options.only != "python":
        from_yaml(options.out)
    if options.only != "yaml":
        from_python(options.out)


if __name__ == "__main__":
    main()
