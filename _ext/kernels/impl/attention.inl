// attention.inl: attention in codes. Rows of floats to s8 codes of one scale, and scores to u8
// weights; the products between are product_s8s8 and product_u8s8.
//
// Included inside a per-ISA translation unit, after rows.inl.

namespace {

// The largest magnitude in rows; NaN, or infinity, where there is one. Magnitudes compare as their
// bits do, so that neither order nor vector length matters.
static float largest_of_rows(const float* x, int64_t row_stride, int64_t rows, int64_t n) {
  VI most = vset_s32(0);
  for (int64_t row = 0; row < rows; ++row, x += row_stride) {
    for_lanes(n, [&](int64_t i, int c) { most = vmax(most, as_s32(vabs(vload_any(x + i, c)))); });
  }
  int32_t lanes[W], bits = 0;
  vstore(lanes, most);
  for (int i = 0; i < W; ++i) bits = lanes[i] > bits ? lanes[i] : bits;
  float largest;
  memcpy(&largest, &bits, sizeof(largest));
  return largest;
}

// q = rint(x / scale) within +-127; sums of the codes of each row, where wanted.
static void quantize_code_rows(const lp::CodeRowsArgs* args) {
  const VF scale = vset(args->scale), low = vset(-127.0f), high = vset(127.0f);
  for (int64_t row = 0; row < args->rows; ++row) {
    const float* x = args->x + row * args->row_stride;
    int8_t* q = args->q + row * args->q_stride;
    VI sum = vset_s32(0);
    for_lanes(args->n, [&](int64_t i, int c) {
      const VI code = cvt_s32(vmin(vmax(vload_any(x + i, c) / scale, low), high));
      sum = sum + code;
      if (c == W) {
        store_b8(q + i, code);
      } else {
        store_b8_n(q + i, code, c);
      }
    });
    if (args->sums == nullptr) continue;
    int32_t lanes[W], total = 0;
    vstore(lanes, sum);
    for (int i = 0; i < W; ++i) total += lanes[i];
    args->sums[row] = total;
  }
}

// 255 * 2^(d / ln 2), d <= 0, rounded; a polynomial of degree 3 is off by 0.02 of a code at most
// (weighted least-squares minimax of 255 * 2^f, as in unary.inl). Minus infinity and NaN give 0.
LP_INLINE VI weight_code(VF d) {
  const VF near = vmax(d, vset(-8.0f)), to_binary = vset(1.44269504f);
  const VF magic = vset(12582912.0f);  // as in reduce_exp
  const VF shifted = fma(near, to_binary, magic);
  const VF f = fma(near, to_binary, magic - shifted);
  VF p = vset(0x1.c23368p+3f);
  p = fma(p, f, vset(0x1.eeed3ep+5f));
  p = fma(p, f, vset(0x1.619028p+7f));
  p = fma(p, f, vset(0x1.fdf69cp+7f));
  return cvt_s32(as_f32(as_s32(p) + shift_left<23>(as_s32(shifted))));
}

// q = weight_code(x - max) of each row, zeros up to a multiple of 4; a row without a finite score
// becomes zeros. inverse_sums = 1 / the sum of the row's codes; 0 where all scores are minus
// infinity, NaN where one is NaN or infinity.
static void softmax_codes(const float* x, int64_t rows, int64_t n, uint8_t* q, int64_t q_stride,
                          float* inverse_sums) {
  for (int64_t row = 0; row < rows; ++row, x += n, q += q_stride) {
    memset(q + n, 0, static_cast<size_t>((4 - n % 4) % 4));
    const float most = reduce_row<Max>(x, n);
    if (!(most - most == 0.0f)) {
      memset(q, 0, static_cast<size_t>(n));
      inverse_sums[row] = most < 0.0f ? 0.0f : __builtin_nanf("");
      continue;
    }
    VI sum = vset_s32(0);
    for_lanes(n, [&](int64_t i, int c) {
      const VI code = weight_code(vload_any(x + i, c) - vset(most));
      if (c == W) {
        sum = sum + code;
        store_b8(q + i, code);
      } else {
        sum = sum + select(first_lanes(c), code, vset_s32(0));
        store_b8_n(q + i, code, c);
      }
    });
    int32_t lanes[W], total = 0;
    vstore(lanes, sum);
    for (int i = 0; i < W; ++i) total += lanes[i];
    inverse_sums[row] = 1.0f / static_cast<float>(total);
  }
}

}  // namespace
