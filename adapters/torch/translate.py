"""An ExportedProgram as a hub graph: torch.onnx in memory, names from the module, own weights."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass

from lowprec.adapters.torch.codes import extend_codes, store_codes
from lowprec.adapters.torch.kept_registry import kept_registry
from lowprec.adapters.torch.ready import ready
from lowprec.adapters.torch.recurrent import recurrent_translations
from lowprec.adapters.torch.silence import quiet
from lowprec.adapters.torch.translations import translations
from lowprec.errors import ModelError

OPSET = 23

_SCOPES = "pkg.torch.onnx.name_scopes"
# Nodes that torch.onnx's optimiser would leave as they are, or that `simplify` removes too.
_CLEAN = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "DequantizeLinear",
        "Div",
        "Gather",
        "Gelu",
        "Gemm",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "QuantizeLinear",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Shape",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)


def translate(
    program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]
) -> ir.Model:
    """Return the program as a hub graph.

    Args:
        program: From torch.export.export.
        inputs: Names of the graph's inputs, in order.
        outputs: Names of the graph's outputs, in order.

    Raises:
        ModelError: an operator has no ONNX form.
    """
    _check_operators(program)
    with quiet(), kept_registry():
        try:
            exported = torch.onnx.export(
                ready(program),
                (),
                None,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                custom_translation_table={**translations(), **recurrent_translations()},
                optimize=False,
            )
            if exported is not None:
                InlinePass()(exported.model)
                if not _is_clean(exported.model.graph):
                    exported.optimize()
        except torch.onnx.errors.OnnxExporterError as error:
            raise ModelError(f"the module has no ONNX form: {_reason(error)}") from error
    assert exported is not None
    model: ir.Model = exported.model
    store_codes(model.graph)
    extend_codes(model.graph)
    _rename(model, inputs, outputs)
    _name_nodes(model.graph)
    _own_weights(model.graph)
    for value in model.graph.all_nodes():
        value.metadata_props.clear()
    model.metadata_props.clear()
    return _alone(model)


def _check_operators(program: torch.export.ExportedProgram) -> None:
    """Refuse what torch.onnx would translate wrongly.

    Raises:
        ModelError: there is such an operator.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.lstm.input:
            hidden, cell = node.args[1]
            if hidden.meta["val"].shape[-1] != cell.meta["val"].shape[-1]:
                raise ModelError(
                    "an LSTM with proj_size has no ONNX form; replace it by an LSTM and a Linear, "
                    "or leave it out of what is given to lowprec"
                )


def _is_clean(graph: ir.Graph) -> bool:
    """Return whether our own passes do as well without torch.onnx's optimiser."""
    return all(node.op_type in _CLEAN and node.domain == "" for node in graph.all_nodes())


def _rename(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    graph = model.graph
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise ModelError(
            f"the module takes {len(inputs)} tensors and returns {len(outputs)}, its ONNX form has "
            f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        )
    wanted = {*inputs, *outputs}
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in wanted:
                value.name = f"{value.name}_value"
    for value in [*graph.initializers.values()]:
        if value.name in wanted:
            value.name = f"{value.name}_weight"
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    _separate_outputs(graph)
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name


def _separate_outputs(graph: ir.Graph) -> None:
    """Give every output a value of its own: one may be an input, a weight or another output."""
    seen: set[int] = set()
    for index, value in enumerate(graph.outputs):
        if id(value) in seen or value.is_graph_input() or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
        seen.add(id(value))


def _name_nodes(graph: ir.Graph) -> None:
    """Name nodes after the modules that they come from: what configurations match."""
    used: set[str] = set()
    for node in graph.all_nodes():
        path = _owner_of_weights(node) or _innermost(node.metadata_props.get(_SCOPES, ""))
        name = path if path and path not in used else f"{path or 'module'}/{node.op_type}"
        number = 1
        unique = name
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        used.add(unique)
        node.name = unique


def _owner_of_weights(node: ir.Node) -> str:
    """Return the path of the module whose weight `node` multiplies with; empty where none is."""
    for value in node.inputs:
        name = value.name if value is not None and value.is_initializer() else None
        if name and name.startswith("module.") and ".weight" in name:
            return name.removeprefix("module.").rpartition(".weight")[0]
    return ""


def _innermost(scopes: str) -> str:
    """Return the module path in torch.onnx's list of scopes, without our wrapper's part."""
    try:
        names = [str(name) for name in ast.literal_eval(scopes)] if scopes else []
    except (SyntaxError, ValueError):
        return ""
    inside = [name for name in names[:-1] if name == "module" or name.startswith("module.")]
    return inside[-1].removeprefix("module").removeprefix(".") if inside else ""


def _own_weights(graph: ir.Graph) -> None:
    """Copy the weights: training the module later must not change ours. Tied ones stay one."""
    first: dict[Any, ir.Value] = {}
    for value in [*graph.initializers.values()]:
        tensor = value.const_value
        assert tensor is not None
        raw = getattr(tensor, "raw", None)
        if isinstance(raw, torch.Tensor):
            key = (raw.data_ptr(), raw.dtype, tuple(raw.shape), raw.stride())
            tied = first.get(key)
            if tied is not None and raw.numel():
                value.replace_all_uses_with(tied)
                del graph.initializers[str(value.name)]
                continue
            first[key] = value
        value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)


def _alone(model: ir.Model) -> ir.Model:
    """Return a copy; `model` itself, which onnxscript's rules keep, gives up its weights."""
    copy = model.clone()
    for value in model.graph.initializers.values():
        value.const_value = None
    return copy


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:400]
