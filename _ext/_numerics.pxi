# Conversions and the tensor observer, for lowprec.numerics.
#
# Every function takes `isa`, the name of the kernel table to use (None: the best one that
# LOWPREC_ISA allows), and returns the name of the table that ran. Arrays are C-contiguous, of the
# stated dtype.

from libc.stdint cimport uintptr_t
from libc.string cimport memset


cdef extern from "conversions.h" namespace "lp" nogil:
    ctypedef enum CodeType:
        CODE_U8
        CODE_S8
        CODE_U16
        CODE_S16
        CODE_S32

    ctypedef enum CastKind:
        CAST_F32_TO_BF16
        CAST_BF16_TO_F32
        CAST_F32_TO_F16
        CAST_F16_TO_F32
        CAST_F32_TO_TF32

    void c_quantize_rows "lp::quantize_rows"(
        const Kernels*, const float*, void*, CodeType, int64_t, int64_t, const float*,
        const int32_t*)
    void c_dequantize_rows "lp::dequantize_rows"(
        const Kernels*, const void*, float*, CodeType, int64_t, int64_t, const float*,
        const int32_t*)
    void c_requantize_rows "lp::requantize_rows"(
        const Kernels*, const void*, bint, void*, CodeType, int64_t, int64_t, const float*,
        const int32_t*)
    void c_cast "lp::cast"(const Kernels*, CastKind, const void*, void*, int64_t)
    int64_t c_finite_range "lp::finite_range"(
        const Kernels*, const float*, int64_t, float*, float*)

    void c_count_bins "lp::count_bins"(
        const Kernels*, const float*, int64_t, float, int64_t, int64_t, int64_t*)

cdef extern from "observer.h" namespace "lp" nogil:
    cdef struct Extremes:
        float minimum
        float maximum

    cdef cppclass CTensorObserver "lp::TensorObserver":
        CTensorObserver(int64_t, const Kernels*) except +
        void observe(const float*, int64_t)
        void begin_batch()
        void end_batch()
        void merge(const CTensorObserver&)
        void reset()
        int64_t bins()
        Extremes total()
        Extremes batch()
        int64_t batches()
        int64_t count()
        int64_t nonfinite()
        int exponent()
        int64_t origin()
        void counts(int64_t*)


cdef extern from "float_state.h" namespace "lp" nogil:
    cdef cppclass FloatingPointState:
        FloatingPointState()


cdef class FloatState:
    """A context in which NumPy, too, rounds to nearest and flushes nothing to zero."""

    cdef FloatingPointState* state

    def __enter__(self):
        self.state = new FloatingPointState()
        return self

    def __exit__(self, *exception):
        del self.state
        self.state = NULL


cdef CodeType code_type(cnp.ndarray codes) except *:
    # By kind and size: int64 arrays, for one, come with two type numbers.
    cdef bint is_signed = codes.dtype.kind == "i"
    cdef int size = cnp.PyArray_ITEMSIZE(codes)
    if size == 1:
        return CODE_S8 if is_signed else CODE_U8
    if size == 2:
        return CODE_S16 if is_signed else CODE_U16
    if size == 4 and is_signed:
        return CODE_S32
    raise TypeError(f"{codes.dtype} is not a dtype of codes")


cdef str cast_array(CastKind kind, cnp.ndarray x, cnp.ndarray y, isa):
    cdef const Kernels* kernels = kernels_for(isa)
    cdef const void* source = cnp.PyArray_DATA(x)
    cdef void* target = cnp.PyArray_DATA(y)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    with nogil:
        c_cast(kernels, kind, source, target, n)
    return kernels.name.decode()


def f32_to_bf16(cnp.ndarray x, cnp.ndarray y, *, isa=None):
    """Round float32 `x` to the bfloat16 bits `y` (uint16)."""
    return cast_array(CAST_F32_TO_BF16, x, y, isa)


