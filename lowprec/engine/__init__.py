"""Compile and run a graph on the core's own kernels.

    compile_model   hub -> Session
    Session         run(), explain(), profile()

    hub ──passes.fuse──► fused hub ──lower──► segments ──(per input shape)──► plans ──► steps

Nearly every model is one segment: one call without the GIL. A node without a native kernel runs
through ONNX's reference implementation between two segments, and `explain()` names it.
"""

from lowprec.engine.explanation import Explanation, StepRow, StepTime
from lowprec.engine.session import Session, compile_model
from lowprec.engine.tensors import TensorInfo
from lowprec.threads import register_with_threadpoolctl

__all__ = ["Explanation", "Session", "StepRow", "StepTime", "TensorInfo", "compile_model"]

register_with_threadpoolctl()
