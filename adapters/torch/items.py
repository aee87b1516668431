"""What one item of calibration data says to forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lowprec.adapters.torch.sources import holds_flat, holds_numbers_only, note, with_batch_axis
from lowprec.errors import DataError

Call = tuple[tuple[Any, ...], dict[str, Any]]  # args, kwargs

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

EXAMPLE = -1  # in the place of a sample's number

# How annotations of arguments begin that are not one tensor.
_CONTAINERS = ("list", "tuple", "dict", "sequence", "mapping", "iterable")

# Optional arguments that make a module of transformers compute a loss.
_LABELS = ("start_positions", "end_positions", "next_sentence_label")


@dataclass(frozen=True)
class Wanted:
    """What forward takes of an item.

    Attributes:
        names: Arguments that an item may give by name; None: any.
        positions: Arguments that the parts of a tuple stand for, in order; what follows is dropped.
        required: Arguments that every item must give.
        containers: Of `positions`, those that are a list, tuple or dict of tensors themselves.
        texts: Arguments that are text.
        captured: Whether the module was captured with just these.
    """

    names: frozenset[str] | None
    positions: tuple[str, ...]
    required: tuple[str, ...]
    containers: frozenset[str]
    texts: frozenset[str]
    captured: bool = False

    @classmethod
    def by_signature(cls, signature: inspect.Signature, *, all_positions: bool = False) -> Wanted:
        """Return what forward needs: arguments without a default, the first one in any case.

        Args:
            signature: Of forward.
            all_positions: Take optional arguments from a tuple, and labels from a dict, too: for
                examples, which hold nothing but arguments.
        """
        parameters = signature.parameters
        positional = [p for p in parameters.values() if p.kind in _POSITIONAL]
        required = [p.name for p in positional if p.default is inspect.Parameter.empty]
        positions = [p.name for p in positional] if all_positions else required
        named = {p.name for p in parameters.values() if p.kind in _NAMED}
        if not all_positions:
            named -= {p.name for p in parameters.values() if _makes_a_loss(p)}
        takes_any = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        return cls(
            None if takes_any and not named else frozenset(named),
            tuple(positions or [p.name for p in positional[:1]]),
            tuple(required),
            frozenset(p.name for p in positional if _is_container(p)),
            frozenset(p.name for p in parameters.values() if isinstance(p.default, str)),
        )

    @classmethod
    def by_capture(cls, arguments: Mapping[str, Mapping[str, Any]]) -> Wanted:
        """Return what a module takes that was captured with `arguments`, their trees by name."""
        tensors = [name for name, tree in arguments.items() if "value" not in tree]
        return cls(
            frozenset(arguments),
            tuple(arguments),
            tuple(tensors),
            frozenset(name for name in tensors if "leaf" not in arguments[name]),
            frozenset(n for n, tree in arguments.items() if isinstance(tree.get("value"), str)),
            captured=True,
        )


def call_of(item: object, wanted: Wanted, number: int, notes: list[str]) -> Call:
    """Return the arguments that `item` stands for, their numbers as tensors.

    Args:
        item: A dict by parameter name, a tuple or list in the order of the parameters,
            (inputs, labels), or the only input.
        wanted: What forward takes of it.
        number: Of the item, for messages; or EXAMPLE.
        notes: Takes a line about what was dropped.

    Raises:
        DataError: it is not numbers, or lacks an argument.
    """
    if isinstance(item, Mapping):
        return (), _by_name(_collated(item), wanted, number, notes)
    if isinstance(item, (tuple, list)) and not holds_numbers_only(item):
        return _by_position(item, wanted, number, notes), {}
    if len(wanted.required) > 1 and number >= 0:
        raise DataError(
            f"{where(number)} is one {type(item).__name__}, forward takes "
            f"{', '.join(wanted.required)}; give a dict by argument name, or a tuple in that order"
        )
    return (_value(item, _first(wanted), number, wanted),), {}


def where(number: int) -> str:
    """Return what messages call an item: EXAMPLE is none of the data."""
    return "the example" if number == EXAMPLE else f"sample {number}"


# ---- By name -------------------------------------------------------------------------------------


def _by_name(
    item: Mapping[Any, Any], wanted: Wanted, number: int, notes: list[str]
) -> dict[str, Any]:
    kept = {key: item[key] for key in item if wanted.names is None or key in wanted.names}
    if not kept and len(wanted.required) <= 1 and wanted.positions:
        kept = {wanted.positions[0]: dict(item)}  # forward takes a dict
    else:
        missing = [name for name in wanted.required if name not in kept]
        if missing:
            raise DataError(
                f"{where(number)} has no '{missing[0]}'; it holds "
                f"{', '.join(map(str, item)) or 'nothing'}, forward takes "
                f"{', '.join(wanted.positions)}"
            )
        dropped = [str(key) for key in item if key not in kept]
        if dropped:
            reason = "captured without it" if wanted.captured else "not an input of forward"
            note(notes, f"dropped {', '.join(dropped)}: {reason}")
    return {str(key): _value(value, str(key), number, wanted) for key, value in kept.items()}


def _collated(item: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the output of a tokenizer or image processor as if it had been asked for tensors."""
    if not hasattr(item, "convert_to_tensors"):
        return item
    ids = item.get("input_ids")
    if isinstance(ids, list) and holds_flat(ids):
        return {key: with_batch_axis(value) for key, value in item.items()}
    return {key: np.stack(value) if _is_stackable(value) else value for key, value in item.items()}


