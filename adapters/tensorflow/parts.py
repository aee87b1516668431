"""Models of which TensorFlow keeps some operations: what lies between them is captured in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.nodes import Graph, Tensor, graph_of, numpy_dtype, tensor_of
from lowprec.adapters.tensorflow.partition import Stage, stages
from lowprec.adapters.tensorflow.source import Source
from lowprec.adapters.tensorflow.splicing import Body, run_stages
from lowprec.adapters.tensorflow.translator import KNOWN, UntranslatableError
from lowprec.adapters.tensorflow.words import in_one_line
from lowprec.adapters.tensorflow_hooks import KIND
from lowprec.errors import ModelError
from lowprec.hookspecs import Captured, CapturedParts

Array = NDArray[Any]

SPLIT = "split"  # in the binding of CapturedParts
UPSTREAM = "upstream"  # in the binding of a part: from feeds of the whole to its own


@dataclass(frozen=True)
class Split:
    """A model cut into stages.

    Attributes:
        body: Its graph.
        plan: The stages, in order.
        parts: By the name of a part, its stage.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        specs: Of the inputs.
    """

    body: Body
    plan: Sequence[Stage]
    parts: Mapping[str, Stage]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    specs: Sequence[tf.TensorSpec]


class Upstream:
    """What reaches a part when the whole model runs in TensorFlow."""

    def __init__(
        self,
        binding: Binding,
        dtypes: Sequence[np.dtype[Any]],
        boundary: Callable[..., Any],
        names: Sequence[str],
    ) -> None:
        """Take a function from the model's inputs to all tensors between stages."""
        self.binding = binding
        self.dtypes = tuple(dtypes)  # of the model's inputs; object for strings
        self._boundary = boundary
        self._names = tuple(names)

    def feeds(self, calls: Any) -> Iterator[dict[str, Array]]:
        """Yield a feed of the part for each of the model's, given as arrays in order."""
        for arrays in calls:
            reached = self._boundary(*arrays)
            yield {name: reached[name] for name in self._names}


NOT_COMPARED = "not compared with TensorFlow, which takes no made-up inputs; give data"


def captured_parts(
    source: Source,
    binding: Binding,
    model: object,
    feeds: Sequence[Sequence[Array]],
    error: UntranslatableError,
    *,
    is_made_up: bool = False,
) -> CapturedParts:
    """Return the parts of `source` that can be translated and are worth it.

    Args:
        source: The model as a graph.
        binding: How it is called.
        model: As it was given.
        feeds: Inputs of the whole, with which each part is compared with TensorFlow.
        error: Why the whole is not translated.
        is_made_up: Whether nobody knows that the model takes `feeds`.

    Raises:
        UntranslatableError: `error`, where no part is left.
        ModelError: TensorFlow itself does not run on `feeds`.
    """
    if source.function is None:
        raise error
    body = Body(source.function)
    graph = graph_of(body.graph)
    inputs = [tensor_of(tensor) for tensor in source.inputs.values()]
    outputs = [tensor_of(tensor) for tensor in source.outputs.values()]
    held = {tensor_of(body.graph.get_tensor_by_name(name)) for name in body.held}
    theirs = _theirs(body.graph)
    while True:
        plan = stages(graph, inputs, outputs, held, theirs)
        ours = [stage for stage in plan if stage.ours]
        parts = {f"part_{number}": stage for number, stage in enumerate(ours, 1)}
        try:
            hubs = {
                name: hub_of(_piece(source, body, graph, stage), name)
                for name, stage in parts.items()
            }
        except UntranslatableError as inner:
            if not inner.nodes - theirs:
                raise error from inner
            theirs |= inner.nodes
            continue
        break
    if not hubs:
        raise error
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in source.inputs.values()]
    split = Split(body, plan, parts, inputs, outputs, specs)
    boundary = _boundary(split)
    dtypes = [np.dtype(spec.dtype.as_numpy_dtype) for spec in specs]
    notes = []
    try:
        reached = [boundary(*arrays) for arrays in feeds]
    except tf.errors.OpError as failure:
        if not is_made_up:
            raise cannot_run(failure) from failure
        reached = []
        notes.append(NOT_COMPARED)
    whole = (
        f"kept in TensorFlow: {_named(theirs, graph, held)}; what lies between is "
        f"{len(parts)} part{'s' if len(parts) > 1 else ''} of its own"
    )
    return CapturedParts(
        parts={
            name: Captured(
                graph=hubs[name],
                source=model,
                kind=KIND,
                binding={
                    KEY: _binding_of_part(name, stage, graph),
                    UPSTREAM: Upstream(binding, dtypes, boundary, list(map(label, stage.inputs))),
                },
                samples=[
                    (
                        {label(tensor): values[label(tensor)] for tensor in stage.inputs},
                        [values[label(tensor)] for tensor in stage.outputs],
                    )
                    for values in reached
                ],
            )
            for name, stage in parts.items()
        },
        source=model,
        kind=KIND,
        binding={KEY: binding, SPLIT: split},
        notes=[whole, *notes],
    )


