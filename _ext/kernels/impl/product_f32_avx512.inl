// product_f32_avx512.inl: f32 products: 6 x 64 (12 x 32), 1 x 256; one FMA chain per output over k.

namespace {

struct MicroF32 {
  using Element = float;
  static constexpr int FEW_ROWS = 1;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const Panel<float>& panel,
                                             const Rows<float>& rows, int first) {
    const float* const* a = rows.source + first;
    const float* b = panel.weights;
    fetch_target<MR>(args.epilogue, rows, first, panel.n0, panel.columns);
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
    store<MR, NV>(args.epilogue, panel, rows, first, acc);
  }

  template <int MR, int NV>
  static LP_MEMBER void store(const lp::Epilogue& e, const Panel<float>& panel,
                              const Rows<float>& rows, int first, __m512 (&acc)[MR][NV]) {
    const int columns = panel.columns;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512 add = _mm512_loadu_ps(panel.bias + 16 * j);
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) acc[i][j] = _mm512_add_ps(acc[i][j], add);
    }
    if (e.kind == lp::OUT_F32 && finish_in_registers<MR, NV>(e, acc)) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) {
        float* dst = reinterpret_cast<float*>(rows.target[first + i]) + panel.n0;
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) {
          _mm512_mask_storeu_ps(dst + 16 * j, float_lanes(columns - 16 * j), acc[i][j]);
        }
      }
      return;
    }
    alignas(64) float buffer[MR][16 * NV];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) _mm512_store_ps(buffer[i] + 16 * j, acc[i][j]);
    finish_reals(e, rows, first, MR, panel.n0, columns, buffer[0], 16 * NV);
  }

  // One row: four panels side by side, so that more loads of B are on their way at a time.
  static __attribute__((noinline)) void few_rows(const lp::ProductArgs& args,
                                                 const Panel<float>& panel,
                                                 const Rows<float>& rows) {
    const int64_t step = PANEL * padded_depth(args);
    const float* b = panel.weights;
    __m512 acc[4][1][4];
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[p][0][j] = _mm512_setzero_ps();
    for (int64_t r = 0; r < args.runs; ++r) {
      const float* run = rows.source[0] + args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        const __m512 x = _mm512_set1_ps(run[k]);
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            acc[p][0][j] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b + p * step + 16 * j), acc[p][0][j]);
          }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) store<1, 4>(args.epilogue, part(panel, p), rows, 0, acc[p]);
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
