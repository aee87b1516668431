"""What is refused in a GraphDef from a file before TensorFlow imports or runs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator
from typing import Any

from lowprec.errors import ModelError, UnsupportedError

CONSTANTS_LIMIT = 2**33  # bytes: a short file may declare a constant of any size
CALLS_LIMIT = 100_000  # of functions by functions; TensorFlow and we copy each into its place
_DEPTH = 50  # of calls inside calls; deeper ones are refused elsewhere

# A model that was only opened must not touch files nor run Python.
_WRITES = frozenset(
    {
        *("WriteFile", "DatasetToTFRecord", "ExperimentalDatasetToTFRecord", "DumpTensor"),
        *("SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2"),
        *("CacheDataset", "CacheDatasetV2", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary"),
    }
)
_OUTSIDE = _WRITES | {
    *("ReadFile", "MatchingFiles", "ImmutableConst", "RecordInput", "LoadAndRemapMatrix"),
    *("Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice"),
    *("MergeV2Checkpoints", "PyFunc", "PyFuncStateless", "EagerPyFunc", "RpcCall", "RpcClient"),
    *("TFRecordReader", "TFRecordReaderV2", "TextLineReader", "TextLineReaderV2", "LMDBReader"),
    *("FixedLengthRecordReader", "FixedLengthRecordReaderV2"),
    *("WholeFileReader", "WholeFileReaderV2"),
    *("TFRecordDataset", "TFRecordDatasetV2", "TextLineDataset", "CSVDataset", "CSVDatasetV2"),
    *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "LMDBDataset", "SqlDataset"),
    *("MatchingFilesDataset", "LoadDataset"),
}


def check_calls(definition: Any, name: str) -> None:
    """Refuse functions whose calls multiply: thirty, each of which calls the next one twice.

    Raises:
        ModelError: in the place of its call, a function would be absurdly long.
    """
    called = {
        function.signature.name: [other for node in function.node_def for other in _called(node)]
        for function in definition.library.function
    }
    calls = dict.fromkeys(called, 1)
    for _ in range(_DEPTH):
        longer = {
            key: 1 + sum(calls.get(other, 0) for other in others) for key, others in called.items()
        }
        worst = max(longer, key=longer.__getitem__, default=None)
        if worst is not None and longer[worst] > CALLS_LIMIT:
            raise ModelError(
                f"the function '{worst}' of the graph '{name}' calls others more than "
                f"{CALLS_LIMIT} times; the file is damaged, or made to fill memory"
            )
        if longer == calls:
            return
        calls = longer


def _called(node: Any) -> Iterator[str]:
    """Yield the functions that a node names, as often as it does."""
    yield node.op  # a function may be called like an operation
    for attribute in node.attr.values():
        for function in [attribute.func, *attribute.list.func]:
            if function.name:
                yield function.name


def check_constants(definition: Any, name: str) -> None:
    """Refuse constants that are larger than memory before anything makes them.

    Raises:
        ModelError: their sizes are absurd.
    """
    total = 0
    bodies = [function.node_def for function in definition.library.function]
    for nodes in [definition.node, *bodies]:
        for node in nodes:
            if node.op != "Const" or "value" not in node.attr:
                continue
            sizes = [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]
            if any(size < 0 for size in sizes):
                raise ModelError(
                    f"the constant '{node.name}' of the graph '{name}' has a negative size; "
                    "the file is damaged: freeze the model again"
                )
            total += math.prod(sizes) * 4
            if total > CONSTANTS_LIMIT:
                raise ModelError(
                    f"the constants of the graph '{name}' declare more than "
                    f"{CONSTANTS_LIMIT >> 30} GiB (at '{node.name}'); the file is damaged, or made "
                    "to fill memory"
                )


def check_operations(function: Any, name: str) -> None:
    """Refuse what reaches outside the model: it would run when the model is checked.

    Raises:
        UnsupportedError: there is such an operation.
    """
    for node in operations_of(function.graph):
        _refuse(node, _OUTSIDE, name)


def check_writing(definition: Any, name: str) -> None:
    """Refuse a GraphDef with anything that writes files: its loader might run it.

    Raises:
        UnsupportedError: there is such an operation; those for checkpoints do not count.
    """
    bodies = [function.node_def for function in definition.library.function]
    for node in itertools.chain(definition.node, *bodies):
        _refuse(node, _WRITES, name)


def _refuse(node: Any, operations: Container[str], name: str) -> None:
    stream = node.attr["output_stream"].s if "output_stream" in node.attr else b""
    prints_into_file = node.op == "PrintV2" and stream.startswith(b"file:")
    if prints_into_file or node.op in operations:
        raise UnsupportedError(
            f"the model '{name}' holds the operation {node.op} (node '{node.name}'), which "
            "touches files or runs Python; take it out of the model"
        )


def operations_of(graph: Any) -> Iterator[Any]:
    """Yield the NodeDef of each operation of a graph and of the functions that it calls."""
    waiting = [operation.node_def for operation in graph.get_operations()]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attr.values():
            for called in [attribute.func, *attribute.list.func]:
                held = graph._get_function(called.name) if called.name else None
                if held is not None and called.name not in seen:
                    seen.add(called.name)
                    waiting += (getattr(held, "function_def", None) or held.definition).node_def
