# Products of plain matrices for lowprec.numerics (linear.h).
#
# multiply_codes, multiply_requantised and multiply_floats are the short way: they look at their
# arguments by the C API, and return None for whatever lowprec.numerics must look at first, a wrong
# argument included. They never raise for an argument.

from cpython.object cimport PyObject
from libc.math cimport INFINITY as FLOAT_INFINITY


cdef extern from "kernels/kernels.h" namespace "lp" nogil:
    cdef struct UnaryOp:
        int32_t code
        float a
        float b

cdef extern from "linear.h" namespace "lp" nogil:
    cdef enum ValueType:
        VALUE_NONE
        VALUE_F32
        VALUE_U8
        VALUE_S8
        VALUE_S32
        VALUE_F16
        VALUE_BF16

    cdef cppclass Scratch:
        Scratch()
        int32_t* take_s32 "take_array<int32_t>"(int64_t) except +
        float* take_f32 "take_array<float>"(int64_t) except +

    cdef struct WeightsSource:
        int32_t type
        const void* data
        int64_t k
        int64_t n
        int64_t stride_k
        int64_t stride_n
        const int32_t* zero_points
        int64_t zero_point_count
        const float* scales
        int64_t scale_count
        int32_t bias_type
        const void* bias
        int64_t bias_count

    cdef cppclass Weights:
        int32_t type
        int64_t k
        int64_t n
        const int32_t* zero_points
        const float* scales
        int64_t reach
        bint fits_s32()
        bint has_real_bias()

    cdef cppclass CPackedWeights "lp::PackedWeights":
        CPackedWeights(const Kernels*, const WeightsSource&) except +
        const Weights& view()

    cdef struct Linear:
        const void* a
        int32_t a_type
        int64_t batches
        int64_t m
        int64_t a_batch
        int64_t a_row
        int32_t a_zero_point
        const int32_t* row_zero_points
        float a_scale
        const float* row_scales
        void* y
        int32_t y_type
        int64_t y_batch
        int64_t y_row
        float y_scale
        int32_t y_zero_point
        bint with_bias
        const UnaryOp* ops
        int32_t n_ops
        const void* residual
        int32_t residual_type
        int64_t residual_batch
        int64_t residual_row
        float residual_scale
        int32_t residual_zero_point

    bint is_code(int32_t)
    int64_t value_bytes(int32_t)
    int64_t panel_bytes(int32_t, int64_t, int64_t)
    Weights pack_weights(const Kernels*, const WeightsSource&, Scratch&) except +
    int64_t c_linear "lp::linear"(const Kernels*, const Weights&, const Linear&) except +


# ---- what an argument is

cdef int HALF_NUMBER = np.dtype(np.float16).num
cdef int BFLOAT16_NUMBER = -1
cdef object UINT8 = np.uint8
cdef object INT8 = np.int8
cdef object FLOAT32 = np.float32

# Below this many multiply-adds the interpreter's lock is kept: letting it go costs as much.
cdef int64_t BRIEF = 200000


def know_bfloat16(dtype):
    """Say which NumPy dtype bfloat16 is; NumPy itself lacks it."""
    global BFLOAT16_NUMBER
    BFLOAT16_NUMBER = np.dtype(dtype).num


cdef inline int32_t value_type(cnp.ndarray x) noexcept:
    """The type of an aligned array in native byte order; VALUE_NONE for any other."""
    cdef int number = cnp.PyArray_TYPE(x)
    if not cnp.PyArray_ISALIGNED(x) or cnp.PyArray_ISBYTESWAPPED(x):
        return VALUE_NONE
    if number == cnp.NPY_UBYTE:
        return VALUE_U8
    if number == cnp.NPY_BYTE:
        return VALUE_S8
    if number == cnp.NPY_FLOAT:
        return VALUE_F32
    if number == HALF_NUMBER:
        return VALUE_F16
    if number == BFLOAT16_NUMBER:
        return VALUE_BF16
    if cnp.PyArray_ITEMSIZE(x) == 4 and cnp.PyTypeNum_ISSIGNED(number):
        return VALUE_S32
    return VALUE_NONE


