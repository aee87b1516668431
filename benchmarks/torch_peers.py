"""What bench_torch.py compares with, all from the same module: torch itself, torchao, OpenVINO.

Each maker returns a run of fixed arguments and how long it took until the first result, which is
what a user waits for. A tool that fails raises `Failed` with its first line.
"""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module, util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer_models import Failed, first_line, quiet
from torch import nn
from torch_networks import Arguments, Network

Array = NDArray[np.generic]
TORCH, COMPILED, TORCHAO = "torch eager f32", "torch.compile f32", "torchao int8"
INT8, INT8_DEFAULT = "openvino int8", "openvino int8, rest bf16"
PEERS = (TORCH, COMPILED, TORCHAO, "openvino f32", "openvino bf16", INT8, INT8_DEFAULT)
MODULES = {"torchao": "torchao", "openvino": "openvino"}


@dataclass
class Runner:
    """One way to run a module.

    Attributes:
        run: Arguments -> outputs, whatever they are.
        seconds: From the module to its first result.
    """

    run: Callable[..., Any]
    seconds: float

    def answers(self, arguments: Arguments) -> list[Array]:
        """Return copies of the outputs in order."""
        return [np.array(array) for array in arrays_of(self.run(*arguments))]


def arrays_of(outputs: Any) -> list[Array]:
    """Return the outputs of a module or a session as arrays, in order."""
    if isinstance(outputs, torch.Tensor):
        outputs = [outputs]
    return [
        each.detach().float().numpy() if isinstance(each, torch.Tensor) else each
        for each in outputs
    ]


def is_installed(peer: str) -> bool:
    module = MODULES.get(peer.split()[0])
    return module is None or util.find_spec(module) is not None


def make(
    peer: str,
    network: Network,
    module: nn.Module,
    arguments: Arguments,
    calibration: Sequence[Arguments],
    threads: int,
) -> Runner:
    """Return `peer` ready to run `arguments`.

    Args:
        peer: Of PEERS.
        network: What `module` is.
        module: Stays as it is.
        arguments: Of the call that is timed: every shape is fixed to theirs.
        calibration: Arguments of one sample each.
        threads: How many it may use; torch has been told.

    Raises:
        Failed: the tool cannot do it.
    """
    start = time.perf_counter()
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if peer == TORCH:
                run = module
            elif peer == COMPILED:
                run = torch.compile(copy.deepcopy(module))
            elif peer == TORCHAO:
                run = torchao_int8(module, calibration, arguments)
            else:
                run = openvino_run(peer, network, module, arguments, calibration, threads)
            with torch.inference_mode():
                run(*arguments)
    except Exception as error:  # other tools' errors have no common base
        raise Failed(first_line(error)) from error
    return Runner(inference(run), time.perf_counter() - start)


def inference(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return `run` without autograd: what serving code does."""
    decorated: Callable[..., Any] = torch.inference_mode()(run)
    return decorated


# ---- torchao -------------------------------------------------------------------------------------
def torchao_int8(
    module: nn.Module, calibration: Sequence[Arguments], arguments: Arguments
) -> Callable[..., Any]:
    """Return torchao's pt2e quantisation for x86, compiled as its documentation says (frozen)."""
    samples = list(batches(calibration, len(arguments[0])))
    compiled: Callable[..., Any] = torch.compile(torchao_converted(module, samples, arguments))
    # As an option of torch.compile it would not reach the tracer, which has to freeze as well.
    with torch.no_grad(), import_module("torch._inductor.config").patch(freezing=True):
        compiled(*arguments)
    return compiled


def torchao_converted(
    module: nn.Module,
    calibration: Sequence[Arguments],
    arguments: Arguments,
    dynamic_shapes: Any = None,
) -> nn.Module:
    """Return what torchao's pt2e makes before it is compiled: right, but not fast."""
    with unheard():
        pt2e = import_module("torchao.quantization.pt2e")
        tool = import_module("torchao.quantization.pt2e.quantize_pt2e")
        x86 = import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes)
        prepared = tool.prepare_pt2e(program.module(), quantizer)
        for sample in calibration:
            prepared(*sample)
        converted: nn.Module = tool.convert_pt2e(prepared)
    pt2e.move_exported_model_to_eval(converted)
    return converted


def batches(samples: Sequence[Arguments], size: int) -> Iterator[Arguments]:
    """Yield samples of one in batches of `size`, the only shape that an export may take."""
    for start in range(0, len(samples) - size + 1, size):
        part = samples[start : start + size]
        yield tuple(torch.cat(tensors) for tensors in zip(*part, strict=True))


@contextmanager
def unheard() -> Iterator[None]:
    """Keep quiet what torchao's import logs about libraries for other machines."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- OpenVINO ------------------------------------------------------------------------------------
def openvino_run(
    peer: str,
    network: Network,
    module: nn.Module,
    arguments: Arguments,
    calibration: Sequence[Arguments],
    threads: int,
    fixed: bool = True,
) -> Callable[..., Any]:
    """Return OpenVINO's run of the converted module, tuned for latency and, if `fixed`, one shape.

    Names that end with bf16 leave the precision to it: bf16 on processors that have it.
    """
    openvino = import_module("openvino")
    if peer.startswith("openvino int8"):
        model = nncf_int8(network, module, arguments, calibration)
    else:
        model = openvino.convert_model(module, example_input=arguments)
    if fixed:
        shapes = zip(model.inputs, arguments, strict=True)
        model.reshape({port: list(tensor.shape) for port, tensor in shapes})
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if not peer.endswith("bf16"):
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    count = len(compiled.outputs)

    def run(*tensors: torch.Tensor) -> list[Array]:
        made = request.infer(
            [tensor.numpy() for tensor in tensors], share_inputs=True, share_outputs=True
        )
        return [made[index] for index in range(count)]

    return run


_quantized: dict[str, Any] = {}


def nncf_int8(
    network: Network,
    module: nn.Module,
    arguments: Arguments,
    calibration: Sequence[Arguments],
) -> Any:
    """Return NNCF's quantisation after training, at its default settings; made once a batch."""
    key = f"{network.name} {len(arguments[0])}"
    if key not in _quantized:
        nncf = import_module("nncf")
        nncf.set_log_level(logging.ERROR)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # its progress bars
            _quantized[key] = nncf.quantize(
                import_module("openvino").convert_model(module, example_input=arguments),
                nncf.Dataset([tuple(t.numpy() for t in sample) for sample in calibration]),
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER if network.is_transformer else None,
            )
    return _quantized[key].clone()
