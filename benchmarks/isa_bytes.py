"""The same model and input give the same output bytes: instruction sets, threads, repeated runs.

    python benchmarks/isa_bytes.py                       # every model of bench_models.py
    python benchmarks/isa_bytes.py "PP-OCR rec" Magika   # some of them

Each instruction set of this machine runs in a process of its own, in float and in int8, with 1 to
4 threads, every number of threads twice. Exit code 1 when any two outputs differ in a byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_models import BENCHED
from our_models import int8_file
from peer_models import source_file
from real_models import real_models

import lowprec

ISAS = [isa for isa, missing in lowprec.cpu_info()["isas"].items() if not missing]
THREADS, REPEATS = (1, 2, 3, 4), 2
SLOW_THREADS = (1, 4)  # of the scalar set, which takes minutes for a large network


def print_digests(name: str, path: str, isa: str) -> None:
    """Print a line for each number of threads: the SHA-256 of the outputs of each run."""
    (model,) = (model for model in real_models() if model.name == name)
    feed = model.timed_feed(1)
    session = lowprec.compile(path)
    for threads in SLOW_THREADS if isa == "scalar" else THREADS:
        lowprec.set_num_threads(threads)
        for _ in range(1 if isa == "scalar" else REPEATS):
            answer = hashlib.sha256()
            for output in session.run(feed):
                answer.update(np.ascontiguousarray(output).tobytes())
            print(answer.hexdigest())


def digests_under(isa: str, name: str, path: Path) -> list[str]:
    command = [sys.executable, __file__, "--digest", isa, str(path), name]
    done = subprocess.run(
        command, env={**os.environ, "LOWPREC_ISA": isa}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return [f"did not run: {done.stderr.strip().splitlines()[-1]}"]
    return done.stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=BENCHED)
    parser.add_argument("--digest", nargs=2, metavar=("ISA", "FILE"), help=argparse.SUPPRESS)
    choice = parser.parse_args()
    if choice.digest:
        print_digests(choice.models[0], choice.digest[1], choice.digest[0])
        return 0
    every = {model.name: model for model in real_models()}
    unknown = [name for name in choice.models if name not in every]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; there are: {', '.join(every)}")
    differ = False
    for name in choice.models:
        source = source_file(every[name])
        for precision, path in (("f32", source), ("int8", int8_file(every[name], source))):
            made = {isa: digests_under(isa, name, path) for isa in ISAS}
            different = set().union(*made.values())
            runs = sum(map(len, made.values()))
            if len(different) == 1:
                print(f"{name:20}{precision:6}{runs} runs, one result: {different.pop()[:16]}")
            else:
                differ = True
                for isa, found in made.items():
                    print(f"{name:20}{precision:6}{isa:12}{sorted(set(found))}")
            sys.stdout.flush()
    print("different bytes" if differ else "identical bytes")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
