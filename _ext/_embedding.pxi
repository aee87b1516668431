# lowprec.h: the capsule for C, and the same functions for Cython modules (_core.pxd).

from cpython.pycapsule cimport PyCapsule_New


cdef extern from "c_api.h" namespace "lp" nogil:
    const lowprec_api* c_api()


_C_API = PyCapsule_New(<void*> c_api(), "lowprec._ext._core._C_API", NULL)


cdef const char* lowprec_last_error() noexcept nogil:
    return c_api().last_error()


cdef lowprec_status lowprec_isa(const char** name) noexcept nogil:
    return c_api().isa(name)


cdef lowprec_status lowprec_convert(
    int32_t from_dtype, const void* x, int32_t to, void* y, int64_t n, int32_t saturate
) noexcept nogil:
    return c_api().convert(from_dtype, x, to, y, n, saturate)


cdef lowprec_status lowprec_quantize(
    const float* x, int32_t dtype, void* q, int64_t rows, int64_t n, const float* scales,
    const int32_t* zero_points
) noexcept nogil:
    return c_api().quantize(x, dtype, q, rows, n, scales, zero_points)


cdef lowprec_status lowprec_dequantize(
    int32_t dtype, const void* q, float* x, int64_t rows, int64_t n, const float* scales,
    const int32_t* zero_points
) noexcept nogil:
    return c_api().dequantize(dtype, q, x, rows, n, scales, zero_points)


cdef lowprec_status lowprec_requantize(
    const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n, const float* multipliers,
    const int32_t* zero_points
) noexcept nogil:
    return c_api().requantize(acc, dtype, q, rows, n, multipliers, zero_points)


cdef lowprec_status lowprec_dynamic_quantize(
    const float* x, uint8_t* q, int64_t rows, int64_t n, float* scales, uint8_t* zero_points
) noexcept nogil:
    return c_api().dynamic_quantize(x, q, rows, n, scales, zero_points)


cdef lowprec_status lowprec_pack_weights(
    const lowprec_weights_desc* desc, lowprec_weights** weights
) noexcept nogil:
    return c_api().pack_weights(desc, weights)


cdef void lowprec_free_weights(lowprec_weights* weights) noexcept nogil:
    c_api().free_weights(weights)


cdef lowprec_status lowprec_inspect_weights(
    const lowprec_weights* weights, lowprec_weights_info* info
) noexcept nogil:
    return c_api().inspect_weights(weights, info)


cdef lowprec_status lowprec_gemm(
    const lowprec_weights* weights, const lowprec_gemm_desc* desc
) noexcept nogil:
    return c_api().gemm(weights, desc)


cdef lowprec_status lowprec_new_observer(int64_t bins, lowprec_observer** observer) noexcept nogil:
    return c_api().new_observer(bins, observer)


cdef void lowprec_free_observer(lowprec_observer* observer) noexcept nogil:
    c_api().free_observer(observer)


cdef lowprec_status lowprec_observe(
    lowprec_observer* observer, const float* x, int64_t n
) noexcept nogil:
    return c_api().observe(observer, x, n)


cdef lowprec_status lowprec_merge_observer(
    lowprec_observer* observer, const lowprec_observer* other
) noexcept nogil:
    return c_api().merge_observer(observer, other)


cdef lowprec_status lowprec_read_statistics(
    const lowprec_observer* observer, lowprec_statistics* statistics
) noexcept nogil:
    return c_api().read_statistics(observer, statistics)


cdef lowprec_status lowprec_read_histogram(
    const lowprec_observer* observer, int64_t* counts, int64_t bins
) noexcept nogil:
    return c_api().read_histogram(observer, counts, bins)


cdef lowprec_status lowprec_get_num_threads(int32_t* threads) noexcept nogil:
    return c_api().get_num_threads(threads)


cdef lowprec_status lowprec_set_num_threads(int32_t threads) noexcept nogil:
    return c_api().set_num_threads(threads)


cdef lowprec_status lowprec_use_parallel_for(const lowprec_parallel_for* other) noexcept nogil:
    return c_api().use_parallel_for(other)
