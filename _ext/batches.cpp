// batches.cpp: see batches.h.
#include "batches.h"

#include <stdlib.h>

#include <algorithm>

#include "threads.h"

namespace lp {

bool multiply_batches(const Kernels* kernels, const WeightsSource& first, int64_t b_batch,
                      const Linear& call) {
  // With this bound no entry's weights have to be looked at: a start at most, and 255 * 255 a step.
  if (is_code(first.type)) {
    int64_t start = 0;
    const int32_t* bias = static_cast<const int32_t*>(first.bias);
    for (int64_t i = 0; first.bias_type == VALUE_S32 && i < first.bias_count; ++i) {
      start = std::max<int64_t>(start, std::abs(int64_t{bias[i]}));
    }
    if (start + 255 * 255 * first.k >= int64_t{1} << 31) return false;
  }
  const int64_t a_step = call.a_batch * value_bytes(call.a_type);
  const int64_t b_step = b_batch * value_bytes(first.type);
  const int64_t y_step = call.y_batch * value_bytes(call.y_type);
  parallel_rows(call.batches, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Scratch scratch;
      WeightsSource source = first;
      source.data = static_cast<const uint8_t*>(first.data) + i * b_step;
      Linear entry = call;
      entry.batches = 1;
      entry.a = static_cast<const uint8_t*>(call.a) + i * a_step;
      entry.y = static_cast<uint8_t*>(call.y) + i * y_step;
      linear(kernels, pack_weights(kernels, source, scratch), entry);
    }
  });
  return true;
}

}  // namespace lp
