"""Every layer of torch.nn that computes something at inference, with weights and inputs that fit.

`LAYERS` is compared with torch.nn itself by tests/adapters/torch/test_layers.py: a new layer shows
up as a gap. An input is a function from the batch size to the layer's arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Inputs = Callable[[int], tuple[Any, ...]]
Case = tuple[Callable[[], nn.Module], Inputs]
Named = Mapping[str, nn.Module]


def made_of(*shape: int) -> Inputs:
    """Return inputs of one random tensor whose axis 0 is the batch."""
    return lambda batch: (torch.randn(batch, *shape, generator=_generator(batch)),)


def pairs_of(*shape: int) -> Inputs:
    """Return inputs of two random tensors of the same shape."""
    return lambda batch: tuple(
        torch.randn(batch, *shape, generator=_generator(batch + seed)) for seed in (0, 100)
    )


def indices_of(below: int, *shape: int) -> Inputs:
    """Return inputs of one tensor of indices."""
    return lambda batch: (torch.randint(below, (batch, *shape), generator=_generator(batch)),)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a layer with seeded weights, in evaluation, its statistics and gains not trivial."""
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for name, tensor in [*module.named_buffers(), *module.named_parameters()]:
            if name.endswith("running_mean"):
                tensor.uniform_(-0.5, 0.5)
            elif name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif name in ("weight", "bias") and tensor.ndim == 1:
                tensor.uniform_(0.2, 1.2)
    return module


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors_in(result: Any) -> list[torch.Tensor]:
    """Return the tensors of a nested result."""
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts if part is not None for tensor in tensors_in(part)]


class Together(nn.Module):
    """Many layers on the same arguments: one export for all."""

    def __init__(self, layers: Named) -> None:
        super().__init__()
        self.names = [*layers]
        self.layers = nn.ModuleList(layers.values())

    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> dict[str, Any]:
        given = (a,) if b is None else (a, b)
        results = [layer(*given) for layer in self.layers]
        return dict(zip(self.names, map(tensors_in, results), strict=True))


class Between(nn.Module):
    """A layer between two that run in int8."""

    def __init__(self, first: nn.Module, layers: Named, example: torch.Tensor) -> None:
        super().__init__()
        self.first = first
        self.names = [*layers]
        self.layers = nn.ModuleList(layers.values())
        seen = first(example)
        sizes = [tensors_in(layer(seen))[0].shape[-1] for layer in self.layers]
        self.last = nn.ModuleList(nn.Linear(size, 8) for size in sizes)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.first(x)
        results = [tensors_in(layer(x))[0] for layer in self.layers]
        ends = [last(y) for last, y in zip(self.last, results, strict=True)]
        return dict(zip(self.names, ends, strict=True))


class Unpooled(nn.Module):
    """A max pool and the layer that undoes it."""

    def __init__(self, pool: nn.Module, unpool: nn.Module) -> None:
        super().__init__()
        self.pool, self.unpool = pool, unpool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unpool(*self.pool(x))


class WithWeights(nn.Module):
    """Attention of a sequence with itself; both of its results."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> Any:
        return self.attention(x, x, x)


class Bags(nn.Module):
    """Bags of a fixed number of indices."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 6, mode=mode)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.bag(indices)


SEQUENCE = made_of(8, 12)
IMAGE = made_of(8, 10, 12)
VOLUME = made_of(4, 6, 6, 8)
ROWS = made_of(16)
WORDS = made_of(7, 16)  # batch, time, features
TWO_ROWS = pairs_of(16)
TWO_TEXTS = pairs_of(7, 16)
INDICES = indices_of(20, 7)

