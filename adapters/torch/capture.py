"""A torch.nn.Module as a hub graph: torch.export with named sizes, then ONNX in memory."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from lowprec.adapters.torch import KIND
from lowprec.adapters.torch.binding import KEY, Binding, parameters_of
from lowprec.adapters.torch.dimensions import name_dimensions
from lowprec.adapters.torch.dynamic import (
    Axes,
    Exported,
    export_with,
    find_batch,
    resized,
    varying_axes,
)
from lowprec.adapters.torch.examples import LOOKED_AT, Example, examples_of
from lowprec.adapters.torch.fast_path import without_fast_path
from lowprec.adapters.torch.hugging_face import defaults_of, without_cache
from lowprec.adapters.torch.kinds import opened_program, plain_module
from lowprec.adapters.torch.lengths import with_lengths
from lowprec.adapters.torch.lines import line_of_error
from lowprec.adapters.torch.prepared import with_fixed_ranges
from lowprec.adapters.torch.recurrent import whole_sequences
from lowprec.adapters.torch.refusals import Refusal, first_sentence
from lowprec.adapters.torch.shapes import axes_given
from lowprec.adapters.torch.signature import plain_defaults
from lowprec.adapters.torch.silence import quiet
from lowprec.adapters.torch.sources import OpenedData
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.adapters.torch.translate import translate
from lowprec.adapters.torch.trees import Leaf, Tree, builder, flatten
from lowprec.adapters.torch.untouched import KeptState, untouched
from lowprec.adapters.torch.watching import line_that_draws, line_that_writes
from lowprec.errors import DataError, ModelError
from lowprec.graph import load
from lowprec.hookspecs import Captured, CapturedParts, Sample

LARGEST_SAMPLE = 1 << 26  # elements of the inputs that the module is run with to be compared

Feed = dict[str, NDArray[Any]]


class Flat(torch.nn.Module):
    """A module that takes and returns nothing but tensors, in the place of one that does not."""

    def __init__(self, module: torch.nn.Module, arguments: dict[str, Tree], example: Example):
        """Wrap `module`, whose arguments have the trees `arguments`."""
        super().__init__()
        self.module = module
        self.training = False
        self._positional = [*arguments][: len(example.args)]
        self._builders = {name: builder(tree) for name, tree in arguments.items()}
        self.result: Tree = {}
        self.outputs: list[str] = []

    def forward(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the module with the tensors put where they belong; note where its results go."""
        values = {name: build(leaves) for name, build in self._builders.items()}
        args = [values.pop(name) for name in self._positional]
        found: list[Leaf] = []
        self.result = flatten(self.module(*args, **values), "", found)
        self.outputs = [name for name, _ in found]
        return tuple(tensor for _, tensor in found)


def capture_module(
    module: torch.nn.Module | torch.export.ExportedProgram,
    example_inputs: object,
    calibration_data: object,
    most: int = LOOKED_AT,
) -> Captured | CapturedParts:
    """Return `module` as a hub graph that takes any batch, and any size that varies in the data.

    One that cannot be captured as a whole is captured in parts.

    Args:
        module: Stays as it is; captured as in evaluation.
        example_inputs: One call: see `lowprec.adapters.torch.example`.
        calibration_data: Traced with its first samples where there is no example; or None.
        most: How many of them may be looked at.

    Raises:
        ModelError: it cannot be captured.
    """
    if isinstance(module, torch.export.ExportedProgram):
        module, call = opened_program(module)
        example_inputs = call if example_inputs is None else example_inputs
    module = plain_module(module)
    data = None
    if calibration_data is not None:
        data = OpenedData(calibration_data, inspect.signature(module.forward).parameters)
    examples = examples_of(module, example_inputs, data, most)
    try:
        return capture_calls(module, examples, data)
    except Refusal as refusal:
        from lowprec.adapters.torch.split import split_module

        return split_module(module, examples, data, refusal, most)


