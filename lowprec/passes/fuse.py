"""Everything that only the engine needs: several operators become one step."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir


def fuse(model: ir.Model, *, keep: Container[str] = ()) -> None:
    """Rewrite `model` in place for the engine; the result holds operators of `ai.lowprec`.

    Args:
        model: A hub; the bits of its outputs do not change.
        keep: Names of values that must still exist afterwards (they are observed).
    """
