"""Write an Einsum of one or two operands as products and moves, which have kernels.

    Einsum("bqhd,bkhd->bhqk")   becomes   Transpose ─► MatMul
                                          Transpose ─┘

Letters of both operands and the result are batches of a MatMul, those of both operands only are
summed in it, those of one operand only are summed before it. Where a group has several letters,
a Reshape makes one axis of them, with sizes that are worked out in the graph. A layer's weights
have no batches: its rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import graph_of, is_operator, replace_output, walk_nodes


def expand_einsum(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Einsum") and len(node.inputs) in (1, 2):
            terms = _terms(node)
            if terms is not None:
                _expand(node, *terms)
                changed = True
    return changed


def _terms(node: ir.Node) -> tuple[list[str], str] | None:
    """Return the letters of each operand and of the result; None for what is not expanded."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, result = equation.partition("->")
    operands = left.split(",")
    if len(operands) != len(node.inputs) or any(value is None for value in node.inputs):
        return None
    if "..." in equation:
        spread = _spread_ellipsis(node, operands, result, arrow)
        if spread is None:
            return None
        operands, result = spread
    elif not arrow:
        every = "".join(operands)
        result = "".join(sorted(letter for letter in set(every) if every.count(letter) == 1))
    for letters in (*operands, result):
        if len(set(letters)) != len(letters) or not all(c.isalpha() for c in letters):
            return None
    if not set(result) <= set("".join(operands)):
        return None
    return operands, result


def _spread_ellipsis(
    node: ir.Node, operands: Sequence[str], result: str, arrow: str
) -> tuple[list[str], str] | None:
    """Give the axes of `...` letters; they are the same number in all operands, or None."""
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in "".join(operands)]
    counts = set()
    for letters, value in zip(operands, node.inputs, strict=True):
        assert value is not None
        if "..." not in letters or value.shape is None:
            return None
        counts.add(len(value.shape) - len(letters.replace("...", "")))
    if len(counts) != 1 or not arrow or min(counts) < 0:
        return None
    names = "".join(free[: counts.pop()])
    return [letters.replace("...", names) for letters in operands], result.replace("...", names)


class _Writer:
    """Nodes before the Einsum that they stand for."""

    def __init__(self, node: ir.Node) -> None:
        self.node, self.graph = node, graph_of(node)
        self.count = 0

    def add(
        self, op: str, inputs: Sequence[ir.Value | None], **attributes: int | list[int]
    ) -> ir.Value:
        self.count += 1
        name = f"{self.node.name}/{op}_{self.count}"
        made = ir.node(op, list(inputs), attributes, name=name)
        made.outputs[0].name = f"{self.node.outputs[0].name}/{op}_{self.count}"
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def integers(self, values: Sequence[int]) -> ir.Value:
        self.count += 1
        name = f"{self.node.outputs[0].name}/axes_{self.count}"
        return add_constant(self.graph, name, np.array(values, np.int64))

    def ordered(self, value: ir.Value, letters: str, wanted: str) -> ir.Value:
        if letters == wanted:
            return value
        return self.add("Transpose", [value], perm=[letters.index(c) for c in wanted])

    def summed(self, value: ir.Value, letters: str, kept: set[str]) -> tuple[ir.Value, str]:
        """Sum over the letters that are not in `kept`."""
        gone = [axis for axis, c in enumerate(letters) if c not in kept]
        if not gone:
            return value, letters
        total = self.add("ReduceSum", [value, self.integers(gone)], keepdims=0)
        return total, "".join(c for c in letters if c in kept)

    def sizes(self, value: ir.Value, start: int, count: int) -> ir.Value:
        return self.add("Shape", [value], start=start, end=start + count)

    def product(self, value: ir.Value, start: int, count: int) -> ir.Value:
        sizes = self.sizes(value, start, count)
        return self.add("ReduceProd", [sizes, self.integers([0])], keepdims=1)


