# What a product does to its results: everything that kernels.h, Epilogue, can say. For tests of the
# kernels; the engine fills the structure itself.

from libc.string cimport memset


cdef extern from "kernels/kernels.h" namespace "lp" nogil:
    ctypedef enum OutputKind:
        OUT_S32
        OUT_F32
        OUT_U8
        OUT_S8
        OUT_BF16

    cdef struct UnaryOp:
        int32_t code
        float a
        float b

    cdef struct Epilogue:
        int32_t kind
        int32_t zero_point
        int32_t qmin
        int32_t qmax
        int32_t fast
        float scale
        const float* multiplier
        const float* addend
        const UnaryOp* ops
        int32_t n_ops
        const float* row_multiplier
        const uint8_t* table
        const float** channel_values "channel_values"
        const void* residual
        int32_t residual_kind
        int32_t residual_zero_point
        float residual_scale
        int64_t residual_col


cdef int32_t kind_of(cnp.ndarray values):
    cdef bint is_signed = values.dtype.kind == "i"
    if cnp.PyArray_ITEMSIZE(values) == 1:
        return OUT_S8 if is_signed else OUT_U8
    if cnp.PyArray_ITEMSIZE(values) == 2:  # bf16, by itself or as its bits
        return OUT_BF16
    return OUT_S32 if is_signed else OUT_F32


cdef class ProductEpilogue:
    """What follows a product's bias or multiplier: operators, residual, table, clamp.

    `operators` are (code, a, b) by kernels.h, UnaryCode, run in order. `row_multiplier` (M,) and
    each of `channel_values` (N,) are float32; `table` holds 256 bytes. `residual` (M, N) is
    float32, uint8, int8 or bf16; its rows may lie apart. `qmin`, `qmax` clamp the codes.
    """

    cdef Epilogue epilogue
    cdef object qmin, qmax
    cdef list kept

    def __init__(
        self, operators=(), *, row_multiplier=None, table=None, channel_values=(), residual=None,
        float residual_scale=1, int residual_zero_point=0, qmin=None, qmax=None
    ):
        memset(&self.epilogue, 0, sizeof(self.epilogue))
        self.qmin, self.qmax = qmin, qmax
        rows = np.array(
            [tuple(operator) for operator in operators], [("code", "i4"), ("a", "f4"), ("b", "f4")]
        )
        lists = [
            np.concatenate([values, np.zeros(-len(values) % 64)]).astype(np.float32)
            for values in channel_values
        ]
        addresses = np.array([values.ctypes.data for values in lists], np.uintp)
        self.kept = [rows, lists, addresses, row_multiplier, table, residual]
        self.epilogue.ops = <const UnaryOp*> cnp.PyArray_DATA(rows)
        self.epilogue.n_ops = <int32_t> len(rows)
        self.epilogue.channel_values = <const float**> cnp.PyArray_DATA(addresses)
        self.epilogue.row_multiplier = <const float*> data_or_null(row_multiplier)
        self.epilogue.table = <const uint8_t*> data_or_null(table)
        if residual is not None:
            self.epilogue.residual = data_or_null(residual)
            self.epilogue.residual_kind = kind_of(residual)
            self.epilogue.residual_col = residual.strides[0] // residual.itemsize
            self.epilogue.residual_scale = residual_scale
            self.epilogue.residual_zero_point = residual_zero_point


cdef const void* data_or_null(array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray> array)


cdef Epilogue epilogue_for(
    cnp.ndarray out, float scale, int zero_point, bint fast, ProductEpilogue more
) except *:
    cdef Epilogue epilogue
    memset(&epilogue, 0, sizeof(epilogue))
    if more is not None:
        epilogue = more.epilogue
    cdef bint is_signed = out.dtype.kind == "i"
    epilogue.kind = kind_of(out)
    epilogue.zero_point = zero_point
    epilogue.qmin = -128 if is_signed else 0
    epilogue.qmax = 127 if is_signed else 255
    if more is not None and more.qmin is not None:
        epilogue.qmin = more.qmin
    if more is not None and more.qmax is not None:
        epilogue.qmax = more.qmax
    epilogue.fast = fast
    epilogue.scale = scale
    return epilogue