def capture_calls(
    module: torch.nn.Module, examples: Sequence[Example], data: OpenedData | None
) -> Captured:
    """Return `module` as a hub graph for calls like `examples`; else as `capture_module`."""
    signature = inspect.signature(module.forward)
    calls, arguments = flattened(examples, signature)
    traceable = with_fixed_ranges(module)
    traced = traceable.module
    with (
        quiet(),
        untouched(traced) as state,
        whole_sequences(),
        without_cache(traced),
        without_fast_path(),
    ):
        flat = Flat(traced, arguments, examples[0])
        outputs = _first_run(flat, calls[0], state, examples[0].sample)
        result, paths = flat.result, flat.outputs
        exported = _exported(flat, calls, axes_given(examples[0], arguments, calls[0], signature))
        names = [name for name, _ in calls[0]]
        try:
            model = translate(exported.program, names, _output_names(paths, names))
        except ModelError as error:
            raise Refusal(str(error), None) from error
        model.graph.name = type(module).__name__
        name_dimensions(model.graph)
        samples = _samples(flat, names, exported, calls, outputs)
        switches = defaults_of(module)
    parameters, positional = parameters_of(signature)
    ranges = {
        name: {str(axis): bounds for axis, bounds in axes.items() if bounds != (0, None, 1)}
        for name, axes in zip(names, exported.bounds, strict=True)
    }
    ranges = {name: axes for name, axes in ranges.items() if axes}
    binding = Binding(
        parameters,
        positional,
        arguments,
        tuple(names),
        result,
        ranges,
        plain_defaults(signature) | switches,
    )
    return Captured(
        graph=load(model),
        source=module,
        kind=KIND,
        binding={KEY: binding, "data": data, "signature": signature},
        samples=samples,
        notes=traceable.notes,
    )


def _first_run(
    flat: Flat, call: Sequence[Leaf], state: KeptState, sample: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Return what the module computes; refuse it where a second time it would be something else.

    Args:
        flat: The module.
        call: What it is called with.
        state: Of the module.
        sample: The call's number in the calibration data; None where it is not from there.
    """
    tensors = [tensor for _, tensor in call]
    random_before = torch.get_rng_state()
    try:
        outputs: tuple[torch.Tensor, ...] = flat(*_cloned(tensors))
    except ModelError:
        raise
    except Exception as error:  # whatever the module's own code raises
        line = line_of_error(error)
        where = f" ({line})" if line else ""
        if sample is not None:
            given = ", ".join(
                f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for name, t in call
            )
            raise DataError(
                f"sample {sample} ({given}): the module fails for it: {first_sentence(error)}"
                f"{where}; one item of the data is one call of the module, with its batch axis"
            ) from error
        raise ModelError(
            f"the module fails for the example: {first_sentence(error)}{where}; give "
            "example_inputs with which it works"
        ) from error
    if not torch.equal(random_before, torch.get_rng_state()):
        raise Refusal(
            "forward draws random numbers, also in evaluation",
            line_that_draws(lambda: flat(*_cloned(tensors))),
            "draw them outside and pass them as an argument",
        )
    changed = state.changed_buffers()
    if changed:
        state.restore()
        buffers = [*flat.module.buffers()]
        raise Refusal(
            f"forward writes to the buffer '{changed[0]}', so that each call changes the next",
            line_that_writes(lambda: flat(*_cloned(tensors)), buffers),
            "take the state as an argument and return it",
        )
    if state.has_changed() and not _equal(outputs, flat(*_cloned(tensors))):
        raise Refusal(
            "forward keeps something in attributes of the module, so that each call changes the "
            "next",
            None,
            "take the state as an argument and return it",
        )
    state.restore()
    return outputs


def _exported(flat: Flat, calls: list[list[Leaf]], given: list[Axes] | None) -> Exported:
    """Return the module exported with the axes that may change: those given, or found out."""
    if given is not None:
        return export_with(flat, _traceable([t for _, t in calls[0]], calls, given), given)
    largest = max(calls, key=lambda leaves: sum(t.numel() for _, t in leaves))
    tensors = [tensor for _, tensor in largest]
    axes = varying_axes(calls, find_batch(flat, calls))
    longer = with_lengths(calls, axes)
    if longer is not None:
        try:
            return export_with(flat, _traceable(tensors, calls, longer), longer)
        except Refusal:
            pass  # it takes this one length only
    try:
        return export_with(flat, _traceable(tensors, calls, axes), axes)
    except Refusal as refusal:
        if not refusal.size_one:
            raise
        fixed = [
            {
                axis: dim
                for axis, dim in found.items()
                if any(leaves[index][1].shape[axis] != 1 for leaves in calls)
            }
            for index, found in enumerate(axes)
        ]
        if fixed == axes:
            raise
        return export_with(flat, tensors, fixed)  # it is only ever called with a size of 1


def _traceable(
    tensors: list[torch.Tensor], calls: Sequence[Sequence[Leaf]], axes: Sequence[Axes]
) -> list[torch.Tensor]:
    """Return the tensors with 2 in the place of sizes of 1 that may change.

    torch.export takes a size of 1 for a constant.
    """
    names = [{axis: dim.__name__ for axis, dim in found.items()} for found in axes]
    least: dict[str, int] = {}
    for index, found in enumerate(names):
        for axis, name in found.items():
            if tensors[index].shape[axis] == 1:
                least[name] = max(2, *(leaves[index][1].shape[axis] for leaves in calls))
    return resized(tensors, names, least)


def _samples(
    flat: Flat,
    names: Sequence[str],
    exported: Exported,
    calls: Sequence[Sequence[Leaf]],
    outputs: Sequence[torch.Tensor],
) -> list[Sample]:
    """Return calls of other sizes, each with what the module itself computes."""
    found: list[Sample] = []

    def add(tensors: Sequence[torch.Tensor], results: Sequence[torch.Tensor] | None = None) -> None:
        feeds = {n: to_numpy(t).copy() for n, t in zip(names, tensors, strict=True)}
        if any(
            all(feeds[name].shape == seen[name].shape for name in feeds) for seen, _ in found
        ) or any(not _accepts(exported, i, tensor) for i, tensor in enumerate(tensors)):
            return
        try:
            results = flat(*_cloned(tensors)) if results is None else results
        except Exception:  # the module's own: it takes no such sizes
            return
        found.append((feeds, [to_numpy(tensor).copy() for tensor in results]))

    add([tensor for _, tensor in calls[0]], outputs)
    for values in _other_sizes(exported):
        tensors = exported.resized(values)
        if sum(tensor.numel() for tensor in tensors) <= LARGEST_SAMPLE:
            add(tensors)
    return found


def _other_sizes(exported: Exported) -> list[dict[Any, int]]:
    """Return two choices of other sizes: all a little larger, and each as small as may be."""
    larger, smaller = {}, {}
    for symbol in exported.symbols:
        now = exported.size_of(symbol)
        larger[symbol] = now + 1
        smaller[symbol] = max(1, now // 2)
        places = exported.places(symbol)
        if places:
            least, greatest, _ = exported.bounds[places[0][0]][places[0][1]]
            batch = places[0][1] == 0
            smaller[symbol] = max(least, 1 if batch else now // 2, 1)
            if greatest is not None and now + 1 > greatest:
                larger[symbol] = max(least, now - 1)
    return [larger, smaller] if larger else []


def _accepts(exported: Exported, index: int, tensor: torch.Tensor) -> bool:
    for axis, (least, greatest, step) in exported.bounds[index].items():
        size = tensor.shape[axis]
        if size < least or (greatest is not None and size > greatest) or (size - least) % step:
            return False
    constant = set(range(tensor.ndim)) - exported.bounds[index].keys()
    return all(tensor.shape[axis] == exported.leaves[index].shape[axis] for axis in constant)


def _cloned(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies: the module may write to what it is given."""
    return [tensor.clone() for tensor in tensors]


def _equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for a, b in zip(one, other, strict=True)
    )


