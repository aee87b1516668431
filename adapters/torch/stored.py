"""What stands in a file about a module's call, checked: the file may come from anyone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lowprec.errors import ModelError

LONGEST = 1 << 20  # characters of JSON
DEEPEST = 32  # trees in trees
MOST = 10_000  # names, and items of trees
LONGEST_NAME = 1000


def parsed(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`.

    Raises:
        ModelError: there is none, or it is too long.
    """
    if len(text) > LONGEST:
        raise ModelError(f"what the file says about the module's call exceeds {LONGEST} characters")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"not JSON ({error})"[:200]) from None
    if not isinstance(data, dict):
        raise _damaged("not a JSON object")
    return data


def checked_binding(data: object) -> dict[str, Any]:
    """Return `data` if it is what `Binding.to_dict` writes.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(data, Mapping):
        raise _damaged("not a JSON object")
    found = dict(data)
    for key in ("parameters", "inputs"):
        _names(key, found.get(key))
    positional = found.get("positional")
    if type(positional) is not int or not 0 <= positional <= len(found["parameters"]):
        raise _damaged("'positional' is not a number of parameters")
    arguments = found.get("arguments")
    if not isinstance(arguments, dict) or len(arguments) > MOST:
        raise _damaged("'arguments' is not an object")
    leaves: list[int] = []
    for name, tree in arguments.items():
        _names("arguments", [name])
        _check_tree(tree, leaves, 0)
    if leaves != [*range(len(found["inputs"]))]:
        raise _damaged("the arguments do not hold each input once, in order")
    results: list[int] = []
    _check_tree(found.get("result"), results, 0)
    if sorted(results) != [*range(len(results))]:
        raise _damaged("the result does not hold each output once")
    found["ranges"] = _checked_ranges(found.get("ranges", {}))
    if not set(found["ranges"]) <= set(found["inputs"]):
        raise _damaged("'ranges' names an input that is none")
    found["defaults"] = found.get("defaults", {})
    if not isinstance(found["defaults"], dict) or len(found["defaults"]) > MOST:
        raise _damaged("'defaults' is not an object")
    for value in found["defaults"].values():
        _check_constant(value)
    return found


def _names(what: str, names: object) -> None:
    if not isinstance(names, list) or len(names) > MOST:
        raise _damaged(f"'{what}' is not a list of names")
    if not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names):
        raise _damaged(f"'{what}' holds something else than names")


def _check_tree(tree: object, leaves: list[int], depth: int) -> None:
    if not isinstance(tree, dict) or depth > DEEPEST:
        raise _damaged("a tree is no object, or too deep")
    kinds = [kind for kind in ("leaf", "value", "tuple", "list", "dict", "fields") if kind in tree]
    if len(kinds) != 1 or not set(tree) <= {kinds[0], "type"}:
        raise _damaged("a tree is of no known kind")
    (kind,), content = kinds, tree[kinds[0]]
    if kind == "leaf":
        if type(content) is not int or len(leaves) >= MOST:
            raise _damaged("a leaf is no number")
        leaves.append(content)
    elif kind == "value":
        _check_constant(content)
    elif not isinstance(content, list) or len(content) > MOST:
        raise _damaged(f"a {kind} is not a list")
    elif kind in ("tuple", "list"):
        for item in content:
            _check_tree(item, leaves, depth + 1)
    else:
        _names("type", [tree.get("type")])
        for pair in content:
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int):
                raise _damaged(f"a {kind} holds something else than pairs")
            _check_tree(pair[1], leaves, depth + 1)


def _check_constant(value: object) -> None:
    is_plain = value is None or isinstance(value, (bool, int, str))
    if not is_plain and not (isinstance(value, float) and not math.isnan(value)):
        raise _damaged("a constant is no number or text")


def _checked_ranges(ranges: object) -> dict[str, dict[str, list[Any]]]:
    if not isinstance(ranges, dict):
        raise _damaged("'ranges' is not an object")
    for axes in ranges.values():
        if not isinstance(axes, dict) or not all(
            axis.isdecimal() and isinstance(bounds, list) and len(bounds) == 3
            for axis, bounds in axes.items()
        ):
            raise _damaged("'ranges' holds something else than bounds and a step by axis")
        for bounds in axes.values():
            least, greatest, step = bounds
            if not all(type(number) is int for number in (least, step)) or step < 1:
                raise _damaged("a bound is no number")
            if greatest is not None and type(greatest) is not int:
                raise _damaged("a bound is no number")
    return ranges


def _damaged(what: str) -> ModelError:
    return ModelError(
        f"what the file says about the module's call is damaged: {what}; save the module again"
    )
