// product_int8_avxvnni.inl: int8 products with AVX-VNNI.
//
// Microkernel  3 x 32, 1 x 64 for a row alone; K in groups of 4 bytes; a panel of 64 columns is two
// slices of it Registers    12 accumulators + 3 broadcasts of A + 1 B = 16 ymm Instruction vpdpbusd
// ymm: four u8 x s8 products added to s32 without saturating; as asm because
//              GCC 12 rotates the accumulators of the intrinsic through copies

namespace {

LP_INLINE void dot4(__m256i& acc, __m256i u8, __m256i s8) {
#if defined(LP_MODEL)
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u8), "x"(s8));
#else
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u8), "x"(s8));
#endif
}

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = SIGNED;
  using Block = NoBlock;

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const int8_t* b,
                                             const uint8_t* const* a, int64_t groups,
                                             int32_t (*sums)[PANEL], int column) {
    __m256i acc[MR][NV];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        acc[i][j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums[i] + column + 8 * j));
      }
    b += column * 4;
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run[MR];
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < 4 * groups; k += 4, b += PANEL * 4) {
        __m256i x[MR];
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, run[i] + k, 4);
          // Not on vectors: their registers are all taken.
          if (FLIPS) four ^= static_cast<int32_t>(0x80808080);
          x[i] = _mm256_set1_epi32(four);
        }
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
          const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * j));
#pragma GCC unroll 4
          for (int i = 0; i < MR; ++i) dot4(acc[i][j], x[i], w);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[i] + column + 8 * j), acc[i][j]);
      }
  }

  template <int MR>
  static LP_MEMBER void some_rows(const lp::ProductArgs& args, const CodePanel& panel,
                                  const CodeRows& rows, int first) {
    const int64_t groups = (args.run_length + 3) / 4;
    const uint8_t* const* a = rows.source + first;
    alignas(64) int32_t sums[MR][PANEL];
    for (int i = 0; i < MR; ++i) start_sums(panel, rows, first + i, sums[i]);
    // One row alone keeps the units busy with 8 accumulators.
    constexpr int WIDE = MR == 1 ? 64 : 32;
    int column = 0;
    for (; column + WIDE / 2 < panel.columns; column += WIDE) {
      tile<MR, WIDE / 8>(args, panel.weights, a, groups, sums, column);
    }
    for (; column < panel.columns; column += WIDE / 2) {
      tile<MR, WIDE / 16>(args, panel.weights, a, groups, sums, column);
    }
    finish_sums(args.epilogue, rows, first, MR, panel.n0, panel.columns, sums[0], PANEL);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    split_rows<3>(rows.count, [&](auto height, int first) __attribute__((always_inline)) {
      some_rows<height.value>(args, panel, rows, first);
    });
  }
};

}  // namespace
