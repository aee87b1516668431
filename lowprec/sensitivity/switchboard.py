"""Two forms of one model in one graph, each layer switched from one to the other run by run.

    x ──► layer, this form ──► y_a ─┐
      └─► layer, other form ─► y_b ─┴─► Where(choice, y_b, y_a) ──► the rest of the graph

Asking what one layer does needs a hundred models that differ in one layer each. Compiling each of
them takes longer than running it: here one is compiled, and a run says which layers are switched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.engine import Session, compile_model
from lowprec.passes.matching import NameSource

Array = NDArray[Any]


class Switchboard:
    """A model whose layers run in this form or the other.

    Attributes:
        layers: Names of the layers that can be switched: those of the main graph that both forms
            have, with outputs of the same names.
    """

    def __init__(
        self, base: ir.Model, other: ir.Model, layers: Iterable[str], outputs: Sequence[str]
    ) -> None:
        """Compile both forms.

        Args:
            base: What runs where nothing is switched; not changed.
            other: The same values by name, other forms of its layers; not changed.
            layers: Names of nodes of `base` to switch, where possible.
            outputs: Names of values of `base` that `run` returns.
        """
        self._choices: dict[str, str] = {}
        self._session = self._compiled(base, other, set(layers), outputs)

    @property
    def layers(self) -> Collection[str]:
        """Names of the layers that can be switched."""
        return self._choices.keys()

    def run(self, feeds: Mapping[str, Array], switched: Collection[str]) -> list[Array]:
        """Return the outputs, the layers in `switched` being in their other form."""
        choices = {choice: np.bool_(layer in switched) for layer, choice in self._choices.items()}
        return self._session.run({**feeds, **choices})

    def _compiled(
        self, base: ir.Model, other: ir.Model, wanted: set[str], outputs: Sequence[str]
    ) -> Session:
        model = base.clone()
        graph, names = model.graph, NameSource(model)
        here = {value.name: value for node in graph for value in node.outputs}
        here |= {value.name: value for value in graph.inputs}
        there = {value.name: value for node in other.graph for value in node.outputs}
        for node in [node for node in graph if node.name in wanted]:
            outputs_of_node = [
                value for value in node.outputs if value.uses() or value.name in outputs
            ]
            if not outputs_of_node or any(v.name not in there for v in outputs_of_node):
                continue
            graft = _Graft(graph, here, names)
            twins = [graft.copy(there[value.name]) for value in outputs_of_node]
            choice = ir.Value(
                name=names.fresh(f"{node.name}_choice"),
                type=ir.TensorType(ir.DataType.BOOL),
                shape=ir.Shape([]),
            )
            graph.inputs.append(choice)
            self._choices[str(node.name)] = str(choice.name)
            switches = []
            for value, twin in zip(outputs_of_node, twins, strict=True):
                switch = ir.node(
                    "Where", [choice, twin, value], name=names.fresh(f"{value.name}_switch")
                )
                switch.outputs[0].name = switch.name
                uses = [use for use in value.uses() if use.node is not switch]
                for use in uses:
                    use.node.replace_input_with(use.idx, switch.outputs[0])
                here[value.name] = switch.outputs[0]
                switches.append(switch)
            graph.insert_after(node, [*graft.nodes, *switches])
        graph.outputs.clear()
        graph.outputs.extend(here[name] for name in outputs)
        return compile_model(model)


class _Graft:
    """Copies of another graph's nodes, down to values that this graph has by the same name."""

    def __init__(
        self, graph: ir.Graph, here: Mapping[str | None, ir.Value], names: NameSource
    ) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self._here, self._names = graph, here, names
        self._copies: dict[ir.Value, ir.Value] = {}

    def copy(self, value: ir.Value) -> ir.Value:
        """Return the copy of what makes `value`, even where this graph has the value itself."""
        node = value.producer()
        assert node is not None
        inputs = [None if operand is None else self._operand(operand) for operand in node.inputs]
        name = self._names.fresh(f"{node.name}_twin")
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            num_outputs=len(node.outputs),
            name=name,
            metadata_props=dict(node.metadata_props),
        )
        self.nodes.append(twin)
        for made, copied in zip(node.outputs, twin.outputs, strict=True):
            copied.name = self._names.fresh(f"{made.name}_twin") if made.name else ""
            copied.type, copied.shape = made.type, made.shape
            self._copies[made] = copied
        return self._copies[value]

    def _operand(self, value: ir.Value) -> ir.Value:
        if value in self._copies:
            return self._copies[value]
        if value.name in self._here and not value.is_initializer():
            return self._here[value.name]
        if value.producer() is not None:
            return self.copy(value)
        constant = ir.Value(
            name=self._names.fresh(f"{value.name}_twin"),
            type=value.type,
            shape=value.shape,
            const_value=value.const_value,
        )
        self._graph.register_initializer(constant)
        self._copies[value] = constant
        return constant
