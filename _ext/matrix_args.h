// matrix_args.h: a plain row-major matrix product as ProductArgs, for everyone who calls a kernel.
#pragma once
#include "kernels/kernels.h"

namespace lp {

// out (m, n) = a (m, k) * weights; rows start `a_stride` and `out_stride` elements apart. What is
// left to set: packed, bias, for codes sums and zero points, and the epilogue.
inline ProductArgs matrix_args(const void* a, int64_t a_stride, void* out, int64_t out_stride,
                               int64_t m, int64_t k, int64_t n) {
  static constexpr int64_t no_offset = 0;
  ProductArgs args{};
  args.src = a;
  args.dst = out;
  args.images = args.rows = 1;
  args.cols = m;
  args.src_col = a_stride;
  args.dst_col = out_stride;
  args.run_offset = &no_offset;
  args.runs = 1;
  args.run_length = k;
  args.n = n;
  return args;
}

}  // namespace lp
