"""What an iteration of a loop computes, as formulas: sums of products of a few kinds of factors.

    h * z + (1 - z) * tanh(x @ W + b)   is   { h z: 1,  tanh(..): 1,  z tanh(..): -1 }

So a cell is recognised by what it computes, not by how it is spelled: gates in one product or in
four, x and h side by side in one product or apart, 1 - z or z - 1, a bias here or there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Formula = Mapping[tuple[int, ...], float]
"""Factor numbers, sorted, of each product, and its coefficient."""

_FAR = np.iinfo(np.int64).max
_ACTIVATIONS = frozenset(
    {"Sigmoid", "Tanh", "Relu", "Elu", "Softsign", "Softplus", "LeakyRelu", "HardSigmoid"}
)


@dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor that is not looked into."""

    value: ir.Value


@dataclass(frozen=True, eq=False)
class Affine:
    """The sum of `value @ weights` over all terms, by the value's id, and of `bias`."""

    terms: Mapping[int, tuple[ir.Value, Array]]
    bias: Array

    @property
    def width(self) -> int:
        """The number of columns; 0 for a single number."""
        if self.bias.ndim:
            return int(self.bias.shape[-1])
        return next((weights.shape[1] for _, weights in self.terms.values()), 0)


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of each element; ONNX's name for it, and its alpha and beta."""

    name: str
    of: Formula
    alpha: float | None = None
    beta: float | None = None


@dataclass(frozen=True, eq=False)
class Clipped:
    """A formula between 0 and `highest`."""

    of: Formula
    highest: float


@dataclass(frozen=True, eq=False)
class Choice:
    """`yes` where `condition` holds, `no` elsewhere."""

    condition: ir.Value
    yes: Formula
    no: Formula


Factor = Leaf | Affine | Activation | Clipped | Choice


class UnknownError(Exception):
    """A formula that is not one of these."""


