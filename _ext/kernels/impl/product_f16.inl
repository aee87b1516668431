// product_f16.inl: f16 x f16 products: both sides widened exactly, then one chain of f32 FMAs over
// k from +0; the bias last.
//
// Packed B     [N/64][K][64], f16

namespace {

struct MicroF16 {
  using Element = uint16_t;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }
#if defined(LP_ISA_AVX512)
  static constexpr int MR = 6, NV = 4;
#elif defined(LP_ISA_SCALAR)
  static constexpr int MR = 1, NV = 16;
#else
  static constexpr int MR = 6, NV = 16 / W;
#endif
  static constexpr int WIDTH = NV * W;

  template <int ROWS>
  static void tiles(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                    const Rows<uint16_t>& rows, int first, int column) {
    const uint16_t* const* a = rows.source + first;
    const uint16_t* b = panel.weights + column;
    VF acc[ROWS][NV];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vset(0.0f);
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
        VF w[NV];
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) w[j] = f16_to_f32_value(load_u16(b + j * W));
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
          const VF x = f16_to_f32_value(vset_s32(a[i][offset + k]));
#pragma GCC unroll 16
          for (int j = 0; j < NV; ++j) acc[i][j] = fma(x, w[j], acc[i][j]);
        }
      }
    }
    alignas(64) float out[ROWS][WIDTH];
    const float* bias = panel.bias + column;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) vstore(out[i] + j * W, acc[i][j] + vload(bias + j * W));
    const int columns = panel.columns - column < WIDTH ? panel.columns - column : WIDTH;
    finish_reals(args.epilogue, rows, first, ROWS, panel.n0 + column, columns, out[0], WIDTH);
  }

  static void rows(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                   const Rows<uint16_t>& rows) {
    for (int column = 0; column < panel.columns; column += WIDTH) {
      int i = 0;
      for (; i + MR <= rows.count; i += MR) tiles<MR>(args, panel, rows, i, column);
      for (; i < rows.count; ++i) tiles<1>(args, panel, rows, i, column);
    }
  }
};

}  // namespace
