"""The compiled functions that lowprec.numerics uses, with errors of lowprec's own kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lowprec._ext import _core
from lowprec.errors import IsaError, ThreadsError

P = ParamSpec("P")
R = TypeVar("R")


def _own_errors(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except _core.IsaUnavailable as error:  # LOWPREC_ISA is read at every call
            raise IsaError(str(error)) from None
        except _core.ThreadCountInvalid as error:
            raise ThreadsError(str(error)) from None

    return call


cast = _own_errors(_core.cast)
chosen_isa = _own_errors(_core.chosen_isa)
dequantize = _own_errors(_core.dequantize)
dynamic_quantize = _own_errors(_core.dynamic_quantize)
quantize = _own_errors(_core.quantize)
requantize = _own_errors(_core.requantize)
new_observer = _own_errors(_core.TensorObserver)
