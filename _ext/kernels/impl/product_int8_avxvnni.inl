// product_int8_avxvnni.inl: int8 products with AVX-VNNI.
//
// Microkernel  3 x 32; K in groups of 4 bytes; a panel of 64 columns is two slices of it
// Registers    12 accumulators + 3 broadcasts of A + 1 B = 16 ymm
// Instruction  vpdpbusd ymm: four u8 x s8 products added to s32 without saturating; as asm because
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
#pragma GCC unroll 4
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
          if (FLIPS) four ^= static_cast<int32_t>(0x80808080);
          x[i] = _mm256_set1_epi32(four);
        }
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) {
          const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * j));
#pragma GCC unroll 4
          for (int i = 0; i < MR; ++i) dot4(acc[i][j], x[i], w);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
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
    int column = 0;
    for (; column + 16 < panel.columns; column += 32) {
      tile<MR, 4>(args, panel.weights, a, groups, sums, column);
    }
    if (column < panel.columns) tile<MR, 2>(args, panel.weights, a, groups, sums, column);
    finish_sums(args.epilogue, rows, first, MR, panel.n0, panel.columns, sums[0], PANEL);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    int i = 0;
    for (; i + 3 <= rows.count; i += 3) some_rows<3>(args, panel, rows, i);
    if (i + 2 <= rows.count) {
      some_rows<2>(args, panel, rows, i);
    } else if (i < rows.count) {
      some_rows<1>(args, panel, rows, i);
    }
  }
};

}  // namespace
