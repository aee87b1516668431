"""tf.function, concrete functions and tf.Module as `Captured`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.capture import captured, shapes_of
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.source import Array, Source, source_of
from lowprec.adapters.tensorflow.structure import Tree, described
from lowprec.errors import LowprecError, ModelError, UnsupportedError
from lowprec.hookspecs import Captured, CapturedParts

_PLAIN = (bool, int, float, str, type(None))
_OPEN_ARGUMENTS = ("VAR_POSITIONAL", "VAR_KEYWORD")


def capture_function(
    function: Any, example: Any = None, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return a tf.function or a concrete function as Captured.

    Args:
        function: One without an input_signature, and that was traced never or more than once, is
            traced with `example`, or with the first item of `data`.
        example: Its argument, a tuple of its arguments, or a dict of them by name.
        data: Calibration data, on which the hub is compared with TensorFlow too.
        samples: How many of its items may be looked at.

    Raises:
        ModelError: it cannot be traced.
        UnsupportedError: it takes or returns something else than tensors in lists, tuples, dicts.
    """
    concrete, is_opened = concrete_of(function, example, data)
    try:
        return _captured(function, concrete, data, samples)
    except tf.errors.InvalidArgumentError:
        if not is_opened:
            raise
    # What was taken for the batch is none: the example's own sizes, then.
    concrete, _ = concrete_of(function, example, data, opens=False)
    return _captured(function, concrete, data, samples)


def _captured(
    function: Any, concrete: Any, data: OpenedData | None, samples: int
) -> Captured | CapturedParts:
    leaves: list[Any] = []
    arguments: dict[str, Tree] = {}
    constants: dict[str, Any] = {}
    parameters = _parameters(concrete)
    _, named_only = concrete.structured_input_signature
    by_position = [name for name in parameters if name not in named_only]
    for name in [*by_position, *sorted(named_only)]:  # as TensorFlow flattens them
        value = parameters[name]
        if _has_tensors(value):
            arguments[name] = described(value, leaves)
        elif isinstance(value, _PLAIN):
            constants[name] = value
        else:
            raise UnsupportedError(
                f"argument '{name}' of the function holds a {type(value).__name__}, which lowprec "
                "does not take; wrap the function in one that takes tensors only"
            )
    names = _names(arguments, leaves)
    flat: list[Any] = []
    returned = described(concrete.structured_outputs, flat)
    if not flat or not all(_is_tensor(leaf) for leaf in flat):
        raise UnsupportedError(
            "the function returns something besides tensors in lists, tuples and dicts (None, for "
            "example); wrap it in one that returns tensors only"
        )
    source = source_of(concrete, names, _result_names(returned, len(flat)))
    binding = Binding(
        form="function",
        name=_name_of(function, concrete),
        inputs=tuple(source.inputs),
        outputs=tuple(source.outputs),
        shapes=shapes_of(list(source.inputs.values())),
        results=shapes_of(list(source.outputs.values())),
        arguments={"dict": arguments},
        returned=returned,
        details={"parameters": list(parameters), "constants": constants},
    )
    source = replace(source, run=_runner(concrete, source))
    return captured(source, binding, function, data=data, samples=samples)


def _runner(concrete: Any, source: Source) -> Callable[[Sequence[Array]], list[Array]]:
    """Return what calls a function with arrays in the order of its inputs."""
    signature = concrete.structured_input_signature

    def run(arrays: Sequence[Array]) -> list[Array]:
        tensors = iter(
            [
                tf.constant(array, tensor.dtype)
                for array, tensor in zip(arrays, source.inputs.values(), strict=True)
            ]
        )
        args, kwargs = tf.nest.map_structure(
            lambda leaf: next(tensors) if _is_tensor(leaf) else leaf, signature
        )
        return [np.asarray(result) for result in tf.nest.flatten(concrete(*args, **kwargs))]

    return run


