"""Nested arguments and results as plain trees: JSON that tells where the tensors go.

A tree is {"leaf": i}, {"value": constant}, {"tuple": [...]}, {"list": [...]},
{"dict": [[key, tree], ...], "type": ...} or {"fields": [[name, tree], ...], "type": ...} for
named tuples and dataclasses, transformers' ModelOutput among them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from lowprec.errors import ModelError

Tree = dict[str, Any]
Leaf = tuple[str, Any]  # path, tensor

# Types of results are looked up by name when a saved module is loaded. Only in modules that the
# program has imported already, and in these: loading a file must not run other code.
_MAY_IMPORT = ("transformers.modeling_outputs", "transformers.utils.generic", "collections")


def flatten(value: Any, path: str, leaves: list[Leaf]) -> Tree:
    """Append the tensors in `value` to `leaves` and return the tree that holds them.

    Args:
        value: Tensors, numbers, strings and None in tuples, lists, dicts, named tuples,
            dataclasses.
        path: Names the value: what `leaves` are called begins with it.
        leaves: (path, tensor), in order.

    Raises:
        ModelError: there is something else in it.
    """
    if isinstance(value, torch.Tensor):
        leaves.append((path, value))
        return {"leaf": len(leaves) - 1}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    if isinstance(value, Mapping):
        if not all(isinstance(key, (str, int)) for key in value):
            raise ModelError(f"'{path}' is a dict with keys that are neither str nor int")
        pairs = [[key, flatten(item, _joined(path, key), leaves)] for key, item in value.items()]
        if dataclasses.is_dataclass(type(value)):  # ModelOutput is both
            return {"fields": pairs, "type": _name_of(type(value))}
        return {"dict": pairs, "type": "" if type(value) is dict else _name_of(type(value))}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        names = zip(value._fields, value, strict=True)
        pairs = [[name, flatten(item, _joined(path, name), leaves)] for name, item in names]
        return {"fields": pairs, "type": _name_of(type(value))}
    if isinstance(value, (tuple, list)):
        items = [flatten(item, _joined(path, i), leaves) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [
            [field.name, flatten(getattr(value, field.name), _joined(path, field.name), leaves)]
            for field in dataclasses.fields(value)
        ]
        return {"fields": pairs, "type": _name_of(type(value))}
    raise ModelError(
        f"'{path}' is a {type(value).__name__}; accepted are tensors, numbers, strings and None in "
        "tuples, lists, dicts, named tuples and dataclasses: wrap the module in one that takes and "
        "returns these"
    )


def builder(tree: Tree) -> Callable[[Sequence[torch.Tensor]], Any]:
    """Return the function that puts tensors into `tree`.

    Raises:
        ModelError: a type of the tree is not to be had.
    """
    if "leaf" in tree:
        index = tree["leaf"]
        return lambda tensors: tensors[index]
    if "value" in tree:
        constant = tree["value"]
        return lambda tensors: constant
    if "tuple" in tree:
        parts = [builder(item) for item in tree["tuple"]]
        return lambda tensors: tuple([part(tensors) for part in parts])
    if "list" in tree:
        parts = [builder(item) for item in tree["list"]]
        return lambda tensors: [part(tensors) for part in parts]
    pairs = [(key, builder(item)) for key, item in pairs_of(tree)]
    if "dict" in tree:
        kind = _type_of(tree["type"]) if tree["type"] else dict
        return lambda tensors: kind((key, part(tensors)) for key, part in pairs)
    made = _type_of(tree["type"])
    return lambda tensors: made(**{key: part(tensors) for key, part in pairs})


def leaf_count(tree: Tree) -> int:
    """Return how many tensors `tree` holds."""
    if "leaf" in tree:
        return 1
    items = tree.get("tuple") or tree.get("list") or []
    items = [*items, *(item for _, item in pairs_of(tree))]
    return sum(leaf_count(item) for item in items)


def pairs_of(tree: Tree) -> list[tuple[Any, Tree]]:
    """Return the keys, or names of fields, of a tree with their values; [] for others."""
    found: list[tuple[Any, Tree]] = tree.get("dict") or tree.get("fields") or []
    return found


def _joined(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _type_of(name: str) -> Any:
    module_name, _, qualified = name.partition(":")
    module = sys.modules.get(module_name)
    if module is None and module_name in _MAY_IMPORT:
        module = import_module(module_name)
    found: Any = module
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ModelError(
            f"the module returns a '{qualified}' of '{module_name}', which is not imported; import "
            f"'{module_name}' first"
        )
    is_named_tuple = issubclass(found, tuple) and hasattr(found, "_fields")
    if not (is_named_tuple or issubclass(found, Mapping) or dataclasses.is_dataclass(found)):
        raise ModelError(
            f"'{name}' is no dict, named tuple or dataclass, and nothing else may be made of a "
            "module's results; make the module again"
        )
    return found
