"""Tensors as arrays and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lowprec.adapters.torch.tensors import (
    TORCH_DTYPES,
    converted,
    to_numpy,
    to_tensor,
    torch_dtype,
)
from lowprec.errors import InputError, UnsupportedError

CASES = list(TORCH_DTYPES.items())


@pytest.mark.parametrize(("array_dtype", "dtype"), CASES, ids=[str(pair[1]) for pair in CASES])
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 3)])
def test_memory_is_shared_both_ways(
    array_dtype: np.dtype, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.arange(6)[: int(np.prod(shape))].reshape(shape).to(dtype)
    array = to_numpy(tensor)
    assert array.dtype == array_dtype
    assert array.shape == shape
    assert array.ctypes.data == tensor.data_ptr() or not tensor.numel()
    back = to_tensor(array)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    assert back.data_ptr() == tensor.data_ptr() or not tensor.numel()
    assert torch_dtype(array_dtype) == dtype


def test_lazy_bits_and_strides_are_resolved() -> None:
    x = torch.randn(3, 4)
    for other in (torch._neg_view(-x), x.t().contiguous().t(), x.clone().requires_grad_()):
        array = to_numpy(other)
        assert array.flags.c_contiguous
        assert np.array_equal(array, x.numpy())
    row = torch.randn(1, 4).bfloat16().expand(3, 4)
    assert np.array_equal(to_numpy(row).astype(np.float32), row.float().numpy())


def test_only_the_cpu() -> None:
    with pytest.raises(InputError, match="is on 'meta'"):
        to_numpy(torch.zeros(2, device="meta"))


@pytest.mark.parametrize(
    ("given", "wanted", "accepted"),
    [
        (torch.bfloat16, torch.float32, True),
        (torch.float64, torch.float16, True),
        (torch.int32, torch.int64, True),
        (torch.bool, torch.int64, True),
        (torch.uint8, torch.int16, True),
        (torch.int64, torch.int32, False),
        (torch.int8, torch.uint8, False),
        (torch.int64, torch.float32, False),
        (torch.float32, torch.int64, False),
        (torch.int64, torch.bool, False),
        (torch.float32, torch.bool, False),
        (torch.complex64, torch.float32, False),
        (torch.bool, torch.float32, False),
    ],
)
def test_what_is_converted(given: torch.dtype, wanted: torch.dtype, accepted: bool) -> None:
    x = torch.ones(2, dtype=given)
    if accepted:
        assert converted(x, wanted, "x").dtype == wanted
        assert converted(x, given, "x") is x
    else:
        with pytest.raises(InputError, match="argument 'x' is torch"):
            converted(x, wanted, "x")


def test_a_dtype_that_torch_lacks() -> None:
    with pytest.raises(UnsupportedError, match="torch has no dtype for"):
        torch_dtype(np.dtype("U3"))
