"""A module that is captured when it is called for the first time."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch

from lowprec.adapters.torch.examples import Example
from lowprec.adapters.torch.hugging_face import carried_from
from lowprec.adapters.torch.inference import InferenceModule
from lowprec.adapters.torch.signature import class_with
from lowprec.errors import LowprecError

# What the captured module has, by name; and what would say something wrong before.
_OF_BUILT = frozenset(
    {
        "config",
        "explain",
        "get_inputs",
        "get_outputs",
        "inputs",
        "outputs",
        "profile",
        "report",
        "run",
        "save",
        "to_onnx",
    }
)
_HOOKS = "_hooks"  # the end of the names of what holds a module's hooks

_with_locks: weakref.WeakSet[DeferredModule] = weakref.WeakSet()


def _renew_locks() -> None:
    for module in _with_locks:
        module._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


class DeferredModule(InferenceModule):
    """Stands for a compiled module until its first call tells what to trace with.

    From then on it *is* the compiled module: of its class, with its state and members; the original
    is let go. Hooks and attributes that were set before stay.
    """

    def __init__(self, module: torch.nn.Module, build: Callable[[object], Any]) -> None:
        """Keep what is needed: `build` makes the module of an example."""
        super().__init__()
        self.training = False
        self._original = [module]  # in a list: not a part of this one's state
        self._build = build
        self._begin()
        self.__class__ = class_with(type(self), inspect.signature(module.forward))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        _with_locks.add(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Capture the module with the first call's arguments; then run."""
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            raise _too_early("traced")
        lock = self.__dict__.get("_lock")  # None where another thread's call has come first
        with lock or contextlib.nullcontext():
            if isinstance(self, DeferredModule):
                built = self._build(Example(args, kwargs))
                self._become(built)
        return self.forward(*args, **kwargs)

    def _become(self, built: torch.nn.Module) -> None:
        own = self.__dict__
        ours = {"_original", "_build", "_lock", "training"}
        kept = {
            name: value
            for name, value in own.items()
            if name not in ours and (name.endswith(_HOOKS) or name not in built.__dict__)
        }
        _with_locks.discard(self)
        # Another thread that looks now finds either class complete: what is new is there before
        # the class changes, what is old goes after.
        own.update({**built.__dict__, **kept})
        self.__class__ = type(built)  # type: ignore[assignment]
        for name in ours - built.__dict__.keys():
            own.pop(name, None)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raise LowprecError: there is no state yet."""
        raise _too_early("saved")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise _too_early("loaded into")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raise LowprecError: what captures the module cannot be pickled."""
        raise _too_early("pickled")

    def __deepcopy__(self, memo: dict[int, Any]) -> DeferredModule:
        """Return one that captures the same original, at a first call of its own."""
        import copy

        made: DeferredModule = type(self).__new__(type(self))
        memo[id(self)] = made
        for name, value in self.__dict__.items():
            shared = name in ("_original", "_build")
            if name != "_lock":
                made.__dict__[name] = value if shared else copy.deepcopy(value, memo)
        made._begin()
        return made

    def __getattr__(self, name: str) -> Any:
        """Say that what only a captured module has is not there yet."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            original = self.__dict__.get("_original")
            carried = carried_from(original[0]) if original else {}
            if name in carried:
                return carried[name]
            if name in _OF_BUILT:
                raise LowprecError(
                    f"'{name}' is known after the first call, which captures the module; call it "
                    "once, or give example_inputs"
                ) from None
            raise

    def _get_name(self) -> str:
        return "DeferredModule"

    def extra_repr(self) -> str:
        """Return what it stands for."""
        original = self.__dict__.get("_original")
        name = type(original[0]).__name__ if original else ""
        return f"{name}; captured at the first call"


def _too_early(what: str) -> LowprecError:
    return LowprecError(
        f"the module cannot be {what} before its first call, which captures it; call it once, or "
        "give example_inputs"
    )
