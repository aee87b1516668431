"""Writes the standard operators that stand for one foreign node, in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from lowprec.errors import ModelError, UnsupportedError

Attribute = int | float | str | Sequence[int] | Sequence[float]


class Emitter:
    """One node to be replaced, and the graph around it.

    `op` writes an operator before the node; `finish` lets the values written take over the node's
    outputs and removes it.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        if not isinstance(node.graph, ir.Graph):
            raise TypeError(f"node '{node.name}' is in no graph")
        self.graph: ir.Graph = node.graph

    # ---- the node ----
    def input(self, index: int) -> ir.Value | None:
        """Return input `index`, None where it is left out."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return value if value is not None and value.name else None

    def need(self, index: int, what: str) -> ir.Value:
        """Return input `index`, which the operator cannot do without."""
        value = self.input(index)
        if value is None:
            raise ModelError(f"{self._where()} has no {what} (input {index}); export it again")
        return value

    def constant_input(self, index: int) -> NDArray[np.generic] | None:
        """Return the array of input `index`, None where it is no constant."""
        return constant_of(self.input(index))

    def uses_output(self, index: int) -> bool:
        """Return whether somebody reads output `index`."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.name) and (bool(value.uses()) or value.is_graph_output())

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return self.node.attributes.get_int(name, default)

    def real(self, name: str, default: float) -> float:
        """Return a float attribute."""
        return self.node.attributes.get_float(name, default)

    def attributes(self, *names: str) -> dict[str, Attribute]:
        """Return those of the attributes `names` that the node has."""
        found = {name: self.node.attributes.get(name) for name in names}
        return {name: item.value for name, item in found.items() if item is not None}

    def refuse(self, why: str) -> UnsupportedError:
        """Return the error for a use of the operator that has no translation."""
        return UnsupportedError(
            f"{self._where()}: {why}; export the model without onnxruntime's own operators "
            "(before its optimisations, quantised in QDQ format)"
        )

    def _where(self) -> str:
        node = self.node
        return f"operator '{node.op_type}' ({node.domain or 'ai.onnx'}) of node '{node.name}'"

    # ---- what stands for it ----
    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """Write a standard operator and return its first output."""
        return self.ops(op_type, inputs, 1, attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        attributes: Mapping[str, Attribute],
    ) -> Sequence[ir.Value]:
        """Write a standard operator and return its outputs."""
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        node = ir.node(
            op_type,
            kept,
            attributes=dict(attributes),
            num_outputs=outputs,
            name=f"{self.node.name}/{op_type}",
        )
        self.graph.insert_before(self.node, node)
        return node.outputs

    def constant(self, array: ArrayLike, name: str = "constant") -> ir.Value:
        """Return an initializer that holds `array`."""
        values = np.asarray(array)
        wish = f"{self.node.name}/{name}"
        taken, count = wish, 1
        while taken in self.graph.initializers:
            count += 1
            taken = f"{wish}_{count}"
        tensor = ir.Tensor(np.ascontiguousarray(values).reshape(values.shape), name=taken)
        value = ir.Value(
            name=taken,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(values.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def shape(self, *sizes: int) -> ir.Value:
        """Return a constant list of int64."""
        return self.constant(np.array(sizes, np.int64), "sizes")

    def dequantize(
        self, codes: ir.Value, scale: ir.Value, zero_point: ir.Value | None, *, axis: int = 0
    ) -> ir.Value:
        """Write a DequantizeLinear; `axis` matters where the scale is a list."""
        numbers = self.scalar_or_list(scale), self.scalar_or_list(zero_point)
        return self.op("DequantizeLinear", codes, *numbers, axis=axis)

    def quantize(self, real: ir.Value, scale: ir.Value, zero_point: ir.Value | None) -> ir.Value:
        """Write a QuantizeLinear, per tensor; u8 where there is no zero point."""
        numbers = self.scalar_or_list(scale), self.scalar_or_list(zero_point)
        return self.op("QuantizeLinear", real, *numbers)

    def scalar_or_list(self, value: ir.Value | None) -> ir.Value | None:
        """Return a scale or zero point as ONNX wants it: a list of one element becomes a scalar."""
        array = constant_of(value)
        if value is None or array is None or array.ndim == 0:
            return value
        if array.size == 1:
            return self.constant(array.reshape(()), value.name or "scale")
        return value if array.ndim == 1 else self.constant(array.reshape(-1), value.name or "scale")

    def finish(self, *results: ir.Value | None) -> bool:
        """Let `results` take over the node's outputs, in order, and remove the node."""
        for old, new in zip(self.node.outputs, results, strict=False):
            if new is None:
                continue
            name = old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if new.type is None:
                new.type = old.type
            if new.shape is None:
                new.shape = old.shape
            old.name = None
            new.name = name
        self.graph.remove(self.node, safe=True)
        return True


Translation = Callable[[Emitter], bool]


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return the array of an initializer that nobody can override, else None."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    if value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
        return None
    return value.const_value.numpy()
