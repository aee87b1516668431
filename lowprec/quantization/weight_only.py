"""Weights as codes, everything else in float: no data needed, a quarter of the bytes.

    w (s8) ──► DequantizeLinear(s_w, axis of output channels) ──► Conv.W        layers
    W (s8) ──► DequantizeLinear(s_w, axis 1: a scale per gate row) ──► LSTM.W   recurrent layers

    table (s8) ──► Gather(i) ──► Cast(f32) ──► Mul ──► rows                     tables of vectors
    s (a column) ─► Gather(i) ─────────────────┘

The result is that of the dequantised weights, bit for bit. Of a table only the rows that are asked
for are widened, each with a scale of its own. A bias stays f32: it is not multiplied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.errors import QuantizationError
from lowprec.graph.constants import add_constant
from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES, Layer, find_layer
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_floats,
    graph_of,
    insert_operator,
    is_operator,
)
from lowprec.quantization.recurrent import quantize_gates, why_not_recurrent
from lowprec.quantization.weights import WEIGHT_QMAX, decibel, quantize_weights

if TYPE_CHECKING:
    from lowprec.config import Config

MIN_WEIGHTS = 256
"""Weights of fewer elements stay f32: their scale and the operators around it need the place."""
MIN_TABLE = 65_536
"""Tables of fewer numbers stay f32 beside layers in int8, unless a rule names them."""
_NO_ACTIVATION = np.float32(1)  # the scale of an input that is not quantised


def is_table(node: ir.Node) -> bool:
    """Return whether `node` looks rows up in a constant f32 matrix."""
    if not is_operator(node, "Gather") or node.attributes.get_int("axis", 0) != 0:
        return False
    table = constant_floats(node.inputs[0])
    return table is not None and table.ndim == 2


def is_small_table(node: ir.Node) -> bool:
    """Return whether the table of a lookup is too small to matter beside the layers' weights."""
    table = constant_array(node.inputs[0])
    return table is None or table.size < MIN_TABLE


def why_not_weight_only(node: ir.Node) -> str | None:
    """Return "" where the weights of `node` can be codes, why not, None where it has none."""
    if is_table(node):
        table = constant_floats(node.inputs[0])
        assert table is not None
        return _why_small(table.size)
    if is_operator(node, *RECURRENT_TYPES):
        reason = why_not_recurrent(node)
        arrays = [constant_array(value) for value in node.inputs[1:3]]
        return reason or _why_small(sum(array.size for array in arrays if array is not None))
    if not is_operator(node, *LAYER_TYPES):
        return None
    layer = find_layer(node)
    return layer if isinstance(layer, str) else _why_small(layer.weight_array.size)


def store_codes(
    node: ir.Node, config: Config, names: NameSource, known: dict[object, ir.Value]
) -> float | None:
    """Let `node`, of which `why_not_weight_only` says "", read codes; return the weights' dB.

    Args:
        node: A layer, a recurrent layer or a table lookup; changed in place.
        config: `weights`.
        names: Of the whole model.
        known: What earlier calls for this graph made of shared weights.

    Raises:
        QuantizationError: a weight is NaN or infinite.
    """
    if is_table(node):
        return _store_table(node, names, known)
    if is_operator(node, *RECURRENT_TYPES):
        losses = []
        for index in (1, 2):
            value = node.inputs[index]
            assert value is not None
            gates = quantize_gates(value, config, node)
            losses.append(gates.sqnr)
            _read_codes(node, index, gates.codes, gates.scale, 1, names, known)
        return min((loss for loss in losses if loss is not None), default=None)
    layer = find_layer(node)
    assert isinstance(layer, Layer)
    quantized = quantize_weights(layer, _NO_ACTIVATION, config, has_bias=False)
    _read_codes(node, 1, quantized.codes, quantized.scale, layer.weight_axis, names, known)
    return quantized.sqnr


def _why_small(size: int) -> str:
    return f"not worth it: {size} weights" if size < MIN_WEIGHTS else ""


def _read_codes(
    node: ir.Node,
    index: int,
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    axis: int,
    names: NameSource,
    known: dict[object, ir.Value],
) -> None:
    """Let input `index` of `node` be DequantizeLinear of constants, made once for equal ones."""
    weights = node.inputs[index]
    assert weights is not None
    key = (weights, axis, scale.tobytes())
    if key not in known:
        graph, base = graph_of(node), weights.name or "weights"
        inputs: list[ir.Value | None] = [
            add_constant(graph, names.fresh(f"{base}_quantized"), codes),
            add_constant(graph, names.fresh(f"{base}_scale"), scale),
        ]
        known[key] = insert_operator(
            graph[0],
            "DequantizeLinear",
            inputs,
            like=weights,
            name=names.fresh(f"{base}_dequantized"),
            attributes={"axis": axis} if scale.ndim else None,
        )
    node.replace_input_with(index, known[key])


def _store_table(node: ir.Node, names: NameSource, known: dict[object, ir.Value]) -> float | None:
    table, rows = node.inputs[0], node.outputs[0]
    array = constant_floats(table)
    assert table is not None
    assert array is not None
    if not np.isfinite(array).all():
        raise QuantizationError(
            f"table {table.name!r} of {node.name!r} holds NaN or infinite values; weights must be "
            f"finite: repair the model, or keep the table in float with layers: "
            f"[{{match: {node.name!r}, precision: f32}}]"
        )
    largest = np.abs(array).max(axis=1, keepdims=True)
    scale = np.where(largest == 0, np.float32(1), largest / np.float32(WEIGHT_QMAX))
    scale = np.maximum(scale, np.float32(2.0**-120)).astype(np.float32)
    codes = np.clip(np.rint(array / scale), -WEIGHT_QMAX, WEIGHT_QMAX).astype(np.int8)
    error = array - codes * scale
    graph, base, name = graph_of(node), table.name or "table", node.name or "lookup"
    for key, made, suffix in ((table, codes, "quantized"), ((table, "scale"), scale, "scale")):
        if key not in known:
            known[key] = add_constant(graph, names.fresh(f"{base}_{suffix}"), made)
    indices = node.inputs[1]
    stored = ir.Value(name=names.fresh(f"{rows.name}_codes"), type=ir.TensorType(ir.DataType.INT8))
    stored.shape = rows.shape
    gathered = ir.Node(
        "", "Gather", inputs=[known[table], indices], outputs=[stored], name=node.name
    )
    graph.insert_before(node, gathered)
    steps = insert_operator(
        node,
        "Gather",
        [known[(table, "scale")], indices],
        like=rows,
        name=names.fresh(f"{rows.name}_scale"),
    )
    steps.shape = None
    wide = insert_operator(
        node,
        "Cast",
        [stored],
        like=rows,
        name=names.fresh(f"{rows.name}_wide"),
        attributes={"to": int(ir.DataType.FLOAT)},
    )
    product = ir.Node("", "Mul", inputs=[wide, steps], num_outputs=1, name=f"{name}_scaled")
    graph.insert_before(node, product)
    (made_rows,) = product.outputs
    made_rows.type, made_rows.shape = rows.type, rows.shape
    label = rows.name
    rows.replace_all_uses_with(made_rows, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    rows.name, made_rows.name = f"{label}__replaced", label
    return decibel(
        float(np.square(array, dtype=np.float64).sum()),
        float(np.square(error, dtype=np.float64).sum()),
    )
