// product_f32_neon.inl: f32 products with Advanced SIMD: one FMA chain per output over k.
//
// Microkernel  6 x 16, fewer rows times more columns where rows are few: at least 16 accumulators,
//              more than latency (4) times instructions a cycle (2 to 4) of every core so far
// Registers    6 x 16: 24 accumulators + 4 of B + 1 or 2 of A = 30 of 32

namespace {

struct MicroF32 {
  using Element = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const float* b,
                                             const float* bias, const float* const* a,
                                             float (*out)[PANEL]) {
    float32x4_t acc[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vdupq_n_f32(0.0f);
    for (int64_t r = 0; r < args.runs; ++r) {
      const float* run[MR];
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        float32x4_t x[MR];
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) x[i] = vld1q_dup_f32(run[i] + k);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) {
          const float32x4_t w = vld1q_f32(b + 4 * j);
#pragma GCC unroll 8
          for (int i = 0; i < MR; ++i) acc[i][j] = vfmaq_f32(acc[i][j], x[i], w);
        }
      }
    }
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      const float32x4_t add = vld1q_f32(bias + 4 * j);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) vst1q_f32(out[i] + 4 * j, vaddq_f32(acc[i][j], add));
    }
  }

  // All columns of MR rows.
  template <int MR, int NV>
  static LP_MEMBER void strip(const lp::ProductArgs& args, const Panel<float>& panel,
                              const Rows<float>& rows, int first) {
    alignas(64) float out[MR][PANEL];
    for (int column = 0; column < panel.columns; column += 4 * NV) {
      tile<MR, NV>(args, panel.weights + column, panel.bias + column, rows.source + first,
                   reinterpret_cast<float (*)[PANEL]>(&out[0][column]));
    }
    finish_reals(args.epilogue, rows, first, MR, panel.n0, panel.columns, out[0], PANEL);
  }

  static void rows(const lp::ProductArgs& args, const Panel<float>& panel,
                   const Rows<float>& rows) {
    int i = 0;
    for (; i + 6 <= rows.count; i += 6) strip<6, 4>(args, panel, rows, i);
    for (; i + 4 <= rows.count; i += 4) strip<4, 4>(args, panel, rows, i);
    if (i + 2 <= rows.count) {
      strip<2, 8>(args, panel, rows, i);
      i += 2;
    }
    if (i < rows.count) strip<1, 16>(args, panel, rows, i);
  }
};

}  // namespace
