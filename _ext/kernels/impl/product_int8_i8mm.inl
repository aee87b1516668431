// product_int8_i8mm.inl: exact int8 products with SMMLA and USMMLA (Armv8.2 i8mm).
//
// Microkernel  8 x 8 (4 x 16, 2 x 32 where rows are few): pairs of rows times pairs of channels,
//              K in groups of 8; an instruction adds 32 products, twice as many as SDOT
// Accumulator  (row 0, channel 0), (row 0, channel 1), (row 1, channel 0), (row 1, channel 1)
// Packed B     two groups of 4, zipped by words: 8 codes of each of two channels
// Activations  read as they are: USMMLA multiplies u8 by s8. An odd last row is computed twice
// Tails        the last codes of a run go in groups of 4, the other 4 of A and of B being 0, so
// that
//              no more than 3 past the run are read

namespace {

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = NoBlock;

  static LP_MEMBER int32x4_t dot8(int32x4_t acc, uint8x16_t a, int8x16_t w) {
    if constexpr (SIGNED) return vmmlaq_s32(acc, vreinterpretq_s8_u8(a), w);
    return vusmmlaq_s32(acc, a, w);
  }

  // Two rows' eight codes in x[p]; the groups at `first` and `second` are those of four channels
  // each.
  template <int PAIRS, int NV>
  static LP_MEMBER void step(int32x4_t (&acc)[PAIRS][2 * NV], const uint8x16_t (&x)[PAIRS],
                             const int8_t* first, const int8_t* second) {
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(first + 16 * j));
      const int32x4_t high =
          second ? vreinterpretq_s32_s8(vld1q_s8(second + 16 * j)) : vdupq_n_s32(0);
      const int8x16_t w0 = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      const int8x16_t w1 = vreinterpretq_s8_s32(vzip2q_s32(low, high));
#pragma GCC unroll 4
      for (int p = 0; p < PAIRS; ++p) {
        acc[p][2 * j] = dot8(acc[p][2 * j], x[p], w0);
        acc[p][2 * j + 1] = dot8(acc[p][2 * j + 1], x[p], w1);
      }
    }
  }

  // `a` and `acc_out`: 2 * PAIRS rows; 4 * NV channels from `column`.
  template <int PAIRS, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const int8_t* b,
                                             const uint8_t* const* a, int32_t (*acc_out)[PANEL],
                                             int column) {
    int32x4_t acc[PAIRS][2 * NV];
#pragma GCC unroll 4
    for (int p = 0; p < PAIRS; ++p)
#pragma GCC unroll 16
      for (int j = 0; j < 2 * NV; ++j) {
        acc[p][j] = vcombine_s32(vld1_s32(acc_out[2 * p] + column + 2 * j),
                                 vld1_s32(acc_out[2 * p + 1] + column + 2 * j));
      }
    b += column * 4;
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      uint8x16_t x[PAIRS];
      int64_t k = 0;
      for (; k + 8 <= args.run_length; k += 8, b += 2 * PANEL * 4) {
#pragma GCC unroll 4
        for (int p = 0; p < PAIRS; ++p) {
          x[p] = vcombine_u8(vld1_u8(a[2 * p] + offset + k), vld1_u8(a[2 * p + 1] + offset + k));
        }
        step<PAIRS, NV>(acc, x, b, b + PANEL * 4);
      }
      for (; k < args.run_length; k += 4, b += PANEL * 4) {
#pragma GCC unroll 4
        for (int p = 0; p < PAIRS; ++p) {
          x[p] =
              vcombine_u8(four_bytes(a[2 * p] + offset + k), four_bytes(a[2 * p + 1] + offset + k));
        }
        step<PAIRS, NV>(acc, x, b, nullptr);
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < PAIRS; ++p)
#pragma GCC unroll 16
      for (int j = 0; j < 2 * NV; ++j) {
        vst1_s32(acc_out[2 * p] + column + 2 * j, vget_low_s32(acc[p][j]));
        vst1_s32(acc_out[2 * p + 1] + column + 2 * j, vget_high_s32(acc[p][j]));
      }
  }

  // All columns of `count` rows, 1 to 2 * PAIRS, down to the outputs.
  template <int PAIRS, int NV>
  static LP_MEMBER void strip(const lp::ProductArgs& args, const CodePanel& panel,
                              const CodeRows& rows, int first, int count) {
    alignas(64) int32_t acc[2 * PAIRS][PANEL];
    const uint8_t* a[2 * PAIRS];
    for (int i = 0; i < 2 * PAIRS; ++i) {
      const int row = first + (i < count ? i : count - 1);
      a[i] = rows.source[row];
      start_sums(panel, rows, row, acc[i]);
    }
    for (int column = 0; column < panel.columns; column += 4 * NV) {
      tile<PAIRS, NV>(args, panel.weights, a, acc, column);
    }
    finish_sums(args.epilogue, rows, first, count, panel.n0, panel.columns, acc[0], PANEL);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    int i = 0;
    for (; i + 7 <= rows.count; i += 8) {
      strip<4, 2>(args, panel, rows, i, rows.count - i < 8 ? rows.count - i : 8);
    }
    for (; i + 3 <= rows.count; i += 4) {
      strip<2, 4>(args, panel, rows, i, rows.count - i < 4 ? rows.count - i : 4);
    }
    for (; i < rows.count; i += 2) {
      strip<1, 8>(args, panel, rows, i, rows.count - i < 2 ? rows.count - i : 2);
    }
  }
};

}  // namespace