def label(tensor: Tensor) -> str:
    """Return the name of a tensor between stages, as parts have it."""
    return tensor[0] if tensor[1] == 0 else f"{tensor[0]}:{tensor[1]}"


def _binding_of_part(name: str, stage: Stage, graph: Graph) -> Binding:
    inputs = tuple(map(label, stage.inputs))
    outputs = tuple(map(label, stage.outputs))
    return Binding(
        form="graph",
        name=name,
        inputs=inputs,
        outputs=outputs,
        shapes=tuple(graph.shapes.get(tensor) for tensor in stage.inputs),
        results=tuple(graph.shapes.get(tensor) for tensor in stage.outputs),
        arguments={"dict": {key: number for number, key in enumerate(inputs)}},
        returned={"dict": {key: number for number, key in enumerate(outputs)}},
    )


def _theirs(graph: tf.Graph) -> set[str]:
    """Return the nodes that cannot be ours whatever they read."""
    return {
        operation.name
        for operation in graph.get_operations()
        if operation.type not in KNOWN
        or any(
            (dtype := numpy_dtype(tensor.dtype)) is None or dtype.kind not in "biufV"
            for tensor in operation.outputs
        )
    }


def _piece(source: Source, body: Body, graph: Graph, stage: Stage) -> Source:
    def symbolic(tensors: Sequence[Tensor]) -> dict[str, tf.Tensor]:
        return {
            label(tensor): body.graph.get_tensor_by_name(f"{tensor[0]}:{tensor[1]}")
            for tensor in tensors
        }

    return Source(
        graph,
        symbolic(stage.inputs),
        symbolic(stage.outputs),
        source.run,
        source.constants,
    )


def _boundary(split: Split) -> Callable[..., dict[str, Array]]:
    """Return a function from the model's inputs to all tensors between stages, in TensorFlow."""
    tensors = list(
        dict.fromkeys(
            tensor for stage in split.parts.values() for tensor in (*stage.inputs, *stage.outputs)
        )
    )

    def fetch(*arguments: tf.Tensor) -> list[tf.Tensor]:
        given = dict(zip(split.inputs, arguments, strict=True))
        wanted = [tensor for tensor in tensors if tensor not in given]
        found = dict(zip(wanted, split.body.fetch(wanted, given), strict=True))
        return [given[tensor] if tensor in given else found[tensor] for tensor in tensors]

    fetched = tf.function(fetch, autograph=False, input_signature=split.specs)

    def run(*arrays: Array) -> dict[str, Array]:
        results = fetched(
            *(
                tf.constant(array, spec.dtype)
                for array, spec in zip(arrays, split.specs, strict=True)
            )
        )
        return {
            label(tensor): np.asarray(result)
            for tensor, result in zip(tensors, results, strict=True)
        }

    return run


def cannot_run(failure: tf.errors.OpError) -> ModelError:
    """Return what is raised where TensorFlow itself fails on inputs that the user gave."""
    return ModelError(
        f"TensorFlow cannot run the model on the first samples: {in_one_line(failure, 200)}"
    )


def _named(theirs: set[str], graph: Graph, held: set[Tensor]) -> str:
    kept = sorted(
        {
            graph.nodes[name].op
            for name in theirs
            if graph.nodes[name].op not in ("Placeholder", "NoOp", "Const")
            and (name, 0) not in held
        }
    )
    return ", ".join(kept)


def assembled(
    split: Split, ours: Callable[[str, list[tf.Tensor]], Sequence[tf.Tensor]]
) -> Callable[..., list[tf.Tensor]]:
    """Return a tf.function from the model's inputs to its outputs that runs the parts on lowprec.

    Args:
        split: The stages.
        ours: Called in the trace: name of a part, its inputs -> its outputs.
    """
    names = {stage: name for name, stage in split.parts.items()}

    def whole(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return run_stages(
            split.body,
            split.plan,
            dict(zip(split.inputs, arguments, strict=True)),
            split.outputs,
            lambda stage, tensors: ours(names[stage], tensors),
        )

    made: Callable[..., list[tf.Tensor]] = tf.function(
        whole, autograph=False, input_signature=split.specs
    )
    return made
