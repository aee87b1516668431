"""SavedModels as `Captured`, also those that only TensorFlow 1's loader opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.capture import captured, shapes_of
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.given import GivenSavedModel
from lowprec.adapters.tensorflow.graph_files import (
    REFERENCE_VARIABLES,
    function_of_graph,
    read_file,
)
from lowprec.adapters.tensorflow.original import Original
from lowprec.adapters.tensorflow.silence import quiet
from lowprec.adapters.tensorflow.source import Source, source_of
from lowprec.adapters.tensorflow.untrusted import (
    check_calls,
    check_constants,
    check_operations,
    check_writing,
)
from lowprec.adapters.tensorflow_paths import SAVED_MODEL_FILES, folder_of
from lowprec.errors import ModelError
from lowprec.hookspecs import Captured, CapturedParts

DEFAULT = "serving_default"
_INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


def capture_saved_model(
    given: GivenSavedModel, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return one signature of a SavedModel as Captured.

    Args:
        given: The folder and which signature.
        data: Calibration data, on which the hub is compared with TensorFlow.
        samples: How many of its items may be looked at.

    Raises:
        ModelError: the folder holds none, or not the signature.
        UnsupportedError: some operation has no translation, or reaches outside the model.
    """
    folder = folder_of(given.path)
    meta_graph = _chosen(read_saved_model(folder), given, folder)
    check_calls(meta_graph.graph_def, str(folder))
    check_constants(meta_graph.graph_def, str(folder))
    check_writing(meta_graph.graph_def, str(folder))
    key = _signature(meta_graph, given, folder)
    tags = tuple(meta_graph.meta_info_def.tags)
    others = [k for k in _signatures(meta_graph) if k != key]
    source, same = _source(folder, tags, key, others, meta_graph)
    binding = _binding(source, meta_graph, key, folder.resolve().name, tags, same)
    result = captured(source, binding, Original(source, binding), data=data, samples=samples)
    left = [k for k in others if k not in same]
    if left:
        result.notes = [
            *result.notes,
            f"only the signature '{key}' is in the result; the SavedModel also has "
            f"{', '.join(left)}: lowprec.adapters.tensorflow.saved_model(path, signature=...) "
            "takes another",
        ]
    return result