class Formulas:
    """The formulas of the values of one body."""

    def __init__(self, nodes: set[ir.Node]) -> None:
        """Start; `nodes` are those of the body."""
        self.factors: list[Factor] = []
        self._nodes = nodes
        self._numbers: dict[Any, int] = {}
        self._formulas: dict[int, Formula] = {}

    def of(self, value: ir.Value) -> Formula:
        """Return the formula of a value.

        Raises:
            UnknownError: shapes of its parts do not fit.
        """
        stack = [value]
        while stack:
            last = stack[-1]
            waiting = [
                source
                for source in self._sources(last)
                if source is not None and id(source) not in self._formulas
            ]
            if waiting and id(last) not in self._formulas:
                stack += waiting
                continue
            stack.pop()
            if id(last) not in self._formulas:
                self._formulas[id(last)] = self._formula(last)
        return self._formulas[id(value)]

    def single(self, formula: Formula) -> Factor | None:
        """Return the factor that `formula` is, or None."""
        if len(formula) != 1:
            return None
        ((product, coefficient),) = formula.items()
        return self.factors[product[0]] if len(product) == 1 and coefficient == 1.0 else None

    def resolved(self, value: ir.Value) -> ir.Value:
        """Return what a value is a plain copy of."""
        single = self.single(self.of(value))
        return single.value if isinstance(single, Leaf) else value

    def times(self, first: Formula, second: Formula) -> Formula:
        """Return the product of two formulas."""
        made: dict[tuple[int, ...], float] = {}
        for a, x in first.items():
            for b, y in second.items():
                product = tuple(sorted((*a, *b)))
                made[product] = made.get(product, 0.0) + x * y
        return self._tidy(made)

    def plus(self, first: Formula, second: Formula, sign: float = 1.0) -> Formula:
        """Return first + sign * second."""
        made = dict(first)
        for product, coefficient in second.items():
            made[product] = made.get(product, 0.0) + sign * coefficient
        return self._tidy(made)

    def _tidy(self, made: dict[tuple[int, ...], float]) -> Formula:
        """Let all that is affine and stands alone be one factor, and drop what is zero.

        A multiple of a clipped formula that ends at 1 is ONNX's HardSigmoid.
        """
        alone = [
            product
            for product in made
            if len(product) == 1 and isinstance(self.factors[product[0]], Affine)
        ]
        if alone and (len(alone) > 1 or made[alone[0]] != 1.0 or () in made):
            total: Affine | None = None
            for product in alone:
                factor = self.factors[product[0]]
                assert isinstance(factor, Affine)
                total = _sum(total, factor, made.pop(product))
            assert total is not None
            if () in made:
                total = Affine(total.terms, total.bias + np.float32(made.pop(())))
            made[(self._number(total, None),)] = 1.0
        for product in [product for product in made if len(product) == 1]:
            clipped = self.factors[product[0]]
            if isinstance(clipped, Clipped) and abs(made[product] * clipped.highest - 1) < 1e-6:
                slope = made.pop(product)
                key = "HardSigmoid", product[0], slope
                factor = Activation("HardSigmoid", clipped.of, slope, 0.0)
                made[(self._number(factor, key),)] = 1.0
        return {product: number for product, number in made.items() if number != 0.0}

    def _number(self, factor: Factor, key: Any) -> int:
        if key is not None and key in self._numbers:
            return self._numbers[key]
        self.factors.append(factor)
        if key is not None:
            self._numbers[key] = len(self.factors) - 1
        return len(self.factors) - 1

    def _alone(self, factor: Factor, key: Any = None) -> Formula:
        return {(self._number(factor, key),): 1.0}

    def made_here(self, value: ir.Value) -> bool:
        """Return whether the body makes a value."""
        node = value.producer()
        return node is not None and node in self._nodes

    def _sources(self, value: ir.Value) -> list[ir.Value | None]:
        node = value.producer()
        if node is None or node not in self._nodes or node.op_type not in _READ:
            return []
        return list(node.inputs[: _READ[node.op_type]])

    def _formula(self, value: ir.Value) -> Formula:
        constant = _constant(value)
        if constant is not None:
            return self._constant(value, constant)
        node = value.producer()
        if node is None or node not in self._nodes or node.op_type not in _READ:
            return self._alone(Leaf(value), id(value))
        try:
            return _FORMS[node.op_type](self, node, value)
        except UnknownError:
            return self._alone(Leaf(value), id(value))

    def _constant(self, value: ir.Value, constant: Array) -> Formula:
        if constant.dtype != np.float32:
            return self._alone(Leaf(value), id(value))
        if constant.size == 1:
            number = float(constant.reshape(()))
            return {(): number} if number else {}
        if constant.ndim == 1 or constant.size == constant.shape[-1]:
            return self._alone(Affine({}, constant.reshape(-1)), id(value))
        return self._alone(Leaf(value), id(value))

    # ---- One operator each ----

    def _copy(self, node: ir.Node, value: ir.Value) -> Formula:
        return self._input(node, 0)

    def _input(self, node: ir.Node, index: int) -> Formula:
        value = node.inputs[index]
        if value is None:
            raise UnknownError
        return self._formulas[id(value)]

    def _add(self, node: ir.Node, value: ir.Value) -> Formula:
        return self.plus(self._input(node, 0), self._input(node, 1))

    def _subtract(self, node: ir.Node, value: ir.Value) -> Formula:
        return self.plus(self._input(node, 0), self._input(node, 1), -1.0)

    def _negate(self, node: ir.Node, value: ir.Value) -> Formula:
        return self.plus({}, self._input(node, 0), -1.0)

    def _multiply(self, node: ir.Node, value: ir.Value) -> Formula:
        return self.times(self._input(node, 0), self._input(node, 1))

    def _divide(self, node: ir.Node, value: ir.Value) -> Formula:
        by = self._input(node, 1)
        if set(by) != {()}:
            raise UnknownError
        return self.times(self._input(node, 0), {(): 1.0 / by[()]})

    def _activation(self, node: ir.Node, value: ir.Value) -> Formula:
        alpha = node.attributes.get("alpha")
        beta = node.attributes.get("beta")
        return self._alone(
            Activation(
                node.op_type,
                self._input(node, 0),
                None if alpha is None else alpha.as_float(),
                None if beta is None else beta.as_float(),
            ),
            id(value),
        )

    def _clip(self, node: ir.Node, value: ir.Value) -> Formula:
        bounds = [_constant(bound) for bound in node.inputs[1:]]
        if len(bounds) != 2 or any(b is None or b.size != 1 for b in bounds):
            raise UnknownError
        low, high = (float(np.asarray(bound).reshape(())) for bound in bounds)
        if low != 0.0 or high <= 0.0:
            raise UnknownError
        return self._tidy(dict(self._alone(Clipped(self._input(node, 0), high), id(value))))

    def _choose(self, node: ir.Node, value: ir.Value) -> Formula:
        condition = node.inputs[0]
        if condition is None:
            raise UnknownError
        return self._alone(
            Choice(self.resolved_mask(condition), self._input(node, 1), self._input(node, 2)),
            id(value),
        )

    def resolved_mask(self, value: ir.Value) -> ir.Value:
        """Return what a mask was spread from."""
        while (node := value.producer()) is not None and node in self._nodes:
            if node.op_type not in ("Tile", "Expand", "Unsqueeze", "Identity"):
                break
            source = node.inputs[0]
            if source is None:
                break
            value = source
        return value

    def _product(self, node: ir.Node, value: ir.Value) -> Formula:
        left, right = node.inputs
        weights = None if right is None else _constant(right)
        if weights is None or weights.ndim != 2 or weights.dtype != np.float32 or left is None:
            raise UnknownError
        terms: dict[int, tuple[ir.Value, Array]] = {}
        begin = 0
        for part, width in self._parts(left, weights.shape[0]):
            source = self.resolved(part)
            rows = weights[begin : begin + width]
            old = terms.get(id(source))
            terms[id(source)] = (source, rows if old is None else old[1] + rows)
            begin += width
        return self._alone(Affine(terms, np.zeros(weights.shape[1], np.float32)), id(value))

    def _parts(self, value: ir.Value, total: int) -> list[tuple[ir.Value, int]]:
        """Return what `value` is a concatenation of, and how wide each part is."""
        node = value.producer()
        if node is None or node not in self._nodes or node.op_type != "Concat":
            return [(value, total)]
        if node.attributes["axis"].as_int() not in (1, -1):
            return [(value, total)]
        widths = [None if part is None else self._width(part) for part in node.inputs]
        if widths.count(None) == 1:
            known = sum(width for width in widths if width is not None)
            widths[widths.index(None)] = total - known
        parts = [
            (part, width)
            for part, width in zip(node.inputs, widths, strict=True)
            if part is not None and width is not None
        ]
        if len(parts) != len(widths) or sum(width for _, width in parts) != total:
            raise UnknownError
        return parts

    def _width(self, value: ir.Value) -> int | None:
        if value.shape is not None and len(value.shape) and isinstance(value.shape[-1], int):
            return value.shape[-1]
        return self.width(self.of(value))

    def width(self, formula: Formula) -> int | None:
        """Return the number of columns of a formula, where it is known."""
        for product in formula:
            for number in product:
                factor = self.factors[number]
                found: int | None = None
                if isinstance(factor, Affine):
                    found = factor.width
                elif isinstance(factor, (Activation, Clipped)):
                    found = self.width(factor.of)
                elif isinstance(factor, Leaf):
                    shape = factor.value.shape
                    size = shape[-1] if shape is not None and len(shape) else None
                    found = size if isinstance(size, int) else None
                if found:
                    return found
        return None

    def _columns(self, node: ir.Node, value: ir.Value) -> Formula:
        """Return a part of an affine factor's columns."""
        whole = self.single(self._input(node, 0))
        if not isinstance(whole, Affine) or not whole.width:
            raise UnknownError
        start, stop = _span(node, value, whole.width)
        terms = {k: (source, w[:, start:stop]) for k, (source, w) in whole.terms.items()}
        bias = whole.bias[start:stop] if whole.bias.ndim else whole.bias
        return self._alone(Affine(terms, bias), id(value))