cdef inline bint has_rows(cnp.ndarray x, int64_t size) noexcept:
    """Whether `x` is a matrix, each row of which is contiguous."""
    return cnp.PyArray_NDIM(x) == 2 and (
        cnp.PyArray_STRIDE(x, 1) == size or cnp.PyArray_DIM(x, 1) <= 1
    ) and cnp.PyArray_STRIDE(x, 0) % size == 0


cdef inline bint overlaps(cnp.ndarray x, cnp.ndarray y) noexcept:
    """Whether the memory of two arrays may overlap: by the first and last byte of each."""
    cdef uintptr_t begin[2]
    cdef uintptr_t end[2]
    cdef cnp.ndarray array
    cdef int i, axis
    cdef int64_t reach
    for i in range(2):
        array = x if i == 0 else y
        begin[i] = <uintptr_t> cnp.PyArray_DATA(array)
        end[i] = begin[i] + cnp.PyArray_ITEMSIZE(array)
        for axis in range(cnp.PyArray_NDIM(array)):
            reach = (cnp.PyArray_DIM(array, axis) - 1) * cnp.PyArray_STRIDE(array, axis)
            if reach < 0:
                begin[i] += reach
            else:
                end[i] += reach
    return begin[0] < end[1] and begin[1] < end[0]


cdef inline object py_type(object value):
    return <object> (<PyObject*> value).ob_type


cdef int64_t codes_of(
    object value, int32_t type, int64_t size, Scratch& scratch, const int32_t** codes
) except -2:
    """How many zero points there are: 0 for None, 1, or `size`; -1 for anything unexpected."""
    cdef int32_t* result
    cdef cnp.ndarray array
    cdef int64_t count, i
    cdef const uint8_t* data
    cdef uint8_t unsigned_code
    cdef int8_t signed_code
    if value is None:
        return 0
    if isinstance(value, cnp.ndarray):
        array = <cnp.ndarray> value
        if value_type(array) != type or cnp.PyArray_NDIM(array) > 1:
            return -1
        count = cnp.PyArray_SIZE(array)
        if count != 1 and count != size or cnp.PyArray_NDIM(array) == 1 and (
            cnp.PyArray_STRIDE(array, 0) != 1 and count > 1
        ):
            return -1
        result = scratch.take_s32(count)
        data = <const uint8_t*> cnp.PyArray_DATA(array)
        for i in range(count):
            if type == VALUE_S8:
                result[i] = (<const int8_t*> data)[i]
            else:
                result[i] = data[i]
        codes[0] = result
        return count
    if (type == VALUE_U8 and py_type(value) is UINT8) or (
        type == VALUE_S8 and py_type(value) is INT8
    ):
        result = scratch.take_s32(1)
        if type == VALUE_U8:
            cnp.PyArray_ScalarAsCtype(value, &unsigned_code)
            result[0] = unsigned_code
        else:
            cnp.PyArray_ScalarAsCtype(value, &signed_code)
            result[0] = signed_code
        codes[0] = result
        return 1
    return -1


cdef int64_t floats_of(
    object value, int64_t size, Scratch& scratch, const float** floats
) except -2:
    """How many float32 values there are: 0 for None, 1, or `size`; -1 for anything unexpected."""
    cdef float* result
    cdef cnp.ndarray array
    cdef int64_t count
    if value is None:
        return 0
    if isinstance(value, cnp.ndarray):
        array = <cnp.ndarray> value
        if value_type(array) != VALUE_F32 or not cnp.PyArray_IS_C_CONTIGUOUS(array):
            return -1
        count = cnp.PyArray_SIZE(array)
        if cnp.PyArray_NDIM(array) > 1 or count != 1 and count != size:
            return -1
        floats[0] = <const float*> cnp.PyArray_DATA(array)
        return count
    if py_type(value) is float or py_type(value) is FLOAT32:
        result = scratch.take_f32(1)
        result[0] = <float> (<double> value)
        floats[0] = result
        return 1
    return -1


