// product_int8_neon.inl: exact int8 products with Advanced SIMD alone.
//
// Microkernel  2 x 16; K in groups of 4. SMULL gives eight s8 x s8 products in s16 (at most 2^14),
//              SADALP adds pairs of them into s32: two partial sums a column, joined once at the
//              end
// Activations  u8 codes are read as s8: a ^ 0x80 = a - 128 (FLIPS, product_int8.inl)
// Registers    16 accumulators + 2 of A + 1 of B + 2 products

namespace {

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = !SIGNED;
  using Block = NoBlock;

  template <int MR>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const int8_t* weights,
                                             const uint8_t* const* a, int32_t (*acc_out)[PANEL],
                                             int column) {
    const int64_t groups = (args.run_length + 3) / 4;
    const int8x8_t flip = vdup_n_s8(FLIPS ? -128 : 0);
    int32x4_t acc[MR][8];
#pragma GCC unroll 2
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) acc[i][j] = vdupq_n_s32(0);
    const int8_t* b = weights + column * 4;
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      for (int64_t g = 0; g < groups; ++g, b += PANEL * 4) {
        int8x8_t x[MR];
#pragma GCC unroll 2
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, a[i] + offset + 4 * g, 4);
          x[i] = veor_s8(vreinterpret_s8_s32(vdup_n_s32(four)), flip);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const int8x16_t w = vld1q_s8(b + 16 * j);
#pragma GCC unroll 2
          for (int i = 0; i < MR; ++i) {
            acc[i][2 * j] = vpadalq_s16(acc[i][2 * j], vmull_s8(vget_low_s8(w), x[i]));
            acc[i][2 * j + 1] = vpadalq_s16(acc[i][2 * j + 1], vmull_s8(vget_high_s8(w), x[i]));
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        int32_t* out = acc_out[i] + column + 4 * j;
        const int32x4_t sums = vpaddq_s32(acc[i][2 * j], acc[i][2 * j + 1]);
        vst1q_s32(out, vaddq_s32(vld1q_s32(out), sums));
      }
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    alignas(64) int32_t acc[2][PANEL];
    for (int i = 0; i < rows.count; i += 2) {
      const int mr = rows.count - i < 2 ? rows.count - i : 2;
      const uint8_t* const* a = rows.source + i;
      for (int r = 0; r < mr; ++r) start_sums(panel, rows, i + r, acc[r]);
      for (int column = 0; column < panel.columns; column += 16) {
        if (mr == 2) {
          tile<2>(args, panel.weights, a, acc, column);
        } else {
          tile<1>(args, panel.weights, a, acc, column);
        }
      }
      finish_sums(args.epilogue, rows, i, mr, panel.n0, panel.columns, acc[0], PANEL);
    }
  }
};

}  // namespace
