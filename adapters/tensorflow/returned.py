"""What comes back for what was captured, by its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.keras_model import model_of
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    from lowprec import CompiledModel


def returned(compiled: CompiledModel, captured: Captured) -> object | None:
    """Return a compiled or quantised model as the kind of object that was given, or None."""
    binding = captured.binding.get(KEY)
    if isinstance(binding, Binding) and binding.form == "keras":
        return model_of(compiled, captured)
    return None