def capture_loaded(
    loaded: Any, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return what tf.saved_model.load returned as Captured: its default signature.

    Raises:
        ModelError: it has no signature.
    """
    signatures = dict(loaded.signatures)
    key = DEFAULT if DEFAULT in signatures else next(iter(signatures), None)
    if key is None or (key != DEFAULT and len(signatures) > 1):
        raise ModelError(
            "the loaded SavedModel has "
            + (f"several signatures ({', '.join(signatures)})" if signatures else "no signature")
            + "; give one of its functions, for example loaded.signatures['serving_default']"
        )
    source = _source_of_signature(signatures[key], str(key))
    binding = Binding(
        form="saved_model",
        name="saved_model",
        inputs=tuple(source.inputs),
        outputs=tuple(source.outputs),
        shapes=shapes_of(list(source.inputs.values())),
        results=shapes_of(list(source.outputs.values())),
        arguments={"dict": {name: number for number, name in enumerate(source.inputs)}},
        returned={"dict": {name: number for number, name in enumerate(source.outputs)}},
        details={"signatures": [key], "tags": ["serve"]},
    )
    return captured(source, binding, loaded, data=data, samples=samples)


def _binding(
    source: Source,
    meta_graph: Any,
    key: str,
    name: str,
    tags: Sequence[str],
    same: Sequence[str],
) -> Binding:
    declared = meta_graph.signature_def[key].outputs
    results = shapes_of(list(source.outputs.values()))
    return Binding(
        form="saved_model",
        name=name,
        inputs=tuple(source.inputs),
        outputs=tuple(source.outputs),
        shapes=shapes_of(list(source.inputs.values())),
        results=tuple(
            shape if shape is not None else _declared(declared[output].tensor_shape)
            for shape, output in zip(results, source.outputs, strict=True)
        ),
        arguments={"dict": {name: number for number, name in enumerate(source.inputs)}},
        returned={"dict": {name: number for number, name in enumerate(source.outputs)}},
        details={"signatures": [key, *same], "tags": list(tags)},
    )


def _declared(shape: Any) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if size.size < 0 else size.size for size in shape.dim)


# ---- What the folder says ------------------------------------------------------------------------


def read_saved_model(folder: Path) -> Any:
    """Return the SavedModel proto of a folder.

    Raises:
        ModelError: there is none in it.
    """
    made = SavedModel()
    path = next((folder / name for name in SAVED_MODEL_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(
            f"'{folder}' holds no {SAVED_MODEL_FILES[0]}; give the folder that "
            "tf.saved_model.save or model.export wrote"
        )
    content = read_file(path, "a SavedModel")
    try:
        if path.suffix == ".pbtxt":
            text_format.Parse(content.decode("utf-8"), made)
        else:
            made.ParseFromString(content)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is not a complete SavedModel: it is truncated or of another format; "
            "save the model again"
        ) from error
    if not made.meta_graphs:
        raise ModelError(f"the SavedModel '{folder}' holds no graph; save the model again")
    return made


def _chosen(saved: Any, given: GivenSavedModel, folder: Path) -> Any:
    """Return the graph with the tags that are asked for."""
    by_tags = {frozenset(graph.meta_info_def.tags): graph for graph in saved.meta_graphs}
    wanted = frozenset(given.tags) if given.tags is not None else None
    if wanted is None:
        wanted = frozenset({"serve"}) if len(by_tags) > 1 else next(iter(by_tags))
    if wanted not in by_tags:
        listed = "; ".join(", ".join(sorted(tags)) or "(none)" for tags in by_tags)
        raise ModelError(
            f"the SavedModel '{folder}' has no graph tagged {', '.join(sorted(wanted))}; it has "
            f"{listed}: name the tags with lowprec.adapters.tensorflow.saved_model(path, tags=...)"
        )
    return by_tags[wanted]


def _signatures(meta_graph: Any) -> list[str]:
    return [key for key in meta_graph.signature_def if key not in _INTERNAL]


def _signature(meta_graph: Any, given: GivenSavedModel, folder: Path) -> str:
    known = sorted(_signatures(meta_graph))
    if given.signature is not None:
        if given.signature in known:
            return given.signature
        raise ModelError(
            f"the SavedModel '{folder}' has no signature '{given.signature}'; it has "
            f"{', '.join(known) or 'none'}"
        )
    if DEFAULT in known or len(known) == 1:
        return DEFAULT if DEFAULT in known else known[0]
    if not known:
        raise ModelError(
            f"the SavedModel '{folder}' has no signature, so that nothing says what goes in and "
            "comes out; save it with tf.saved_model.save(model, path, signatures=...)"
        )
    raise ModelError(
        f"the SavedModel '{folder}' has the signatures {', '.join(known)} and no '{DEFAULT}'; "
        "choose with lowprec.adapters.tensorflow.saved_model(path, signature=...)"
    )


# ---- Loading -------------------------------------------------------------------------------------


def _source(
    folder: Path, tags: Sequence[str], key: str, others: Sequence[str], meta_graph: Any
) -> tuple[Source, list[str]]:
    """Return a signature as a Source, and which others are the same function by another name."""
    with quiet():
        try:
            loaded = tf.saved_model.load(str(folder), tags=list(tags))
            function = loaded.signatures[key]
            if any(op.type in REFERENCE_VARIABLES for op in function.graph.get_operations()):
                raise ModelError("its variables are those of TensorFlow 1")
        except Exception as error:
            return _frozen(folder, tags, key, meta_graph, error), []
        check_operations(function, str(folder))
        source = _source_of_signature(function, key)
        same = [
            other
            for other in others
            if other in loaded.signatures and _is_same(function, loaded.signatures[other])
        ]
        return replace(source, run=_kept(source.run, loaded)), same


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two signatures call the same function, as those that Keras exports do."""
    if _results(one) != _results(other) or _calls(one) != _calls(other):
        return False
    pairs = zip(one.variables, other.variables, strict=False)
    return len(one.variables) == len(other.variables) and all(
        a is b or (a.shape == b.shape and np.array_equal(a.numpy(), b.numpy())) for a, b in pairs
    )


def _results(function: Any) -> Any:
    """Return names, shapes and dtypes: of SavedModels of TensorFlow 1 the tensors are at hand."""
    outputs = function.structured_outputs
    if not isinstance(outputs, dict):
        return outputs
    return {name: (spec.shape, spec.dtype) for name, spec in outputs.items()}


def _calls(function: Any) -> list[Any]:
    """Return what a signature's graph does: it only calls the function that is meant."""
    found = []
    for operation in function.graph.get_operations():
        node = operation.node_def
        called = node.attr["f"].func.name if "f" in node.attr else ""
        if operation.type == "Const":
            return [object()]
        found.append((node.op, node.name, list(node.input), called))
    return found


def _kept(run: Any, loaded: Any) -> Any:
    """Return `run`, which needs the object that holds the variables."""

    def run_it(arrays: Sequence[Any]) -> list[Any]:
        assert loaded is not None
        result: list[Any] = run(arrays)
        return result

    return run_it


def _source_of_signature(function: Any, key: str) -> Source:
    """Return a signature's function as a Source; it takes and returns by name."""
    specs = function.structured_input_signature[1]
    names = list(getattr(function, "_arg_keywords", None) or sorted(specs))
    outputs = function.structured_outputs
    if not isinstance(outputs, dict) or len(names) != len(specs or names):
        raise ModelError(f"the signature '{key}' does not say what it takes and returns")
    results = sorted(outputs)
    source = source_of(function, names, results)

    def run(arrays: Sequence[Any]) -> list[Any]:
        tensors = {
            name: tf.constant(array, tensor.dtype)
            for array, (name, tensor) in zip(arrays, source.inputs.items(), strict=True)
        }
        made = function(**tensors)
        return [np.asarray(made[name]) for name in results]

    return replace(source, run=run)


def _frozen(
    folder: Path, tags: Sequence[str], key: str, meta_graph: Any, reason: Exception
) -> Source:
    """Return a signature that only TensorFlow 1's loader opens, its variables as constants."""
    signature = meta_graph.signature_def[key]
    # Sorted: protobuf's maps come in another order in every process.
    inputs = {name: signature.inputs[name].name for name in sorted(signature.inputs)}
    outputs = {name: signature.outputs[name].name for name in sorted(signature.outputs)}
    graph = tf.Graph()
    try:
        with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
            tf.compat.v1.saved_model.load(session, list(tags), str(folder))
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session,
                graph.as_graph_def(),
                sorted({name.partition(":")[0] for name in outputs.values()}),
            )
    except Exception as error:
        raise ModelError(
            f"the SavedModel '{folder}' cannot be loaded: {' '.join(str(reason).split())[:200]} "
            f"(and by TensorFlow 1's loader: {' '.join(str(error).split())[:200]}); save it again"
        ) from error
    taken, made = list(inputs.values()), list(outputs.values())
    function, _, _ = function_of_graph(frozen, str(folder), taken, made)
    check_operations(function, str(folder))
    return source_of(function, list(inputs), list(outputs))