def capture_module(
    module: tf.Module, example: Any = None, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return a tf.Module as Captured: its __call__, or the only tf.function that it has.

    Raises:
        ModelError: it has none, or several.
    """
    if callable(module):
        function = module.__call__ if _is_function(module.__call__) else tf.function(module)
        return capture_function(function, example, data, samples)
    found = {
        name: getattr(module, name)
        for name in dir(type(module))
        if not name.startswith("__") and _is_function(getattr(module, name, None))
    }
    if len(found) != 1:
        raise ModelError(
            f"the tf.Module {type(module).__name__} has no __call__ and "
            f"{f'several functions ({chr(44).join(found)})' if found else 'no tf.function'}; "
            "give the function itself, for example module.predict"
        )
    return capture_function(next(iter(found.values())), example, data, samples)


def concrete_of(
    function: Any, example: Any = None, data: OpenedData | None = None, opens: bool = True
) -> tuple[Any, bool]:
    """Return the concrete function that is meant, and whether it was traced with an open batch.

    Args:
        function: A tf.function or concrete function.
        example: As for `capture_function`.
        data: As for `capture_function`.
        opens: Whether the first axis is open, of each tensor that is as long as the first one.
    """
    if isinstance(function, tf.types.experimental.ConcreteFunction):
        return function, False
    if example is None:
        known = _traced(function)
        if known is not None:
            return known, False
        example = _first(data)
    arguments = _as_arguments(function, example)
    if not opens:  # a trace that takes any size would serve for these sizes too
        function = tf.function(function.python_function)
    for is_open in (True, False) if opens else (False,):
        args, kwargs = _specs(arguments, is_open)
        try:
            return function.get_concrete_function(*args, **kwargs), is_open
        except LowprecError:
            raise
        except Exception as error:
            if not is_open:
                raise ModelError(
                    f"the function cannot be traced: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:300]}"
                ) from error
    raise AssertionError


def _traced(function: Any) -> Any:
    """Return what the input_signature says, or the only trace there is; else None."""
    if getattr(function, "input_signature", None) is not None:
        return function.get_concrete_function()
    known = getattr(function, "concrete_functions", None)
    if known is None:
        list_all = getattr(function, "_list_all_concrete_functions", list)
        known = list_all()
    return known[0] if len(known) == 1 else None


def _first(data: OpenedData | None) -> Any:
    items = data.peek(1) if data is not None else []
    if not items:
        raise ModelError(
            "the function has no input_signature and was not traced once; give example_inputs=, "
            "calibration data, or tf.function(..., input_signature=[...])"
        )
    return items[0]


def _as_arguments(function: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an example as positional and named arguments."""
    if isinstance(example, tuple):
        return _fitting(function, example), {}
    if isinstance(example, Mapping):
        kind = getattr(function, "function_type", None)
        parameters = list(getattr(kind, "parameters", {}))
        if parameters and set(example) <= set(parameters):
            return (), dict(example)
    return (example,), {}


def _fitting(function: Any, example: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return as many of a tuple's items as the function takes: loaders give labels too."""
    kind = getattr(function, "function_type", None)
    parameters = list(getattr(kind, "parameters", {}).values())
    if not parameters or any(p.kind.name in _OPEN_ARGUMENTS for p in parameters):
        return example
    return example[: len(parameters)]


def _specs(arguments: Any, is_open: bool) -> Any:
    """Return what to trace with: the example's dtypes and sizes, without the batch's if open."""
    batch: list[int] = []

    def spec(value: Any) -> Any:
        if isinstance(value, (*_PLAIN, tf.TensorSpec)):
            return value
        tensor = value if tf.is_tensor(value) else tf.convert_to_tensor(value)
        dtype = tensor.dtype
        if dtype == tf.float64 and not tf.is_tensor(value):
            dtype = tf.float32  # NumPy's own; a tensor of float64 is meant so
        shape = tensor.shape.as_list()
        if is_open and shape:
            batch.append(shape[0])
            if shape[0] == batch[0]:
                shape[0] = None
        return tf.TensorSpec(shape, dtype)

    return tf.nest.map_structure(spec, arguments)


def _parameters(concrete: Any) -> dict[str, Any]:
    """Return what each parameter takes: specs of tensors in a structure, or a plain value."""
    args, kwargs = concrete.structured_input_signature
    kind = getattr(concrete, "function_type", None)
    named = list(getattr(kind, "parameters", {}))
    if len(named) < len(args):
        named = [getattr(spec, "name", None) or f"input_{n}" for n, spec in enumerate(args)]
    found = dict(zip(named, args, strict=False))
    for name in [*(n for n in named if n in kwargs), *(n for n in kwargs if n not in named)]:
        found[name] = kwargs[name]
    return found


def _names(arguments: Mapping[str, Tree], leaves: Sequence[Any]) -> list[str]:
    """Return a name for each input: its parameter's, with what its spec adds to it."""
    names: list[str] = [""] * len(leaves)

    def walk(tree: Tree, name: str) -> None:
        if isinstance(tree, int):
            names[tree] = name
            return
        inner = next(iter(tree.values()))
        pairs = inner.items() if isinstance(inner, Mapping) else enumerate(inner)
        for key, part in pairs:
            walk(part, f"{name}_{key}")

    for name, tree in arguments.items():
        walk(tree, name)
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[number] = name if seen[name] == 1 else f"{name}__{seen[name]}"
    return names


def _result_names(returned: Tree, count: int) -> list[str]:
    """Return a name for each output: the keys and numbers that lead to it."""
    names = [""] * count

    def walk(part: Tree, name: str) -> None:
        if isinstance(part, int):
            names[part] = name or "output"
            return
        inner = next(iter(part.values()))
        if isinstance(inner, Mapping):
            for key, value in inner.items():
                walk(value, f"{name}_{key}" if name else key)
        else:
            for number, value in enumerate(inner):
                walk(value, f"{name or 'output'}_{number}")

    walk(returned, "")
    return names


def _has_tensors(value: Any) -> bool:
    leaves = tf.nest.flatten(value)
    return bool(leaves) and all(_is_tensor(leaf) for leaf in leaves)


def _is_tensor(leaf: Any) -> bool:
    return tf.is_tensor(leaf) or isinstance(leaf, (tf.TensorSpec, np.ndarray))


def _is_function(value: Any) -> bool:
    return isinstance(
        value, (tf.types.experimental.PolymorphicFunction, tf.types.experimental.ConcreteFunction)
    )


def _name_of(function: Any, concrete: Any) -> str:
    python = getattr(function, "python_function", None) or getattr(function, "__wrapped__", None)
    name = getattr(python, "__name__", None) or getattr(concrete, "name", "function")
    name = name.decode() if isinstance(name, bytes) else str(name)
    return "function" if name in ("<lambda>", "__call__") else name
