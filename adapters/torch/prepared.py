"""Modules that someone else calibrated: their observers and fake-quant modules become Q/DQ pairs.

    conv ─► observer ─► relu        is traced as        conv ─► quantize ─► dequantize ─► relu

Taken are torch.ao.quantization's prepare, prepare_fx and prepare_qat, torchao's prepare_pt2e and
prepare_qat_pt2e, and any module that works like their FakeQuantize: it has `calculate_qparams`, or
`scale`, `zero_point`, `quant_min` and `quant_max`. What is traced is a copy that shares the
weights; the module stays as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from lowprec.errors import ModelError

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_CONVERTED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.ao.nn.sparse.quantized.",
)
_PT2E = "torchao.quantization.pt2e"


@dataclass(frozen=True)
class Traceable:
    """What is traced in a module's place.

    Attributes:
        module: The module itself, or a copy of it with fixed ranges in place of observers.
        notes: Where the ranges came from; empty where there were none.
    """

    module: nn.Module
    notes: tuple[str, ...] = ()


class FixedRange(nn.Module):
    """Rounds to the codes that an observer chose, and back to reals."""

    def __init__(
        self, scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None, low: int, high: int
    ) -> None:
        """Take qparams.

        Args:
            scale: f32, one, or one for each channel.
            zero_point: Integers within [low, high], as many.
            axis: Of the channels; None is per tensor.
            low: Smallest code.
            high: Largest code.
        """
        super().__init__()
        # The operators of PT2E, which forward uses, are defined by this import.
        import torch.ao.quantization.fx._decomposed  # noqa: F401

        self.axis, self.low, self.high = axis, low, high
        self.codes = _type_of_codes(low, high)
        scale = scale.detach().reshape(-1).float()
        zero_point = zero_point.detach().reshape(-1).int()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.step, self.zero = float(scale[0]), int(zero_point[0])  # constants of a trace

    def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
        """Return `x` rounded to codes."""
        ops = torch.ops.quantized_decomposed
        limits = self.low, self.high, self.codes
        if self.axis is None:
            real = self.step, self.zero
            codes = ops.quantize_per_tensor.default(x, *real, *limits)
            rounded = ops.dequantize_per_tensor.default(codes, *real, *limits)
        else:
            scales, zeros = self.get_buffer("scale"), self.get_buffer("zero_point")
            axis = self.axis % x.ndim
            codes = ops.quantize_per_channel.default(x, scales, zeros, axis, *limits)
            rounded = ops.dequantize_per_channel.default(codes, scales, zeros, axis, *limits)
        found: torch.Tensor = rounded
        return found


def _type_of_codes(low: int, high: int) -> torch.dtype:
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return dtype
    raise ModelError(
        f"an observer's codes go from {low} to {high}; at most 16 bits are possible: prepare the "
        "module with 8 bits"
    )


def with_fixed_ranges(module: nn.Module) -> Traceable:
    """Return what to trace for `module`, with the ranges that its observers found.

    Raises:
        ModelError: an observer has seen no data, or the module is converted to torch's own
            quantised kernels already.
    """
    _refuse_converted(module)
    observers = [(path, part) for path, part in module.named_modules() if _is_observer(part)]
    if not observers:
        return Traceable(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.ao.quantization is deprecated
        for path, part in observers:
            _refuse_unseen(path, part)
        if any(type(part).__module__.startswith(_PT2E) for _, part in observers):
            return Traceable(_convert_pt2e(module), _notes(len(observers), "torchao's PT2E"))
        copied = _sharing_copy(module)
        count = _fix(copied)
    return Traceable(copied, _notes(count, "its observers and fake-quant modules"))


def _notes(count: int, whose: str) -> tuple[str, ...]:
    return (
        f"the ranges came with the module, from {whose}: {count} tensors keep their scales and "
        "zero points; nothing was calibrated",
    )


# ---- Finding ----


def _is_observer(part: nn.Module) -> bool:
    if isinstance(part, FixedRange):
        return False
    if callable(getattr(part, "calculate_qparams", None)):
        return True
    names = ("scale", "zero_point", "quant_min", "quant_max")
    return all(hasattr(part, name) for name in names) and not [*part.children()]


def _outermost(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield (parent, name, observer); what is inside an observer is its own business."""
    for name, child in [*module._modules.items()]:  # with all names of one that has several
        if child is None:
            continue
        if _is_observer(child):
            yield module, name, child
        else:
            yield from _outermost(child)


