"""lowprec's side of bench_torch.py: what a user writes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn
from torch_networks import Arguments
from torch_peers import Runner, inference

import lowprec


def our_runner(module: nn.Module, calibration: Sequence[Arguments], precision: str) -> Runner:
    """Return the module as lowprec makes it in `precision`: "f32" or one of quantize()'s.

    Args:
        module: Stays as it is.
        calibration: Arguments of one sample each; the batch is free, other sizes where they differ.
        precision: "f32", "bf16", "int8", "int8-dynamic" ...

    Raises:
        lowprec.LowprecError: it cannot be done.
    """
    start = time.perf_counter()
    if precision == "f32":
        made = lowprec.compile(module, example_inputs=calibration[0])
    elif precision == "bf16":
        made = lowprec.quantize(module, precision=precision, example_inputs=calibration[0])
    else:
        made = lowprec.quantize(module, list(calibration), precision=precision)
    with torch.inference_mode():
        made(*calibration[0])
    return Runner(inference(made), time.perf_counter() - start)
