"""A module that is captured when it is called for the first time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from lowprec.adapters.torch.examples import Example
from lowprec.errors import LowprecError, UnsupportedError


class DeferredModule(torch.nn.Module):
    """Stands for a compiled module until its first call tells what to trace with."""

    def __init__(self, module: torch.nn.Module, build: Callable[[object], Any]) -> None:
        """Keep what is needed: `build` makes the module of an example."""
        super().__init__()
        self.training = False
        self._original = [module]  # in a list: not a part of this one's state
        self._build = build
        self._lock = threading.Lock()
        self._built: list[Any] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Capture the module with the first call's arguments; then run."""
        if not self._built:
            with self._lock:
                if not self._built:
                    self._built.append(self._build(Example(args, kwargs)))
        return self._built[0](*args, **kwargs)

    def train(self, mode: bool = True) -> DeferredModule:
        """Accept evaluation; training needs the original."""
        if mode:
            raise UnsupportedError(
                "a lowprec module is for inference; train the original and quantise it again"
            )
        return self

    def __getattr__(self, name: str) -> Any:
        """Return what the built module has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            built = self.__dict__.get("_built")
            if built:
                return getattr(built[0], name)
            if built is not None and name in _OF_BUILT:
                raise LowprecError(
                    f"'{name}' is known after the first call, which captures the module; call it "
                    "once, or give example_inputs"
                ) from None
            raise


_OF_BUILT = (
    "report",
    "config",
    "save",
    "to_onnx",
    "run",
    "explain",
    "profile",
    "inputs",
    "outputs",
)
