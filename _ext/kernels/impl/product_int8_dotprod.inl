// product_int8_dotprod.inl: exact int8 products with SDOT (Armv8.2 dot product).
//
// Microkernel  4 x 16, 2 x 32, 1 x 64: 16 accumulators; K in groups of 4. SDOT by element takes one
//              group of four codes of A and four channels of B; it sums in s32, never saturating
// Inner loop   per 16 codes of A: MR loads of A, 4 * NV loads of B, 4 * MR * NV SDOT
// Activations  u8 codes are read as s8: a ^ 0x80 = a - 128 (FLIPS, product_int8.inl)
// Tails        the last codes of a run go in groups of 4, so that no more than 3 past it are read

namespace {

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = !SIGNED;
  using Block = NoBlock;

  // Group LANE of each row's codes times one group of B.
  template <int LANE, int MR, int NV>
  static LP_MEMBER void step(int32x4_t (&acc)[MR][NV], const int8x16_t (&x)[MR], const int8_t* b) {
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      const int8x16_t w = vld1q_s8(b + 16 * j);
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) acc[i][j] = vdotq_laneq_s32(acc[i][j], w, x[i], LANE);
    }
  }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const int8_t* b,
                                             const uint8_t* const* a, int32_t (*acc_out)[PANEL],
                                             int column) {
    const int8x16_t flip = vdupq_n_s8(FLIPS ? -128 : 0);
    int32x4_t acc[MR][NV];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vld1q_s32(acc_out[i] + column + 4 * j);
    b += column * 4;
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run[MR];
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      int8x16_t x[MR];
      int64_t k = 0;
      for (; k + 16 <= args.run_length; k += 16, b += 4 * PANEL * 4) {
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i) {
          x[i] = veorq_s8(vreinterpretq_s8_u8(vld1q_u8(run[i] + k)), flip);
        }
        step<0>(acc, x, b);
        step<1>(acc, x, b + PANEL * 4);
        step<2>(acc, x, b + 2 * PANEL * 4);
        step<3>(acc, x, b + 3 * PANEL * 4);
      }
      for (; k < args.run_length; k += 4, b += PANEL * 4) {
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, run[i] + k, 4);
          x[i] = veorq_s8(vreinterpretq_s8_s32(vdupq_n_s32(four)), flip);
        }
        step<0>(acc, x, b);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) vst1q_s32(acc_out[i] + column + 4 * j, acc[i][j]);
  }

  // All columns of MR rows, down to the outputs.
  template <int MR, int NV>
  static LP_MEMBER void strip(const lp::ProductArgs& args, const CodePanel& panel,
                              const CodeRows& rows, int first) {
    alignas(64) int32_t acc[MR][PANEL];
    for (int i = 0; i < MR; ++i) start_sums(panel, rows, first + i, acc[i]);
    for (int column = 0; column < panel.columns; column += 4 * NV) {
      tile<MR, NV>(args, panel.weights, rows.source + first, acc, column);
    }
    finish_sums(args.epilogue, rows, first, MR, panel.n0, panel.columns, acc[0], PANEL);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    int i = 0;
    for (; i + 4 <= rows.count; i += 4) strip<4, 4>(args, panel, rows, i);
    if (i + 2 <= rows.count) {
      strip<2, 8>(args, panel, rows, i);
      i += 2;
    }
    if (i < rows.count) strip<1, 16>(args, panel, rows, i);
  }
};

}  // namespace
