"""A TensorFlow graph as a hub graph: one function per operation, in `operations/`."""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.lists import AnyList, Lists
from lowprec.adapters.tensorflow.nodes import Function, Graph, Node, Shape, Tensor
from lowprec.errors import ModelError, UnsupportedError

OPSET = 21
ATTENTION_OPSET = 23  # the first that has Attention; only graphs that may need it are of it

Array = NDArray[Any]
Found = ir.Value | Array | AnyList
Result = "ir.Value | Array | Sequence[ir.Value | Array]"
Translation = Callable[["Translator", Node], Any]  # returns a Result

_DEPTH = 50  # of calls, loops and branches inside each other
_SINGLE = (ir.Value, np.ndarray, np.generic, *Lists)

# What NumPy and Python raise about arrays that do not fit, in a graph that nothing has checked.
_DAMAGED = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)

TRANSLATIONS: dict[str, Translation] = {}
COMPLEX: set[str] = set()  # operations that take complex numbers
KNOWN: KeysView[str] = TRANSLATIONS.keys()


def translates(*operations: str) -> Callable[[Translation], Translation]:
    """Mark a function as the translation of these operations."""

    def mark(function: Translation) -> Translation:
        for operation in operations:
            TRANSLATIONS[operation] = function
        return function

    return mark


class UntranslatableError(UnsupportedError):
    """Some nodes have no translation; the rest of the graph may have."""

    def __init__(self, message: str, nodes: Sequence[str]) -> None:
        """Name the nodes, of the outermost graph."""
        super().__init__(message)
        self.nodes = frozenset(nodes)


