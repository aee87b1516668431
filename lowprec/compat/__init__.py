"""Other tools' configurations, read as ours."""

from __future__ import annotations

import os
import pathlib

from lowprec.config import Config, read_text
from lowprec.config_text import convert, read_yaml


def read_config(path: str | os.PathLike[str]) -> tuple[Config, list[str]]:
    """Return the configuration in a YAML file, ours or Neural Compressor 1.x's, and notes on it.

    Which one it is, its keys tell. The file is never changed.

    Args:
        path: The file.

    Returns:
        The Config, and what was translated in a way that one should know of (empty for ours).

    Raises:
        ConfigError: with every mistake and every key that has no counterpart here.
    """
    from lowprec.compat import neural_compressor as nc

    text, name = read_text(path), str(pathlib.Path(path))
    values, source = read_yaml(text, name, nc.loader())
    if nc.is_foreign(values):
        return nc.translate(values, source)
    values, source = read_yaml(text, name)
    return convert({} if values is None else values, Config, source), []
