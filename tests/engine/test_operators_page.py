"""The page of operators names every native operator, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from lowprec._ext import _core

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
# Made by the fusing passes, never found in a model.
INTERNAL = re.compile(r"Observe|UnaryChain|ChannelShuffle|Elementwise|[QB][A-Z]")


def test_the_page_names_what_is_native():
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line)}
    native = {name for name in _core.native_operators() if not INTERNAL.match(name)}
    assert named == native