def _sum(total: Affine | None, factor: Affine, scale: float) -> Affine:
    number = np.float32(scale)
    terms = {} if total is None else dict(total.terms)
    for key, (source, weights) in factor.terms.items():
        scaled = weights if scale == 1.0 else weights * number
        if key in terms:
            if terms[key][1].shape != scaled.shape:
                raise UnknownError
            scaled = terms[key][1] + scaled
        terms[key] = source, scaled
    bias = factor.bias * number
    if total is None:
        return Affine(terms, bias)
    if total.width and factor.width and total.width != factor.width:
        raise UnknownError
    return Affine(terms, total.bias + bias)


def _span(node: ir.Node, value: ir.Value, width: int) -> tuple[int, int]:
    if node.op_type == "Split":
        axis = node.attributes["axis"].as_int()
        if axis not in (1, -1):
            raise UnknownError
        lengths = None if len(node.inputs) < 2 else _constant(node.inputs[1])
        count = len(node.outputs)
        sizes = [width // count] * count if lengths is None else lengths.tolist()
        if sum(sizes) != width:
            raise UnknownError
        at = next(index for index, output in enumerate(node.outputs) if output is value)
        return sum(sizes[:at]), sum(sizes[: at + 1])
    bounds = [_constant(bound) for bound in node.inputs[1:]]
    if len(bounds) != 4 or any(bound is None for bound in bounds):
        raise UnknownError
    found = (0, width)
    for begin, end, axis, step in zip(*(np.asarray(b).tolist() for b in bounds), strict=True):
        if axis in (1, -1) and step == 1:
            found = slice(begin, None if end == _FAR else end).indices(width)[:2]
        elif (begin, end, step) != (0, _FAR, 1):
            raise UnknownError
    return found


def _constant(value: ir.Value | None) -> Array | None:
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


# How many inputs of each operator its formula reads.
_READ = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), 2),
    **dict.fromkeys(("Identity", "Neg", "Clip", "Split", "Slice", *_ACTIVATIONS), 1),
    "MatMul": 1,
    "Where": 3,
    "Concat": 64,
}


def _joined(formulas: Formulas, node: ir.Node, value: ir.Value) -> Formula:
    raise UnknownError  # read by the product behind it


_FORMS: dict[str, Callable[[Formulas, ir.Node, ir.Value], Formula]] = {
    "Add": Formulas._add,
    "Sub": Formulas._subtract,
    "Mul": Formulas._multiply,
    "Div": Formulas._divide,
    "Neg": Formulas._negate,
    "Identity": Formulas._copy,
    "Clip": Formulas._clip,
    "Split": Formulas._columns,
    "Slice": Formulas._columns,
    "MatMul": Formulas._product,
    "Where": Formulas._choose,
    "Concat": _joined,
    **dict.fromkeys(_ACTIVATIONS, Formulas._activation),
}
