// c_api.cpp: see c_api.h.
#include "c_api.h"

namespace lp {

const lowprec_api* c_api() {
  static const lowprec_api api = {sizeof(lowprec_api),
                                  LOWPREC_API_MAJOR,
                                  LOWPREC_API_MINOR,
                                  api_last_error,
                                  api_isa,
                                  api_convert,
                                  api_quantize,
                                  api_dequantize,
                                  api_requantize,
                                  api_dynamic_quantize,
                                  api_pack_weights,
                                  api_free_weights,
                                  api_inspect_weights,
                                  api_gemm,
                                  api_new_observer,
                                  api_free_observer,
                                  api_observe,
                                  api_merge_observer,
                                  api_read_statistics,
                                  api_read_histogram,
                                  api_get_num_threads,
                                  api_set_num_threads,
                                  api_use_parallel_for};
  return &api;
}

}  // namespace lp
