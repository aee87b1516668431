"""Models that need more than a path to say what is meant: which signature, which tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GivenSavedModel:
    """A SavedModel and one of its signatures; see `saved_model`."""

    path: str
    signature: str | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class GivenGraph:
    """A graph and its ends; see `graph`."""

    graph: Any
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None


def saved_model(
    path: str | os.PathLike[str],
    signature: str | None = None,
    tags: str | Sequence[str] | None = None,
) -> GivenSavedModel:
    """Return a SavedModel for `lowprec.quantize` and `lowprec.compile`, which take it as a model.

    Args:
        path: Its folder.
        signature: Which one is meant; None: "serving_default", or the only one.
        tags: Of the graph that is meant where the folder holds several; None: "serve", or the only.

    Example:
        >>> q = lowprec.quantize(saved_model("m", signature="embed"), samples)  # doctest: +SKIP
    """
    if isinstance(tags, str):
        tags = (tags,)
    return GivenSavedModel(os.fspath(path), signature, None if tags is None else tuple(tags))


def graph(
    path_or_graph_def: Any,
    inputs: str | Sequence[str] | None = None,
    outputs: str | Sequence[str] | None = None,
) -> GivenGraph:
    """Return a frozen graph for `lowprec.quantize` and `lowprec.compile`, which take it as a model.

    Args:
        path_or_graph_def: Path of a .pb or .pbtxt file, or a tf.compat.v1.GraphDef.
        inputs: Names of tensors or nodes ("x:0", "x"); None: the placeholders that outputs need.
            A tensor in the middle of the graph works too: the model then begins there.
        outputs: The same; None: what nothing in the graph reads.

    Example:
        >>> q = lowprec.quantize(graph("m.pb", outputs=["scores"]), samples)  # doctest: +SKIP
    """
    return GivenGraph(path_or_graph_def, _names(inputs), _names(outputs))


def _names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(names.split(",")) if isinstance(names, str) else tuple(names)
