// product_f32_avx512.inl: f32 products: 6 x 64, one FMA chain per output over k.

namespace {

struct MicroF32 {
  using Element = float;
  using Weight = float;
  using Bias = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const Panel& panel,
                                             const float* const* a, uint8_t* const* dst) {
    const float* b = static_cast<const float*>(panel.weights);
    const float* bias = static_cast<const float*>(panel.bias);
    const lp::Epilogue& e = args.epilogue;
    __m512 acc[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
    for (int64_t r = 0; r < args.runs; ++r) {
      const float* run[MR];
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        __m512 w[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) w[j] = _mm512_loadu_ps(b + 16 * j);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          const __m512 x = _mm512_set1_ps(run[i][k]);
#pragma GCC unroll 4
          for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_fmadd_ps(x, w[j], acc[i][j]);
        }
      }
    }
    const int columns = panel.columns;
    if (e.kind == lp::OUT_F32 && e.n_ops == 0) {
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        const __m512 add = _mm512_loadu_ps(bias + 16 * j);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          _mm512_mask_storeu_ps(reinterpret_cast<float*>(dst[i]) + 16 * j,
                                float_lanes(columns - 16 * j), _mm512_add_ps(acc[i][j], add));
        }
      }
      return;
    }
    alignas(64) float buffer[MR][16 * NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512 add = _mm512_loadu_ps(bias + 16 * j);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        _mm512_store_ps(buffer[i] + 16 * j, _mm512_add_ps(acc[i][j], add));
      }
    }
    finish_buffer(&buffer[0][0], MR, 16 * NV, columns, e, dst);
  }

  template <int MR, int NV>
  static void all_rows(const lp::ProductArgs& args, const Panel& panel, const float* const* a,
                       uint8_t* const* dst, int rows) {
    int i = 0;
    for (; i + MR <= rows; i += MR) tile<MR, NV>(args, panel, a + i, dst + i);
    if constexpr (MR > 4) {
      if (i + 4 <= rows) {
        tile<4, NV>(args, panel, a + i, dst + i);
        i += 4;
      }
    }
    if (i + 2 <= rows) {
      tile<2, NV>(args, panel, a + i, dst + i);
      i += 2;
    }
    if (i < rows) tile<1, NV>(args, panel, a + i, dst + i);
  }

  static void rows(const lp::ProductArgs& args, const Panel& panel, const float* const* a,
                   uint8_t* const* dst, int rows) {
    switch ((panel.columns + 15) / 16) {
      case 1:
        all_rows<8, 1>(args, panel, a, dst, rows);
        break;
      case 2:
        all_rows<8, 2>(args, panel, a, dst, rows);
        break;
      case 3:
        all_rows<6, 3>(args, panel, a, dst, rows);
        break;
      default:
        all_rows<6, 4>(args, panel, a, dst, rows);
    }
  }
};

}  // namespace
