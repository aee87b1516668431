"""A quantised linear layer on lowprec's maths core, by cimport."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from lowprec._ext._core cimport (
    LOWPREC_F32, LOWPREC_INIT, LOWPREC_OK, LOWPREC_RELU, LOWPREC_S8, LOWPREC_U8,
    lowprec_free_weights, lowprec_gemm, lowprec_gemm_desc, lowprec_last_error,
    lowprec_pack_weights, lowprec_quantize, lowprec_status, lowprec_weights, lowprec_weights_desc,
)


cdef class Layer:
    """relu(x @ w + bias) as uint8 codes: w int8 (K, N), scales and bias float32 (N,)."""

    cdef lowprec_weights* weights
    cdef int64_t k, n

    def __cinit__(self, const int8_t[:, ::1] w, const float[::1] scales, const float[::1] bias):
        cdef lowprec_weights_desc desc
        LOWPREC_INIT(&desc)
        self.k = desc.k = w.shape[0]
        self.n = desc.n = w.shape[1]
        desc.dtype = LOWPREC_S8
        desc.stride_k = self.n
        desc.stride_n = 1
        desc.data = &w[0, 0]
        desc.scales = &scales[0]
        desc.scale_count = scales.shape[0]
        desc.bias_dtype = LOWPREC_F32
        desc.bias = &bias[0]
        desc.bias_count = bias.shape[0]
        check(lowprec_pack_weights(&desc, &self.weights))

    def __dealloc__(self):
        lowprec_free_weights(self.weights)

    def run(
        self, const float[:, ::1] x, uint8_t[:, ::1] codes, uint8_t[:, ::1] y,
        float x_scale, int32_t x_zero_point, float y_scale, int32_t y_zero_point,
    ):
        """Fill y (M, N) from x (M, K); `codes` (M, K) holds the quantised x on the way."""
        if x.shape[1] != self.k or codes.shape[1] != self.k or y.shape[1] != self.n:
            raise ValueError("x and codes are (M, K), y is (M, N)")
        if codes.shape[0] != x.shape[0] or y.shape[0] != x.shape[0]:
            raise ValueError("x, codes and y have as many rows")
        cdef lowprec_status status
        cdef lowprec_gemm_desc desc
        LOWPREC_INIT(&desc)
        desc.batches = 1
        desc.m = x.shape[0]
        desc.a = &codes[0, 0]
        desc.a_dtype = LOWPREC_U8
        desc.a_scale = x_scale
        desc.a_zero_point = x_zero_point
        desc.a_row_stride = self.k
        desc.y = &y[0, 0]
        desc.y_dtype = LOWPREC_U8
        desc.y_scale = y_scale
        desc.y_zero_point = y_zero_point
        desc.y_row_stride = self.n
        desc.activation = LOWPREC_RELU
        with nogil:
            status = lowprec_quantize(
                &x[0, 0], LOWPREC_U8, &codes[0, 0], 1, desc.m * self.k, &x_scale, &x_zero_point
            )
            if status == LOWPREC_OK:
                status = lowprec_gemm(self.weights, &desc)
        check(status)


cdef int check(lowprec_status status) except -1:
    if status != LOWPREC_OK:
        raise ValueError(lowprec_last_error().decode())
    return 0
