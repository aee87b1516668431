"""Branches and loops of TensorFlow 2: If, Case and While."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.lists import Lists
from lowprec.adapters.tensorflow.loops import as_loop, open_loop
from lowprec.adapters.tensorflow.nodes import Function, Node
from lowprec.adapters.tensorflow.recurrent import recurrent_operators
from lowprec.adapters.tensorflow.translator import Found, Translator, translates
from lowprec.errors import UnsupportedError


@translates("While", "StatelessWhile")
def _while(translator: Translator, node: Node) -> list[Any]:
    loop = open_loop(translator, node)
    return recurrent_operators(loop) or as_loop(loop)


@translates("If", "StatelessIf")
def _if(translator: Translator, node: Node) -> list[Any]:
    branches = [
        translator.graph.function(node.attributes[name]) for name in ("then_branch", "else_branch")
    ]
    known = translator.known(node, 0)
    if known is not None:
        taken = bool(known.all()) if known.ndim == 0 else known.size > 0
        return translator.call(node, branches[0 if taken else 1], 1)
    return _branched(translator, node, _condition(translator, node), *branches)


@translates("Case", "StatelessCase")
def _case(translator: Translator, node: Node) -> list[Any]:
    names = node.attributes["branches"]
    branches = [translator.graph.function(name) for name in names]
    known = translator.known(node, 0)
    if known is not None:
        number = int(known)
        return translator.call(
            node, branches[number if 0 <= number < len(branches) else len(branches) - 1], 1
        )
    if len(branches) > 2:
        raise UnsupportedError(
            f"node '{node.name}' (Case) chooses among {len(branches)} branches by a computed "
            "number; write it as nested tf.cond"
        )
    # Any number but 0 is the last branch, TensorFlow says.
    zero = translator.new_constant(np.zeros((), np.int32), f"{node.name}/zero")
    first = translator.emit(
        "Equal", [translator.value(node, 0), zero], name=f"{node.name}/condition"
    )
    return _branched(translator, node, first, branches[0], branches[-1])


def _condition(translator: Translator, node: Node) -> ir.Value:
    """Return the condition of an If as a boolean; numbers are true where they are not 0."""
    if translator.shape(node.inputs[0]) != ():
        raise UnsupportedError(f"node '{node.name}' ({node.op}): its condition is not one value")
    to = int(ir.DataType.BOOL)
    dtype = node.attributes.get("Tcond")
    value = translator.value(node, 0)
    if dtype is None or dtype == np.bool_:
        return value
    return translator.emit("Cast", [value], {"to": to}, name=f"{node.name}/condition")


def _branched(
    translator: Translator, node: Node, condition: ir.Value, yes: Function, no: Function
) -> list[Any]:
    bodies = [
        _branch(translator, node, function, name)
        for function, name in ((yes, "then"), (no, "else"))
    ]
    made = translator.emit(
        "If",
        [condition],
        {"then_branch": bodies[0], "else_branch": bodies[1]},
        name=node.name,
        outputs=len(yes.outputs),
    )
    producer = made.producer()
    assert producer is not None
    return list(producer.outputs)


def _branch(translator: Translator, node: Node, function: Function, name: str) -> ir.Graph:
    """Return a branch as a graph; what it reads from outside it reads by name."""
    inner = Translator(function.graph, translator, f"{translator.prefix}{node.name}/", body=True)
    for argument, tensor in zip(function.inputs, node.inputs[1:], strict=True):
        if translator.has(tensor):
            inner.give(argument, translator.found(tensor))
    inner.run(function.outputs)
    results = [
        inner.emit("Identity", [_tensor(inner, node, inner.found(output))], name=f"{name}/result")
        for output in function.outputs
    ]
    return ir.Graph([], results, nodes=inner.nodes, name=f"{node.name}/{name}")


def _tensor(translator: Translator, node: Node, found: Found) -> ir.Value:
    if isinstance(found, Lists):
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) returns a list of tensors from a branch; stack it "
            "there"
        )
    return translator.as_value(found, f"{node.name}/result")
