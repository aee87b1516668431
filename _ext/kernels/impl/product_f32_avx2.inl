// product_f32_avx2.inl: f32 products: 6 x 16, 12 accumulators, one FMA chain per output over k.

namespace {

struct MicroF32 {
  using Element = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }

  template <int MR>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const float* b,
                                             const float* bias, const float* const* a,
                                             float (*out)[16]) {
    __m256 acc[MR][2];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          const __m256 x = _mm256_broadcast_ss(a[i] + offset + k);
          acc[i][0] = _mm256_fmadd_ps(x, b0, acc[i][0]);
          acc[i][1] = _mm256_fmadd_ps(x, b1, acc[i][1]);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      _mm256_storeu_ps(out[i], _mm256_add_ps(acc[i][0], _mm256_loadu_ps(bias)));
      _mm256_storeu_ps(out[i] + 8, _mm256_add_ps(acc[i][1], _mm256_loadu_ps(bias + 8)));
    }
  }

  static void rows(const lp::ProductArgs& args, const Panel<float>& panel,
                   const Rows<float>& rows) {
    alignas(64) float out[6][16];
    for (int column = 0; column < panel.columns; column += 16) {
      const float* b = panel.weights + column;
      const float* bias = panel.bias + column;
      const int columns = panel.columns - column < 16 ? panel.columns - column : 16;
      for (int i = 0; i < rows.count; i += 6) {
        const float* const* a = rows.source + i;
        const int mr = rows.count - i < 6 ? rows.count - i : 6;
        switch (mr) {
          case 6:
            tile<6>(args, b, bias, a, out);
            break;
          case 5:
            tile<5>(args, b, bias, a, out);
            break;
          case 4:
            tile<4>(args, b, bias, a, out);
            break;
          case 3:
            tile<3>(args, b, bias, a, out);
            break;
          case 2:
            tile<2>(args, b, bias, a, out);
            break;
          default:
            tile<1>(args, b, bias, a, out);
        }
        finish_reals(args.epilogue, rows, i, mr, panel.n0 + column, columns, out[0], 16);
      }
    }
  }
};

}  // namespace
