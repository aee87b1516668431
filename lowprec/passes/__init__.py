"""Graph to graph: `simplify` for everyone, `fuse` for the engine.

A pass is one file with one function `verb_object(model) -> bool` that rewrites in place and tells
whether it changed anything. `simplify` leaves a plain ONNX model; `fuse` introduces the domain
`ai.lowprec`, in memory only.
"""

from lowprec.passes.expand_functions import expand_functions
from lowprec.passes.fuse import fuse
from lowprec.passes.simplify import simplify
from lowprec.passes.widen_operands import widen_operands

__all__ = ["expand_functions", "fuse", "simplify", "widen_operands"]
