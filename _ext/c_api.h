// c_api.h: the functions of include/lowprec.h and the one table of them, which _core.pyx puts into
// a capsule.
#pragma once
#include "include/lowprec.h"

namespace lp {

const lowprec_api* c_api();

lowprec_status api_isa(const char** name);
lowprec_status api_convert(int32_t from, const void* x, int32_t to, void* y, int64_t n,
                           int32_t saturate);
lowprec_status api_quantize(const float* x, int32_t dtype, void* q, int64_t rows, int64_t n,
                            const float* scales, const int32_t* zero_points);
lowprec_status api_dequantize(int32_t dtype, const void* q, float* x, int64_t rows, int64_t n,
                              const float* scales, const int32_t* zero_points);
lowprec_status api_requantize(const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n,
                              const float* multipliers, const int32_t* zero_points);
lowprec_status api_dynamic_quantize(const float* x, uint8_t* q, int64_t rows, int64_t n,
                                    float* scales, uint8_t* zero_points);
lowprec_status api_pack_weights(const lowprec_weights_desc* desc, lowprec_weights** weights);
void api_free_weights(lowprec_weights* weights);
lowprec_status api_inspect_weights(const lowprec_weights* weights, lowprec_weights_info* info);
lowprec_status api_gemm(const lowprec_weights* weights, const lowprec_gemm_desc* desc);
lowprec_status api_new_observer(int64_t bins, lowprec_observer** observer);
void api_free_observer(lowprec_observer* observer);
lowprec_status api_observe(lowprec_observer* observer, const float* x, int64_t n);
lowprec_status api_merge_observer(lowprec_observer* observer, const lowprec_observer* other);
lowprec_status api_read_statistics(const lowprec_observer* observer,
                                   lowprec_statistics* statistics);
lowprec_status api_read_histogram(const lowprec_observer* observer, int64_t* counts, int64_t bins);
lowprec_status api_get_num_threads(int32_t* threads);
lowprec_status api_set_num_threads(int32_t threads);
lowprec_status api_use_parallel_for(const lowprec_parallel_for* other);
const char* api_last_error();

}  // namespace lp