class Translator:
    """Builds the hub graph; translations call `value`, `constant`, `emit`."""

    def __init__(
        self,
        graph: Graph,
        within: Translator | None = None,
        prefix: str = "",
        *,
        body: bool = False,
    ) -> None:
        """Start with no nodes.

        Args:
            graph: What is translated.
            within: What translates the graph that calls this one; nodes are added there.
            prefix: Of the names of nodes.
            body: Whether the nodes are a graph of their own, the body of a loop or a branch.
        """
        self.graph = graph
        self.nodes: list[ir.Node] = within.nodes if within and not body else []
        self.initializers: dict[str, ir.Value] = within.initializers if within else {}
        self._names: dict[str, int] = within._names if within else {}
        # By identity: a variable that is read in several places stays one. Held, so that it stays.
        self._shared: dict[int, tuple[Any, ir.Value]] = within._shared if within else {}
        # By identity too: constants that were rounded to codes, and to which.
        self._ranges: dict[int, tuple[Array, object]] = within._ranges if within else {}
        self._depth: int = within._depth + 1 if within else 0
        if self._depth > _DEPTH:
            raise ModelError(f"functions call each other more than {_DEPTH} deep at '{prefix}'")
        self.prefix = prefix
        self._lists: dict[Tensor, AnyList] = {}
        self._values: dict[Tensor, ir.Value] = {}
        self._constants: dict[Tensor, Array] = {}

    # ---- What a node reads ----

    def value(self, node: Node, index: int) -> ir.Value:
        """Return input `index` of `node`."""
        tensor = node.inputs[index]
        found = self._values.get(tensor)
        if found is None:
            constant = self._constants.get(tensor)
            if constant is None:
                raise ModelError(f"node '{node.name}' reads '{tensor[0]}', which has no value")
            found = self._values[tensor] = self.new_constant(constant, tensor[0])
        return found

    def constant(self, node: Node, index: int) -> Array:
        """Return input `index` of `node`, which has to be known.

        Raises:
            UnsupportedError: it is computed when the model runs.
        """
        found = self.known(node, index)
        if found is None:
            raise UnsupportedError(
                f"node '{node.name}' ({node.op}) reads '{node.inputs[index][0]}', which has to be "
                "a constant; freeze the model, or keep this part in TensorFlow"
            )
        return found

    def known(self, node: Node, index: int) -> Array | None:
        """Return input `index` of `node` where it is a constant."""
        return self._constants.get(node.inputs[index])

    def all_known(self, node: Node) -> list[Array] | None:
        """Return the inputs of `node` where all are constants."""
        known = [self.known(node, index) for index in range(len(node.inputs))]
        arrays = [array for array in known if array is not None]
        return arrays if len(arrays) == len(known) else None

    def shape(self, tensor: Tensor) -> Shape | None:
        """Return what is known of a tensor's shape; None where not even its rank is."""
        constant = self._constants.get(tensor)
        return constant.shape if constant is not None else self.graph.shapes.get(tensor)

    def rank(self, node: Node, index: int) -> int:
        """Return the rank of input `index`.

        Raises:
            UnsupportedError: it is not known.
        """
        shape = self.shape(node.inputs[index])
        if shape is None:
            raise UnsupportedError(
                f"node '{node.name}' ({node.op}): the rank of '{node.inputs[index][0]}' is unknown"
            )
        return len(shape)

    # ---- What a translation makes ----

    def new_constant(self, array: Any, name: str = "constant") -> ir.Value:
        """Return `array` as an initializer."""
        held = self._shared.get(id(array))
        if held is not None:
            return held[1]
        if np.asarray(array).dtype.kind not in "biufV":
            raise UnsupportedError(f"'{name}' holds strings, handles or complex numbers")
        given = array
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        unique = self.unique(name)
        value = ir.Value(
            name=unique,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array, name=unique),
        )
        self.initializers[unique] = value
        self._shared[id(given)] = given, value
        return value

    def remember_range(self, array: Array, codes: object) -> None:
        """Say to which codes a constant was rounded; `range_of` knows it as long as it is used."""
        self._ranges[id(array)] = array, codes

    def range_of(self, array: Array | None) -> object:
        """Return what `remember_range` was told of a constant, or None."""
        return self._ranges.get(id(array), (None, None))[1]

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        outputs: int = 1,
    ) -> ir.Value:
        """Add a node and return its first output."""
        return self.emit_all(op_type, inputs, attributes, name=name, outputs=outputs)[0]

    def emit_all(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        outputs: int,
    ) -> list[ir.Value]:
        """Add a node and return its outputs."""
        unique = self.unique(name)
        made = [
            ir.Value(name=unique if index == 0 else f"{unique}:{index}") for index in range(outputs)
        ]
        node = ir.node(
            op_type, inputs, attributes=dict(attributes or {}), outputs=made, name=unique
        )
        self.nodes.append(node)
        return made

    def run(self, outputs: Sequence[Tensor]) -> None:
        """Translate all that `outputs` need.

        Raises:
            UnsupportedError: an operation has no translation; all such operations are named.
        """
        ordered = list(self.graph.ordered(outputs, {*self._values, *self._constants, *self._lists}))
        missing = sorted({node.op for node in ordered} - KNOWN)
        if missing:
            without = [node.name for node in ordered if node.op in missing]
            raise UntranslatableError(
                f"TensorFlow operations without a translation: {', '.join(missing)} "
                f"(first at node '{without[0]}')",
                without,
            )
        for node in ordered:
            try:
                self._refuse_complex(node)
                made = TRANSLATIONS[node.op](self, node)
            except UnsupportedError as error:
                raise UntranslatableError(str(error), [node.name]) from error
            except _DAMAGED as error:
                raise ModelError(
                    f"node '{node.name}' ({node.op}) has constants or attributes that do not fit "
                    f"its inputs ({type(error).__name__}: {str(error)[:200]}); export the model "
                    "again"
                ) from error
            values = [made] if isinstance(made, _SINGLE) else made
            for index, value in enumerate(values):
                if not self.has((node.name, index)):
                    self.give((node.name, index), value)
                shape = self.graph.shapes.get((node.name, index))
                if isinstance(value, ir.Value) and value.shape is None and shape is not None:
                    value.shape = ir.Shape(shape)

    def _refuse_complex(self, node: Node) -> None:
        dtype = node.attributes.get("T")
        if isinstance(dtype, np.dtype) and dtype.kind == "c" and node.op not in COMPLEX:
            raise UnsupportedError(f"node '{node.name}' ({node.op}) works on complex numbers")

    def call(self, node: Node, function: Function, first: int = 0) -> list[Found]:
        """Return what `function` makes of the inputs of `node`, its nodes in place of the call.

        Args:
            node: What calls.
            function: What is called.
            first: Number of the input of `node` that is the first argument.
        """
        inner = Translator(function.graph, self, f"{self.prefix}{node.name}/")
        for argument, tensor in zip(function.inputs, node.inputs[first:], strict=True):
            if self.has(tensor):
                inner.give(argument, self.found(tensor))
        inner.run(function.outputs)
        return [inner.found(output) for output in function.outputs]

    def has(self, tensor: Tensor) -> bool:
        """Return whether `tensor` has been translated."""
        return tensor in self._values or tensor in self._constants or tensor in self._lists

    def found(self, tensor: Tensor) -> Found:
        """Return a translated tensor: a constant where it is one, a list where it is one."""
        if tensor in self._lists:
            return self._lists[tensor]
        constant = self._constants.get(tensor)
        if constant is not None:
            return constant
        if tensor not in self._values:
            raise ModelError(f"'{tensor[0]}' is read, and has no value")
        return self._values[tensor]

    def give(self, tensor: Tensor, found: Any) -> None:
        """Say what a tensor stands for, as `found` returns it."""
        if isinstance(found, Lists):
            self._lists[tensor] = found
        elif isinstance(found, ir.Value):
            self._values[tensor] = found
        else:
            self._constants[tensor] = np.asarray(found)

    def as_value(self, found: Found, name: str = "constant") -> ir.Value:
        """Return what `found` returned as a value."""
        if isinstance(found, ir.Value):
            return found
        if isinstance(found, Lists):
            raise ModelError(f"'{name}' is a list of tensors, where a tensor is read")
        return self.new_constant(found, name)

    def set_value(self, tensor: Tensor, value: ir.Value) -> None:
        """Say what a Placeholder stands for."""
        self._values[tensor] = value

    def set_constant(self, tensor: Tensor, array: Array) -> None:
        """Say what a tensor, or the variable behind a handle, holds."""
        self._constants[tensor] = array

    def reserve(self, names: Sequence[str]) -> None:
        """Keep `names` for the graph's inputs and outputs."""
        for name in names:
            self._names.setdefault(name, 1)

    def result(self, tensor: Tensor, name: str) -> ir.Value:
        """Return a translated tensor as an output of the graph, called `name`."""
        value = self.value(Node("output", "", (tensor,)), 0)
        node = ir.node("Identity", [value], outputs=[ir.Value(name=name)], name=self.unique(name))
        self.nodes.append(node)
        return node.outputs[0]

    def unique(self, name: str) -> str:
        """Return a name that nothing has, made of `name`."""
        name = self.prefix + name
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        return name if number == 0 else f"{name}~{number}"