cdef int64_t scales_of(
    object value, int64_t size, Scratch& scratch, const float** floats
) except -2:
    """As floats_of; -1 also for a scale that is not positive and finite."""
    cdef int64_t i, count = floats_of(value, size, scratch, floats)
    for i in range(count):
        if not 0 < floats[0][i] < FLOAT_INFINITY:
            return -1
    return count


cdef cnp.ndarray result_for(object out, int64_t m, int64_t n, int number, cnp.ndarray a, b):
    """A new matrix, or `out` where it can be computed into at once; else None."""
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray array
    if out is None:
        shape[0] = m
        shape[1] = n
        return cnp.PyArray_EMPTY(2, shape, number, 0)
    if not isinstance(out, cnp.ndarray):
        return None
    array = <cnp.ndarray> out
    if (
        cnp.PyArray_TYPE(array) != number or not cnp.PyArray_ISBEHAVED(array)
        or cnp.PyArray_NDIM(array) != 2
        or cnp.PyArray_DIM(array, 0) != m or cnp.PyArray_DIM(array, 1) != n
        or not has_rows(array, cnp.PyArray_ITEMSIZE(array)) or overlaps(array, a)
        or isinstance(b, cnp.ndarray) and overlaps(array, <cnp.ndarray> b)
    ):
        return None
    return array


cdef int64_t run_linear(
    const Kernels* kernels, const Weights& weights, const Linear& call
) except -1:
    cdef int64_t nonfinite
    if call.batches * call.m * weights.k * weights.n < BRIEF:
        return c_linear(kernels, weights, call)
    with nogil:
        nonfinite = c_linear(kernels, weights, call)
    return nonfinite


cdef Weights packed_now(
    const Kernels* kernels, const WeightsSource& source, Scratch& scratch
) except *:
    cdef Weights weights
    if source.k * source.n < BRIEF:
        return pack_weights(kernels, source, scratch)
    with nogil:
        weights = pack_weights(kernels, source, scratch)
    return weights


cdef Linear plain_call(cnp.ndarray a, int32_t a_type, cnp.ndarray y, int32_t y_type) noexcept:
    """Rows of `a` times weights give rows of `y`; everything else at rest."""
    cdef Linear call
    cdef int last = cnp.PyArray_NDIM(a) - 1
    call.a = cnp.PyArray_DATA(a)
    call.a_type = a_type
    call.batches = cnp.PyArray_DIM(a, 0) if last == 2 else 1
    call.m = cnp.PyArray_DIM(a, last - 1)
    call.a_batch = cnp.PyArray_STRIDE(a, 0) // value_bytes(a_type) if last == 2 else 0
    call.a_row = cnp.PyArray_STRIDE(a, last - 1) // value_bytes(a_type)
    call.a_zero_point = 0
    call.row_zero_points = NULL
    call.a_scale = 1
    call.row_scales = NULL
    call.y = cnp.PyArray_DATA(y)
    call.y_type = y_type
    call.y_batch = cnp.PyArray_STRIDE(y, 0) // value_bytes(y_type) if last == 2 else 0
    call.y_row = cnp.PyArray_STRIDE(y, last - 1) // value_bytes(y_type)
    call.y_scale = 1
    call.y_zero_point = 0
    call.with_bias = True
    call.ops = NULL
    call.n_ops = 0
    call.residual = NULL
    call.residual_type = VALUE_F32
    call.residual_batch = 0
    call.residual_row = 0
    call.residual_scale = 1
    call.residual_zero_point = 0
    return call


cdef WeightsSource source_of(cnp.ndarray b) noexcept:
    """The weights in a matrix; everything else at rest."""
    cdef WeightsSource source
    source.type = value_type(b)
    source.data = cnp.PyArray_DATA(b)
    source.k = cnp.PyArray_DIM(b, 0)
    source.n = cnp.PyArray_DIM(b, 1)
    source.stride_k = cnp.PyArray_STRIDE(b, 0) // cnp.PyArray_ITEMSIZE(b)
    source.stride_n = cnp.PyArray_STRIDE(b, 1) // cnp.PyArray_ITEMSIZE(b)
    source.zero_points = NULL
    source.zero_point_count = 0
    source.scales = NULL
    source.scale_count = 0
    source.bias_type = VALUE_NONE
    source.bias = NULL
    source.bias_count = 0
    return source


