# cython: language_level=3
"""lowprec's maths core for other Cython modules: the functions of lowprec.h, by cimport.

    from lowprec._ext._core cimport lowprec_gemm, lowprec_gemm_desc

cythonize(..., include_path=[lowprec.get_include()]), and the same folder in the extension's
include_dirs. What each function does, takes and returns is said in lowprec.h.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef extern from "lowprec.h" nogil:
    ctypedef enum lowprec_status:
        LOWPREC_OK
        LOWPREC_INVALID
        LOWPREC_UNSUPPORTED
        LOWPREC_OUT_OF_MEMORY
        LOWPREC_UNAVAILABLE
        LOWPREC_INTERNAL

    ctypedef enum lowprec_dtype:
        LOWPREC_NONE
        LOWPREC_F32
        LOWPREC_U8
        LOWPREC_S8
        LOWPREC_U16
        LOWPREC_S16
        LOWPREC_S32
        LOWPREC_F16
        LOWPREC_BF16
        LOWPREC_E4M3
        LOWPREC_E5M2

    ctypedef enum lowprec_activation:
        LOWPREC_IDENTITY
        LOWPREC_RELU
        LOWPREC_CLIP
        LOWPREC_LEAKY_RELU
        LOWPREC_HARD_SIGMOID
        LOWPREC_HARD_SWISH
        LOWPREC_SIGMOID
        LOWPREC_SILU
        LOWPREC_TANH
        LOWPREC_GELU
        LOWPREC_GELU_TANH
        LOWPREC_ELU

    ctypedef struct lowprec_weights:
        pass

    ctypedef struct lowprec_observer:
        pass

    ctypedef struct lowprec_weights_desc:
        size_t struct_size
        int32_t dtype
        int32_t bias_dtype
        int64_t k
        int64_t n
        int64_t stride_k
        int64_t stride_n
        const void* data
        const int32_t* zero_points
        int64_t zero_point_count
        const float* scales
        int64_t scale_count
        const void* bias
        int64_t bias_count

    ctypedef struct lowprec_weights_info:
        size_t struct_size
        int32_t dtype
        int32_t has_scales
        int64_t k
        int64_t n
        int64_t packed_bytes

    ctypedef struct lowprec_gemm_desc:
        size_t struct_size
        int64_t batches
        int64_t m
        const void* a
        int32_t a_dtype
        int32_t a_zero_point
        int64_t a_batch_stride
        int64_t a_row_stride
        float a_scale
        float y_scale
        void* y
        int32_t y_dtype
        int32_t y_zero_point
        int64_t y_batch_stride
        int64_t y_row_stride
        const float* row_scales
        const int32_t* row_zero_points
        int32_t activation
        float activation_a
        float activation_b
        int32_t residual_dtype
        const void* residual
        float residual_scale
        int32_t residual_zero_point

    ctypedef struct lowprec_statistics:
        size_t struct_size
        int64_t bins
        int64_t count
        int64_t nonfinite
        float minimum
        float maximum
        int64_t origin
        double width

    ctypedef void (*lowprec_task)(void* context, int64_t i) noexcept nogil

    ctypedef struct lowprec_parallel_for:
        size_t struct_size
        void (*run)(
            void* self, lowprec_task task, void* context, int64_t tasks
        ) noexcept nogil
        void* self
        int32_t threads

    ctypedef struct lowprec_api:
        size_t struct_size
        int32_t major
        int32_t minor
        const char* (*last_error)() noexcept nogil
        lowprec_status (*isa)(const char** name) noexcept nogil
        lowprec_status (*convert)(
            int32_t from_dtype, const void* x, int32_t to, void* y, int64_t n, int32_t saturate
        ) noexcept nogil
        lowprec_status (*quantize)(
            const float* x, int32_t dtype, void* q, int64_t rows, int64_t n, const float* scales,
            const int32_t* zero_points
        ) noexcept nogil
        lowprec_status (*dequantize)(
            int32_t dtype, const void* q, float* x, int64_t rows, int64_t n, const float* scales,
            const int32_t* zero_points
        ) noexcept nogil
        lowprec_status (*requantize)(
            const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n,
            const float* multipliers, const int32_t* zero_points
        ) noexcept nogil
        lowprec_status (*dynamic_quantize)(
            const float* x, uint8_t* q, int64_t rows, int64_t n, float* scales,
            uint8_t* zero_points
        ) noexcept nogil
        lowprec_status (*pack_weights)(
            const lowprec_weights_desc* desc, lowprec_weights** weights
        ) noexcept nogil
        void (*free_weights)(lowprec_weights* weights) noexcept nogil
        lowprec_status (*inspect_weights)(
            const lowprec_weights* weights, lowprec_weights_info* info
        ) noexcept nogil
        lowprec_status (*gemm)(
            const lowprec_weights* weights, const lowprec_gemm_desc* desc
        ) noexcept nogil
        lowprec_status (*new_observer)(int64_t bins, lowprec_observer** observer) noexcept nogil
        void (*free_observer)(lowprec_observer* observer) noexcept nogil
        lowprec_status (*observe)(
            lowprec_observer* observer, const float* x, int64_t n
        ) noexcept nogil
        lowprec_status (*merge_observer)(
            lowprec_observer* observer, const lowprec_observer* other
        ) noexcept nogil
        lowprec_status (*read_statistics)(
            const lowprec_observer* observer, lowprec_statistics* statistics
        ) noexcept nogil
        lowprec_status (*read_histogram)(
            const lowprec_observer* observer, int64_t* counts, int64_t bins
        ) noexcept nogil
        lowprec_status (*get_num_threads)(int32_t* threads) noexcept nogil
        lowprec_status (*set_num_threads)(int32_t threads) noexcept nogil
        lowprec_status (*use_parallel_for)(const lowprec_parallel_for* other) noexcept nogil

    int LOWPREC_API_MAJOR
    int LOWPREC_API_MINOR
    void LOWPREC_INIT(void* description)


cdef const char* lowprec_last_error() noexcept nogil
cdef lowprec_status lowprec_isa(const char** name) noexcept nogil
cdef lowprec_status lowprec_convert(
    int32_t from_dtype, const void* x, int32_t to, void* y, int64_t n, int32_t saturate
) noexcept nogil
cdef lowprec_status lowprec_quantize(
    const float* x, int32_t dtype, void* q, int64_t rows, int64_t n, const float* scales,
    const int32_t* zero_points
) noexcept nogil
cdef lowprec_status lowprec_dequantize(
    int32_t dtype, const void* q, float* x, int64_t rows, int64_t n, const float* scales,
    const int32_t* zero_points
) noexcept nogil
cdef lowprec_status lowprec_requantize(
    const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n, const float* multipliers,
    const int32_t* zero_points
) noexcept nogil
cdef lowprec_status lowprec_dynamic_quantize(
    const float* x, uint8_t* q, int64_t rows, int64_t n, float* scales, uint8_t* zero_points
) noexcept nogil
cdef lowprec_status lowprec_pack_weights(
    const lowprec_weights_desc* desc, lowprec_weights** weights
) noexcept nogil
cdef void lowprec_free_weights(lowprec_weights* weights) noexcept nogil
cdef lowprec_status lowprec_inspect_weights(
    const lowprec_weights* weights, lowprec_weights_info* info
) noexcept nogil
cdef lowprec_status lowprec_gemm(
    const lowprec_weights* weights, const lowprec_gemm_desc* desc
) noexcept nogil
cdef lowprec_status lowprec_new_observer(int64_t bins, lowprec_observer** observer) noexcept nogil
cdef void lowprec_free_observer(lowprec_observer* observer) noexcept nogil
cdef lowprec_status lowprec_observe(
    lowprec_observer* observer, const float* x, int64_t n
) noexcept nogil
cdef lowprec_status lowprec_merge_observer(
    lowprec_observer* observer, const lowprec_observer* other
) noexcept nogil
cdef lowprec_status lowprec_read_statistics(
    const lowprec_observer* observer, lowprec_statistics* statistics
) noexcept nogil
cdef lowprec_status lowprec_read_histogram(
    const lowprec_observer* observer, int64_t* counts, int64_t bins
) noexcept nogil
cdef lowprec_status lowprec_get_num_threads(int32_t* threads) noexcept nogil
cdef lowprec_status lowprec_set_num_threads(int32_t threads) noexcept nogil
cdef lowprec_status lowprec_use_parallel_for(const lowprec_parallel_for* other) noexcept nogil
