"""The slow, right way: a node through ONNX's own reference implementation (imports onnx)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.errors import UnsupportedError


class ReferenceNode:
    """One node as a model of its own, kept for as many runs as there are."""

    def __init__(self, model: ir.Model, node: ir.Node, inputs: list[str], outputs: list[str]):
        """Prepare `node`, which reads `inputs` (captured values included) and makes `outputs`."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        proto = ir.to_proto(node)
        graph = onnx.helper.make_graph(
            [proto],
            node.name or node.op_type,
            [onnx.helper.make_empty_tensor_value_info(name) for name in inputs],
            [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        )
        opsets = [
            onnx.helper.make_opsetid(domain, version)
            for domain, version in model.graph.opset_imports.items()
        ]
        whole = onnx.helper.make_model(graph, opset_imports=opsets)
        self._what = f"node '{node.name}' ({node.op_type})"
        self._outputs = outputs
        try:
            self._evaluator: Any = ReferenceEvaluator(whole)
        except Exception as error:
            raise UnsupportedError(
                f"{self._what}: no native kernel, and onnx's reference has none either ({error}); "
                "replace the operator or keep that part in its framework"
            ) from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """Return the outputs: arrays, lists for sequences, None for empty optionals."""
        try:
            made = self._evaluator.run(self._outputs, dict(feeds))
        except Exception as error:
            raise UnsupportedError(
                f"{self._what}: onnx's reference implementation failed: {error}"
            ) from error
        return [
            value if isinstance(value, (list, type(None))) else np.asarray(value) for value in made
        ]
