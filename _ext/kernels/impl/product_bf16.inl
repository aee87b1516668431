// product_bf16.inl: bf16 x bf16 products as vdpbf16ps makes them, without that instruction.
//
// Per pair (k even, k odd):  acc = fma(a[odd], b[odd], acc);  acc = fma(a[even], b[even], acc)
// with denormals read as zero and flushed to zero, from +0; then the bias, in the normal mode.
// Zen 4's instruction gives these bits; the payload of a NaN made from two NaNs may differ.
//
// Microkernel  MR x (NV * W), written once over vec.h; a run's odd last element is paired with +0
// Packed B     [N/64][pairs][64][2]: one 32-bit lane holds a column's pair
#include "kernels/impl/flush.inl"

namespace {

struct MicroBF16 {
  using Element = uint16_t;
  static int64_t padded_depth(const lp::ProductArgs& args) {
    return args.runs * ((args.run_length + 1) / 2) * 2;
  }
#if defined(LP_ISA_AVX512)
  static constexpr int MR = 6, NV = 4;
#elif defined(LP_ISA_SCALAR)
  static constexpr int MR = 1, NV = 16;
#else
  static constexpr int MR = 4, NV = 16 / W;
#endif
  static constexpr int WIDTH = NV * W;

  template <bool EMULATED, int ROWS>
  static LP_MEMBER void pair(VF (&acc)[ROWS][NV], const int32_t (&a)[ROWS], const uint16_t* b) {
    VI w[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) w[j] = vload(reinterpret_cast<const int32_t*>(b) + j * W);
    const VI upper = vset_s32(static_cast<int32_t>(0xFFFF0000));
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const VF x = as_f32(vset_s32(a[i]) & upper);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        acc[i][j] = flushing_fma<EMULATED>(x, as_f32(w[j] & upper), acc[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const VF x = as_f32(shift_left<16>(vset_s32(a[i])));
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        acc[i][j] = flushing_fma<EMULATED>(x, as_f32(shift_left<16>(w[j])), acc[i][j]);
      }
    }
  }

  template <bool EMULATED, int ROWS>
  static LP_OPAQUE void chains(const lp::ProductArgs& args, const uint16_t* b,
                               const uint16_t* const* a, float (*out)[WIDTH]) {
    VF acc[ROWS][NV];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vset(0.0f);
    int32_t x[ROWS];
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      int64_t k = 0;
      for (; k + 2 <= args.run_length; k += 2, b += 2 * PANEL) {
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) memcpy(&x[i], a[i] + offset + k, 4);
        pair<EMULATED, ROWS>(acc, x, b);
      }
      if (k < args.run_length) {
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) x[i] = a[i][offset + k];
        pair<EMULATED, ROWS>(acc, x, b);
        b += 2 * PANEL;
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) vstore(out[i] + j * W, acc[i][j]);
  }

  template <int ROWS>
  static void tiles(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                    const Rows<uint16_t>& rows, int first, int column) {
    alignas(64) float out[ROWS][WIDTH];
    const FloatMode mode = start_flushing();
    chains<false, ROWS>(args, panel.weights + 2 * column, rows.source + first, out);
    if (stop_flushing(mode)) {
      chains<true, ROWS>(args, panel.weights + 2 * column, rows.source + first, out);
    }
    const float* bias = panel.bias + column;
    const int columns = panel.columns - column < WIDTH ? panel.columns - column : WIDTH;
    for (int i = 0; i < ROWS; ++i) {
      for (int j = 0; j < WIDTH; j += W) vstore(out[i] + j, vload(out[i] + j) + vload(bias + j));
    }
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
