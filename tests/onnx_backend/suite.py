"""Run ONNX's conformance suite, onnx.backend.test, through lowprec.engine.backend.

    python tests/onnx_backend/suite.py [--only PATTERN] [--native] [--json FILE]

Prints one line for each case that does not pass natively: how it ends, and why. A case is tried
with the fall-back off first; what passes so is "native". What does not is tried with it on: it is
"passed" or "failed". --native leaves the second try out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

NATIVE, PASSED, FAILED = "native", "passed", "failed"


def cases(home: str) -> dict[str, Any]:
    """Return the CPU cases by name: functions of (test object, fallback=...).

    Args:
        home: A folder in which the suite may write; it puts the light models' data there.
    """
    os.environ["ONNX_HOME"] = home
    os.environ.pop("ONNX_MODELS", None)
    import onnx.backend.test

    from lowprec.engine.backend import RuntimeBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = onnx.backend.test.runner.Runner(RuntimeBackend, __name__)
    return {
        name: item.func
        for items in runner._test_items.values()
        for name, item in items.items()
        if name.endswith("_cpu")
    }


def attempt(case: Any, fallback: bool) -> str | None:
    """Return why the case fails, or None where it passes."""
    try:
        case(None, fallback=fallback)
    except unittest.SkipTest as skipped:
        return f"skipped: {skipped}"
    except Exception as error:
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:300]}"
    return None


def outcomes(only: str, native_only: bool) -> Iterator[tuple[str, str, str]]:
    """Yield name, outcome and reason of every case whose name `only` is found in."""
    with tempfile.TemporaryDirectory() as home:
        for name, case in sorted(cases(home).items()):
            if not re.search(only, name):
                continue
            yield name, "started", ""
            reason = attempt(case, False)
            if reason is None:
                yield name, NATIVE, ""
            elif native_only:
                yield name, FAILED, reason
            else:
                failed = attempt(case, True)
                yield name, PASSED if failed is None else FAILED, failed or reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression found in the case's name")
    parser.add_argument("--native", action="store_true", help="do not try with the fall-back")
    parser.add_argument("--json", help="write every step of the run to this file, a line each")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    counts = {NATIVE: 0, PASSED: 0, FAILED: 0}
    log = open(chosen.json, "w") if chosen.json else None  # noqa: SIM115 - it lives as long as we
    for name, outcome, reason in outcomes(chosen.only, chosen.native):
        if log is not None:  # flushed: what was started last is what crashed
            print(json.dumps([name, outcome, reason]), file=log, flush=True)
        if outcome not in counts:
            continue
        counts[outcome] += 1
        if outcome != NATIVE:
            print(f"{outcome} {name}: {reason}")
    total = sum(counts.values())
    passing = counts[NATIVE] + counts[PASSED]
    print(f"{passing} of {total} pass, {counts[NATIVE]} of them natively", file=sys.stderr)


if __name__ == "__main__":
    main()