def bf16_to_f32(cnp.ndarray x, cnp.ndarray y, *, isa=None):
    """Widen the bfloat16 bits `x` (uint16) to float32 `y`."""
    return cast_array(CAST_BF16_TO_F32, x, y, isa)


def f32_to_f16(cnp.ndarray x, cnp.ndarray y, *, isa=None):
    """Round float32 `x` to the float16 bits `y` (uint16)."""
    return cast_array(CAST_F32_TO_F16, x, y, isa)


def f16_to_f32(cnp.ndarray x, cnp.ndarray y, *, isa=None):
    """Widen the float16 bits `x` (uint16) to float32 `y`."""
    return cast_array(CAST_F16_TO_F32, x, y, isa)


def f32_to_tf32(cnp.ndarray x, cnp.ndarray y, *, isa=None):
    """Round float32 `x` to ten fraction bits in float32 `y`."""
    return cast_array(CAST_F32_TO_TF32, x, y, isa)


def quantize(
    cnp.ndarray x, cnp.ndarray q, cnp.ndarray scales, cnp.ndarray zero_points, *, isa=None
):
    """Quantise rows of float32 `x` (R, n) to codes `q`, by `scales`, int32 `zero_points` (R,)."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef CodeType kind = code_type(q)
    cdef const float* source = <const float*>cnp.PyArray_DATA(x)
    cdef void* codes = cnp.PyArray_DATA(q)
    cdef const float* scale = <const float*>cnp.PyArray_DATA(scales)
    cdef const int32_t* zero = <const int32_t*>cnp.PyArray_DATA(zero_points)
    cdef int64_t rows = cnp.PyArray_DIM(x, 0)
    cdef int64_t n = cnp.PyArray_DIM(x, 1)
    with nogil:
        c_quantize_rows(kernels, source, codes, kind, rows, n, scale, zero)
    return kernels.name.decode()


def dequantize(
    cnp.ndarray q, cnp.ndarray x, cnp.ndarray scales, cnp.ndarray zero_points, *, isa=None
):
    """Dequantise rows of codes `q` (R, n) to float32 `x`, by `scales`, int32 `zero_points` (R,)."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef CodeType kind = code_type(q)
    cdef const void* codes = cnp.PyArray_DATA(q)
    cdef float* target = <float*>cnp.PyArray_DATA(x)
    cdef const float* scale = <const float*>cnp.PyArray_DATA(scales)
    cdef const int32_t* zero = <const int32_t*>cnp.PyArray_DATA(zero_points)
    cdef int64_t rows = cnp.PyArray_DIM(q, 0)
    cdef int64_t n = cnp.PyArray_DIM(q, 1)
    with nogil:
        c_dequantize_rows(kernels, codes, target, kind, rows, n, scale, zero)
    return kernels.name.decode()


def requantize(
    cnp.ndarray acc, cnp.ndarray q, cnp.ndarray multipliers, cnp.ndarray zero_points, *, isa=None
):
    """Requantise the rows of `acc` (R, n), int32 or int64, to codes `q`, by `multipliers` (R,)."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef CodeType kind = code_type(q)
    cdef bint wide = cnp.PyArray_ITEMSIZE(acc) == 8
    cdef const void* sums = cnp.PyArray_DATA(acc)
    cdef void* codes = cnp.PyArray_DATA(q)
    cdef const float* multiplier = <const float*>cnp.PyArray_DATA(multipliers)
    cdef const int32_t* zero = <const int32_t*>cnp.PyArray_DATA(zero_points)
    cdef int64_t rows = cnp.PyArray_DIM(acc, 0)
    cdef int64_t n = cnp.PyArray_DIM(acc, 1)
    with nogil:
        c_requantize_rows(kernels, sums, wide, codes, kind, rows, n, multiplier, zero)
    return kernels.name.decode()


def finite_range(cnp.ndarray x, *, isa=None):
    """Return (minimum, maximum, number of non-finite values) of float32 `x`.

    Only finite values have extremes: (inf, -inf) if there are none.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef const float* source = <const float*>cnp.PyArray_DATA(x)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    cdef int64_t nonfinite
    cdef float minimum, maximum
    with nogil:
        nonfinite = c_finite_range(kernels, source, n, &minimum, &maximum)
    return minimum, maximum, nonfinite


