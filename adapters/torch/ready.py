"""Programs that torch.onnx can translate as torch.export wrote them.

torch.onnx.export traces every program a second time, to decompose operators and to replace those
that write into their operands: about half of its time. Where all operators have a translation, and
what is written into was made for it, a second trace changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch

# Operators whose result is new memory: no view shares it.
_FRESH = frozenset(
    {
        "aten.adaptive_avg_pool2d.default",
        "aten.add.Tensor",
        "aten.avg_pool2d.default",
        "aten.batch_norm.default",
        "aten.bmm.default",
        "aten.cat.default",
        "aten.conv1d.default",
        "aten.conv2d.default",
        "aten.conv3d.default",
        "aten.div.Tensor",
        "aten.elu.default",
        "aten.embedding.default",
        "aten.gelu.default",
        "aten.hardsigmoid.default",
        "aten.hardswish.default",
        "aten.hardtanh.default",
        "aten.layer_norm.default",
        "aten.leaky_relu.default",
        "aten.linear.default",
        "aten.matmul.default",
        "aten.max_pool2d.default",
        "aten.mean.dim",
        "aten.mul.Tensor",
        "aten.relu.default",
        "aten.relu6.default",
        "aten.scaled_dot_product_attention.default",
        "aten.sigmoid.default",
        "aten.silu.default",
        "aten.softmax.int",
        "aten.sub.Tensor",
        "aten.tanh.default",
        "quantized_decomposed.dequantize_per_channel.default",
        "quantized_decomposed.dequantize_per_tensor.default",
        "quantized_decomposed.quantize_per_channel.default",
        "quantized_decomposed.quantize_per_tensor.default",
    }
)
# Operators whose result may share memory with their operand.
_VIEWS = frozenset(
    {
        "aten.dropout.default",
        "aten.flatten.using_ints",
        "aten.pad.default",
        "aten.permute.default",
        "aten.reshape.default",
        "aten.transpose.int",
        "aten.unsqueeze.default",
        "aten.view.default",
    }
)
_SIZES = frozenset({"aten.sym_size.int"})
# Operators that write into their first operand, with those that do not.
_WRITING = {
    "aten.add_.Tensor": torch.ops.aten.add.Tensor,
    "aten.elu_.default": torch.ops.aten.elu.default,
    "aten.hardsigmoid_.default": torch.ops.aten.hardsigmoid.default,
    "aten.hardswish_.default": torch.ops.aten.hardswish.default,
    "aten.hardtanh_.default": torch.ops.aten.hardtanh.default,
    "aten.leaky_relu_.default": torch.ops.aten.leaky_relu.default,
    "aten.mul_.Tensor": torch.ops.aten.mul.Tensor,
    "aten.relu6_.default": torch.ops.aten.relu6.default,
    "aten.relu_.default": torch.ops.aten.relu.default,
    "aten.sigmoid_.default": torch.ops.aten.sigmoid.default,
    "aten.silu_.default": torch.ops.aten.silu.default,
    "aten.tanh_.default": torch.ops.aten.tanh.default,
}


class ReadyProgram(torch.export.ExportedProgram):
    """A program that needs no decompositions."""

    def run_decompositions(self, *_: Any, **__: Any) -> ReadyProgram:
        """Return the program itself."""
        return self


def ready(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return `program` in a form that is not traced again, or as it is where it must be.

    Args:
        program: From torch.export.export; its graph is changed in place.
    """
    if not all(_is_ready(node) for node in program.graph.nodes):
        return program
    for node in [*program.graph.nodes]:
        if str(node.target) in _WRITING:
            _write_anew(node)
    program.graph_module.recompile()
    return ReadyProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
    )


def _is_ready(node: torch.fx.Node) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function":
        return False
    name = str(node.target)
    if name in _WRITING:
        return _is_private(node)
    if name == "aten.dropout.default":
        return node.args[2] is False
    if name == "aten.batch_norm.default":
        return node.args[5] is False
    return name in _FRESH or name in _VIEWS or name in _SIZES


def _is_private(node: torch.fx.Node) -> bool:
    """Return whether nobody but what follows can see that `node` writes into its operand."""
    written = node.args[0]
    if not isinstance(written, torch.fx.Node) or written.op != "call_function":
        return False
    if str(written.target) not in _FRESH and str(written.target) not in _WRITING:
        return False
    # A reader before the write may have kept a view of it.
    for reader in written.users:
        name = str(reader.target)
        if reader is not node and reader < node and name not in _FRESH and name not in _SIZES:
            return False
    kept, promoted = written.meta.get("val"), node.meta.get("val")
    return (
        isinstance(kept, torch.Tensor)
        and isinstance(promoted, torch.Tensor)
        and kept.dtype == promoted.dtype
    )


def _write_anew(node: torch.fx.Node) -> None:
    """Let `node` make a new value, and what reads the old one after it read that."""
    written = node.args[0]
    assert isinstance(written, torch.fx.Node)
    node.target = _WRITING[str(node.target)]
    later = [reader for reader in written.users if reader is not node and node < reader]
    for reader in later:
        reader.replace_input_with(written, node)