# ---- weights packed once

cdef class PackedWeights:
    """A matrix (K, N) of weights in the layout that kernels read; see numerics.pack_weights.

    It never changes, and any number of threads may use it at once. What it was made from is not
    needed any more.
    """

    cdef CPackedWeights* weights
    cdef readonly object dtype
    cdef readonly object zero_point
    cdef readonly object scale
    cdef readonly object bias

    def __cinit__(self, cnp.ndarray b not None, dtype, zero_point=None, scale=None, bias=None):
        cdef WeightsSource source = source_of(b)
        cdef cnp.ndarray zeros, scales, biases
        if source.type == VALUE_NONE or cnp.PyArray_NDIM(b) != 2:
            raise TypeError("weights are a matrix of one of the types that kernels read")
        self.dtype = dtype
        if zero_point is not None:
            zeros = np.ascontiguousarray(zero_point, np.int32)
            source.zero_points = <const int32_t*> cnp.PyArray_DATA(zeros)
            source.zero_point_count = cnp.PyArray_SIZE(zeros)
            self.zero_point = frozen(zero_point)
        if scale is not None:
            scales = np.ascontiguousarray(scale, np.float32)
            source.scales = <const float*> cnp.PyArray_DATA(scales)
            source.scale_count = cnp.PyArray_SIZE(scales)
            self.scale = frozen(scales)
        if bias is not None:
            biases = np.ascontiguousarray(bias)
            source.bias_type = value_type(biases)
            source.bias = cnp.PyArray_DATA(biases)
            source.bias_count = cnp.PyArray_SIZE(biases)
            self.bias = frozen(biases)
        self.weights = new CPackedWeights(kernels_for(None), source)

    def __dealloc__(self):
        del self.weights

    @property
    def shape(self):
        """(K, N)."""
        return self.weights.view().k, self.weights.view().n

    @property
    def nbytes(self):
        """Bytes of the packed weights."""
        cdef const Weights* view = &self.weights.view()
        return panel_bytes(view.type, view.k, view.n)

    @property
    def fits_s32(self):
        """Whether no sum with 8-bit codes can leave int32, whatever the codes and zero points."""
        return self.weights.view().fits_s32()

    def __reduce__(self):
        raise TypeError("packed weights are never saved: save the weights, and pack them again")

    def __repr__(self):
        return f"PackedWeights({self.dtype}, shape={self.shape})"


cdef object frozen(values):
    cdef cnp.ndarray copy = np.array(values)
    copy.setflags(write=False)
    return copy


# ---- the short ways

cdef inline int32_t weights_of(
    object b, WeightsSource* source, const Weights** packed
) noexcept:
    """The type of the weights, packed or as a matrix; VALUE_NONE for anything else."""
    packed[0] = NULL
    if isinstance(b, PackedWeights):
        packed[0] = &(<PackedWeights> b).weights.view()
        source.type = packed[0].type
        source.k = packed[0].k
        source.n = packed[0].n
        return source.type
    if not isinstance(b, cnp.ndarray) or cnp.PyArray_NDIM(<cnp.ndarray> b) != 2:
        return VALUE_NONE
    source[0] = source_of(<cnp.ndarray> b)
    if (
        cnp.PyArray_STRIDE(<cnp.ndarray> b, 0) % value_bytes(source.type) != 0
        or cnp.PyArray_STRIDE(<cnp.ndarray> b, 1) % value_bytes(source.type) != 0
    ):
        return VALUE_NONE
    return source.type


