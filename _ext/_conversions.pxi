# Conversions of arrays of any strides, for lowprec.numerics.
#
# Every function takes `isa`, the name of the kernel table to use (None: the best one that
# LOWPREC_ISA allows), and returns the name of the table that ran. Source and result have the same
# shape, native byte order and the stated dtypes; they overlap nowhere, or element by element.


cdef extern from "strided.h" namespace "lp" nogil:
    cdef cppclass Strided:
        Strided(void*, int, int, const int64_t*, const int64_t*)

cdef extern from "kernels/kernels.h" namespace "lp" nogil:
    ctypedef enum ConversionCode:
        C_F32_TO_BF16 "lp::F32_TO_BF16"
        C_BF16_TO_F32 "lp::BF16_TO_F32"
        C_F32_TO_F16 "lp::F32_TO_F16"
        C_F16_TO_F32 "lp::F16_TO_F32"
        C_F32_TO_TF32 "lp::F32_TO_TF32"
        C_F32_TO_E4M3 "lp::F32_TO_E4M3"
        C_E4M3_TO_F32 "lp::E4M3_TO_F32"
        C_F32_TO_E5M2 "lp::F32_TO_E5M2"
        C_E5M2_TO_F32 "lp::E5M2_TO_F32"

cdef extern from "conversions.h" namespace "lp" nogil:
    ctypedef enum CodeType:
        CODE_U8
        CODE_S8
        CODE_U16
        CODE_S16
        CODE_S32

    ctypedef enum FloatType:
        FLOAT_F32
        FLOAT_F16
        FLOAT_F64
        FLOAT_BF16

    cdef struct Granularity:
        int32_t kind
        const float* scale
        const int32_t* zero_point
        int64_t outer
        int64_t depth
        int64_t inner
        int64_t block

    void c_cast "lp::cast"(
        const Kernels*, ConversionCode, FloatType, const Strided&, const Strided&, bint) except +
    void c_quantize "lp::quantize"(
        const Kernels*, FloatType, const Strided&, CodeType, const Strided&,
        const Granularity&) except +
    void c_dequantize "lp::dequantize"(
        const Kernels*, CodeType, const Strided&, const Strided&, const Granularity&) except +
    void c_requantize "lp::requantize"(
        const Kernels*, const Strided&, CodeType, const Strided&, const Granularity&) except +
    int64_t c_dynamic_quantize "lp::dynamic_quantize"(
        const Kernels*, FloatType, const Strided&, const Strided&, int64_t, float*,
        uint8_t*) except +
    void c_count_bins "lp::count_bins"(
        const Kernels*, const float*, int64_t, float, int64_t, int64_t, int64_t*)

cdef extern from "float_state.h" namespace "lp" nogil:
    cdef cppclass FloatingPointState:
        FloatingPointState()


# What `cast` can do.
F32_TO_BF16 = C_F32_TO_BF16
BF16_TO_F32 = C_BF16_TO_F32
F32_TO_F16 = C_F32_TO_F16
F16_TO_F32 = C_F16_TO_F32
F32_TO_TF32 = C_F32_TO_TF32
F32_TO_E4M3 = C_F32_TO_E4M3
E4M3_TO_F32 = C_E4M3_TO_F32
F32_TO_E5M2 = C_F32_TO_E5M2
E5M2_TO_F32 = C_E5M2_TO_F32


cdef class FloatState:
    """A context in which NumPy, too, rounds to nearest and flushes nothing to zero."""

    cdef FloatingPointState* state

    def __enter__(self):
        self.state = new FloatingPointState()
        return self

    def __exit__(self, *exception):
        del self.state
        self.state = NULL


cdef Strided* strided(cnp.ndarray x) except NULL:
    return new Strided(
        cnp.PyArray_DATA(x), cnp.PyArray_ITEMSIZE(x), cnp.PyArray_NDIM(x),
        <const int64_t*>cnp.PyArray_DIMS(x), <const int64_t*>cnp.PyArray_STRIDES(x))


cdef FloatType float_type(cnp.ndarray x) except *:
    cdef int number = cnp.PyArray_TYPE(x)
    if number == cnp.NPY_FLOAT:
        return FLOAT_F32
    if number == cnp.NPY_FLOAT16:
        return FLOAT_F16
    if number == cnp.NPY_DOUBLE:
        return FLOAT_F64
    return FLOAT_BF16  # the only one with a number of its own


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