def _refuse_converted(module: nn.Module) -> None:
    for path, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if kind.startswith(_CONVERTED) and ".reference." not in kind:
            if type(part).__qualname__ in ("FloatFunctional", "FXFloatFunctional"):
                continue  # lives there, but is a float module with an observer
            raise ModelError(
                f"'{path}' is a {type(part).__qualname__} of torch.ao, whose weights are packed "
                "for torch's own kernels; give the prepared module from before convert(): its "
                "observers are used, or the float module with calibration data"
            )
    for name, parameter in module.named_parameters():
        wrapper: Any = torch.utils._python_dispatch.is_traceable_wrapper_subclass
        if wrapper(parameter):
            raise ModelError(
                f"parameter '{name}' is a {type(parameter).__name__} and no plain tensor: torchao "
                "quantised it already; give the module from before quantize_()"
            )


def _refuse_unseen(path: str, part: nn.Module) -> None:
    inner = getattr(part, "activation_post_process", part)
    seen = getattr(inner, "min_val", None)
    if isinstance(seen, torch.Tensor) and (not seen.numel() or not torch.isfinite(seen).all()):
        raise ModelError(
            f"the observer '{path}' has seen no data (or values that are not finite), so that it "
            "has no range; run the prepared module on typical data first"
        )


# ---- Replacing ----


def _convert_pt2e(module: nn.Module) -> nn.Module:
    assert isinstance(module, torch.fx.GraphModule)
    torchao: Any = import_module("torchao.quantization.pt2e.quantize_pt2e")
    converted: nn.Module = torchao.convert_pt2e(copy.deepcopy(module))
    return converted


def _sharing_copy(module: nn.Module) -> nn.Module:
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def _fix(module: nn.Module) -> int:
    """Replace the observers of `module` in place; return how many ranges there are."""
    count = 0
    for part in [*module.modules()]:
        if isinstance(part, _LAYERS) and not hasattr(part, "weight_fake_quant"):
            count += _fix_weight(part)
    fixed: dict[int, nn.Module] = {}
    for parent, name, observer in [*_outermost(module)]:
        found = fixed.get(id(observer))
        if found is None:
            found = fixed[id(observer)] = _fixed_range(observer) or nn.Identity()
            count += isinstance(found, FixedRange)
        setattr(parent, name, found)
    for part in [*module.modules()]:
        if hasattr(part, "weight_fake_quant") and hasattr(part, "bn"):
            _fold_batch_norm(part)
    return count


def _fix_weight(layer: nn.Module) -> int:
    """Observe the weight of a layer that torch.ao would quantise in convert()."""
    qconfig = getattr(layer, "qconfig", None)
    make = getattr(qconfig, "weight", None)
    if make is None:
        return 0
    observer = make()
    observer(layer.weight)
    found = _fixed_range(observer)
    if found is None:
        return 0
    nn.utils.parametrize.register_parametrization(layer, "weight", found, unsafe=True)
    return 1


def _fixed_range(observer: nn.Module) -> FixedRange | None:
    """Return the observer's choice; None where it quantises nothing that is known beforehand."""
    if getattr(observer, "is_dynamic", False):
        return None
    try:
        scale, zero_point = observer.calculate_qparams()  # type: ignore[operator]
    except Exception:  # one that only records, or is for float16
        scale, zero_point = getattr(observer, "scale", None), getattr(observer, "zero_point", None)
        if scale is None or zero_point is None:
            return None
    low, high = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
    if low is None or high is None:
        return None
    scale, zero_point = torch.as_tensor(scale), torch.as_tensor(zero_point)
    axis = None
    if scale.numel() > 1 or "per_channel" in str(getattr(observer, "qscheme", "")):
        inner = getattr(observer, "activation_post_process", observer)
        axis = int(getattr(observer, "ch_axis", getattr(inner, "ch_axis", 0)))
    low, high = int(low), int(high)
    return FixedRange(scale, zero_point.round().clamp(low, high), axis, low, high)


def _fold_batch_norm(layer: Any) -> None:
    """Let a fused layer of prepare_qat compute what its convert() computes: one product."""
    norm = layer.bn
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shape = [-1] + [1] * (layer.weight.ndim - 1)
    bias = torch.zeros_like(factor) if layer.bias is None else layer.bias
    weight = (layer.weight * factor.reshape(shape)).detach()
    folded = ((bias - norm.running_mean) * factor + norm.bias).detach()
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(folded)
    del layer.bn
    rectifies = "ReLU" in type(layer).__name__

    def forward(x: torch.Tensor) -> torch.Tensor:
        rounded = layer.weight_fake_quant(layer.weight)
        if isinstance(layer, nn.Linear):
            y = nn.functional.linear(x, rounded, layer.bias)
        else:
            y = layer._conv_forward(x, rounded, layer.bias)
        return nn.functional.relu(y) if rectifies else y

    layer.forward = forward
