# Products on plain matrices, for lowprec.numerics.
#
# Every function takes `isa`, the name of the kernel table to use (None: the best one that
# LOWPREC_ISA allows), and returns the name of the table that ran. Arrays are C-contiguous, of the
# stated dtype.


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


def matmul_int8(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, int a_zero_point=0, row_zero_points=None,
    column_zero_points=None, bias=None, multiplier=None, addend=None, float scale=1,
    int zero_point=0, bint fast=False, ProductEpilogue epilogue=None, isa=None
):
    """Fill `out` (M, N) from acc = bias + (a - za) (M, K) times (b - zb) (K, N), by its dtype.

    `a` and `b` are uint8 or int8; the rows of `a` may lie apart, at least K elements. za is
    `a_zero_point` or `row_zero_points` (M,), zb is `column_zero_points` (N,), int32 all.

    int32: acc. float32: f32(acc) * multiplier + addend. uint8, int8: the former requantised, or,
    with `addend`, quantised by `scale`. acc must fit int32; `bias`, `multiplier` and `addend` are
    (N,). `fast` promises that every |acc * multiplier| is below 2**31.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue ending = epilogue_for(out, scale, zero_point, fast, epilogue)
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
        c_matmul_int8(kernels, operands, start, factor, added, ending, target)
    return kernels.name.decode()


def matmul_f32(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    ProductEpilogue epilogue=None, isa=None
):
    """Fill `out` (M, N), float32 or codes by `scale`, from float32 `a` (M, K) @ `b` (K, N) + bias.

    Every element is one chain of FMAs from +0 over k; `bias` (N,), +0 if None, is added last.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue ending = epilogue_for(out, scale, zero_point, False, epilogue)
    cdef const float* rows = <const float*> cnp.PyArray_DATA(a)
    cdef const float* columns = <const float*> cnp.PyArray_DATA(b)
    cdef int64_t m = cnp.PyArray_DIM(a, 0)
    cdef int64_t k = cnp.PyArray_DIM(a, 1)
    cdef int64_t n = cnp.PyArray_DIM(b, 1)
    cdef const float* start = <const float*> data_or_null(bias)
    cdef void* target = cnp.PyArray_DATA(out)
    with nogil:
        c_matmul_f32(kernels, rows, columns, m, k, n, start, ending, target)
    return kernels.name.decode()


cdef str matmul_16bit(
    bint is_bf16, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, bias, float scale,
    int zero_point, ProductEpilogue epilogue, isa
):
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Epilogue ending = epilogue_for(out, scale, zero_point, False, epilogue)
    cdef const uint16_t* rows = <const uint16_t*> cnp.PyArray_DATA(a)
    cdef const uint16_t* columns = <const uint16_t*> cnp.PyArray_DATA(b)
    cdef int64_t m = cnp.PyArray_DIM(a, 0)
    cdef int64_t k = cnp.PyArray_DIM(a, 1)
    cdef int64_t n = cnp.PyArray_DIM(b, 1)
    cdef const float* start = <const float*> data_or_null(bias)
    cdef void* target = cnp.PyArray_DATA(out)
    with nogil:
        if is_bf16:
            c_matmul_bf16(kernels, rows, columns, m, k, n, start, ending, target)
        else:
            c_matmul_f16(kernels, rows, columns, m, k, n, start, ending, target)
    return kernels.name.decode()


def matmul_bf16(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    ProductEpilogue epilogue=None, isa=None
):
    """Fill `out` (M, N) from bfloat16 `a` (M, K) @ `b` (K, N) + bias; see reference.gemm_bf16.

    `a` and `b` are the bits (uint16) or bfloat16 arrays; `bias` float32 (N,), +0 if None. `out`:
    float32, bfloat16 (or uint16: its bits), or codes by `scale`.
    """
    return matmul_16bit(True, a, b, out, bias, scale, zero_point, epilogue, isa)


def matmul_f16(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, *, bias=None, float scale=1, int zero_point=0,
    ProductEpilogue epilogue=None, isa=None
):
    """Fill `out` (M, N) from float16 `a` (M, K) @ `b` (K, N), in float32, + bias.

    `a` and `b` are the bits (uint16) or float16 arrays; otherwise as matmul_bf16. Both sides are
    widened exactly, then as matmul_f32.
    """
    return matmul_16bit(False, a, b, out, bias, scale, zero_point, epilogue, isa)
