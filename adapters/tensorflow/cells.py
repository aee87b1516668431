"""Which recurrent cells an iteration is made of: LSTM, GRU or RNN of ONNX, one after another.

Gates in ONNX's order: LSTM i o f c; GRU z r h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.formulas import (
    Activation,
    Affine,
    Factor,
    Formula,
    Formulas,
    Leaf,
)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """One recurrent operator.

    Attributes:
        kind: LSTM, GRU or RNN.
        states: The loop's variables that are its h and, for LSTM, its c.
        source: What it reads in each iteration.
        weights: W, gates x inputs.
        recurrent: R, gates x hidden.
        bias: Of W's gates, then of R's.
        activations: ONNX's attributes that name them, empty where they are the usual ones.
        output: The formula of its h.
        before: GRU: whether the reset gate comes after the product (linear_before_reset).
    """

    kind: str
    states: tuple[int, ...]
    source: ir.Value
    weights: Array
    recurrent: Array
    bias: Array
    activations: Mapping[str, Any]
    output: Formula
    before: bool = False


@dataclass(frozen=True, eq=False)
class _Gate:
    """An activation of an affine formula."""

    name: str
    affine: Affine
    alpha: float = 0.0
    beta: float = 0.0


_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# Where ONNX names no alpha the engine takes the operator's own, which TensorFlow's ones share.
_ALPHA = {"Elu": 1.0}


class Cells:
    """Finds cells among the states of a loop."""

    def __init__(
        self,
        formulas: Formulas,
        before: Mapping[int, ir.Value],
        after: Mapping[int, Formula],
        is_sequence: Callable[[ir.Value], bool],
    ) -> None:
        """Start.

        Args:
            formulas: Of the body.
            before: The states that an iteration reads, by variable.
            after: What it makes of them, masks left out.
            is_sequence: Whether a value is an entry of a list, one for each iteration.
        """
        self.found: list[Cell] = []
        self._formulas = formulas
        self._before = before
        self._after = after
        self._is_sequence = is_sequence

    def search(self) -> list[Cell]:
        """Return the cells, each after those that it reads."""
        taken: set[int] = set()
        again = True
        while again:
            again = False
            for state in self._before:
                if state in taken:
                    continue
                cell = self._lstm(state, taken) or self._gru(state) or self._rnn(state)
                if cell is not None:
                    self.found.append(cell)
                    taken.update(cell.states)
                    again = True
        return self.found

    def source_cell(self, value: ir.Value) -> Cell | None:
        """Return the cell that makes `value` in an iteration."""
        formula = self._formulas.of(value)
        return next((cell for cell in self.found if cell.output == formula), None)

    # ---- The three kinds ----

    def _rnn(self, h: int) -> Cell | None:
        gate = self._gate(self._after[h])
        return None if gate is None else self._cell("RNN", (h,), [gate], [gate])

    def _lstm(self, h: int, taken: set[int]) -> Cell | None:
        """h' = o * a(c'), c' = f * c + i * g."""
        for number in self._common(self._after[h]):
            output = self._gate_of(self._formulas.factors[number])
            left = {
                tuple(k for k in product if k != number): coefficient
                for product, coefficient in self._after[h].items()
            }
            last = self._formulas.single(left)
            for c in self._before:
                if c == h or c in taken or output is None:
                    continue
                if isinstance(last, Activation) and last.of == self._after[c]:
                    end = _Gate(last.name, output.affine, *_numbers(last))
                elif left == self._after[c]:
                    end = _Gate("Affine", output.affine, 1.0, 0.0)
                else:
                    continue
                gates = self._memory(c)
                if gates is None:
                    continue
                i, f, g = gates
                if len({(gate.name, gate.alpha, gate.beta) for gate in (i, f, output)}) == 1:
                    return self._cell("LSTM", (h, c), [i, output, f, g], [i, g, end])
        return None

    def _common(self, formula: Formula) -> list[int]:
        """Return the factors that each product of a formula has once."""
        products = list(formula)
        return [
            number
            for number in (products[0] if products else ())
            if all(product.count(number) == 1 for product in products)
        ]

    def _memory(self, c: int) -> tuple[_Gate, _Gate, _Gate] | None:
        """Return the gates i, f, g of c' = f * c + i * g."""
        products = list(self._after[c])
        if len(products) != 2 or any(number != 1.0 for number in self._after[c].values()):
            return None
        parts = [[self._formulas.factors[number] for number in product] for product in products]
        for kept, added in (parts, parts[::-1]):
            if len(kept) != 2 or len(added) != 2:
                continue
            leaf = [factor for factor in kept if self._is_state(factor, c)]
            gate = [factor for factor in kept if not self._is_state(factor, c)]
            if len(leaf) != 1 or any(self._is_state(factor, c) for factor in added):
                continue
            f = self._gate_of(gate[0])
            pair = [self._gate_of(factor) for factor in added]
            if f is None or None in pair:
                continue
            # The input gate is the one whose function is that of the forget gate.
            for i, g in (pair, pair[::-1]):
                if i is not None and g is not None and i.name == f.name:
                    return i, f, g
        return None

    def _is_state(self, factor: Factor, state: int) -> bool:
        return isinstance(factor, Leaf) and factor.value is self._before[state]

    def _gru(self, h: int) -> Cell | None:
        """h' = z * h + n - z * n."""
        products = self._after[h]
        factors = self._formulas.factors
        if len(products) != 3:
            return None
        for new in (product for product in products if len(product) == 1):
            n = factors[new[0]]
            for kept in (product for product in products if len(product) == 2):
                pair = [factors[number] for number in kept]
                number = next((k for k in kept if not self._is_state(factors[k], h)), None)
                if number is None or sum(self._is_state(factor, h) for factor in pair) != 1:
                    continue
                expected = {new: 1.0, kept: 1.0, tuple(sorted((number, new[0]))): -1.0}
                if dict(products) != expected:
                    continue
                z = self._gate_of(factors[number])
                if z is None or not isinstance(n, Activation):
                    continue
                cell = self._reset_after(h, z, n) or self._reset_before(h, z, n)
                if cell is not None:
                    return cell
        return None

    def _reset_after(self, h: int, z: _Gate, n: Activation) -> Cell | None:
        """n = a(A(x) + r * B(h))."""
        factors = self._formulas.factors
        if len(n.of) != 2 or any(number != 1.0 for number in n.of.values()):
            return None
        single = [factors[product[0]] for product in n.of if len(product) == 1]
        double = [[factors[k] for k in product] for product in n.of if len(product) == 2]
        if len(single) != 1 or len(double) != 1 or not isinstance(single[0], Affine):
            return None
        for reset, inner in (double[0], double[0][::-1]):
            r = self._gate_of(reset)
            if r is None or isinstance(reset, Affine) or not isinstance(inner, Affine):
                continue
            state = id(self._before[h])
            if set(inner.terms) != {state} or state in single[0].terms:
                continue
            name = _Gate(n.name, single[0], *_numbers(n))
            parts = Affine({**single[0].terms, **inner.terms}, single[0].bias)
            gate = _Gate(n.name, parts, *_numbers(n))
            return self._cell("GRU", (h,), [z, r, gate], [z, name], before=inner.bias)
        return None

    def _reset_before(self, h: int, z: _Gate, n: Activation) -> Cell | None:
        """n = a(A(x) + B(r * h))."""
        affine = self._formulas.single(n.of)
        if not isinstance(affine, Affine):
            return None
        for key, (source, recurrent) in affine.terms.items():
            factors = self._factors(self._formulas.of(source))
            if factors is None or len(factors) != 2:
                continue
            for reset, state in (factors, factors[::-1]):
                r = self._gate_of(reset)
                if r is None or not self._is_state(state, h):
                    continue
                terms = {k: term for k, term in affine.terms.items() if k != key}
                terms[id(self._before[h])] = self._before[h], recurrent
                gate = _Gate(n.name, Affine(terms, affine.bias), *_numbers(n))
                return self._cell("GRU", (h,), [z, r, gate], [z, gate])
        return None

    # ---- Parts ----

    def _factors(self, formula: Formula) -> list[Factor] | None:
        """Return the factors of a formula that is one product."""
        if len(formula) != 1:
            return None
        ((product, coefficient),) = formula.items()
        if coefficient != 1.0:
            return None
        return [self._formulas.factors[number] for number in product]

    def _gate(self, formula: Formula) -> _Gate | None:
        """Return a formula as a gate."""
        factors = self._factors(formula)
        return self._gate_of(factors[0]) if factors is not None and len(factors) == 1 else None

    def _gate_of(self, factor: Factor) -> _Gate | None:
        if isinstance(factor, Affine):
            return _Gate("Affine", factor, 1.0, 0.0)
        if not isinstance(factor, Activation):
            return None
        affine = self._formulas.single(factor.of)
        if not isinstance(affine, Affine):
            return None
        return _Gate(factor.name, affine, *_numbers(factor))

    def _cell(
        self,
        kind: str,
        states: tuple[int, ...],
        gates: Sequence[_Gate],
        activated: Sequence[_Gate],
        before: Array | None = None,
    ) -> Cell | None:
        """Return the cell of these gates where they read one source and the cell's own h."""
        h = self._before[states[0]]
        sources = {key: source for gate in gates for key, (source, _) in gate.affine.terms.items()}
        sources.pop(id(h), None)
        if len(sources) != 1:
            return None
        ((key, source),) = sources.items()
        if not self._is_sequence(source) and self.source_cell(source) is None:
            return None
        inputs = next(g.affine.terms[key][1].shape[0] for g in gates if key in g.affine.terms)
        hidden = next((gate.affine.width for gate in gates if gate.affine.width), 0)
        if not hidden or any(gate.affine.width != hidden for gate in gates):
            return None
        stacked: dict[int, list[Array]] = {key: [], id(h): []}
        for gate in gates:
            for which, rows in ((key, inputs), (id(h), hidden)):
                term = gate.affine.terms.get(which)
                weights = np.zeros((rows, hidden), np.float32) if term is None else term[1]
                if weights.shape != (rows, hidden):
                    return None
                stacked[which].append(weights.T)
        bias = [np.broadcast_to(gate.affine.bias, (hidden,)) for gate in gates]
        second = [np.zeros(hidden, np.float32) for _ in gates]
        if before is not None:
            second[-1] = np.broadcast_to(before, (hidden,)).astype(np.float32)
        return Cell(
            kind,
            states,
            source,
            np.concatenate(stacked[key]),
            np.concatenate(stacked[id(h)]),
            np.concatenate([*bias, *second]).astype(np.float32),
            _activations(kind, activated),
            self._after[states[0]],
            before is not None,
        )


def _numbers(activation: Activation) -> tuple[float, float]:
    alpha = _ALPHA.get(activation.name, 0.0) if activation.alpha is None else activation.alpha
    return alpha, activation.beta or 0.0


# Which of ONNX's functions take an alpha, and which a beta: only these have entries in the lists.
_WITH_ALPHA = frozenset({"Affine", "Elu", "HardSigmoid", "LeakyRelu"})
_WITH_BETA = frozenset({"Affine", "HardSigmoid"})


def _activations(kind: str, gates: Sequence[_Gate]) -> dict[str, Any]:
    names = [gate.name for gate in gates]
    if names == _USUAL[kind]:
        return {}
    attributes: dict[str, Any] = {"activations": names}
    alphas = [gate.alpha for gate in gates if gate.name in _WITH_ALPHA]
    betas = [gate.beta for gate in gates if gate.name in _WITH_BETA]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes
