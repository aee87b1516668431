"""What libraries ask of a model besides its forward: plain attributes of the original.

A pipeline of transformers reads `config`, `device`, `dtype` and more. The rule is general: whatever
plain data the original had as public attributes, the returned module has too, as a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

# Properties whose values are kept where the original has them.
_PROPERTIES = ("base_model_prefix", "device", "dtype", "input_modalities", "output_modalities")

# Arguments of transformers' models that are left to the configuration when they are None.
_SWITCHES = ("output_attentions", "output_hidden_states", "return_dict", "use_cache")

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_MOST = 100_000  # values in one attribute


def carried_from(module: torch.nn.Module) -> dict[str, Any]:
    """Return copies of the plain public attributes of `module` and of its class, by name.

    Plain are numbers, texts, None, and lists, tuples, sets and dicts of these; configurations of
    transformers too.
    """
    found: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if not issubclass(kind, torch.nn.Module) or kind is torch.nn.Module:
            continue
        found.update(_plain_ones(vars(kind)))
    for name in _PROPERTIES:
        if isinstance(getattr(type(module), name, None), property):
            value = getattr(module, name, None)
            if is_plain(value):
                found[name] = copy.deepcopy(value)
    found.update(_plain_ones(vars(module)))
    if is_model(module):
        found["can_generate"] = never
    found.pop("training", None)
    return found


def is_model(module: object) -> bool:
    """Return whether `module` is a model of transformers, told without importing it."""
    return _is_of(module, "PreTrainedModel")


def never() -> bool:
    """Return False: what generate() needs (caches that grow) is not captured."""
    return False


def defaults_of(module: torch.nn.Module) -> dict[str, bool]:
    """Return what forward's switches are where they are not given: as the configuration says."""
    config = getattr(module, "config", None)
    if not is_configuration(config):
        return {}
    values = {name: getattr(config, name, None) for name in _SWITCHES}
    # Before it is asked for otherwise, a model of transformers returns a ModelOutput.
    found = {name: value for name, value in values.items() if isinstance(value, bool)}
    return {"output_attentions": False, "output_hidden_states": False, **found}


@contextmanager
def without_cache(module: torch.nn.Module) -> Iterator[None]:
    """Keep models of transformers from returning `past_key_values` in the meantime."""
    configs: dict[int, Any] = {
        id(config): config
        for part in module.modules()
        if is_configuration(config := getattr(part, "config", None))
        and getattr(config, "use_cache", None) is True
    }
    for config in configs.values():
        config.use_cache = False
    try:
        yield
    finally:
        for config in configs.values():
            config.use_cache = True


def is_plain(value: Any) -> bool:
    """Return whether `value` is data, which can be copied and pickled."""
    return _count(value, 0) <= _MOST


def _plain_ones(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: copy.deepcopy(value)
        for name, value in values.items()
        if not name.startswith("_") and is_plain(value)
    }


def _count(value: Any, depth: int) -> int:
    """Return how many values there are in plain data; more than the most where it is not."""
    if value is None or isinstance(value, _PLAIN) or is_configuration(value):
        return 1
    if depth > 8 or not isinstance(value, (list, tuple, set, frozenset, dict)):
        return _MOST + 1
    if len(value) > _MOST:
        return _MOST + 1
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    total = 1
    for part in parts:
        total += _count(part, depth + 1)
        if total > _MOST:
            break
    return total


def is_configuration(value: object) -> bool:
    """Return whether `value` is a configuration of transformers, told without importing it."""
    return _is_of(value, "PreTrainedConfig", "PretrainedConfig", "GenerationConfig")


def _is_of(value: object, *names: str) -> bool:
    return any(
        kind.__name__ in names and kind.__module__.partition(".")[0] == "transformers"
        for kind in type(value).__mro__
    )
