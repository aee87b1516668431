"""What comes back for what was captured, by its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.function_model import function_of
from lowprec.adapters.tensorflow.keras_model import model_of
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    from lowprec import CompiledModel


def returned(compiled: CompiledModel, captured: Captured) -> object | None:
    """Return a compiled or quantised model as the kind of object that was given, or None."""
    binding = captured.binding.get(KEY)
    if not isinstance(binding, Binding):
        return None
    return (model_of if binding.form == "keras" else function_of)(compiled, captured)