def flattened(
    examples: Sequence[Example], signature: inspect.Signature
) -> tuple[list[list[Leaf]], dict[str, Tree]]:
    """Return the leaves of each call, and the trees of the arguments, which are the same in all."""
    calls: list[list[Leaf]] = []
    trees: list[dict[str, Tree]] = []
    for example in examples:
        try:
            bound = signature.bind(*example.args, **example.kwargs)
        except TypeError as error:
            raise ModelError(
                f"the module cannot be called with the example: {error}; its signature is "
                f"forward{signature}"
            ) from None
        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind == inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            elif signature.parameters[name].kind == inspect.Parameter.VAR_POSITIONAL:
                raise ModelError(f"forward takes *{name}; wrap it in a module with named arguments")
            else:
                given[name] = value
        leaves: list[Leaf] = []
        trees.append({name: flatten(value, name, leaves) for name, value in given.items()})
        calls.append(leaves)
    if not calls[0]:
        raise ModelError("the module is called without a tensor; there is nothing to compute from")
    alike = [
        leaves
        for leaves, tree in zip(calls, trees, strict=True)
        if tree == trees[0] and [t.ndim for _, t in leaves] == [t.ndim for _, t in calls[0]]
    ]
    return alike, trees[0]


def _output_names(paths: Sequence[str], inputs: Sequence[str]) -> list[str]:
    names: list[str] = []
    for path in paths:
        name = path if path and not path.isdigit() else f"output{path}"
        while name in inputs or name in names:
            name = f"{name}_"
        names.append(name)
    return names
