"""Neural Compressor 1.x's YAML and 2.x's Python objects, read as a lowprec Config.

Its files are told by their keys, loaded without running code, and never written to. What has no
counterpart here is an error, all of them at once with their lines; what means nothing here
(tensorboard, KMP settings) becomes a note. docs/neural_compressor.md is the table of both.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowprec.compat.neural_compressor_python import from_python
from lowprec.compat.neural_compressor_yaml import Translation
from lowprec.config import Config, is_neural_compressor, read_text
from lowprec.config_text import Source, read_yaml
from lowprec.errors import ConfigError

if TYPE_CHECKING:
    import yaml

__all__ = ["from_python", "is_foreign", "loader", "read", "translate"]


def is_foreign(values: object) -> bool:
    """Return whether the content of a YAML file is Neural Compressor's rather than ours."""
    return isinstance(values, Mapping) and is_neural_compressor(values)


def read(path: str | os.PathLike[str]) -> tuple[Config, list[str]]:
    """Return the Config that a YAML file of Neural Compressor 1.x stands for, and notes on it.

    Model, data sets, transforms and metrics are in the Config's `model`, `data` and `evaluation`.

    Raises:
        ConfigError: with every mistake and every key that has no counterpart here.
    """
    name = str(Path(path))
    values, source = read_yaml(read_text(path), name, loader())
    if not is_foreign(values):
        raise ConfigError(
            f"{name}: no configuration of Neural Compressor 1.x: it has none of its sections "
            "(quantization, mixed_precision, tuning.accuracy_criterion ...); "
            "lowprec.Config.from_yaml reads lowprec's own"
        )
    return translate(values, source)


def translate(values: Mapping[str, Any], source: Source) -> tuple[Config, list[str]]:
    """Return what the content of such a file stands for, and notes on it.

    Raises:
        ConfigError: with every mistake and every key that has no counterpart here.
    """
    translation = Translation(source)
    translation.read(values)
    translation.mistakes.raise_any()
    return Config.from_dict(translation.result), translation.notes


@functools.cache
def loader() -> type[yaml.SafeLoader]:
    """Return a safe YAML loader that knows Neural Compressor's two tags, as plain data."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Sequences for !!python/tuple, mappings for !Pruner...: nothing is called."""

    def construct_tuple(self: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise yaml.constructor.ConstructorError(
                None, None, "!!python/tuple is not a list", node.start_mark
            )
        return tuple(self.construct_sequence(node, deep=True))

    def construct_mapping(self: yaml.SafeLoader, _: str, node: yaml.Node) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                None, None, "!Pruner is not a mapping", node.start_mark
            )
        return self.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", construct_tuple)
    Loader.add_multi_constructor("!Pruner", construct_mapping)
    return Loader