def multiply_codes(a, b, a_zero_point=None, b_zero_point=None, out=None):
    """Return the matrix (a - a_zero_point) @ (b - b_zero_point) as int32, or None: see above.

    `b` is a matrix or PackedWeights, whose own zero points then count. None also where the sums
    could leave int32.
    """
    cdef Scratch scratch
    cdef WeightsSource source
    cdef const Weights* packed
    cdef Weights weights
    cdef Linear call
    cdef cnp.ndarray rows, y
    cdef const int32_t* zeros = NULL
    cdef int64_t count, m, steps, i
    cdef int32_t a_type
    cdef const Kernels* kernels
    if not isinstance(a, cnp.ndarray):
        return None
    rows = <cnp.ndarray> a
    a_type = value_type(rows)
    if not is_code(a_type) or not has_rows(rows, 1):
        return None
    if not is_code(weights_of(b, &source, &packed)) or source.k != cnp.PyArray_DIM(rows, 1):
        return None
    m = cnp.PyArray_DIM(rows, 0)
    if packed != NULL:
        if b_zero_point is not None:
            return None
        steps = 128 if source.type == VALUE_S8 and packed.zero_points == NULL else 255
    else:
        source.zero_point_count = codes_of(
            b_zero_point, source.type, source.n, scratch, &source.zero_points
        )
        if source.zero_point_count < 0:
            return None
        steps = 128 if source.type == VALUE_S8 else 255
        for i in range(source.zero_point_count):
            if source.zero_points[i] != 0:
                steps = 255
    count = codes_of(a_zero_point, a_type, m, scratch, &zeros)
    if count < 0 or steps * 255 * source.k >= (<int64_t> 1) << 31:
        return None
    y = result_for(out, m, source.n, cnp.NPY_INT32, rows, b)
    kernels = usual_kernels()
    if y is None or kernels == NULL:
        return None
    if packed == NULL:
        weights = packed_now(kernels, source, scratch)
        packed = &weights
    call = plain_call(rows, a_type, y, VALUE_S32)
    call.with_bias = False
    if count == 1:
        call.a_zero_point = zeros[0]
    elif count > 1:
        call.row_zero_points = zeros
    run_linear(kernels, packed[0], call)
    return y


def multiply_requantised(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, bias=None, out=None
):
    """Return numerics.qlinear_matmul of two matrices as 8-bit codes, or None: see above.

    `b` is a matrix, or PackedWeights, whose scale, zero points and bias then count. None also where
    the rows of `a` have parameters of their own.
    """
    cdef Scratch scratch
    cdef WeightsSource source
    cdef const Weights* packed
    cdef Weights weights
    cdef Linear call
    cdef cnp.ndarray rows, y, start
    cdef const int32_t* a_zero = NULL
    cdef const int32_t* y_zero = NULL
    cdef const float* scale = NULL
    cdef const float* step = NULL
    cdef int64_t m, zeros
    cdef int32_t a_type, y_type
    cdef const Kernels* kernels
    if not isinstance(a, cnp.ndarray):
        return None
    rows = <cnp.ndarray> a
    a_type = value_type(rows)
    if not is_code(a_type) or not has_rows(rows, 1):
        return None
    if not is_code(weights_of(b, &source, &packed)) or source.k != cnp.PyArray_DIM(rows, 1):
        return None
    m = cnp.PyArray_DIM(rows, 0)
    y_type = VALUE_U8
    if codes_of(y_zero_point, VALUE_U8, 1, scratch, &y_zero) != 1:
        y_type = VALUE_S8
        if codes_of(y_zero_point, VALUE_S8, 1, scratch, &y_zero) != 1:
            return None
    zeros = codes_of(a_zero_point, a_type, 1, scratch, &a_zero)
    if (
        zeros < 0 or scales_of(a_scale, 1, scratch, &scale) != 1
        or scales_of(y_scale, 1, scratch, &step) != 1
    ):
        return None
    if packed != NULL:
        if b_scale is not None or b_zero_point is not None or bias is not None:
            return None
        if packed.scales == NULL or packed.has_real_bias():
            return None
    else:
        source.zero_point_count = codes_of(
            b_zero_point, source.type, source.n, scratch, &source.zero_points
        )
        source.scale_count = scales_of(b_scale, source.n, scratch, &source.scales)
        if source.zero_point_count < 0 or source.scale_count < 1:
            return None
        if bias is not None:
            if not isinstance(bias, cnp.ndarray):
                return None
            start = <cnp.ndarray> bias
            source.bias_type = VALUE_S32
            source.bias = cnp.PyArray_DATA(start)
            source.bias_count = cnp.PyArray_SIZE(start)
            if (
                value_type(start) != VALUE_S32 or not cnp.PyArray_IS_C_CONTIGUOUS(start)
                or cnp.PyArray_NDIM(start) > 1
                or source.bias_count != 1 and source.bias_count != source.n
            ):
                return None
    y = result_for(out, m, source.n, cnp.NPY_UBYTE if y_type == VALUE_U8 else cnp.NPY_BYTE, rows, b)
    kernels = usual_kernels()
    if y is None or kernels == NULL:
        return None
    if packed == NULL:
        weights = packed_now(kernels, source, scratch)
        packed = &weights
    if not packed.fits_s32():
        return None
    call = plain_call(rows, a_type, y, y_type)
    call.a_zero_point = a_zero[0] if zeros == 1 else 0
    call.a_scale = scale[0]
    call.y_scale = step[0]
    call.y_zero_point = y_zero[0]
    run_linear(kernels, packed[0], call)
    return y


