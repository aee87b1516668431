"""The same model and input give the same output bytes under every instruction set of this machine.

    python benchmarks/isa_bytes.py

The demo's int8 recogniser and its float original read 20 words in one process per instruction set.
Exit code 1 when two processes differ.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from recognition import INPUT, as_runner, draw_words, model_path, quantize_recognizer, to_input

import lowprec

ISAS = [isa for isa, missing in lowprec.cpu_info()["isas"].items() if not missing]
WORDS = 20


def digest(path: str) -> str:
    """Return the SHA-256 of what the model at `path` answers for 20 words."""
    (words,) = draw_words(4, WORDS)
    run = as_runner(lowprec.compile(path))
    answers = hashlib.sha256()
    for word in words:
        answers.update(run(to_input(word)).tobytes())
    return answers.hexdigest()


def digest_under(isa: str, path: Path) -> str:
    command = [sys.executable, __file__, "--digest", str(path)]
    done = subprocess.run(
        command, env={**os.environ, "LOWPREC_ISA": isa}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"did not run: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip()


def main() -> int:
    if sys.argv[1:2] == ["--digest"]:
        print(digest(sys.argv[2]))
        return 0
    differ = False
    with tempfile.TemporaryDirectory() as folder:
        int8_path = Path(folder) / "rec.int8.onnx"
        quantize_recognizer(int8_path)
        for name, path in (("int8", int8_path), ("float", model_path())):
            digests = {isa: digest_under(isa, path) for isa in ISAS}
            for isa, value in digests.items():
                print(f"{name:6}{isa:12}{INPUT} x {WORDS}: {value}", flush=True)
            differ |= len(set(digests.values())) != 1
    print("different bytes" if differ else "identical bytes")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
