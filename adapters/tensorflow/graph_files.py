"""Frozen graphs, from .pb and .pbtxt files or in memory: where they begin and end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.capture import captured, shapes_of
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.given import GivenGraph
from lowprec.adapters.tensorflow.original import Original
from lowprec.adapters.tensorflow.source import source_of
from lowprec.adapters.tensorflow.untrusted import check_calls, check_constants, check_operations
from lowprec.adapters.tensorflow.words import in_one_line
from lowprec.errors import ModelError
from lowprec.graph.read import PROTOBUF_LIMIT
from lowprec.hookspecs import Captured, CapturedParts

_numbers = itertools.count()

REFERENCE_VARIABLES = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
_VARIABLES = REFERENCE_VARIABLES | {"VarHandleOp"}
# What ends in nothing and is no answer.
_IGNORED_ENDS = frozenset(
    {
        *("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault", "Print", "PrintV2"),
        *("Save", "SaveV2", "SaveSlices", "ScalarSummary", "HistogramSummary", "ImageSummary"),
        *("AudioSummary", "MergeSummary", "TensorSummary", "TensorSummaryV2", "Stage"),
    }
)


def capture_graph(
    given: GivenGraph, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return a frozen graph as Captured.

    Args:
        given: The graph and its ends.
        data: Calibration data, on which the hub is compared with TensorFlow.
        samples: How many of its items may be looked at.

    Raises:
        ModelError: the file cannot be read, is not frozen, or has no end of the given name.
        UnsupportedError: some operation has no translation, or reaches outside the model.
    """
    definition, name = _definition(given.graph)
    check_calls(definition, name)
    check_constants(definition, name)
    function, inputs, outputs = function_of_graph(definition, name, given.inputs, given.outputs)
    check_operations(function, name)
    source = source_of(function, [hub_name(n) for n in inputs], [hub_name(n) for n in outputs])
    binding = Binding(
        form="graph",
        name=Path(name).stem if isinstance(given.graph, (str, os.PathLike)) else "graph",
        inputs=tuple(source.inputs),
        outputs=tuple(source.outputs),
        shapes=shapes_of(list(source.inputs.values())),
        results=shapes_of(list(source.outputs.values())),
        arguments={"dict": {name: number for number, name in enumerate(source.inputs)}},
        returned={"tuple": list(range(len(outputs)))} if len(outputs) != 1 else 0,
        details={"inputs": list(inputs), "outputs": list(outputs)},
    )
    return captured(source, binding, Original(source, binding), data=data, samples=samples)


def hub_name(tensor: str) -> str:
    """Return a tensor's name without ':0', which says nothing."""
    return tensor.removesuffix(":0")


def function_of_graph(
    definition: Any,
    name: str,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> tuple[Any, list[str], list[str]]:
    """Return a frozen graph as a concrete function, and the names of its inputs and outputs.

    Args:
        definition: A GraphDef.
        name: Of the model, for messages.
        inputs: Names of tensors or nodes; None: the placeholders that the outputs need.
        outputs: The same; None: what nothing reads.
    """
    definition = _with_own_names(definition)
    try:
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(definition, name=""), []
        )
    except Exception as error:
        raise ModelError(
            f"TensorFlow does not take the graph '{name}': {in_one_line(error)}; an operation of "
            "another package needs that package imported first"
        ) from error
    graph = wrapped.graph
    if outputs is None:
        made = _ends(graph, name)
    else:
        made = [_tensor(graph, output, name, "output") for output in outputs]
    if inputs is None:
        taken = _needed(graph, made, [], name)
    else:
        taken = [_tensor(graph, given, name, "input") for given in inputs]
        open_ends = _needed(graph, made, taken, name)
        if open_ends:
            others = ", ".join(hub_name(tensor.name) for tensor in open_ends)
            raise ModelError(
                f"the outputs of the graph '{name}' need more than the inputs named: {others}; "
                "name these too"
            )
    try:
        function = wrapped.prune(taken, made)
    except Exception as error:
        raise ModelError(
            f"the graph '{name}' cannot be cut out between its inputs and outputs: "
            f"{in_one_line(error)}; name others with lowprec.adapters.tensorflow.graph(...)"
        ) from error
    return function, [tensor.name for tensor in taken], [tensor.name for tensor in made]


def _with_own_names(definition: Any) -> Any:
    """Return a GraphDef whose functions have names that no other in this process has.

    TensorFlow keeps functions by name for the whole process, and refuses two of one name.
    """
    if not definition.library.function:
        return definition
    copied = tf.compat.v1.GraphDef()
    copied.CopyFrom(definition)
    mark = f"lowprec_{next(_numbers)}"
    names = {f.signature.name: f"{f.signature.name}__{mark}" for f in copied.library.function}
    for function in copied.library.function:
        function.signature.name = names[function.signature.name]
    for gradient in copied.library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    for nodes in [copied.node, *(function.node_def for function in copied.library.function)]:
        for node in nodes:
            node.op = names.get(node.op, node.op)
            for attribute in node.attr.values():
                for called in [attribute.func, *attribute.list.func]:
                    if called.name in names:
                        called.name = names[called.name]
    return copied