def multiply_floats(a, b, bias, out, int out_number, int number):
    """Return the matrix a @ b + bias of f32, bf16 or f16 matrices, or None: see above.

    `b` is a matrix or PackedWeights, whose bias then counts. `out_number` is the type number of the
    result: float32's or bfloat16's; `number` is the one that `a` must have.
    """
    cdef Scratch scratch
    cdef WeightsSource source
    cdef const Weights* packed
    cdef Weights weights
    cdef Linear call
    cdef cnp.ndarray rows, y
    cdef const float* start = NULL
    cdef int32_t type
    cdef const Kernels* kernels
    if not isinstance(a, cnp.ndarray):
        return None
    rows = <cnp.ndarray> a
    type = value_type(rows)
    if cnp.PyArray_TYPE(rows) != number or type == VALUE_NONE:
        return None
    if not has_rows(rows, value_bytes(type)) or weights_of(b, &source, &packed) != type:
        return None
    if source.k != cnp.PyArray_DIM(rows, 1):
        return None
    if packed != NULL:
        if bias is not None:
            return None
    elif bias is not None:
        source.bias_type = VALUE_F32
        source.bias_count = floats_of(bias, source.n, scratch, &start)
        source.bias = start
        if source.bias_count < 1:
            return None
    y = result_for(out, cnp.PyArray_DIM(rows, 0), source.n, out_number, rows, b)
    kernels = usual_kernels()
    if y is None or kernels == NULL:
        return None
    if packed == NULL:
        weights = packed_now(kernels, source, scratch)
        packed = &weights
    call = plain_call(rows, type, y, value_type(y))
    run_linear(kernels, packed[0], call)
    return y


