"""PRelu with a slope for each channel joins the convolution before it.

    Conv ──► PRelu(slopes) ──► Quantize ──► yq     becomes     Conv ──► Quantize ──► yq

It becomes the chain of the convolution (channel_values.py), and fuse_epilogues goes on from there.
One slope for all channels is a unary operator (unary_operators.py).
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.channel_values import extend_chain, is_image_product, per_output_channel
from lowprec.passes.fuse_epilogues import take_over
from lowprec.passes.matching import is_operator, sole_consumer
from lowprec.passes.own import makes_floats
from lowprec.passes.unary_operators import PRELU_CHANNEL


def fuse_slopes(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if node.graph is None or not is_image_product(node):
            continue
        if "chain_codes" in node.attributes or not makes_floats(node):
            continue
        made = node.outputs[0]
        reader = None if made.name in keep else sole_consumer(made)
        if reader is None or reader.graph is not node.graph or not is_operator(reader, "PRelu"):
            continue
        slopes = per_output_channel(node, reader.inputs[1])
        if slopes is None or reader.inputs[0] is not made:
            continue
        extend_chain(node, PRELU_CHANNEL, slopes)
        take_over(node, reader)
        changed = True
    return changed
