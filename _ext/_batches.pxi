# Stacks of products for lowprec.numerics (batches.h), by the short way of _matrix.pxi: None for
# whatever lowprec.numerics must look at first.

cdef extern from "batches.h" namespace "lp" nogil:
    bint c_multiply_batches "lp::multiply_batches"(
        const Kernels*, const WeightsSource&, int64_t, const Linear&) except +


cdef int64_t stack_of(cnp.ndarray x, int64_t* stride) noexcept:
    """How many matrices an array of three or more axes holds at equal distances; else -1."""
    cdef int axis, last = cnp.PyArray_NDIM(x) - 3
    cdef int64_t count = 1
    stride[0] = 0
    if last < 0:
        return -1
    for axis in range(last, -1, -1):
        if cnp.PyArray_DIM(x, axis) == 1:
            continue
        if count == 1:
            stride[0] = cnp.PyArray_STRIDE(x, axis)
        elif cnp.PyArray_STRIDE(x, axis) != stride[0] * count:
            return -1
        count *= cnp.PyArray_DIM(x, axis)
    if stride[0] % cnp.PyArray_ITEMSIZE(x) != 0:
        return -1
    stride[0] //= cnp.PyArray_ITEMSIZE(x)
    return count


cdef bint has_stacked_rows(cnp.ndarray x) noexcept:
    """Whether every row of every matrix is contiguous."""
    cdef int last = cnp.PyArray_NDIM(x) - 1
    cdef int64_t size = cnp.PyArray_ITEMSIZE(x)
    return (
        cnp.PyArray_STRIDE(x, last) == size or cnp.PyArray_DIM(x, last) <= 1
    ) and cnp.PyArray_STRIDE(x, last - 1) % size == 0


cdef cnp.ndarray stacks(
    object first, object second, object out, int number, WeightsSource* source, int64_t* b_batch,
    Linear* call
):
    """The result of two stacks of matrices, with `source` and `call` filled in; or None."""
    cdef cnp.ndarray a, b, y
    cdef int64_t count, a_batch, y_batch
    cdef cnp.npy_intp shape[32]
    cdef int axis, axes
    if not isinstance(first, cnp.ndarray) or not isinstance(second, cnp.ndarray):
        return None
    a = <cnp.ndarray> first
    b = <cnp.ndarray> second
    axes = cnp.PyArray_NDIM(a)
    if axes != cnp.PyArray_NDIM(b) or not 3 <= axes <= 32:
        return None
    for axis in range(axes - 2):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return None
        shape[axis] = cnp.PyArray_DIM(a, axis)
    shape[axes - 2] = cnp.PyArray_DIM(a, axes - 2)
    shape[axes - 1] = cnp.PyArray_DIM(b, axes - 1)
    if cnp.PyArray_DIM(a, axes - 1) != cnp.PyArray_DIM(b, axes - 2):
        return None
    if value_type(a) == VALUE_NONE or value_type(b) == VALUE_NONE:
        return None
    count = stack_of(a, &a_batch)
    if count < 1 or stack_of(b, b_batch) != count or not has_stacked_rows(a):
        return None
    if (
        cnp.PyArray_STRIDE(b, axes - 2) % cnp.PyArray_ITEMSIZE(b) != 0
        or cnp.PyArray_STRIDE(b, axes - 1) % cnp.PyArray_ITEMSIZE(b) != 0
    ):
        return None
    if out is None:
        y = cnp.PyArray_EMPTY(axes, shape, number, 0)
    else:
        if not isinstance(out, cnp.ndarray):
            return None
        y = <cnp.ndarray> out
        if (
            cnp.PyArray_TYPE(y) != number or not cnp.PyArray_ISBEHAVED(y)
            or cnp.PyArray_NDIM(y) != axes or overlaps(y, a) or overlaps(y, b)
        ):
            return None
        for axis in range(axes):
            if cnp.PyArray_DIM(y, axis) != shape[axis]:
                return None
        if not has_stacked_rows(y):
            return None
    if stack_of(y, &y_batch) != count:
        return None
    source[0] = source_of(b)
    source.k = cnp.PyArray_DIM(b, axes - 2)
    source.n = cnp.PyArray_DIM(b, axes - 1)
    source.stride_k = cnp.PyArray_STRIDE(b, axes - 2) // cnp.PyArray_ITEMSIZE(b)
    source.stride_n = cnp.PyArray_STRIDE(b, axes - 1) // cnp.PyArray_ITEMSIZE(b)
    call[0] = plain_call(a, value_type(a), y, value_type(y))
    call.batches = count
    call.a_batch = a_batch
    call.a_row = cnp.PyArray_STRIDE(a, axes - 2) // cnp.PyArray_ITEMSIZE(a)
    call.y_batch = y_batch
    call.y_row = cnp.PyArray_STRIDE(y, axes - 2) // cnp.PyArray_ITEMSIZE(y)
    return y


