"""Make one configuration from another, and say in words how two differ."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from lowprec.config import Config, LayerPrecision, LayerRule

# What does not decide what a configuration makes of a model.
UNRELATED = ("tuning", "model", "output", "data", "evaluation", "version")
SHOWN = 4  # layers that are named; of more, the number is given


def with_values(config: Config, values: Mapping[str, object]) -> Config:
    """Return `config` with other values, by dotted key: {"calibration.method": "mse"}.

    Raises:
        ConfigError: a key or a value is not accepted.
    """
    tree = config.to_dict()
    for key, value in values.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return Config.from_dict(tree)


def with_layers(config: Config, names: Iterable[str], precision: str) -> Config:
    """Return `config` with a rule more for each layer in `names`; later rules win over earlier."""
    chosen = cast(LayerPrecision, precision)
    rules = tuple(LayerRule(match=glob.escape(name), precision=chosen) for name in names)
    return msgspec.structs.replace(config, layers=(*config.layers, *rules))


def with_types(config: Config, op_types: Iterable[str], precision: str) -> Config:
    """Return `config` with a rule more for each operator type."""
    chosen = cast(LayerPrecision, precision)
    rules = tuple(LayerRule(op_type=op_type, precision=chosen) for op_type in op_types)
    return msgspec.structs.replace(config, layers=(*config.layers, *rules))


def what_decides(config: Config) -> dict[str, Any]:
    """Return the part of `config` that decides what becomes of a model."""
    return {key: value for key, value in config.to_dict().items() if key not in UNRELATED}


def digest(values: object) -> str:
    """Return 16 hex digits that stand for plain data: equal data, equal digits."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_digest(config: Config) -> str:
    """Return what stands for everything in `config` that decides what becomes of a model."""
    return digest(what_decides(config))


def describe(base: Config, config: Config) -> str:
    """Return how `config` differs from `base`, in words.

    Example:
        >>> base = Config()
        >>> describe(base, with_layers(with_values(base, {"calibration.bins": 512}), ["a"], "f32"))
        'calibration.bins: 512; f32: a'
    """
    before, after = what_decides(base), what_decides(config)
    rules, more = base.layers, config.layers
    del before["layers"], after["layers"]
    parts = [f"{key}: {_word(value)}" for key, value in _differences(before, after)]
    if more[: len(rules)] == rules:
        parts += _groups(more[len(rules) :])
    else:
        parts.append(f"{len(more)} other layer rules")
    return "; ".join(parts) or "as configured"


def _differences(before: object, after: object, path: str = "") -> list[tuple[str, object]]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [(path, after)]
    found = []
    for key in after:
        inner = f"{path}.{key}" if path else key
        found += _differences(before.get(key), after[key], inner)
    return found


def _groups(rules: Iterable[LayerRule]) -> list[str]:
    """Return 'f32: a, b' for rules that only set a precision, the last one for a layer winning."""
    chosen: dict[str, str] = {}
    parts = []
    for rule in rules:
        values = {key: v for key, v in msgspec.to_builtins(rule).items() if v is not None}
        precision = values.pop("precision", None)
        match, op_type = values.pop("match", None), values.pop("op_type", None)
        where = " ".join(filter(None, (_unescaped(match), op_type and f"all {op_type}")))
        if values:
            parts.append(f"{where}: " + ", ".join(f"{k} {_word(v)}" for k, v in values.items()))
        if precision is not None:
            chosen.pop(where, None)
            chosen[where] = precision
    by_precision: dict[str, list[str]] = {}
    for where, precision in chosen.items():
        by_precision.setdefault(precision, []).append(where)
    for precision, names in by_precision.items():
        listed = ", ".join(names[:SHOWN])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        parts.append(f"{precision}: {listed}{more}")
    return parts


def _unescaped(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    for letter in "*?[":
        pattern = pattern.replace(f"[{letter}]", letter)
    return pattern


def _word(value: object) -> str:
    return {True: "true", False: "false", None: "null"}.get(value, str(value))  # type: ignore[call-overload,no-any-return]
