// batches.h: stacks of products whose two operands both change from call to call (attention).
#pragma once
#include "linear.h"

namespace lp {

// For each entry i of call.batches: y[i] = a[i] times the weights `b_batch` elements on from those
// of entry i - 1. Weights are packed on the way, entries shared out among threads. `call` holds no
// lists per row and no residual. False, nothing done: a sum of some entry could leave s32.
bool multiply_batches(const Kernels* kernels, const WeightsSource& first, int64_t b_batch,
                      const Linear& call);

}  // namespace lp
