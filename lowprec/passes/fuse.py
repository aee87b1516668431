"""Everything that only the engine needs: several operators become one step.

The order matters, and each pass states what it expects of the earlier ones:

    1 unsign_codes             s8 activations                        -> u8
    2 fuse_dynamic_layers      MatMulInteger, Cast, Mul ..           -> QMatMul ..
    3 join_attention           MatMul, scale, mask, Softmax, MatMul  -> Attention
      merge_silu               x * Sigmoid(x)                        -> SiLU, a unary operator
    4 fuse_unary_chains        unary operators in a row              -> one UnaryChain
    5 move_to_codes            Dequantize -> Reshape .. -> Quantize  -> the operator on codes
      quantize_before_moving   Concat / Resize .. -> Quantize        -> Quantize first
    6 recover_channel_shuffle  Reshape -> Transpose -> Reshape       -> ChannelShuffle
    7 fuse_integer_layers      Dequantize'd Conv / MatMul ..         -> QConv / QMatMul ..
      fuse_integer_recurrent   Dequantize'd LSTM / GRU / RNN         -> QLSTM / QGRU / QRNN
    8 fuse_bf16_layers         Cast'ed Conv / MatMul ..              -> bf16 products
      widen_weights            other Dequantize'd or Cast'ed weights -> f32 constants
    9 fuse_slopes              PRelu, a slope for each channel       -> into the Conv before it
      fuse_epilogues           bias, chain, factors, Quantize, Cast  -> into the product before them
      fuse_residuals           product + another tensor, chain, Quantize -> the same
   10 fuse_integer_elementwise Dequantize'd Add / Concat ..          -> QAdd / QConcat ..; tables
   11 fuse_bf16_storage        Cast'ed Add / Softmax / pools ..      -> BAdd / BSoftmax ..
      fuse_attention           Attention -> Transpose -> Quantize    -> Attention
   12 fuse_tables              functions of one code                 -> into the layer before them
   13 fuse_elementwise         element-wise operators in a row       -> one Elementwise

A fused step gives the bits of its operators run one by one (docs/architecture.md, "Numbers").
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir
from onnx_ir.passes import common

from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.fuse_attention import fuse_attention
from lowprec.passes.fuse_bf16_layers import fuse_bf16_layers
from lowprec.passes.fuse_bf16_storage import fuse_bf16_storage
from lowprec.passes.fuse_dynamic_layers import fuse_dynamic_layers
from lowprec.passes.fuse_elementwise import fuse_elementwise
from lowprec.passes.fuse_epilogues import fuse_epilogues
from lowprec.passes.fuse_integer_elementwise import fuse_integer_elementwise
from lowprec.passes.fuse_integer_layers import fuse_integer_layers
from lowprec.passes.fuse_integer_recurrent import fuse_integer_recurrent
from lowprec.passes.fuse_residuals import fuse_residuals
from lowprec.passes.fuse_slopes import fuse_slopes
from lowprec.passes.fuse_tables import fuse_tables
from lowprec.passes.fuse_unary_chains import fuse_unary_chains
from lowprec.passes.join_attention import join_attention
from lowprec.passes.merge_silu import merge_silu
from lowprec.passes.move_to_codes import move_to_codes
from lowprec.passes.own import remove_dead_nodes
from lowprec.passes.quantize_before_moving import quantize_before_moving
from lowprec.passes.recover_channel_shuffle import recover_channel_shuffle
from lowprec.passes.unsign_codes import unsign_codes
from lowprec.passes.widen_weights import widen_weights


def fuse(model: ir.Model, *, keep: Container[str] = ()) -> None:
    """Rewrite `model` in place for the engine; the result holds operators of `ai.lowprec`.

    Args:
        model: A hub.
        keep: Names of values that must still exist afterwards (they are observed).
    """
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        # Not strict: a wrong declared shape somewhere must not leave every type unknown.
        with silent_onnx_ir():
            common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    unsign_codes(model)
    fuse_dynamic_layers(model, keep)
    join_attention(model, keep)
    merge_silu(model, keep)
    fuse_unary_chains(model, keep)
    move_to_codes(model, keep)
    quantize_before_moving(model, keep)
    recover_channel_shuffle(model, keep)
    fuse_integer_layers(model, keep)
    fuse_integer_recurrent(model, keep)
    fuse_bf16_layers(model, keep)
    widen_weights(model)
    fuse_slopes(model, keep)
    fuse_epilogues(model, keep)
    fuse_residuals(model, keep)
    fuse_integer_elementwise(model, keep)
    fuse_bf16_storage(model, keep)
    fuse_attention(model, keep)
    fuse_tables(model)
    fuse_elementwise(model, keep)
    remove_dead_nodes(model)
