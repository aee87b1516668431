"""The signature of a module's forward, on a class of its own, in pickles and in files."""

from __future__ import annotations

import inspect
import keyword
import math
import pickle
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from lowprec.errors import ModelError

MOST_PARAMETERS = 1000

_EMPTY = inspect.Parameter.empty
_KINDS = {
    kind.name: kind
    for kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    )
}


class Unstated:
    """Stands for a default that is no number, text or None, where only data can be kept."""

    def __init__(self, text: str) -> None:
        """Keep its repr."""
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unstated) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def class_with(base: type, signature: inspect.Signature) -> type:
    """Return `base` under its own name, its forward with `signature`.

    Who looks at a module's forward, as torch.export and pipelines do, finds the original's
    parameters there; a signature belongs to a function, so each needs a class.

    Args:
        base: Has a method `forward(self, *args, **kwargs)`, no closure.
        signature: Without self.
    """
    original = base.forward  # type: ignore[attr-defined]
    forward = FunctionType(original.__code__, original.__globals__, "forward")
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    if "self" in signature.parameters:
        itself = itself.replace(name="_self")
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind != inspect.Parameter.POSITIONAL_ONLY:
        itself = itself.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [itself, *signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    forward.__qualname__ = original.__qualname__
    forward.__module__ = original.__module__
    forward.__doc__ = original.__doc__
    named = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (base,), {**named, "__doc__": base.__doc__, "forward": forward})


def picklable(signature: inspect.Signature) -> inspect.Signature:
    """Return `signature`, with text in the place of what cannot be pickled."""
    if _pickles(signature):
        return signature
    result = signature.return_annotation
    return signature.replace(
        parameters=[
            p.replace(
                annotation=p.annotation if _pickles(p.annotation) else _name_of(p.annotation),
                default=p.default if _pickles(p.default) else Unstated(repr(p.default)),
            )
            for p in signature.parameters.values()
        ],
        return_annotation=result if _pickles(result) else _name_of(result),
    )


def plain_defaults(signature: inspect.Signature) -> dict[str, Any]:
    """Return the defaults that are None, numbers or texts, by parameter."""
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is None or isinstance(parameter.default, (bool, int, float, str))
    }


def to_plain(signature: inspect.Signature) -> list[dict[str, Any]]:
    """Return `signature` as JSON-able data."""
    parameters = []
    for name, parameter in signature.parameters.items():
        entry: dict[str, Any] = {"name": name, "kind": parameter.kind.name}
        default = parameter.default
        if default is None or _is_plain(default):
            entry["default"] = default
        elif default is not _EMPTY:
            entry["unstated"] = repr(default)[:200]
        if parameter.annotation is not _EMPTY:
            entry["annotation"] = _name_of(parameter.annotation)
        parameters.append(entry)
    return parameters


def from_plain(data: object) -> inspect.Signature:
    """Return what `to_plain` wrote.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(data, list) or len(data) > MOST_PARAMETERS:
        raise ModelError("the signature in the file is not a list of parameters")
    try:
        return inspect.Signature([_parameter(entry) for entry in data])
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"the signature in the file is damaged: {error}") from None


def of_names(names: Iterable[str]) -> inspect.Signature:
    """Return the signature that takes these inputs, by position or as keywords.

    Names that are none in Python are changed: 'input.1' becomes input_1.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    used: list[str] = []
    for name in names:
        plain = "".join(c if c.isidentifier() or c.isdigit() else "_" for c in name) or "input"
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain == "self":
            plain = f"input_{plain}"
        while plain in used:
            plain += "_"
        used.append(plain)
    return inspect.Signature([inspect.Parameter(name, kind) for name in used])


def _parameter(entry: Mapping[str, Any]) -> inspect.Parameter:
    name, annotation = entry["name"], entry.get("annotation", _EMPTY)
    if not isinstance(name, str) or not (annotation is _EMPTY or isinstance(annotation, str)):
        raise TypeError("a name is not a text")
    default: Any = _EMPTY
    if "unstated" in entry:
        default = Unstated(str(entry["unstated"])[:200])
    elif "default" in entry:
        default = entry["default"]
        if default is not None and not _is_plain(default):
            raise TypeError(f"the default of '{name}' is not a number or text")
    return inspect.Parameter(name, _KINDS[entry["kind"]], default=default, annotation=annotation)


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, int, str))


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # pickle raises whatever an object's own code does
        return False
    return True


def _name_of(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation[:200]
    return str(getattr(annotation, "__name__", None) or annotation)[:200]
