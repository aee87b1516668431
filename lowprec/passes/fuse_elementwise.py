"""Element-wise operators that feed one another become one walk over memory.

    rq ──► Dequantize ──┐
    gate ───────► Mul ──┴► Add ──► UnaryChain ──► Quantize ──► yq    becomes    Elementwise ──► yq
    x ────────────┘

A region grows from its last operator towards the operands: an operator joins where all readers of
its result are in the region already and, as far as shapes are known, the result has the region's
shape. Dequantize always joins, for its own reader: codes are a quarter of the bytes. Batch
normalisation joins as three operators, its division done here. `_ext/engine/ops_region.cpp` has the
meaning of the attributes, and runs operators one by one where shapes turn out to differ.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    graph_of,
    is_operator,
    may_have_one_shape,
    rank_of,
)
from lowprec.passes.own import (
    AttributeValue,
    Codes,
    dequantized,
    insert_own,
    quantizes,
    remove_if_unused,
)
from lowprec.passes.unary_operators import UnaryStep, unary_steps

# kernels.h, BinaryCode
_BINARY = {"Add": 1, "Sub": 2, "Mul": 3, "Div": 4, "Min": 5, "Max": 6, "PRelu": 8}
# ops_region.cpp, Kind
_CHAIN, _TWO, _DEQUANTIZE, _QUANTIZE = range(4)
_MOST_NODES = 8  # of a region: the engine has room for 32 instructions and 31 operands


def fuse_elementwise(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    order = {node: i for i, node in enumerate(model.graph)}
    changed = False
    for node in reversed(list(model.graph)):
        if node.graph is None or not (_is_step(node) or quantizes(node) is not None):
            continue
        region = sorted(_grow(node, keep), key=lambda member: order[member])
        program = _Program(region, keep)
        if program.is_worth_it():
            program.replace_region(names)
            changed = True
    return changed


def _is_step(node: ir.Node) -> bool:
    """Return whether `node` is f32 arithmetic that a region can hold (Quantize only ends one)."""
    if len(node.outputs) != 1 or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if unary_steps(node) is not None or _batch_norm(node) is not None:
        return True
    return (
        is_operator(node, *_BINARY)
        and len(node.inputs) == 2
        and all(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)
    )


def _batch_norm(node: ir.Node) -> list[NDArray[np.float32]] | None:
    """Return mean, factor and shift of a batch normalisation with constant parameters."""
    if not is_operator(node, "BatchNormalization") or (rank_of(node.inputs[0]) or 0) < 2:
        return None
    if node.attributes.get_int("training_mode", 0) != 0 or len(node.inputs) != 5:
        return None
    arrays = [array for value in node.inputs[1:] if (array := constant_floats(value)) is not None]
    if len(arrays) != 4 or any(array.ndim != 1 for array in arrays):
        return None
    scale, bias, mean, variance = arrays
    epsilon = np.float32(node.attributes.get_float("epsilon", 1e-5))
    with np.errstate(all="ignore"):
        # As the operator does it: each step rounded to f32.
        return [mean, (scale / np.sqrt(variance + epsilon)).astype(np.float32), bias]


def _grow(last: ir.Node, keep: Container[str]) -> set[ir.Node]:
    """Return the operators, `last` included, that compute its result and nothing else."""
    region = {last}
    waiting = [last]
    while waiting:
        for value in waiting.pop(0).inputs:
            producer = None if value is None else value.producer()
            if value is None or producer is None or len(region) >= _MOST_NODES:
                continue
            if producer in region or producer.graph is not last.graph:
                continue
            if value.name in keep or value.is_graph_output() or not _is_step(producer):
                continue
            inside = all(use.node in region for use in value.uses())
            if inside and may_have_one_shape(value, last.outputs[0]):
                region.add(producer)
                waiting.append(producer)
    return region


@dataclass
class _Instruction:
    kind: int
    left: int | ir.Value  # a result by its number, or an operand
    right: int | ir.Value | None = None
    code: int = 0
    scale: float = 1.0
    zero_point: int = 0
    chain: list[UnaryStep] = field(default_factory=list)


class _Program:
    """What a region does, in order.

    Args:
        region: Operators in the order of the graph; the last one makes the result.
        keep: Names of values that must still exist afterwards.
    """

    def __init__(self, region: list[ir.Node], keep: Container[str]) -> None:
        self._region = region
        self._keep = keep
        self._steps: list[_Instruction] = []
        self._made: dict[ir.Value, int] = {}  # value -> the instruction that makes it
        self._constants: list[tuple[int, str, NDArray[np.float32]]] = []
        for node in region:
            self._translate(node)

    def is_worth_it(self) -> bool:
        """Return whether there is more than one instruction to save a walk for."""
        return len(self._steps) > 1

    def _operand(self, value: ir.Value | None) -> int | ir.Value:
        assert value is not None
        if value in self._made:
            return self._made[value]
        codes = None if value.name in self._keep else dequantized(value)
        if codes is None or not may_have_one_shape(codes.value, self._region[-1].outputs[0]):
            return value
        return self._add(value, _codes_step(_DEQUANTIZE, codes.value, codes))

    def _add(self, value: ir.Value | None, step: _Instruction) -> int:
        self._steps.append(step)
        if value is not None:
            self._made[value] = len(self._steps) - 1
        return len(self._steps) - 1

    def _translate(self, node: ir.Node) -> None:
        result = node.outputs[0]
        codes = quantizes(node)
        if codes is not None:
            self._add(result, _codes_step(_QUANTIZE, self._operand(node.inputs[0]), codes))
            return
        unary = unary_steps(node)
        if unary is not None:
            self._add(result, _Instruction(_CHAIN, self._operand(unary[0]), chain=unary[1]))
            return
        affine = _batch_norm(node)
        if affine is None:
            left, right = (self._operand(value) for value in node.inputs)
            self._add(result, _Instruction(_TWO, left, right, _BINARY[node.op_type]))
            return
        made = self._operand(node.inputs[0])
        shape = (-1,) + (1,) * ((rank_of(node.inputs[0]) or 2) - 2)
        for op, what, array in zip(
            ("Sub", "Mul", "Add"), ("mean", "factor", "shift"), affine, strict=True
        ):
            wish = f"{result.name}_{what}"
            self._constants.append((len(self._steps), wish, array.reshape(shape)))
            made = self._add(result, _Instruction(_TWO, made, None, _BINARY[op]))

    def replace_region(self, names: NameSource) -> None:
        """Put the one node in the place of the region's last one."""
        last = self._region[-1]
        graph = graph_of(last)
        for step, wish, array in self._constants:
            self._steps[step].right = add_constant(graph, names.fresh(wish), array)
        operands: list[ir.Value] = []
        for instruction in self._steps:
            for value in (instruction.left, instruction.right):
                if isinstance(value, ir.Value) and value not in operands:
                    operands.append(value)

        def number(value: int | ir.Value | None) -> int:
            if value is None:
                return -1
            if isinstance(value, ir.Value):
                return operands.index(value)
            return len(operands) + value

        chain = [step for instruction in self._steps for step in instruction.chain]
        ends = np.cumsum([len(instruction.chain) for instruction in self._steps])
        attributes: dict[str, AttributeValue] = {
            "kinds": [step.kind for step in self._steps],
            "left": [number(step.left) for step in self._steps],
            "right": [number(step.right) for step in self._steps],
            "codes": [step.code for step in self._steps],
            "scales": [step.scale for step in self._steps],
            "zero_points": [step.zero_point for step in self._steps],
            "chain_ends": [int(end) for end in ends],
        }
        if chain:
            attributes["chain_codes"] = [step[0] for step in chain]
            attributes["chain_a"] = [step[1] for step in chain]
            attributes["chain_b"] = [step[2] for step in chain]
        readers = [value.producer() for node in self._region for value in node.inputs if value]
        insert_own(last, "Elementwise", operands, last.outputs, attributes)
        graph.remove(list(reversed(self._region)), safe=True)
        for reader in readers:
            if is_operator(reader, "DequantizeLinear"):
                remove_if_unused(reader)


def _codes_step(kind: int, operand: int | ir.Value, codes: Codes) -> _Instruction:
    return _Instruction(
        kind,
        operand,
        code=int(codes.dtype),
        scale=codes.scale,
        zero_point=codes.zero_point,
    )
