"""A torch.nn.Module as a hub graph: torch.export with named sizes, then ONNX in memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray

from lowprec.adapters.torch.binding import KEY, Binding, parameters_of
from lowprec.adapters.torch.dynamic import export_with, may_be_batched, varying_axes
from lowprec.adapters.torch.examples import Example, examples_of
from lowprec.adapters.torch.items import OpenedData
from lowprec.adapters.torch.signature import plain_defaults
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.adapters.torch.translate import quiet, translate
from lowprec.adapters.torch.trees import Leaf, Tree, flatten
from lowprec.errors import ModelError
from lowprec.graph import load
from lowprec.hookspecs import Captured

KIND = "torch"

Feed = dict[str, NDArray[Any]]


class Flat(torch.nn.Module):
    """A module that takes and returns nothing but tensors, in the place of one that does not."""

    def __init__(self, module: torch.nn.Module, arguments: dict[str, Tree], example: Example):
        """Wrap `module`, whose arguments have the trees `arguments`."""
        super().__init__()
        self.module = module
        self.training = False
        self._arguments = arguments
        self._positional = [*arguments][: len(example.args)]
        self._builders: dict[str, Any] = {}
        self.result: Tree = {}
        self.outputs: list[str] = []

    def forward(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the module with the tensors put where they belong; note where its results go."""
        from lowprec.adapters.torch.trees import builder

        values = {name: builder(tree)(leaves) for name, tree in self._arguments.items()}
        args = [values.pop(name) for name in self._positional]
        found: list[Leaf] = []
        self.result = flatten(self.module(*args, **values), "", found)
        self.outputs = [name for name, _ in found]
        return tuple(tensor for _, tensor in found)


def capture_module(
    module: torch.nn.Module, example_inputs: object, calibration_data: object
) -> Captured:
    """Return `module` as a hub graph that takes any batch, and any size that varies in the data.

    Args:
        module: Stays as it is; captured as in evaluation.
        example_inputs: One call: see `lowprec.adapters.torch.example`.
        calibration_data: Traced with its first samples where there is no example; or None.

    Raises:
        ModelError: it cannot be captured.
    """
    _check_device(module)
    data = None if calibration_data is None else OpenedData(calibration_data)
    examples = examples_of(module, example_inputs, data)
    signature = inspect.signature(module.forward)
    calls, arguments = _flattened(examples, signature)
    with _evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]), quiet():
        flat = Flat(module, arguments, examples[0])
        leaves, axes = _dynamic(flat, calls)
        program = export_with(flat, leaves, axes)
        names = [name for name, _ in calls[0]]
        tensors = flat(*leaves)
        outputs = _output_names(flat.outputs, names)
        model = translate(program, names, outputs)
        samples = [(_feed(names, leaves), [to_numpy(t).copy() for t in tensors])]
    parameters, positional = parameters_of(signature)
    binding = Binding(
        parameters,
        positional,
        arguments,
        tuple(names),
        flat.result,
        {},
        plain_defaults(signature),
    )
    return Captured(
        graph=load(model),
        source=module,
        kind=KIND,
        binding={KEY: binding, "data": data, "signature": signature},
        samples=samples,
    )


def _flattened(
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


def _dynamic(
    flat: Flat, calls: list[list[Leaf]]
) -> tuple[list[torch.Tensor], list[dict[int, Any]]]:
    """Return tensors to trace with and the axes that may change."""
    largest = max(calls, key=lambda leaves: sum(t.numel() for _, t in leaves))
    tensors = [tensor for _, tensor in largest]
    batched = may_be_batched(calls)
    if batched and tensors[0].shape[0] < 2:  # torch.export takes a size of 1 for a constant
        doubled = [torch.cat([tensor, tensor]) for tensor in tensors]
        try:
            flat(*doubled)
            tensors = doubled
        except Exception:  # whatever the module's own code raises
            batched = False
    return tensors, varying_axes(calls, batched)


def _feed(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> Feed:
    return {name: to_numpy(tensor).copy() for name, tensor in zip(names, tensors, strict=True)}


def _output_names(paths: Sequence[str], inputs: Sequence[str]) -> list[str]:
    names: list[str] = []
    for path in paths:
        name = path if path and not path.isdigit() else f"output{path}"
        while name in inputs or name in names:
            name = f"{name}_"
        names.append(name)
    return names


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put every part into evaluation and, afterwards, back; buffers that a call changed too."""
    flags = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone(), buffer._version) for buffer in module.buffers()]
    for part, _ in flags:
        part.training = False
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
        with torch.no_grad():
            for buffer, before, version in buffers:
                if buffer._version != version:
                    buffer.copy_(before)


def _check_device(module: torch.nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ModelError(
                f"'{name}' is on '{tensor.device}'; lowprec runs on the CPU: give it module.cpu()"
            )