LAYERS: dict[str, Case] = {
    # Convolutions
    "Conv1d": (lambda: nn.Conv1d(8, 6, 3, padding=1, stride=2), SEQUENCE),
    "Conv2d": (lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2, dilation=2), IMAGE),
    "Conv2d-same": (lambda: nn.Conv2d(8, 6, (2, 3), padding="same"), IMAGE),
    "Conv2d-reflect": (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "Conv2d-circular": (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(4, 6, 3, padding=1), VOLUME),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 6, 3, 2, 1, 1), SEQUENCE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2), IMAGE),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 2, 2), VOLUME),
    "Fold": (lambda: nn.Fold((6, 7), 2, stride=1), made_of(12, 30)),
    "Unfold": (lambda: nn.Unfold(3, padding=1, stride=2), IMAGE),
    # Products
    "Linear": (lambda: nn.Linear(16, 5), ROWS),
    "Linear-3d": (lambda: nn.Linear(16, 5, bias=False), WORDS),
    "Bilinear": (lambda: nn.Bilinear(16, 16, 5), TWO_ROWS),
    "Embedding": (lambda: nn.Embedding(20, 6, padding_idx=0), INDICES),
    "EmbeddingBag": (lambda: Bags("mean"), INDICES),
    "EmbeddingBag-sum": (lambda: Bags("sum"), INDICES),
    "EmbeddingBag-max": (lambda: Bags("max"), INDICES),
    # Pools
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2, 1), SEQUENCE),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGE),
    "AvgPool2d-divisor": (lambda: nn.AvgPool2d(3, 2, divisor_override=5), IMAGE),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), VOLUME),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2, 1), SEQUENCE),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    "MaxPool2d-dilated": (lambda: nn.MaxPool2d(3, 1, dilation=2), IMAGE),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), VOLUME),
    "LPPool1d": (lambda: nn.LPPool1d(2, 3, 2), SEQUENCE),
    "LPPool2d": (lambda: nn.LPPool2d(2, 3, 2), IMAGE),
    "LPPool3d": (lambda: nn.LPPool3d(2, 2, 2), VOLUME),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(4), SEQUENCE),
    "AdaptiveAvgPool1d-uneven": (lambda: nn.AdaptiveAvgPool1d(5), SEQUENCE),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((1, 1)), IMAGE),
    "AdaptiveAvgPool2d-5x3": (lambda: nn.AdaptiveAvgPool2d((5, 3)), IMAGE),
    "AdaptiveAvgPool2d-uneven": (lambda: nn.AdaptiveAvgPool2d((7, 5)), IMAGE),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d((3, 2, 4)), VOLUME),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(4), SEQUENCE),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d((5, 3)), IMAGE),
    "AdaptiveMaxPool2d-one": (lambda: nn.AdaptiveMaxPool2d(1), IMAGE),
    "AdaptiveMaxPool3d": (lambda: nn.AdaptiveMaxPool3d((3, 2, 4)), VOLUME),
    "MaxUnpool1d": (
        lambda: Unpooled(nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)),
        SEQUENCE,
    ),
    "MaxUnpool2d": (
        lambda: Unpooled(nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)),
        IMAGE,
    ),
    "MaxUnpool3d": (
        lambda: Unpooled(nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2)),
        VOLUME,
    ),
    # Norms
    "BatchNorm1d": (lambda: nn.BatchNorm1d(16), ROWS),
    "BatchNorm1d-3d": (lambda: nn.BatchNorm1d(8), SEQUENCE),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(8), IMAGE),
    "BatchNorm2d-plain": (lambda: nn.BatchNorm2d(8, affine=False, eps=0.1), IMAGE),
    "BatchNorm2d-of-batch": (lambda: nn.BatchNorm2d(8, track_running_stats=False), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(4), VOLUME),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(8), IMAGE),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(8), SEQUENCE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(8, affine=True), IMAGE),
    "InstanceNorm2d-tracked": (lambda: nn.InstanceNorm2d(8, track_running_stats=True), IMAGE),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(4), VOLUME),
    "GroupNorm": (lambda: nn.GroupNorm(4, 8), IMAGE),
    "GroupNorm-plain": (lambda: nn.GroupNorm(2, 8, affine=False), SEQUENCE),
    "LayerNorm": (lambda: nn.LayerNorm(16), WORDS),
    "LayerNorm-2d": (lambda: nn.LayerNorm((7, 16), bias=False), WORDS),
    "RMSNorm": (lambda: nn.RMSNorm(16), WORDS),
    "RMSNorm-plain": (lambda: nn.RMSNorm(16, elementwise_affine=False, eps=1e-3), WORDS),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    # Activations
    "CELU": (lambda: nn.CELU(1.3), ROWS),
    "ELU": (lambda: nn.ELU(1.3), ROWS),
    "GELU": (nn.GELU, ROWS),
    "GELU-tanh": (lambda: nn.GELU("tanh"), ROWS),
    "GLU": (lambda: nn.GLU(1), ROWS),
    "Hardshrink": (nn.Hardshrink, ROWS),
    "Hardsigmoid": (nn.Hardsigmoid, ROWS),
    "Hardswish": (nn.Hardswish, ROWS),
    "Hardtanh": (lambda: nn.Hardtanh(-0.5, 0.7), ROWS),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), ROWS),
    "LogSigmoid": (nn.LogSigmoid, ROWS),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), IMAGE),
    "Mish": (nn.Mish, ROWS),
    "PReLU": (lambda: nn.PReLU(8), IMAGE),
    "RReLU": (nn.RReLU, ROWS),
    "ReLU": (nn.ReLU, ROWS),
    "ReLU-inplace": (lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU(inplace=True)), ROWS),
    "ReLU6": (nn.ReLU6, ROWS),
    "SELU": (nn.SELU, ROWS),
    "SiLU": (nn.SiLU, ROWS),
    "Sigmoid": (nn.Sigmoid, ROWS),
    "Softmax": (lambda: nn.Softmax(-1), IMAGE),
    "Softmax2d": (nn.Softmax2d, IMAGE),
    "Softmin": (lambda: nn.Softmin(1), ROWS),
    "Softplus": (lambda: nn.Softplus(2.0, 3.0), ROWS),
    "Softshrink": (nn.Softshrink, ROWS),
    "Softsign": (nn.Softsign, ROWS),
    "Tanh": (nn.Tanh, ROWS),
    "Tanhshrink": (nn.Tanhshrink, ROWS),
    "Threshold": (lambda: nn.Threshold(0.1, 0.4), ROWS),
    # Dropouts: nothing at inference
    "AlphaDropout": (nn.AlphaDropout, ROWS),
    "Dropout": (nn.Dropout, ROWS),
    "Dropout1d": (nn.Dropout1d, SEQUENCE),
    "Dropout2d": (nn.Dropout2d, IMAGE),
    "Dropout3d": (nn.Dropout3d, VOLUME),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, IMAGE),
    "Identity": (nn.Identity, ROWS),
    # Moving
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "Flatten": (nn.Flatten, IMAGE),
    "Unflatten": (lambda: nn.Unflatten(1, (4, 4)), ROWS),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), IMAGE),
    "CircularPad1d": (lambda: nn.CircularPad1d((1, 2)), SEQUENCE),
    "CircularPad2d": (lambda: nn.CircularPad2d((1, 2, 0, 3)), IMAGE),
    "CircularPad3d": (lambda: nn.CircularPad3d(1), VOLUME),
    "ConstantPad1d": (lambda: nn.ConstantPad1d((1, 2), 0.5), SEQUENCE),
    "ConstantPad2d": (lambda: nn.ConstantPad2d((1, -2, 0, 3), 0.5), IMAGE),
    "ConstantPad3d": (lambda: nn.ConstantPad3d(1, -1.0), VOLUME),
    "ReflectionPad1d": (lambda: nn.ReflectionPad1d((1, 2)), SEQUENCE),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d((1, 2, 0, 3)), IMAGE),
    "ReflectionPad3d": (lambda: nn.ReflectionPad3d(1), VOLUME),
    "ReplicationPad1d": (lambda: nn.ReplicationPad1d((1, 2)), SEQUENCE),
    "ReplicationPad2d": (lambda: nn.ReplicationPad2d((1, 2, 0, 3)), IMAGE),
    "ReplicationPad3d": (lambda: nn.ReplicationPad3d(1), VOLUME),
    "ZeroPad1d": (lambda: nn.ZeroPad1d(2), SEQUENCE),
    "ZeroPad2d": (lambda: nn.ZeroPad2d((1, 2, 3, 4)), IMAGE),
    "ZeroPad3d": (lambda: nn.ZeroPad3d(1), VOLUME),
    "Upsample": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "Upsample-bilinear": (lambda: nn.Upsample((15, 20), mode="bilinear"), IMAGE),
    "Upsample-bicubic": (lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"), IMAGE),
    "Upsample-linear": (
        lambda: nn.Upsample(scale_factor=2.5, mode="linear", align_corners=True),
        SEQUENCE,
    ),
    "Upsample-trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), VOLUME),
    "Upsample-exact": (lambda: nn.Upsample((15, 20), mode="nearest-exact"), IMAGE),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    # Distances
    "CosineSimilarity": (nn.CosineSimilarity, TWO_ROWS),
    "PairwiseDistance": (nn.PairwiseDistance, TWO_ROWS),
    # Recurrent
    "RNN": (lambda: nn.RNN(16, 5, batch_first=True), WORDS),
    "RNN-relu": (
        lambda: nn.RNN(16, 5, 2, nonlinearity="relu", bidirectional=True, batch_first=True),
        WORDS,
    ),
    "GRU": (lambda: nn.GRU(16, 5, 2, batch_first=True, bidirectional=True), WORDS),
    "LSTM": (lambda: nn.LSTM(16, 5, 2, batch_first=True, bidirectional=True), WORDS),
    "LSTM-no-bias": (lambda: nn.LSTM(16, 5, bias=False, batch_first=True), WORDS),
    "RNNCell": (lambda: nn.RNNCell(16, 5), ROWS),
    "GRUCell": (lambda: nn.GRUCell(16, 5), ROWS),
    "LSTMCell": (lambda: nn.LSTMCell(16, 5), ROWS),
    # Transformers
    "MultiheadAttention": (
        lambda: WithWeights(nn.MultiheadAttention(16, 4, batch_first=True)),
        WORDS,
    ),
    "MultiheadAttention-biases": (
        lambda: WithWeights(
            nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True, add_zero_attn=True)
        ),
        WORDS,
    ),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        WORDS,
    ),
    "TransformerEncoderLayer-first": (
        lambda: nn.TransformerEncoderLayer(
            16, 4, 32, batch_first=True, norm_first=True, activation="gelu"
        ),
        WORDS,
    ),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, nn.LayerNorm(16)
        ),
        WORDS,
    ),
    "TransformerDecoderLayer": (
        lambda: nn.TransformerDecoderLayer(16, 4, 32, batch_first=True),
        TWO_TEXTS,
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(
            nn.TransformerDecoderLayer(16, 4, 32, batch_first=True), 2, nn.LayerNorm(16)
        ),
        TWO_TEXTS,
    ),
    "Transformer": (lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True), TWO_TEXTS),
}

# Layers that are refused, each with a word of the reason.
REFUSED: dict[str, tuple[Case, str]] = {
    "CrossMapLRN2d": ((lambda: nn.CrossMapLRN2d(3), IMAGE), "batch"),
    "LSTM-projected": ((lambda: nn.LSTM(16, 5, proj_size=3, batch_first=True), WORDS), "proj_size"),
}

# Layers of torch.nn that are not in LAYERS, with why.
LEFT_OUT = {
    "Container": "holds others",
    "DataParallel": "for several GPUs",
    "FractionalMaxPool2d": "random also at inference",
    "FractionalMaxPool3d": "random also at inference",
    "Module": "holds others",
    "ModuleDict": "holds others",
    "ModuleList": "holds others",
    "ParameterDict": "holds others",
    "ParameterList": "holds others",
    "RNNBase": "the base of others",
    "RNNCellBase": "the base of others",
    "Sequential": "holds others",
}