def _definition(given: Any) -> tuple[Any, str]:
    """Return a GraphDef and what to call it."""
    if isinstance(given, (str, os.PathLike)):
        return read_graph(given), os.fspath(given)
    if isinstance(given, tf.Graph):
        given = given.as_graph_def()
    if not isinstance(given, tf.compat.v1.GraphDef):
        raise ModelError(
            f"a graph is the path of a .pb or .pbtxt file, or a tf.compat.v1.GraphDef, not a "
            f"{type(given).__name__}"
        )
    return given, "graph"


def read_graph(path: str | os.PathLike[str]) -> Any:
    """Return the GraphDef in a file.

    Raises:
        ModelError: there is none in it.
    """
    content = read_file(path, "a frozen graph")
    definition = tf.compat.v1.GraphDef()
    try:
        if os.fspath(path).lower().endswith(".pbtxt"):
            text_format.Parse(content.decode("utf-8"), definition)
        else:
            definition.ParseFromString(content)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"model file '{path}' is not a complete GraphDef: it is truncated or of another "
            "format; write it again, or give a SavedModel or an .onnx file"
        ) from error
    if not definition.node:
        raise ModelError(
            f"model file '{path}' holds no nodes; a frozen GraphDef is expected: write it with "
            "tf.io.write_graph, or give a SavedModel"
        )
    return definition


def read_file(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the content of a model file.

    Raises:
        ModelError: it cannot be read, is empty, or longer than protobuf allows.
    """
    target = Path(path)
    try:
        size = target.stat().st_size
        if size > PROTOBUF_LIMIT:
            raise ModelError(
                f"model file '{path}' is {size / 1e9:.1f} GB, protobuf allows 2 GB; save the model "
                "as a SavedModel, whose variables lie in files of their own"
            )
        content = target.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"model file '{path}' cannot be read: {reason}") from None
    if not content:
        raise ModelError(f"model file '{path}' is empty; {what} is expected: write it again")
    return content


# ---- The ends of a graph -------------------------------------------------------------------------


def _ends(graph: Any, name: str) -> list[Any]:
    """Return the tensors that nothing reads and that depend on an input."""
    # In reverse: what only summaries and assertions read is read by nobody.
    read: set[str] = set()
    ends = []
    for op in reversed(graph.get_operations()):
        if op.name not in read and (not op.outputs or op.type in _IGNORED_ENDS):
            continue
        if op.name not in read:
            ends.append(op)
        read.update(tensor.op.name for tensor in op.inputs)
    ends.reverse()
    ends = [op for op in ends if _placeholders(op.outputs) or _variable(op.outputs)]
    # Losses and scores of a training graph are single numbers; answers to a batch are not.
    larger = [op for op in ends if any(tensor.shape.rank != 0 for tensor in op.outputs)]
    tensors = [
        tensor
        for op in larger or ends
        for tensor in op.outputs
        if tensor.dtype not in (tf.resource, tf.variant)
    ]
    if not tensors:
        raise ModelError(
            f"the graph '{name}' has no output that depends on an input; name them with "
            "lowprec.adapters.tensorflow.graph(path, inputs=[...], outputs=[...])"
        )
    return tensors


def _needed(graph: Any, outputs: Sequence[Any], given: Sequence[Any], name: str) -> list[Any]:
    """Return the placeholders that `outputs` need where `given` are known, in the graph's order."""
    variable = _variable(outputs, given)
    if variable is not None:
        raise ModelError(
            f"the graph '{name}' is not frozen: it reads the variable '{variable}'; freeze it "
            "(tf.python.framework.convert_to_constants), or give the SavedModel or Keras model"
        )
    found = _placeholders(outputs, given)
    order = {op.name: number for number, op in enumerate(graph.get_operations())}
    return sorted(found, key=lambda tensor: order[tensor.op.name])


def _placeholders(tensors: Sequence[Any], given: Sequence[Any] = ()) -> list[Any]:
    return [op.outputs[0] for op in _upstream(tensors, given) if op.type == "Placeholder"]


def _variable(tensors: Sequence[Any], given: Sequence[Any] = ()) -> str | None:
    return next((op.name for op in _upstream(tensors, given) if op.type in _VARIABLES), None)


def _upstream(tensors: Sequence[Any], given: Sequence[Any] = ()) -> Iterator[Any]:
    """Yield the operations that `tensors` depend on, up to those that are given."""
    stop = {tensor.name for tensor in given}
    waiting = [tensor for tensor in tensors if tensor.name not in stop]
    seen: set[str] = set()
    while waiting:
        operation = waiting.pop().op
        if operation.name in seen:
            continue
        seen.add(operation.name)
        yield operation
        waiting.extend(tensor for tensor in operation.inputs if tensor.name not in stop)


def _tensor(graph: Any, wanted: str, name: str, role: str) -> Any:
    """Return the tensor of this name; a node's name stands for its first output."""
    full = wanted if ":" in wanted else f"{wanted}:0"
    try:
        return graph.get_tensor_by_name(full)
    except (KeyError, ValueError, TypeError):
        known = [
            operation.name
            for operation in graph.get_operations()
            if (operation.type == "Placeholder" if role == "input" else operation.outputs)
        ]
        shown = known if role == "input" else known[-5:]
        raise ModelError(
            f"the graph '{name}' has no tensor '{wanted}' for an {role}; "
            f"{'its inputs are' if role == 'input' else 'its last nodes are'} "
            f"{', '.join(shown) or '(none)'}"
        ) from None
