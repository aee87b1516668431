"""torch.nn's transformer layers as they are written, not by their short cut for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Within, TransformerEncoder does the same for every mask and size.

    Its fast path drops what a padding mask hides: it returns zeros there and, where all rows end in
    padding, fewer positions. A trace does not take it; what is compared with one must not either.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
