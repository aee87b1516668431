"""Write a model as a frozen graph or a SavedModel: placeholders, one LowprecRun, the old names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from lowprec.adapters.tensorflow import operator
from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.silence import quiet
from lowprec.adapters.tensorflow_paths import SAVED_MODEL_FILES
from lowprec.atomic import write_atomically, write_folder_atomically
from lowprec.errors import OutputError, UnsupportedError
from lowprec.graph.read import PROTOBUF_LIMIT

Compute = Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]

PREFIX = "lowprec"  # of the nodes between inputs and outputs
NOTE = "LOWPREC.txt"
DEFAULT_SIGNATURE = "serving_default"

_NOTE_TEXT = """\
This SavedModel was made by lowprec: its one operation runs the quantised model in it on the CPU.
TensorFlow knows the operation after one import, before the model is loaded:

    import lowprec.adapters.tensorflow   # pip install "lowprec[tensorflow]"
    import tensorflow as tf
    model = tf.saved_model.load("this folder")
"""


@dataclass(frozen=True)
class Ends:
    """What goes in and comes out of a saved model.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        specs: Shape and dtype of each input.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]


def save_as(
    content: bytes,
    signature: str,
    binding: Binding,
    dtypes: Sequence[Any],
    path: str | os.PathLike[str],
    target: str = "lowprec",
) -> None:
    """Write a model in the form that the path says: a SavedModel's folder, .pb, .pbtxt or .onnx.

    Args:
        content: The model as an ONNX file.
        signature: Of the operator, for this content.
        binding: How the original was called.
        dtypes: NumPy's, of each input.
        path: What to write.
        target: "lowprec": the graph holds one LowprecRun.

    Raises:
        OutputError: it cannot be written there.
        UnsupportedError: the model has no such form.
    """
    form = check_suffix(path)
    if target != "lowprec":
        raise UnsupportedError(f"target is '{target}'; accepted is lowprec")
    if form == "onnx":
        write_atomically(path, content)
        return
    if form == "keras":
        raise UnsupportedError(
            f"'{path}': a .keras file holds a Keras model, and this was a {binding.form}; give "
            ".pb, .onnx, or a folder for a SavedModel"
        )
    specs = tuple(
        tf.TensorSpec(shape, dtype) for shape, dtype in zip(binding.shapes, dtypes, strict=True)
    )

    def compute(given: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        model = tf.constant(np.frombuffer(content, np.uint8), name="model")
        return operator.run(given, model, signature)

    ends = Ends(binding.inputs, binding.outputs, specs)
    details = binding.details
    if form == "graph":
        save_graph(path, compute, ends, details.get("inputs"), details.get("outputs"))
    else:
        signatures = details.get("signatures", [DEFAULT_SIGNATURE])
        save_saved_model(path, compute, ends, signatures, details.get("tags", ["serve"]))


def save_graph(
    path: str | os.PathLike[str],
    compute: Compute,
    ends: Ends,
    tensors: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
) -> None:
    """Write a frozen GraphDef; as text where the path ends in .pbtxt.

    Args:
        path: The file.
        compute: The model: called once, on symbolic tensors.
        ends: Names and specs of inputs and outputs.
        tensors: Names that the input tensors get ("x:0"); None: from the names of the inputs.
        results: The same for the outputs; one that would be called like an input gets _1 after it.

    Raises:
        OutputError: the file cannot be written.
        UnsupportedError: it would exceed what protobuf can hold.
    """
    taken: set[str] = set()  # an output may be called like an input, but not its node
    tensors = tensors or [_free_tensor(name, taken) for name in ends.inputs]
    results = results or [_free_tensor(name, taken) for name in ends.outputs]
    write_graph(path, graph_of_model(compute, ends, tensors, results))


def write_graph(path: str | os.PathLike[str], definition: Any) -> None:
    """Write a GraphDef; as text where the path ends in .pbtxt.

    Raises:
        OutputError: the file cannot be written.
    """
    if os.fspath(path).lower().endswith(".pbtxt"):
        from google.protobuf import text_format  # type: ignore[import-untyped]

        write_atomically(path, text_format.MessageToString(definition).encode())
    else:
        write_atomically(path, definition.SerializeToString(deterministic=True))


def save_saved_model(
    path: str | os.PathLike[str],
    compute: Compute,
    ends: Ends,
    signatures: Sequence[str] = (DEFAULT_SIGNATURE,),
    tags: Sequence[str] = ("serve",),
) -> None:
    """Write a SavedModel: a folder that tf.saved_model.load opens after one import.

    Args:
        path: The folder; one that is a SavedModel already is replaced.
        compute: The model: called once, on symbolic tensors.
        ends: Names and specs of inputs and outputs: arguments and keys of the signatures.
        signatures: Names of the signatures that it answers to.
        tags: Of the graph.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        UnsupportedError: it would exceed what protobuf can hold.
    """
    tensors = [f"{PREFIX}_input_{number}:0" for number in range(len(ends.inputs))]
    results = [f"{PREFIX}_output_{number}:0" for number in range(len(ends.outputs))]

    def fill(folder: Path) -> None:
        definition = graph_of_model(compute, ends, tensors, results)
        named = (
            dict(zip(ends.inputs, tensors, strict=True)),
            dict(zip(ends.outputs, results, strict=True)),
        )
        build_saved_model(definition, folder, *named, signatures, tags)
        (folder / NOTE).write_text(_NOTE_TEXT)

    write_folder_atomically(path, fill, is_saved_model)


def build_saved_model(
    definition: Any,
    folder: Path,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    signatures: Sequence[str],
    tags: Sequence[str],
) -> None:
    """Write a SavedModel without variables into a folder that is there.

    Args:
        definition: A GraphDef.
        folder: An empty one.
        inputs: Names of its tensors ("x:0") by what the signatures call them.
        outputs: The same for the results.
        signatures: Names of the signatures that it answers to.
        tags: Of the graph.
    """
    graph = tf.Graph()
    with quiet(), graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(definition, name="")
        described = tf.compat.v1.saved_model.signature_def_utils.build_signature_def(
            _tensor_infos(graph, inputs),
            _tensor_infos(graph, outputs),
            tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
        )
        builder = tf.compat.v1.saved_model.Builder(str(folder / "model"))
        builder.add_meta_graph_and_variables(
            session, list(tags), dict.fromkeys(signatures, described)
        )
        builder.save()
    for item in list((folder / "model").iterdir()):
        item.rename(folder / item.name)
    (folder / "model").rmdir()


def is_saved_model(folder: Path) -> bool:
    """Return whether a folder is a SavedModel, which may be replaced by another."""
    return any((folder / name).is_file() for name in SAVED_MODEL_FILES)


def graph_of_model(
    compute: Compute, ends: Ends, tensors: Sequence[str], results: Sequence[str]
) -> Any:
    """Return a GraphDef without variables whose input and output tensors have the given names.

    Args:
        compute: The model: called once, on symbolic tensors.
        ends: Names and specs of inputs and outputs.
        tensors: Names of the input tensors ("x:0").
        results: Names of the output tensors.
    """
    function = tf.function(lambda *given: list(compute(given)), autograph=False, jit_compile=False)
    try:
        concrete = function.get_concrete_function(*ends.specs)
        if concrete.graph.captures:
            with quiet():
                concrete = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        definition = concrete.graph.as_graph_def()
        size = definition.ByteSize()
    except ValueError as error:  # protobuf's own limit, met on the way
        raise _too_large() from error
    if size > PROTOBUF_LIMIT:
        raise _too_large()
    if not definition.HasField("versions"):
        definition.versions.producer = tf.version.GRAPH_DEF_VERSION
    inputs = [tensor.op.name for tensor in concrete.inputs]
    outputs = [tensor.name for tensor in concrete.outputs]
    _rename(definition, dict(zip(inputs, tensors, strict=True)))
    for node in definition.node:
        node.attr.pop("_user_specified_name", None)  # of our own function's arguments
    taken = {name.partition(":")[0] for name in tensors}
    _add_outputs(definition, dict(zip(results, outputs, strict=True)), taken, concrete.outputs)
    return definition


# ---- Names ---------------------------------------------------------------------------------------


def _rename(definition: Any, inputs: Mapping[str, str]) -> None:
    """Give the inputs their names, and all other nodes names that cannot meet anyone's."""
    by_node: dict[str, dict[int, Any]] = {}
    for node in list(definition.node):
        for number, text in enumerate(node.input):
            node.input[number] = _reference(text, inputs)
        if node.name not in inputs:
            node.name = f"{PREFIX}/{node.name}"
            continue
        name, _, index = inputs[node.name].partition(":")
        if inputs[node.name] == f"{name}:0":
            node.name = name
        else:  # something in the middle of the old graph: an output of a node that has several
            node.name = f"{PREFIX}/fed/{name}/{index}"
            by_node.setdefault(name, {})[int(index)] = node
    for name, nodes in by_node.items():
        _add_identities(
            definition, name, {n: (node.name, node.attr["dtype"].type) for n, node in nodes.items()}
        )


def _reference(text: str, inputs: Mapping[str, str]) -> str:
    mark = "^" if text.startswith("^") else ""
    name, _, index = text.removeprefix("^").partition(":")
    if name not in inputs:
        return f"{mark}{PREFIX}/{text.removeprefix('^')}"
    full = inputs[name]
    if mark:
        return f"^{full.partition(':')[0]}"
    return full.removesuffix(":0") if index in ("", "0") else full


def _add_outputs(
    definition: Any, outputs: Mapping[str, str], inputs: set[str], tensors: Sequence[Any]
) -> None:
    by_node: dict[str, dict[int, tuple[str, int]]] = {}
    for (wanted, made), tensor in zip(outputs.items(), tensors, strict=True):
        name, _, index = wanted.partition(":")
        if name in inputs:  # the model returns what it is given
            continue
        by_node.setdefault(name, {})[int(index)] = (
            _made(definition, made),
            tensor.dtype.as_datatype_enum,
        )
    for name, found in by_node.items():
        _add_identities(definition, name, found)


def _made(definition: Any, tensor: str) -> str:
    name, _, index = tensor.partition(":")
    known = {node.name for node in definition.node}
    return f"{PREFIX}/{name}:{index}" if f"{PREFIX}/{name}" in known else f"{name}:{index}"


def _add_identities(definition: Any, name: str, sources: Mapping[int, tuple[str, int]]) -> None:
    """Add a node whose outputs are the sources by number; numbers nobody wants get any of them."""
    node = definition.node.add()
    node.name = name
    first = next(iter(sources.values()))
    if set(sources) == {0}:
        node.op = "Identity"
        node.attr["T"].type = first[1]
        node.input.append(first[0])
        return
    node.op = "IdentityN"
    for number in range(max(sources) + 1):
        source, dtype = sources.get(number, first)
        node.input.append(source)
        node.attr["T"].list.type.append(dtype)


def _node_name(name: str) -> str:
    """Return a name that TensorFlow takes for a node."""
    text = name.removesuffix(":0")
    allowed = "".join(c if c.isascii() and (c.isalnum() or c in "_./-") else "_" for c in text)
    return allowed if allowed[:1].isalnum() or allowed[:1] == "." else f"x{allowed}"


def _free_tensor(name: str, taken: set[str]) -> str:
    """Return the first output of a node called like `name`, or with _1 after it."""
    node = _node_name(name)
    while node in taken:
        node += "_1"
    taken.add(node)
    return f"{node}:0"


def _tensor_infos(graph: Any, tensors: Mapping[str, str]) -> dict[str, Any]:
    build = tf.compat.v1.saved_model.utils.build_tensor_info
    return {name: build(graph.get_tensor_by_name(tensor)) for name, tensor in tensors.items()}


def _too_large() -> UnsupportedError:
    return UnsupportedError(
        "the model is larger than the 2 GiB that one graph of TensorFlow can hold; save it as .onnx"
    )


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the form that a path asks for: "onnx", "graph", "keras" or "saved_model".

    Raises:
        OutputError: its suffix says nothing that can be written.
    """
    suffix = Path(path).suffix.lower()
    forms = {".onnx": "onnx", ".pb": "graph", ".pbtxt": "graph", ".keras": "keras"}
    if suffix in forms:
        return forms[suffix]
    if suffix in (".h5", ".hdf5", ".tflite"):
        raise OutputError(
            f"'{path}': a {suffix} file cannot hold a quantised model; give .keras, .pb, .onnx, or "
            "a folder for a SavedModel"
        )
    return "saved_model"
