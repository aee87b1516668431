// product_f32_avx512.inl: f32 products: 6 x 64, one FMA chain per output over k.

namespace {

struct MicroF32 {
  using Element = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const Panel<float>& panel,
                                             const Rows<float>& rows, int first) {
    const float* const* a = rows.source + first;
    const float* b = panel.weights;
    const float* bias = panel.bias;
    const lp::Epilogue& e = args.epilogue;
    __m512 acc[MR][NV];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
    for (int64_t r = 0; r < args.runs; ++r) {
      const float* run[MR];
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        __m512 w[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) w[j] = _mm512_loadu_ps(b + 16 * j);
#pragma GCC unroll 12
        for (int i = 0; i < MR; ++i) {
          const __m512 x = _mm512_set1_ps(run[i][k]);
#pragma GCC unroll 4
          for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_fmadd_ps(x, w[j], acc[i][j]);
        }
      }
    }
    const int columns = panel.columns;
    if (is_bare(e)) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        const __m512 add = _mm512_loadu_ps(bias + 16 * j);
#pragma GCC unroll 12
        for (int i = 0; i < MR; ++i) {
          _mm512_mask_storeu_ps(
              reinterpret_cast<float*>(rows.target[first + i]) + panel.n0 + 16 * j,
              float_lanes(columns - 16 * j), _mm512_add_ps(acc[i][j], add));
        }
      }
      return;
    }
    alignas(64) float buffer[MR][16 * NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512 add = _mm512_loadu_ps(bias + 16 * j);
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) {
        _mm512_store_ps(buffer[i] + 16 * j, _mm512_add_ps(acc[i][j], add));
      }
    }
    finish_reals(e, rows, first, MR, panel.n0, columns, buffer[0], 16 * NV);
  }

  template <int NV>
  static void all_rows(const lp::ProductArgs& args, const Panel<float>& panel,
                       const Rows<float>& rows) {
    constexpr int MOST = NV <= 2 ? 12 : NV == 3 ? 8 : 6;
    split_rows<MOST>(rows.count, [&](auto height, int first) __attribute__((always_inline)) {
      tile<decltype(height)::value, NV>(args, panel, rows, first);
    });
  }

  static void rows(const lp::ProductArgs& args, const Panel<float>& panel,
                   const Rows<float>& rows) {
    switch ((panel.columns + 15) / 16) {
      case 1:
        all_rows<1>(args, panel, rows);
        break;
      case 2:
        all_rows<2>(args, panel, rows);
        break;
      case 3:
        all_rows<3>(args, panel, rows);
        break;
      default:
        all_rows<4>(args, panel, rows);
    }
  }
};

}  // namespace
