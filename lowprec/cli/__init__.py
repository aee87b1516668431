"""The command line: `lowprec quantize | run | compare | bench | inspect | doctor`.

Exit codes: 0, 1 (it ran, and a criterion was missed), 2 (bad input: one line on stderr says what).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; `arguments` defaults to those of the process."""
    from lowprec.cli.application import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