def _is_stackable(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, (np.ndarray, torch.Tensor)) for part in value)
        and len({tuple(part.shape) for part in value}) == 1
    )


# ---- By position ---------------------------------------------------------------------------------


def _by_position(
    item: Sequence[Any], wanted: Wanted, number: int, notes: list[str]
) -> tuple[Any, ...]:
    positions = wanted.positions
    if not positions:
        raise DataError(f"{where(number)} is a {type(item).__name__}; give a dict by argument name")
    parts: Sequence[Any] = item
    if _is_the_argument(item, wanted):
        parts = (item,)
    elif _is_inputs_and_labels(item, wanted):
        if len(item) > 1:
            note(notes, f"dropped what follows the inputs in each item ({len(item) - 1} more)")
        args, kwargs = call_of(item[0], wanted, number, notes)
        # By position, whatever they were given by: the caller knows the order.
        return (*args, *(kwargs[name] for name in positions if name in kwargs))
    if len(parts) < len(wanted.required):
        raise DataError(
            f"{where(number)} has {len(parts)} parts, forward takes {len(positions)} "
            f"({', '.join(positions)}); give one for each, in that order"
        )
    surplus = len(parts) - len(positions)
    if surplus > 0:
        note(notes, f"dropped what follows the inputs in each item ({surplus} more)")
    return tuple(
        _value(part, name, number, wanted) for name, part in zip(positions, parts, strict=False)
    )


def _is_the_argument(item: Sequence[Any], wanted: Wanted) -> bool:
    """Return whether a list of tensors is itself what forward's only argument takes."""
    return (
        len(wanted.positions) == 1
        and wanted.positions[0] in wanted.containers
        and not any(isinstance(part, (Mapping, list, tuple)) for part in item)
    )


def _is_inputs_and_labels(item: Sequence[Any], wanted: Wanted) -> bool:
    first = item[0]
    if wanted.positions[0] in wanted.containers:
        return False
    if isinstance(first, Mapping):
        return wanted.names is None or any(key in wanted.names for key in first)
    if not isinstance(first, (list, tuple)) or holds_numbers_only(first):
        return False
    return len(first) == 1 or len(first) >= len(wanted.required) > 1


def _first(wanted: Wanted) -> str:
    return wanted.positions[0] if wanted.positions else "input"


# ---- Values --------------------------------------------------------------------------------------


def _value(value: Any, name: str, number: int, wanted: Wanted) -> Any:
    """Return `value` with arrays and lists of numbers as tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_array(np.asarray(value), name, number)
    if isinstance(value, str) and name in wanted.texts:
        return value
    if isinstance(value, str):
        raise DataError(
            f"{where(number)}, argument '{name}': it is text; give what the tokenizer makes of it, "
            "tokenizer(text, return_tensors='pt')"
        )
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)) and holds_numbers_only(value):
        return _from_lists(value, name, number)
    if type(value) is dict:
        return {key: _value(part, f"{name}.{key}", number, wanted) for key, part in value.items()}
    if type(value) in (list, tuple):
        parts = [_value(part, f"{name}.{i}", number, wanted) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if hasattr(value, "getbands"):
        raise DataError(
            f"{where(number)}, argument '{name}': it is a PIL picture; give what the image "
            "processor or transform makes of it, a tensor"
        )
    return value  # a data class, a named tuple: capture says whether it takes it


def _from_array(array: np.ndarray[Any, Any], name: str, number: int) -> torch.Tensor:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DataError(
            f"{where(number)}, argument '{name}': dtype {array.dtype} is none that torch knows; "
            "give numbers"
        )
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _from_lists(value: Any, name: str, number: int) -> torch.Tensor:
    try:
        return torch.tensor(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        raise DataError(
            f"{where(number)}, argument '{name}': its lists have different lengths; fill them up, "
            "tokenizer(texts, padding=True, return_tensors='pt'), or give them one by one"
        ) from None


# ---- Parameters ----------------------------------------------------------------------------------


def _makes_a_loss(parameter: inspect.Parameter) -> bool:
    name = parameter.name.lower()
    return parameter.default is None and (name.startswith("label") or name in _LABELS)


def _is_container(parameter: inspect.Parameter) -> bool:
    """Return whether the annotation says that the argument is not one tensor."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else _name_of(annotation)
    return text.rpartition("typing.")[2].lower().startswith(_CONTAINERS)


def _name_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors in nested lists, tuples and dicts, in order."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, Mapping):
            found += tensors_in(value.values())
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found