cdef Granularity granularity_of(
    cnp.ndarray scale, zero_point, tuple grid, int32_t* one_zero_point
) except *:
    """How the scales belong to the array; `one_zero_point` holds a zero point that is a number."""
    cdef Granularity result
    # Never as a number: another library's mode may flush a small one to zero on the way.
    result.scale = <const float*>cnp.PyArray_DATA(scale)
    if grid is None:
        one_zero_point[0] = zero_point
        result.zero_point = one_zero_point
        result.kind = 0
        result.outer = result.depth = result.inner = result.block = 1
        return result
    result.zero_point = <const int32_t*>cnp.PyArray_DATA(<cnp.ndarray>zero_point)
    result.kind, result.outer, result.depth, result.inner, result.block = grid
    return result


def cast(int code, cnp.ndarray x, cnp.ndarray y, *, bint saturate=False, isa=None):
    """Convert `x` to `y` between float types; `code` is one of the constants above.

    A cast from f32 takes float32, float16, bfloat16 and float64, which are rounded to f32 first.
    `saturate` concerns the 8-bit types.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef FloatType kind = float_type(x)
    cdef Strided* source = strided(x)
    cdef Strided* target = strided(y)
    try:
        with nogil:
            c_cast(kernels, <ConversionCode>code, kind, source[0], target[0], saturate)
    finally:
        del source, target
    return kernels.name.decode()


# For quantize, dequantize and requantize: scale (or multiplier) is a float32 array of one element
# and zero point a number or, with `grid`, both are C-contiguous arrays, zero point int32. `grid`
# says how they belong to the array, seen as [outer][depth][inner]: (1, outer, depth, inner, 1) one
# per index of depth, (2, outer, depth, inner, block) one per block along depth and per outer and
# inner index.


def quantize(
    cnp.ndarray x, cnp.ndarray q, cnp.ndarray scale, zero_point, tuple grid=None, *,
    isa=None
):
    """Quantise floats `x` to codes `q`."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef int32_t one
    cdef Granularity granularity = granularity_of(scale, zero_point, grid, &one)
    cdef FloatType kind = float_type(x)
    cdef CodeType codes = code_type(q)
    cdef Strided* source = strided(x)
    cdef Strided* target = strided(q)
    try:
        with nogil:
            c_quantize(kernels, kind, source[0], codes, target[0], granularity)
    finally:
        del source, target
    return kernels.name.decode()


def dequantize(
    cnp.ndarray q, cnp.ndarray x, cnp.ndarray scale, zero_point, tuple grid=None, *,
    isa=None
):
    """Dequantise codes `q` to float32 `x`."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef int32_t one
    cdef Granularity granularity = granularity_of(scale, zero_point, grid, &one)
    cdef CodeType codes = code_type(q)
    cdef Strided* source = strided(q)
    cdef Strided* target = strided(x)
    try:
        with nogil:
            c_dequantize(kernels, codes, source[0], target[0], granularity)
    finally:
        del source, target
    return kernels.name.decode()


def requantize(
    cnp.ndarray acc, cnp.ndarray q, cnp.ndarray multiplier, zero_point, tuple grid=None, *,
    isa=None
):
    """Requantise `acc`, int32 or int64, to codes `q`."""
    cdef const Kernels* kernels = kernels_for(isa)
    cdef int32_t one
    cdef Granularity granularity = granularity_of(multiplier, zero_point, grid, &one)
    cdef CodeType codes = code_type(q)
    cdef Strided* source = strided(acc)
    cdef Strided* target = strided(q)
    try:
        with nogil:
            c_requantize(kernels, source[0], codes, target[0], granularity)
    finally:
        del source, target
    return kernels.name.decode()


def dynamic_quantize(
    cnp.ndarray x, cnp.ndarray q, cnp.ndarray scale, cnp.ndarray zero_point, *, isa=None
):
    """Quantise equal parts of floats `x` to uint8 `q` by their own ranges; return the nonfinite.

    There are as many parts as float32 `scale` and uint8 `zero_point`, which are filled, have
    elements. With NaN or infinity in `x` nothing is written to `q`.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef FloatType kind = float_type(x)
    cdef int64_t rows = cnp.PyArray_SIZE(scale), nonfinite = 0
    cdef float* scales = <float*>cnp.PyArray_DATA(scale)
    cdef uint8_t* zero_points = <uint8_t*>cnp.PyArray_DATA(zero_point)
    cdef Strided* source = strided(x)
    cdef Strided* target = strided(q)
    try:
        with nogil:
            nonfinite = c_dynamic_quantize(
                kernels, kind, source[0], target[0], rows, scales, zero_points)
    finally:
        del source, target
    return nonfinite


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