def multiply_layer(
    a, weights, tuple ops, a_scale, a_zero_point, y_scale, y_zero_point, out, int out_number
):
    """Return numerics.linear of a matrix as one more matrix, or None: see above.

    `ops` holds at most one (code, a, b). None also where the rows of `a` have parameters of their
    own, and where float rows that have to be quantised are not finite.
    """
    cdef Scratch scratch
    cdef const Weights* packed
    cdef Linear call
    cdef UnaryOp op
    cdef cnp.ndarray rows, y
    cdef const int32_t* a_zero = NULL
    cdef const int32_t* y_zero = NULL
    cdef const float* scale = NULL
    cdef const float* step = NULL
    cdef int64_t zeros = 0
    cdef int32_t a_type, y_type
    cdef const Kernels* kernels = usual_kernels()
    if not isinstance(a, cnp.ndarray) or not isinstance(weights, PackedWeights) or len(ops) > 1:
        return None
    rows = <cnp.ndarray> a
    packed = &(<PackedWeights> weights).weights.view()
    a_type = value_type(rows)
    if a_type == VALUE_NONE or kernels == NULL or not has_rows(rows, value_bytes(a_type)):
        return None
    if packed.k != cnp.PyArray_DIM(rows, 1) or (is_code(packed.type) and packed.scales == NULL):
        return None
    if is_code(a_type):
        zeros = codes_of(a_zero_point, a_type, 1, scratch, &a_zero)
        if not is_code(packed.type) or zeros < 0 or scales_of(a_scale, 1, scratch, &scale) != 1:
            return None
    elif a_scale is not None or a_zero_point is not None or (
        a_type != packed.type and not (a_type == VALUE_F32 and is_code(packed.type))
    ):
        return None
    if y_zero_point is not None:
        y_type = VALUE_U8
        if codes_of(y_zero_point, VALUE_U8, 1, scratch, &y_zero) != 1:
            y_type = VALUE_S8
            if codes_of(y_zero_point, VALUE_S8, 1, scratch, &y_zero) != 1:
                return None
        if scales_of(y_scale, 1, scratch, &step) != 1 or (
            is_code(packed.type) and not is_code(a_type)
        ):
            return None
        out_number = cnp.NPY_UBYTE if y_type == VALUE_U8 else cnp.NPY_BYTE
    elif y_scale is not None:
        return None
    y = result_for(out, cnp.PyArray_DIM(rows, 0), packed.n, out_number, rows, None)
    if y is None:
        return None
    call = plain_call(rows, a_type, y, value_type(y))
    if scale != NULL:
        call.a_scale = scale[0]
    if zeros == 1:
        call.a_zero_point = a_zero[0]
    if step != NULL:
        call.y_scale = step[0]
        call.y_zero_point = y_zero[0]
    for code, first, second in ops:
        op.code = code
        op.a = first
        op.b = second
        call.ops = &op
        call.n_ops = 1
    return y if run_linear(kernels, packed[0], call) == 0 else None


# ---- the long way: everything that a call can say, checked by lowprec.numerics

def linear(
    cnp.ndarray a not None, PackedWeights weights not None, cnp.ndarray y not None, *,
    float a_scale=1, row_scales=None, int a_zero_point=0, row_zero_points=None,
    float y_scale=1, int y_zero_point=0, ops=(), residual=None, float residual_scale=1,
    int residual_zero_point=0, bint with_bias=True, isa=None
):
    """Fill `y` (B, M, N) from `a` (B, M, K) times `weights`, as linear.h says.

    Returns how many values of `a` were neither finite nor, therefore, quantised: `y` then holds
    nothing of use. 0 where nothing had to be.

    Args:
        a, y, residual: contiguous along the last axis; `y` overlaps none of the others.
        row_scales: float32 (B * M,), for a `y` of floats; then a_scale is 1.
        row_zero_points: int32 (B * M,).
        ops: (code, a, b) of unary operators (kernels.h), in order.
    """
    cdef const Kernels* kernels = kernels_for(isa)
    cdef Linear call = plain_call(a, value_type(a), y, value_type(y))
    cdef vector[UnaryOp] chain
    cdef UnaryOp op
    cdef cnp.ndarray added
    for code, first, second in ops:
        op.code = code
        op.a = first
        op.b = second
        chain.push_back(op)
    call.a_scale = a_scale
    call.a_zero_point = a_zero_point
    call.row_scales = <const float*> data_or_null(row_scales)
    call.row_zero_points = <const int32_t*> data_or_null(row_zero_points)
    call.y_scale = y_scale
    call.y_zero_point = y_zero_point
    call.with_bias = with_bias
    call.ops = chain.data()
    call.n_ops = <int32_t> chain.size()
    if residual is not None:
        added = <cnp.ndarray> residual
        call.residual = cnp.PyArray_DATA(added)
        call.residual_type = value_type(added)
        call.residual_batch = cnp.PyArray_STRIDE(added, 0) // cnp.PyArray_ITEMSIZE(added)
        call.residual_row = cnp.PyArray_STRIDE(added, 1) // cnp.PyArray_ITEMSIZE(added)
        call.residual_scale = residual_scale
        call.residual_zero_point = residual_zero_point
    return run_linear(kernels, weights.weights.view(), call)
