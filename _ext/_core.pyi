"""Types of the compiled core. What it does is said in the .pxi files that _core.pyx includes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# ---- _cpu.pxi

class IsaUnavailable(ValueError): ...

def available_isas() -> list[str]: ...
def model_isas() -> list[str]: ...
def chosen_isa() -> str: ...
def cpu_info() -> dict[str, Any]: ...

# ---- _threads.pxi

class ThreadCountInvalid(ValueError): ...

MAX_THREADS: int

def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def shared_calls() -> int: ...
def cgroup_cpus(root: str = "") -> float: ...

# ---- _conversions.pxi

F32_TO_BF16: int
BF16_TO_F32: int
F32_TO_F16: int
F16_TO_F32: int
F32_TO_TF32: int
F32_TO_E4M3: int
E4M3_TO_F32: int
F32_TO_E5M2: int
E5M2_TO_F32: int

def cast(
    code: int, x: NDArray[Any], y: NDArray[Any], *, saturate: bool = False, isa: str | None = None
) -> str: ...
def quantize(
    x: NDArray[Any],
    q: NDArray[Any],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32] | int,
    grid: tuple[int, ...] | None = None,
    *,
    isa: str | None = None,
) -> str: ...
def dequantize(
    q: NDArray[Any],
    x: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32] | int,
    grid: tuple[int, ...] | None = None,
    *,
    isa: str | None = None,
) -> str: ...
def requantize(
    acc: NDArray[Any],
    q: NDArray[Any],
    multiplier: NDArray[np.float32],
    zero_point: NDArray[np.int32] | int,
    grid: tuple[int, ...] | None = None,
    *,
    isa: str | None = None,
) -> str: ...
def dynamic_quantize(
    x: NDArray[Any],
    q: NDArray[np.uint8],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.uint8],
    *,
    isa: str | None = None,
) -> int: ...
def count_bins(
    x: NDArray[np.float32],
    counts: NDArray[np.int64],
    *,
    inverse_width: float,
    origin: int,
    isa: str | None = None,
) -> str: ...

class FloatState:
    def __enter__(self) -> FloatState: ...
    def __exit__(self, *exception: object) -> None: ...

# ---- _epilogue.pxi

class ProductEpilogue:
    def __init__(
        self,
        operators: Sequence[tuple[int, float, float]] = (),
        *,
        row_multiplier: NDArray[np.float32] | None = None,
        table: NDArray[np.uint8] | None = None,
        channel_values: Sequence[NDArray[np.float32]] = (),
        residual: NDArray[Any] | None = None,
        residual_scale: float = 1,
        residual_zero_point: int = 0,
        qmin: int | None = None,
        qmax: int | None = None,
    ) -> None: ...

# ---- _numerics.pxi

def matmul_int8(
    a: NDArray[Any],
    b: NDArray[Any],
    out: NDArray[Any],
    *,
    a_zero_point: int = 0,
    row_zero_points: NDArray[np.int32] | None = None,
    column_zero_points: NDArray[np.int32] | None = None,
    bias: NDArray[np.int32] | None = None,
    multiplier: NDArray[np.float32] | None = None,
    addend: NDArray[np.float32] | None = None,
    scale: float = 1,
    zero_point: int = 0,
    fast: bool = False,
    epilogue: ProductEpilogue | None = None,
    isa: str | None = None,
) -> str: ...
def matmul_f32(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    out: NDArray[Any],
    *,
    bias: NDArray[np.float32] | None = None,
    scale: float = 1,
    zero_point: int = 0,
    epilogue: ProductEpilogue | None = None,
    isa: str | None = None,
) -> str: ...
def matmul_bf16(
    a: NDArray[Any],
    b: NDArray[Any],
    out: NDArray[Any],
    *,
    bias: NDArray[np.float32] | None = None,
    scale: float = 1,
    zero_point: int = 0,
    epilogue: ProductEpilogue | None = None,
    isa: str | None = None,
) -> str: ...
def matmul_f16(
    a: NDArray[Any],
    b: NDArray[Any],
    out: NDArray[Any],
    *,
    bias: NDArray[np.float32] | None = None,
    scale: float = 1,
    zero_point: int = 0,
    epilogue: ProductEpilogue | None = None,
    isa: str | None = None,
) -> str: ...

# ---- _observer.pxi

class TensorObserver:
    MIN_BINS: int
    MAX_BINS: int
    LOWEST: int
    OPERATOR: str
    def __init__(
        self,
        bins: int = 2048,
        *,
        moments: bool = False,
        edges: NDArray[np.float32] | None = None,
        isa: str | None = None,
    ) -> None: ...
    def update(self, x: NDArray[Any]) -> None: ...
    def begin_batch(self) -> None: ...
    def end_batch(self) -> None: ...
    def merge(self, other: TensorObserver) -> None: ...
    def reset(self) -> None: ...
    def histogram(self) -> tuple[NDArray[np.int64], int, float]: ...
    def sums(self) -> tuple[int, int]: ...
    def state(self) -> NDArray[np.int64]: ...
    def set_state(self, state: NDArray[np.int64]) -> None: ...
    @property
    def engine_address(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def bins(self) -> int: ...
    @property
    def minimum(self) -> float: ...
    @property
    def maximum(self) -> float: ...
    @property
    def batch_minimum(self) -> float: ...
    @property
    def batch_maximum(self) -> float: ...
    @property
    def batches(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def nonfinite(self) -> int: ...
    @property
    def nan(self) -> int: ...
    @property
    def below(self) -> int: ...
    @property
    def above(self) -> int: ...

class ChannelObserver:
    OPERATOR: str
    def __init__(self, axis: int, *, bins: int = 0, isa: str | None = None) -> None: ...
    def update(self, x: NDArray[Any]) -> None: ...
    def merge(self, other: ChannelObserver) -> None: ...
    def reset(self) -> None: ...
    def extremes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    def sums(self, channel: int) -> tuple[int, int]: ...
    def histogram(self, channel: int) -> tuple[NDArray[np.int64], int, float]: ...
    @property
    def engine_address(self) -> int: ...
    @property
    def axis(self) -> int: ...
    @property
    def bins(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def nonfinite(self) -> int: ...

def observe_channels(observers: list[TensorObserver], first: NDArray[Any], step: int) -> None: ...

# ---- _matrix.pxi

class PackedWeights:
    def __init__(
        self,
        b: NDArray[Any],
        dtype: np.dtype[Any],
        zero_point: NDArray[Any] | None = None,
        scale: NDArray[np.float32] | None = None,
        bias: NDArray[Any] | None = None,
    ) -> None: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def zero_point(self) -> NDArray[Any] | None: ...
    @property
    def scale(self) -> NDArray[np.float32] | None: ...
    @property
    def bias(self) -> NDArray[Any] | None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def fits_s32(self) -> bool: ...

def know_bfloat16(dtype: np.dtype[Any]) -> None: ...
def multiply_codes(
    a: object,
    b: object,
    a_zero_point: object = None,
    b_zero_point: object = None,
    out: object = None,
) -> NDArray[np.int32] | None: ...
def multiply_requantised(
    a: object,
    a_scale: object,
    a_zero_point: object,
    b: object,
    b_scale: object,
    b_zero_point: object,
    y_scale: object,
    y_zero_point: object,
    bias: object = None,
    out: object = None,
) -> NDArray[Any] | None: ...
def multiply_floats(
    a: object, b: object, bias: object, out: object, out_number: int, number: int
) -> NDArray[Any] | None: ...
def multiply_code_batches(
    a: object,
    b: object,
    a_zero_point: object = None,
    b_zero_point: object = None,
    out: object = None,
) -> NDArray[np.int32] | None: ...
def multiply_requantised_batches(
    a: object,
    a_scale: object,
    a_zero_point: object,
    b: object,
    b_scale: object,
    b_zero_point: object,
    y_scale: object,
    y_zero_point: object,
    out: object = None,
) -> NDArray[Any] | None: ...
def multiply_float_batches(
    a: object, b: object, out: object, out_number: int, number: int
) -> NDArray[Any] | None: ...
def multiply_layer(
    a: object,
    weights: object,
    ops: tuple[tuple[int, float, float], ...],
    a_scale: object,
    a_zero_point: object,
    y_scale: object,
    y_zero_point: object,
    out: object,
    out_number: int,
) -> NDArray[Any] | None: ...
def linear(
    a: NDArray[Any],
    weights: PackedWeights,
    y: NDArray[Any],
    *,
    a_scale: float = 1,
    row_scales: NDArray[np.float32] | None = None,
    a_zero_point: int = 0,
    row_zero_points: NDArray[np.int32] | None = None,
    y_scale: float = 1,
    y_zero_point: int = 0,
    ops: Sequence[tuple[int, float, float]] = (),
    residual: NDArray[Any] | None = None,
    residual_scale: float = 1,
    residual_zero_point: int = 0,
    with_bias: bool = True,
    isa: str | None = None,
) -> int: ...

# ---- _rounding.pxi

def upper_factor(matrix: NDArray[np.float64]) -> None: ...
def round_rows(
    weights: NDArray[np.float64], factor: NDArray[np.float64], limit: float, out: NDArray[np.int8]
) -> None: ...

# ---- _program.pxi

class EngineError(Exception): ...
class Unsupported(EngineError): ...

def native_operators() -> list[str]: ...
def held_dtypes() -> frozenset[int]: ...
def hold_dtype(code: int, dtype: DTypeLike) -> None: ...
def empty_with_slack(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]: ...

class Plan:
    @property
    def arena_bytes(self) -> int: ...
    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def output_dtypes(self) -> tuple[np.dtype[Any], ...]: ...
    def run(
        self,
        inputs: list[NDArray[Any]],
        outputs: list[NDArray[Any] | None] | None = None,
        timed: bool = False,
    ) -> tuple[list[NDArray[Any]], list[int] | None]: ...
    def output_needs_slack(self, index: int) -> bool: ...
    def rows(self) -> list[dict[str, Any]]: ...

class Program:
    def __init__(self, isa: str | None = None) -> None: ...
    @property
    def isa(self) -> str: ...
    def add_value(self, name: str, dtype: DTypeLike) -> int: ...
    def add_constant(self, name: str, array: NDArray[Any]) -> int: ...
    def add_node(
        self,
        op: str,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        attributes: Mapping[str, Any],
    ) -> None: ...
    def set_io(self, inputs: Sequence[int], outputs: Sequence[int]) -> None: ...
    def plan(
        self,
        shapes: Sequence[Sequence[int]],
        known: Sequence[NDArray[Any] | None] | None = None,
    ) -> Plan: ...
    @property
    def failed_node(self) -> str | None: ...