def count_bins(
    cnp.ndarray x, cnp.ndarray counts, *, float inverse_width, int64_t origin, isa=None
):
    """Add to int64 `counts` (bins,): counts[floor(x * inverse_width) - origin] for every finite x.

    `inverse_width` is a power of two. Values outside count in the first or the last bin.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef const float* source = <const float*> cnp.PyArray_DATA(x)
    cdef int64_t* target = <int64_t*> cnp.PyArray_DATA(counts)
    cdef int64_t n = cnp.PyArray_SIZE(x)
    cdef int64_t bins = cnp.PyArray_SIZE(counts)
    with nogil:
        c_count_bins(kernels, source, n, inverse_width, origin, bins, target)
    return kernels.name.decode()


cdef extern from "kernels/kernels.h" namespace "lp" nogil:
    ctypedef enum OutputKind:
        OUT_S32
        OUT_F32
        OUT_U8
        OUT_S8
        OUT_BF16

    cdef struct Epilogue:
        int32_t kind
        int32_t zero_point
        int32_t qmin
        int32_t qmax
        int32_t fast
        float scale
        const float* multiplier
        const float* addend
        const void* ops
        int32_t n_ops

cdef extern from "matrix_product.h" namespace "lp" nogil:
    cdef struct CodeOperands:
        const void* a
        const void* b
        bint a_signed
        bint b_signed
        int64_t m
        int64_t k
        int64_t n
        int64_t a_stride
        int32_t a_zero_point
        const int32_t* row_zero_points
        const int32_t* column_zero_points

    void c_matmul_int8 "lp::matmul_int8"(
        const Kernels*, const CodeOperands&, const int32_t*, const float*, const float*,
        const Epilogue&, void*) except +
    void c_matmul_f32 "lp::matmul_f32"(
        const Kernels*, const float*, const float*, int64_t, int64_t, int64_t, const float*,
        const Epilogue&, void*) except +
    void c_matmul_bf16 "lp::matmul_bf16"(
        const Kernels*, const uint16_t*, const uint16_t*, int64_t, int64_t, int64_t, const float*,
        const Epilogue&, void*) except +
    void c_matmul_f16 "lp::matmul_f16"(
        const Kernels*, const uint16_t*, const uint16_t*, int64_t, int64_t, int64_t, const float*,
        const Epilogue&, void*) except +


cdef Epilogue epilogue_for(cnp.ndarray out, float scale, int zero_point, bint fast) except *:
    cdef Epilogue epilogue
    memset(&epilogue, 0, sizeof(epilogue))
    cdef bint is_signed = out.dtype.kind == "i"
    if cnp.PyArray_ITEMSIZE(out) == 1:
        epilogue.kind = OUT_S8 if is_signed else OUT_U8
    elif cnp.PyArray_ITEMSIZE(out) == 2:  # bf16, by itself or as its bits
        epilogue.kind = OUT_BF16
    else:
        epilogue.kind = OUT_S32 if is_signed else OUT_F32
    epilogue.zero_point = zero_point
    epilogue.qmin = -128 if is_signed else 0
    epilogue.qmax = 127 if is_signed else 255
    epilogue.fast = fast
    epilogue.scale = scale
    return epilogue


cdef const void* data_or_null(array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray> array)


def matmul_int8(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, int a_zero_point=0, row_zero_points=None,
    column_zero_points=None, bias=None, multiplier=None, addend=None, float scale=1,
    int zero_point=0, bint fast=False, isa=None
):
    """Fill `out` (M, N) from acc = bias + (a - za) (M, K) times (b - zb) (K, N), by its dtype.

    `a` and `b` are uint8 or int8; the rows of `a` may lie apart, at least K elements. za is
    `a_zero_point` or `row_zero_points` (M,), zb is `column_zero_points` (N,), int32 all.

    int32: acc. float32: f32(acc) * multiplier + addend. uint8, int8: the former requantised, or,
    with `addend`, quantised by `scale`. acc must fit int32; `bias`, `multiplier` and `addend` are
    (N,). `fast` promises that every |acc * multiplier| is below 2**31.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue epilogue = epilogue_for(out, scale, zero_point, fast)
    cdef CodeOperands operands
    operands.a = cnp.PyArray_DATA(a)
    operands.b = cnp.PyArray_DATA(b)
    operands.a_signed = a.dtype.kind == "i"
    operands.b_signed = b.dtype.kind == "i"
    operands.m = cnp.PyArray_DIM(a, 0)
    operands.k = cnp.PyArray_DIM(a, 1)
    operands.n = cnp.PyArray_DIM(b, 1)
    operands.a_stride = cnp.PyArray_STRIDE(a, 0) if operands.m > 1 else operands.k
    operands.a_zero_point = a_zero_point
    operands.row_zero_points = <const int32_t*> data_or_null(row_zero_points)
    operands.column_zero_points = <const int32_t*> data_or_null(column_zero_points)
    cdef const int32_t* start = <const int32_t*> data_or_null(bias)
    cdef const float* factor = <const float*> data_or_null(multiplier)
    cdef const float* added = <const float*> data_or_null(addend)
    cdef void* target = cnp.PyArray_DATA(out)
    with nogil:
        c_matmul_int8(kernels, operands, start, factor, added, epilogue, target)
    return kernels.name.decode()


