"""Functions and tensor methods that real networks call, each with inputs that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch_layers import Inputs, indices_of, made_of, pairs_of

Case = tuple[Callable[..., Any], Inputs]

ROWS = made_of(16)
WORDS = made_of(7, 16)
IMAGE = made_of(8, 10, 12)
SQUARES = made_of(6, 6)


def _positive(*shape: int) -> Inputs:
    return lambda batch: tuple(x.abs() + 0.1 for x in made_of(*shape)(batch))


def _with_indices(shape: tuple[int, ...], below: int, index_shape: tuple[int, ...]) -> Inputs:
    return lambda batch: (*made_of(*shape)(batch), *indices_of(below, *index_shape)(batch))


def _masked(kind: torch.dtype, *shape: int) -> Inputs:
    def inputs(batch: int) -> tuple[Any, ...]:
        mask = made_of(*shape)(batch)[0] > -0.7
        mask[..., 0] = True
        if kind != torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
        return (*_attention(batch), mask)

    return inputs


def _attention(batch: int) -> tuple[Any, ...]:
    sizes = ((4, 5, 8), (4, 7, 8), (4, 7, 8))
    return tuple(
        torch.randn(batch, *size, generator=torch.Generator().manual_seed(seed))
        for seed, size in enumerate(sizes)
    )


def _grouped(batch: int) -> tuple[Any, ...]:
    queries, keys, values = _attention(batch)
    return queries, keys[:, :2], values[:, :2]


def _same_lengths(batch: int) -> tuple[Any, ...]:
    queries, keys, values = _attention(batch)
    return queries, keys[:, :, :5], values[:, :, :5]


def _grid(batch: int) -> tuple[Any, ...]:
    grid = torch.rand(batch, 5, 6, 2, generator=torch.Generator().manual_seed(batch)) * 2.4 - 1.2
    return (*IMAGE(batch), grid)


def _causal(x: torch.Tensor) -> torch.Tensor:
    length = x.shape[1]
    allowed = torch.tril(torch.ones(length, length, dtype=torch.bool, device=x.device))
    scores = (x @ x.transpose(1, 2)).masked_fill(~allowed, float("-inf"))
    return torch.softmax(scores, -1) @ x


def _assigned(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 2:4] = 0.5
    y[:, 0] += 1
    return y


def _positions(x: torch.Tensor) -> torch.Tensor:
    places = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
    rates = torch.exp(torch.arange(0, x.shape[2], 2, dtype=x.dtype) * (-1.0 / x.shape[2]))
    angles = places[:, None] * rates
    return x + torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def _rotary(x: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.linspace(0.1, 1, 8)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    one, two = x.chunk(2, -1)
    return x * cos + torch.cat((-two, one), -1) * sin


FUNCTIONS: dict[str, Case] = {
    # Products
    "einsum-bmm": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), pairs_of(5, 6)),
    "einsum-outer": (lambda a, b: torch.einsum("bi,bj->bij", a, b), pairs_of(6)),
    "einsum-heads": (
        lambda a, b: torch.einsum("bqhd,bkhd->bhqk", a, b),
        pairs_of(5, 4, 6),
    ),
    "einsum-ellipsis": (lambda a, b: torch.einsum("...i,...i->...", a, b), pairs_of(5, 6)),
    "bmm": (lambda a: torch.bmm(a, a.transpose(1, 2)), SQUARES),
    "baddbmm": (lambda a: torch.baddbmm(a, a, a, beta=0.5, alpha=2), SQUARES),
    "matmul-vector": (lambda a: a @ torch.arange(16.0), WORDS),
    "tensordot": (
        lambda a, b: torch.tensordot(a, b[0], dims=([2], [1])),
        pairs_of(5, 6),
    ),
    "outer-product": (lambda a: a[:, :, None] * a[:, None, :], ROWS),
    "conv2d": (lambda x: F.conv2d(x, torch.full((4, 8, 3, 3), 0.1), padding="valid"), IMAGE),
    "addcmul": (lambda a, b: torch.addcmul(a, a, b, value=0.5), pairs_of(6)),
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), pairs_of(6)),
    # Resizing and sampling
    "interpolate-nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "interpolate-nearest-down": (lambda x: F.interpolate(x, (4, 5)), IMAGE),
    "interpolate-bilinear": (
        lambda x: F.interpolate(x, (15, 7), mode="bilinear", align_corners=False),
        IMAGE,
    ),
    "interpolate-corners": (
        lambda x: F.interpolate(x, (15, 7), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "interpolate-antialias": (
        lambda x: F.interpolate(x, (4, 5), mode="bilinear", antialias=True),
        IMAGE,
    ),
    "interpolate-bicubic": (lambda x: F.interpolate(x, (15, 20), mode="bicubic"), IMAGE),
    "interpolate-area": (lambda x: F.interpolate(x, (5, 6), mode="area"), IMAGE),
    "interpolate-like": (
        lambda x: F.interpolate(F.max_pool2d(x, 2), x.shape[2:], mode="bilinear"),
        IMAGE,
    ),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), _grid),
    "grid_sample-nearest": (
        lambda x, g: F.grid_sample(
            x, g, mode="nearest", padding_mode="border", align_corners=False
        ),
        _grid,
    ),
    "grid_sample-reflection": (
        lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=True),
        _grid,
    ),
    "affine_grid": (
        lambda t: F.affine_grid(t, (t.shape[0], 3, 5, 6), align_corners=False),
        made_of(2, 3),
    ),
    "pad-constant": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), IMAGE),
    "pad-crop": (lambda x: F.pad(x, (-1, 2, 1, -1)), IMAGE),
    "pad-reflect": (lambda x: F.pad(x, (1, 2, 0, 3), mode="reflect"), IMAGE),
    "pad-replicate": (lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate"), IMAGE),
    "pad-circular": (lambda x: F.pad(x, (1, 2, 0, 3), mode="circular"), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IMAGE),
    "unfold-fold": (
        lambda x: F.fold(F.unfold(x, 2, stride=2), (10, 12), 2, stride=2),
        IMAGE,
    ),
    "tensor-unfold": (lambda x: x.unfold(1, 3, 2), WORDS),
    "channel_shuffle": (
        lambda x: x.view(x.shape[0], 2, 4, 10, 12).transpose(1, 2).reshape(x.shape),
        IMAGE,
    ),
    # Choosing
    "gather": (lambda x, i: x.gather(1, i), _with_indices((9, 4), 9, (3, 4))),
    "scatter": (
        lambda x, i: x.scatter(1, i.argsort(1), 2.0),
        _with_indices((9, 4), 9, (9, 4)),
    ),
    "scatter_add": (
        lambda x, i: torch.zeros_like(x).scatter_add(1, i, x),
        _with_indices((9, 4), 9, (9, 4)),
    ),
    "scatter_reduce": (
        lambda x, i: x.scatter_reduce(1, i, x, "amax"),
        _with_indices((9, 4), 9, (9, 4)),
    ),
    "index_select": (lambda x: x.index_select(1, torch.tensor([3, 0, 3])), WORDS),
    "index-list": (lambda x: x[:, [4, 1]], WORDS),
    "index-tensors": (
        lambda x, i: x[torch.arange(x.shape[0]), i],
        _with_indices((9, 4), 9, ()),
    ),
    "index_add": (
        lambda x: torch.zeros_like(x).index_add(1, torch.tensor([1, 1, 0, 2, 3, 4, 6]), x),
        WORDS,
    ),
    "index_put": (
        lambda x: torch.index_put(x, (torch.tensor([0]), torch.tensor([2])), x[0, 1]),
        WORDS,
    ),
    "index_fill": (lambda x: x.index_fill(1, torch.tensor([0, 2]), 7.0), WORDS),
    "masked_fill": (lambda x: x.masked_fill(x > 0.3, -1.0), WORDS),
    "where": (lambda a, b: torch.where(a > b, a, b * 2), pairs_of(6)),
    "where-scalar": (lambda a: torch.where(a > 0, a, 0.5), ROWS),
    "one_hot": (lambda i: F.one_hot(i, 12).float(), indices_of(12, 5)),
    "embedding": (
        lambda i: F.embedding(i, torch.arange(60.0).reshape(20, 3)),
        indices_of(20, 5),
    ),
    "assignment": (_assigned, WORDS),
    "topk": (lambda x: torch.topk(x, 3, dim=1), WORDS),
    "topk-smallest": (lambda x: x.topk(2, largest=False)[0], WORDS),
    "sort": (lambda x: torch.sort(x, 1, descending=True), WORDS),
    "argsort": (lambda x: x.argsort(-1), ROWS),
    "argmax": (lambda x: (x.argmax(-1), x.argmin(1, keepdim=True)), WORDS),
    "max-of-axis": (lambda x: x.max(1), WORDS),
    "searchsorted": (lambda x: torch.bucketize(x, torch.linspace(-2, 2, 9)), ROWS),
    "select": (lambda x: (x.select(1, 2), x[:, -1], x.narrow(1, 2, 3)), WORDS),
    "slice-step": (lambda x: x[:, ::2, 1::3], WORDS),
    "ellipsis": (lambda x: x[..., -3:, None], WORDS),
    "diagonal": (lambda x: torch.diagonal(x, dim1=1, dim2=2), SQUARES),
    "diag_embed": (torch.diag_embed, ROWS),
    "nonzero-count": (lambda x: (x > 0).sum(1), ROWS),
    # Shapes
    "roll": (lambda x: torch.roll(x, (2, -1), (1, 2)), WORDS),
    "flip": (lambda x: x.flip(1), WORDS),
    "rot90": (lambda x: torch.rot90(x, 1, (1, 2)), SQUARES),
    "chunk": (lambda x: [c * 2 for c in x.chunk(3, -1)], WORDS),
    "split": (lambda x: x.split([3, 5, 8], 2), WORDS),
    "split-sizes": (lambda x: torch.split(x, 4, -1), WORDS),
    "unbind": (lambda x: x.unbind(1)[2], WORDS),
    "stack": (lambda a, b: torch.stack((a, b), 1), pairs_of(6)),
    "cat": (lambda a, b: torch.cat((a, b, a), -1), pairs_of(6)),
    "repeat": (lambda x: x.repeat(1, 2, 3), WORDS),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), WORDS),
    "expand": (lambda x: x[:, None].expand(-1, 4, -1), ROWS),
    "expand_as": (lambda x: x.mean(1, keepdim=True).expand_as(x), WORDS),
    "permute": (lambda x: x.permute(0, 3, 1, 2).contiguous(), IMAGE),
    "movedim": (lambda x: x.movedim(1, -1).swapaxes(1, 2), IMAGE),
    "view-infer": (lambda x: x.view(x.size(0), -1, 4), WORDS),
    "flatten": (lambda x: x.flatten(1, 2).unflatten(1, (-1, 5)), IMAGE),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(1), WORDS),
    "meshgrid": (
        lambda x: x + torch.meshgrid(torch.arange(7.0), torch.arange(16.0), indexing="ij")[0],
        WORDS,
    ),
    "arange-of-size": (_positions, WORDS),
    "rotary": (_rotary, WORDS),
    "full_like": (lambda x: torch.full_like(x, 0.5) + torch.ones_like(x) * x, WORDS),
    "new_zeros": (lambda x: torch.cat((x.new_zeros(x.shape[0], 1, 16), x), 1), WORDS),
    "zeros-of-batch": (lambda x: torch.cat((torch.zeros(x.size(0), 2), x), 1), ROWS),
    "class-token": (
        lambda x: torch.cat((torch.ones(1, 1, 16).expand(x.shape[0], -1, -1), x), 1),
        WORDS,
    ),
    "triu": (lambda x: (torch.triu(x, 1), torch.tril(x)), SQUARES),
    "tril-mask": (_causal, WORDS),
    "linspace": (lambda x: x * torch.linspace(0, 1, 16), WORDS),
    # Attention
    "attention": (F.scaled_dot_product_attention, _attention),
    "attention-causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        _same_lengths,
    ),
    "attention-scale": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.2),
        _attention,
    ),
    "attention-bool-mask": (F.scaled_dot_product_attention, _masked(torch.bool, 1, 1, 7)),
    "attention-bool-full": (F.scaled_dot_product_attention, _masked(torch.bool, 4, 5, 7)),
    "attention-float-mask": (F.scaled_dot_product_attention, _masked(torch.float, 1, 5, 7)),
    "attention-3d": (
        lambda q, k, v: F.scaled_dot_product_attention(q[:, 0], k[:, 0], v[:, 0]),
        _attention,
    ),
    "attention-grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        _grouped,
    ),
    "attention-by-hand": (
        lambda q, k, v: ((q @ k.transpose(-2, -1)) / 8**0.5).softmax(-1) @ v,
        _attention,
    ),
    # Norms and reductions
    "layer_norm": (lambda x: F.layer_norm(x, (16,)), WORDS),
    "rms_norm": (lambda x: F.rms_norm(x, (16,), eps=1e-5), WORDS),
    "rms-by-hand": (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6), WORDS),
    "group_norm": (lambda x: F.group_norm(x, 2), IMAGE),
    "instance_norm": (F.instance_norm, IMAGE),
    "normalize": (lambda x: F.normalize(x, dim=-1), WORDS),
    "norm": (lambda x: (x.norm(dim=1), torch.linalg.vector_norm(x, 1, 2)), WORDS),
    "norm-max": (lambda x: torch.linalg.vector_norm(x, float("inf"), -1), WORDS),
    "cosine_similarity": (lambda a, b: F.cosine_similarity(a, b, -1), pairs_of(6)),
    "cdist": (torch.cdist, pairs_of(5, 6)),
    "std": (lambda x: x.std(1), WORDS),
    "var": (lambda x: torch.var(x, (1, 2), correction=0, keepdim=True), IMAGE),
    "var_mean": (lambda x: torch.var_mean(x, 1), WORDS),
    "mean": (lambda x: (x.mean((2, 3)), x.mean(1, keepdim=True)), IMAGE),
    "amax": (lambda x: (x.amax((2, 3)), x.amin(1)), IMAGE),
    "sum-prod": (lambda x: (x.sum(-1), x[..., :4].prod(-1)), WORDS),
    "logsumexp": (lambda x: x.logsumexp(1), WORDS),
    "cumsum": (lambda x: (x.cumsum(1), x.cumsum(-1)), WORDS),
    "all-any": (lambda x: ((x > 0).all(1), (x > 1).any(-1)), WORDS),
    # Element by element
    "gelu-tanh": (lambda x: F.gelu(x, approximate="tanh"), ROWS),
    "softplus": (F.softplus, ROWS),
    "mish": (F.mish, ROWS),
    "silu": (lambda x: (F.silu(x), x * torch.sigmoid(x)), ROWS),
    "swiglu": (lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1], ROWS),
    "quick-gelu": (lambda x: x * torch.sigmoid(1.702 * x), ROWS),
    "hardtanh": (lambda x: (F.relu6(x), x.clamp(-0.4, 0.4), x.clamp_min(0.1)), ROWS),
    "clamp-tensors": (lambda a, b: torch.clamp(a, max=b), pairs_of(6)),
    "softmax-temperature": (lambda x: torch.softmax(x / 0.7, 1), WORDS),
    "log_softmax": (lambda x: F.log_softmax(x, -1), WORDS),
    "gumbel-free": (lambda x: F.softmin(x, -1), WORDS),
    "exp-log": (lambda x: (x.exp(), x.log(), x.log2(), x.log1p(), x.expm1()), _positive(6)),
    "powers": (lambda x: (x.sqrt(), x.rsqrt(), x**2, x**0.5, x.reciprocal()), _positive(6)),
    "pow-tensor": (lambda a, b: (a.abs() + 0.1) ** b, pairs_of(6)),
    "fft": (lambda x: torch.fft.fft(x).real, ROWS),
    "trigonometry": (lambda x: (x.sin(), x.cos(), x.tan(), x.atan()), ROWS),
    "atan2": (torch.atan2, pairs_of(6)),
    "erf": (lambda x: (x.erf(), torch.erfc(x)), ROWS),
    "rounding": (lambda x: (x.floor(), x.ceil(), x.round(), x.trunc(), x.frac()), ROWS),
    "floor-division": (lambda a, b: (a // (b.abs() + 1), a % 0.7), pairs_of(6)),
    "div-modes": (
        lambda a: (torch.div(a, 0.3, rounding_mode="floor"), torch.fmod(a, 0.3)),
        ROWS,
    ),
    "extremes": (lambda a, b: (torch.maximum(a, b), torch.minimum(a, b)), pairs_of(6)),
    "sign-abs": (lambda x: (x.sign(), x.abs(), -x), ROWS),
    "comparisons": (lambda a, b: (a > b) & (a != 0) | ~(b <= 1), pairs_of(6)),
    "casts": (lambda x: (x.int().float(), x.to(torch.float64), x.bool()), ROWS),
    "integers": (lambda i: (i // 3, i % 5, i * 2 - 1, (i & 3) ^ 1, i << 1), indices_of(50, 6)),
    "nan_to_num": (lambda x: torch.nan_to_num((x - 0.5).log(), 0.0, 1.0, -1.0), ROWS),
    "isfinite": (lambda x: torch.isfinite(x.log()), ROWS),
    "logit": (lambda x: torch.logit(torch.sigmoid(x), 1e-4), ROWS),
    "celu-selu": (lambda x: (F.celu(x), F.selu(x), F.elu(x, 0.5)), ROWS),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.3])), ROWS),
    "glu": (lambda x: F.glu(x, -1), ROWS),
    "hypot": (torch.hypot, pairs_of(6)),
    "dropout": (lambda x: F.dropout(x, 0.5, training=False), ROWS),
    "pools": (
        lambda x: (F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 1)),
        IMAGE,
    ),
    "adaptive-of-size": (lambda x: F.adaptive_max_pool2d(x, (5, 4)), IMAGE),
    "nll_loss": (
        lambda x, i: F.cross_entropy(x, i, reduction="none"),
        _with_indices((9,), 9, ()),
    ),
    "mse_loss": (lambda a, b: F.mse_loss(a, b, reduction="none"), pairs_of(6)),
}

# What is refused by name, most of it for want of an ONNX form.
REFUSED: dict[str, Case] = {
    "complex": (lambda a, b: torch.complex(a, b) * 2, pairs_of(6)),
    "cummax": (lambda x: x.cummax(1).values, WORDS),
    "cumprod": (lambda x: x.cumprod(-1), WORDS),
    "isin": (lambda i: torch.isin(i, torch.tensor([1, 4, 7])), indices_of(12, 5)),
    "len": (lambda x: torch.cat((torch.ones(1, 16).expand(len(x), -1), x), 1), ROWS),
    "median": (lambda x: x.median(1).values, WORDS),
    "take_along_dim": (lambda x: torch.take_along_dim(x, x.argsort(1), 1), ROWS),
}

# Operators that run through ONNX's reference implementation.
FALLS_BACK = {"Resize"}  # antialiased