cdef bint run_batches(
    const WeightsSource& source, int64_t b_batch, const Linear& call
) except *:
    cdef const Kernels* kernels = usual_kernels()
    cdef bint done
    if kernels == NULL:
        return False
    with nogil:
        done = c_multiply_batches(kernels, source, b_batch, call)
    return done


def multiply_code_batches(a, b, a_zero_point=None, b_zero_point=None, out=None):
    """Return the stack of matrices (a - a_zero_point) @ (b - b_zero_point) as int32, or None."""
    cdef Scratch scratch
    cdef WeightsSource source
    cdef Linear call
    cdef int64_t b_batch = 0, count
    cdef const int32_t* zeros = NULL
    cdef cnp.ndarray y = stacks(a, b, out, cnp.NPY_INT32, &source, &b_batch, &call)
    if y is None or not is_code(source.type) or not is_code(call.a_type):
        return None
    source.zero_point_count = codes_of(
        b_zero_point, source.type, source.n, scratch, &source.zero_points
    )
    count = codes_of(a_zero_point, call.a_type, 1, scratch, &zeros)
    if source.zero_point_count < 0 or count < 0:
        return None
    call.a_zero_point = zeros[0] if count == 1 else 0
    call.with_bias = False
    return y if run_batches(source, b_batch, call) else None


def multiply_requantised_batches(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, out=None
):
    """Return numerics.qlinear_matmul of two stacks of matrices as 8-bit codes, or None."""
    cdef Scratch scratch
    cdef WeightsSource source
    cdef Linear call
    cdef int64_t b_batch = 0, zeros
    cdef const int32_t* a_zero = NULL
    cdef const int32_t* y_zero = NULL
    cdef const float* scale = NULL
    cdef const float* step = NULL
    cdef int number = cnp.NPY_UBYTE
    cdef cnp.ndarray y
    if codes_of(y_zero_point, VALUE_U8, 1, scratch, &y_zero) != 1:
        number = cnp.NPY_BYTE
        if codes_of(y_zero_point, VALUE_S8, 1, scratch, &y_zero) != 1:
            return None
    y = stacks(a, b, out, number, &source, &b_batch, &call)
    if y is None or not is_code(source.type) or not is_code(call.a_type):
        return None
    source.zero_point_count = codes_of(
        b_zero_point, source.type, source.n, scratch, &source.zero_points
    )
    source.scale_count = scales_of(b_scale, source.n, scratch, &source.scales)
    zeros = codes_of(a_zero_point, call.a_type, 1, scratch, &a_zero)
    if (
        source.zero_point_count < 0 or source.scale_count < 1 or zeros < 0
        or scales_of(a_scale, 1, scratch, &scale) != 1
        or scales_of(y_scale, 1, scratch, &step) != 1
    ):
        return None
    call.a_zero_point = a_zero[0] if zeros == 1 else 0
    call.a_scale = scale[0]
    call.y_scale = step[0]
    call.y_zero_point = y_zero[0]
    return y if run_batches(source, b_batch, call) else None


def multiply_float_batches(a, b, out, int out_number, int number):
    """Return the stack of matrices a @ b of f32, bf16 or f16, or None."""
    cdef WeightsSource source
    cdef Linear call
    cdef int64_t b_batch = 0
    cdef cnp.ndarray y
    if not isinstance(a, cnp.ndarray) or cnp.PyArray_TYPE(<cnp.ndarray> a) != number:
        return None
    y = stacks(a, b, out, out_number, &source, &b_batch, &call)
    if y is None or source.type != call.a_type or is_code(call.a_type):
        return None
    return y if run_batches(source, b_batch, call) else None
