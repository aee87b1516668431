"""Tensors as NumPy arrays and back: the same memory wherever that is possible."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from lowprec.errors import InputError, UnsupportedError

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# NumPy's dtypes as torch's.
TORCH_DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.bool_): torch.bool,
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.int8): torch.int8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.int16): torch.int16,
    np.dtype(np.uint32): torch.uint32,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.uint64): torch.uint64,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float16): torch.float16,
    _BFLOAT16: torch.bfloat16,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a CPU tensor's values; the array shares its memory where the strides allow.

    Raises:
        InputError: the tensor is not on the CPU.
    """
    if tensor.device.type != "cpu":
        raise InputError(
            f"a tensor is on '{tensor.device}'; lowprec runs on the CPU: give it tensor.cpu()"
        )
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view(_BFLOAT16)
    array: NDArray[Any] = tensor.numpy()
    return array


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor over the same memory."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def converted(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Return `tensor` in the dtype that a module was captured with.

    Floating dtypes become one another, and integers wider ones; nothing else is guessed.

    Raises:
        InputError: it would change what the values mean.
    """
    if tensor.dtype == dtype:
        return tensor
    both_float = tensor.dtype.is_floating_point and dtype.is_floating_point
    if both_float or _is_wider(dtype, tensor.dtype):
        return tensor.to(dtype)
    raise InputError(
        f"argument '{name}' is {tensor.dtype}; the module was captured with {dtype}: give "
        f"tensor.to({dtype})"
    )


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Return torch's name for a NumPy dtype.

    Raises:
        UnsupportedError: torch has none.
    """
    found = TORCH_DTYPES.get(dtype)
    if found is None:
        raise UnsupportedError(f"torch has no dtype for {dtype}")
    return found


def _is_wider(dtype: torch.dtype, given: torch.dtype) -> bool:
    integers = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    return integers and not given.is_floating_point and torch.promote_types(dtype, given) == dtype