def _expand(node: ir.Node, operands: list[str], result: str) -> None:
    writer = _Writer(node)
    first = node.inputs[0]
    assert first is not None
    if len(operands) == 1:
        value, letters = writer.summed(first, operands[0], set(result))
        made = writer.ordered(value, letters, result)
    else:
        second = node.inputs[1]
        assert second is not None
        made = _pair(writer, first, second, operands, result)
    if made.producer() is None or made.is_graph_output():
        made = writer.add("Identity", [made])
    replace_output(node, made)


def _pair(
    writer: _Writer, first: ir.Value, second: ir.Value, operands: list[str], result: str
) -> ir.Value:
    kept = set(result)
    first, a = writer.summed(first, operands[0], kept | set(operands[1]))
    second, b = writer.summed(second, operands[1], kept | set(operands[0]))
    batch = "".join(c for c in result if c in a and c in b)
    inner = "".join(c for c in a if c in b and c not in kept)
    rows = "".join(c for c in result if c in a and c not in b)
    columns = "".join(c for c in result if c in b and c not in a)
    if not inner:  # nothing is summed: a product of broadcast operands
        return writer.add(
            "Mul", [_aligned(writer, first, a, result), _aligned(writer, second, b, result)]
        )
    one = writer.ordered(first, a, batch + rows + inner)
    other = writer.ordered(second, b, batch + inner + columns)
    n = len(batch)
    if n == 0 and rows:
        return writer.ordered(
            _layer(writer, one, other, (len(rows), len(inner), len(columns))),
            rows + columns,
            result,
        )
    left = _merged(writer, one, n, len(rows), len(inner))
    right = _merged(writer, other, n, len(inner), len(columns))
    product = writer.add("MatMul", [left, right])
    if len(rows) != 1 or len(columns) != 1:
        sizes = [
            writer.sizes(one, 0, n + len(rows)),
            writer.sizes(other, n + len(inner), len(columns)),
        ]
        groups = (batch + rows, columns)
        parts = [part for part, letters in zip(sizes, groups, strict=True) if letters]
        shape = parts[0] if len(parts) == 1 else None
        if not parts:
            shape = writer.integers([])
        elif shape is None:
            shape = writer.add("Concat", parts, axis=0)
        product = writer.add("Reshape", [product, shape], allowzero=1)
    return writer.ordered(product, batch + rows + columns, result)


def _layer(
    writer: _Writer, one: ir.Value, other: ir.Value, counts: tuple[int, int, int]
) -> ir.Value:
    """Return a product without batches: the axes of its rows stay as they are.

    Args:
        writer: Takes the nodes.
        one: Its axes are those of the rows, then those that are summed.
        other: Its axes are those that are summed, then those of the columns.
        counts: How many axes rows, sums and columns have.
    """
    rows, inner, columns = counts
    kept = writer.integers([0] * rows)  # Reshape copies these sizes
    if inner != 1:
        target = writer.integers([*[0] * rows, -1])
        one = writer.add("Reshape", [one, target])
    product = writer.add("MatMul", [one, _merged(writer, other, 0, inner, columns)])
    if columns == 1:
        return product
    if columns == 0:
        return writer.add("Squeeze", [product, writer.integers([rows])])
    target = writer.add("Concat", [kept, writer.sizes(other, inner, columns)], axis=0)
    return writer.add("Reshape", [product, target])


def _merged(writer: _Writer, value: ir.Value, batch: int, first: int, second: int) -> ir.Value:
    """Return `value` with its last axes, two groups of them, as two."""
    if first == second == 1:
        return value
    parts = [writer.sizes(value, 0, batch)] if batch else []
    for start, count in ((batch, first), (batch + first, second)):
        parts.append(writer.product(value, start, count) if count else writer.integers([1]))
    return writer.add("Reshape", [value, writer.add("Concat", parts, axis=0)], allowzero=1)


def _aligned(writer: _Writer, value: ir.Value, letters: str, result: str) -> ir.Value:
    value = writer.ordered(value, letters, "".join(c for c in result if c in letters))
    absent = [axis for axis, c in enumerate(result) if c not in letters]
    return writer.add("Unsqueeze", [value, writer.integers(absent)]) if absent else value
