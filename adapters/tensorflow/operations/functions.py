"""Calls of functions: their nodes take the place of the call."""

from __future__ import annotations

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Found, Translator, translates


@translates("PartitionedCall", "StatefulPartitionedCall")
def _call(translator: Translator, node: Node) -> list[Found]:
    return translator.call(node, translator.graph.function(node.attributes["f"]))