def matmul_f32(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    isa=None
):
    """Fill `out` (M, N), float32 or codes by `scale`, from float32 `a` (M, K) @ `b` (K, N) + bias.

    Every element is one chain of FMAs from +0 over k; `bias` (N,), +0 if None, is added last.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue epilogue = epilogue_for(out, scale, zero_point, False)
    cdef const float* rows = <const float*> cnp.PyArray_DATA(a)
    cdef const float* columns = <const float*> cnp.PyArray_DATA(b)
    cdef int64_t m = cnp.PyArray_DIM(a, 0)
    cdef int64_t k = cnp.PyArray_DIM(a, 1)
    cdef int64_t n = cnp.PyArray_DIM(b, 1)
    cdef const float* start = <const float*> data_or_null(bias)
    cdef void* target = cnp.PyArray_DATA(out)
    with nogil:
        c_matmul_f32(kernels, rows, columns, m, k, n, start, epilogue, target)
    return kernels.name.decode()


cdef str matmul_16bit(
    bint is_bf16, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, bias, float scale,
    int zero_point, isa
):
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue epilogue = epilogue_for(out, scale, zero_point, False)
    cdef const uint16_t* rows = <const uint16_t*> cnp.PyArray_DATA(a)
    cdef const uint16_t* columns = <const uint16_t*> cnp.PyArray_DATA(b)
    cdef int64_t m = cnp.PyArray_DIM(a, 0)
    cdef int64_t k = cnp.PyArray_DIM(a, 1)
    cdef int64_t n = cnp.PyArray_DIM(b, 1)
    cdef const float* start = <const float*> data_or_null(bias)
    cdef void* target = cnp.PyArray_DATA(out)
    with nogil:
        if is_bf16:
            c_matmul_bf16(kernels, rows, columns, m, k, n, start, epilogue, target)
        else:
            c_matmul_f16(kernels, rows, columns, m, k, n, start, epilogue, target)
    return kernels.name.decode()


def matmul_bf16(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    isa=None
):
    """Fill `out` (M, N) from bfloat16 `a` (M, K) @ `b` (K, N) + bias; see reference.gemm_bf16.

    `a` and `b` are the bits (uint16) or bfloat16 arrays; `bias` float32 (N,), +0 if None. `out`:
    float32, bfloat16 (or uint16: its bits), or codes by `scale`.
    """
    return matmul_16bit(True, a, b, out, bias, scale, zero_point, isa)


def matmul_f16(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    isa=None
):
    """Fill `out` (M, N) from float16 `a` (M, K) @ `b` (K, N), in float32, + bias.

    `a` and `b` are the bits (uint16) or float16 arrays; otherwise as matmul_bf16. Both sides are
    widened exactly, then as matmul_f32.
    """
    return matmul_16bit(False, a, b, out, bias, scale, zero_point, isa)


cdef class TensorObserver:
    """Extremes, counts and a histogram of one float tensor, fed inside a run; see observer.h.

    Constant memory; nothing depends on the order or the cutting of the data.
    """

    MIN_BINS = 16
    MAX_BINS = 65536

    cdef CTensorObserver* observer
    cdef readonly str isa

    def __cinit__(self, int64_t bins=2048, *, isa=None):
        if not 16 <= bins <= 65536:
            raise ValueError(f"bins is {bins}; expected 16 to 65536")
        cdef const Kernels* kernels = kernels_for(isa)
        self.observer = new CTensorObserver(bins, kernels)
        self.isa = kernels.name.decode()

    def __dealloc__(self):
        del self.observer

    @property
    def engine_address(self):
        """Where the C++ object lives: what a program's node is given (Program.add_node)."""
        return <uintptr_t>self.observer

    def update(self, x):
        """Count the values of a float32 array, any shape and strides."""
        cdef cnp.ndarray array = np.ascontiguousarray(x, np.float32)
        cdef const float* source = <const float*>cnp.PyArray_DATA(array)
        cdef int64_t n = cnp.PyArray_SIZE(array)
        with nogil:
            self.observer.observe(source, n)

    def begin_batch(self):
        """Start the extremes of a batch anew."""
        self.observer.begin_batch()

    def end_batch(self):
        """Close the batch; its extremes stay readable until the next one begins."""
        self.observer.end_batch()

    def merge(self, TensorObserver other not None):
        """Count what `other`, of as many bins, has counted."""
        if other.observer.bins() != self.observer.bins():
            raise ValueError(
                f"the other observer has {other.observer.bins()} bins; "
                f"expected {self.observer.bins()}"
            )
        with nogil:
            self.observer.merge(other.observer[0])

    def reset(self):
        """Forget everything."""
        self.observer.reset()

    @property
    def bins(self):
        """Number of bins."""
        return self.observer.bins()

    @property
    def minimum(self):
        """Smallest finite value; +inf before the first."""
        return self.observer.total().minimum

    @property
    def maximum(self):
        """Largest finite value; -inf before the first."""
        return self.observer.total().maximum

    @property
    def batch_minimum(self):
        """Smallest finite value of the open, or last closed, batch; +inf before the first."""
        return self.observer.batch().minimum

    @property
    def batch_maximum(self):
        """Largest finite value of the open, or last closed, batch; -inf before the first."""
        return self.observer.batch().maximum

    @property
    def batches(self):
        """Number of batches closed."""
        return self.observer.batches()

    @property
    def count(self):
        """Number of finite values."""
        return self.observer.count()

    @property
    def nonfinite(self):
        """Number of NaN and infinite values; they are in no other number."""
        return self.observer.nonfinite()

    def histogram(self):
        """Return (counts, first, width): counts[i] values in [(first + i) * width, ... + width).

        counts is int64 of shape (bins,); first, an int, is never above 0; width is a power of two
        in real units.
        """
        counts = np.empty(self.observer.bins(), np.int64)
        cdef int64_t* target = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>counts)
        self.observer.counts(target)
        return counts, self.observer.origin(), 2.0 ** self.observer.exponent()
