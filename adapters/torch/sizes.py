"""Names and shapes of a model's inputs and outputs as one line of text, and sizes worked out of it.

    float32[batch;3;s0] -> float32[batch;2*s0],int64[?]

Sizes are numbers, names, expressions of the inputs' names, or ? where nothing is known.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lowprec.adapters.torch.tensors import TORCH_DTYPES
from lowprec.errors import ModelError

Size = Any  # int or torch.SymInt

LONGEST = 1 << 20  # characters of a signature
LONGEST_EXPRESSION = 1000
LARGEST = 1 << 62  # of a number in an expression

_DTYPES = {dtype.name: dtype for dtype in TORCH_DTYPES}


@dataclass(frozen=True)
class Spec:
    """One tensor: dtype, and sizes as texts; None where even the rank is open."""

    dtype: np.dtype[Any]
    sizes: tuple[str, ...] | None


def signature_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    """Return the line for these TensorInfos."""
    sides = (",".join(_written(info) for info in infos) for infos in (inputs, outputs))
    return " -> ".join(sides)


@lru_cache(maxsize=256)
def specs_of(signature: str) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """Return what `signature_of` wrote.

    Raises:
        ModelError: it is something else.
    """
    sides = signature.split(" -> ")
    if len(sides) != 2 or len(signature) > LONGEST:
        raise ModelError("the program's signature is damaged; export the program again")
    inputs, outputs = (tuple(_read(side)) for side in sides)
    return inputs, outputs


def sizes_of(specs: Sequence[Spec], shapes: Sequence[Sequence[Size]]) -> dict[str, Size]:
    """Return by name, or expression, the sizes that inputs of these shapes have."""
    known: dict[str, Size] = {}
    for spec, shape in zip(specs, shapes, strict=True):
        for text, size in zip(spec.sizes or (), shape, strict=False):
            if not text.isdecimal():
                known.setdefault(text, size)
    return known


def output_shape(spec: Spec, known: Mapping[str, Size], unknown: Callable[[], Size]) -> list[Size]:
    """Return the shape of an output.

    Args:
        spec: Of the output.
        known: From `sizes_of`.
        unknown: Returns a size that nothing is known about.

    Raises:
        ModelError: its rank is open.
    """
    if spec.sizes is None:
        raise ModelError("the rank of an output is open; give the model's outputs their shapes")
    shape = []
    for text in spec.sizes:
        size = evaluated(text, known)
        shape.append(unknown() if size is None else size)
    return shape


def evaluated(text: str, known: Mapping[str, Size]) -> Size | None:
    """Return the size that `text` stands for, or None where it cannot be told.

    Args:
        text: A number, a name, or an expression: + - * // / % ** by a number, Max, Min, floor.
        known: By name or expression.
    """
    if text in known:
        return known[text]
    if text.isdecimal():
        return int(text)
    if len(text) > LONGEST_EXPRESSION:
        return None
    try:
        return _value(ast.parse(text, mode="eval").body, known)
    except (SyntaxError, ValueError, KeyError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, known: Mapping[str, Size]) -> Size:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, known)
    if isinstance(node, ast.BinOp):
        left = _value(node.left, known)
        if isinstance(node.op, ast.Pow):
            if not isinstance(node.right, ast.Constant) or node.right.value not in (1, 2, 3, 4):
                raise ValueError("no power of that kind")
            return _bounded(left**node.right.value)
        right = _value(node.right, known)
        if isinstance(node.op, ast.Div):  # sizes are whole numbers: torch writes exact quotients
            return left // right
        return _bounded(_OPERATIONS[type(node.op)](left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        values = [_value(argument, known) for argument in node.args]
        return _FUNCTIONS[node.func.id](*values)
    raise ValueError("not an expression of sizes")


def _bounded(value: Size) -> Size:
    if type(value) is int and abs(value) > LARGEST:
        raise ValueError("no size is that large")
    return value


_OPERATIONS: dict[type[ast.operator], Callable[[Size, Size], Size]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


def _largest(first: Size, *others: Size) -> Size:
    for other in others:
        first = torch.sym_max(first, other)  # type: ignore[no-untyped-call]
    return first


def _least(first: Size, *others: Size) -> Size:
    for other in others:
        first = torch.sym_min(first, other)  # type: ignore[no-untyped-call]
    return first


_FUNCTIONS: dict[str, Callable[..., Size]] = {
    "Max": _largest,
    "max": _largest,
    "Min": _least,
    "min": _least,
    "floor": lambda a: a,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -(-a // b),
    "Mod": lambda a, b: a % b,
}


def _written(info: Any) -> str:
    if info.shape is None:
        return f"{info.dtype.name}"
    sizes = [_plain_size(size) for size in info.shape]
    return f"{info.dtype.name}[{';'.join(sizes)}]"


def _plain_size(size: int | str | None) -> str:
    text = "?" if size is None else str(size).strip()
    if not text or any(mark in text for mark in ("[", "]", ";", "->")):
        return "?"
    return text


def _read(side: str) -> list[Spec]:
    specs = []
    for text in _split(side):
        name, bracket, rest = text.partition("[")
        dtype = _DTYPES.get(name)
        if dtype is None:
            raise ModelError(f"the program's signature names no dtype: '{name[:40]}'")
        if not bracket:
            specs.append(Spec(dtype, None))
            continue
        inside = rest.removesuffix("]")
        specs.append(Spec(dtype, tuple(inside.split(";")) if inside else ()))
    return specs


def _split(side: str) -> list[str]:
    """Split at commas outside of brackets: an expression may hold some."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, letter in enumerate(side):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(side[start:index])
            start = index + 1
    return [*parts, side[start:]] if side else []
