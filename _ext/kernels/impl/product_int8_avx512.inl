// product_u8s8_avx512.inl: exact int8 products with AVX-512 F and BW, without VNNI.
//
// Microkernel  MR x (16 * NV): 3 x 64; both sides widened to s16 in registers, vpmaddwd
// Packed B     [col][4] bytes: 32 bytes widen to 8 columns x 4 k; vpmaddwd leaves two partial sums
//              a column, added once at the end
// Registers    24 accumulators + 3 of A + 1 of B

namespace {

// low, high: two partial sums of columns 0-7 and 8-15 each -> 16 sums.
LP_INLINE __m512i column_sums(__m512i low, __m512i high) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_permutex2var_epi32(low, even, high),
                          _mm512_permutex2var_epi32(low, odd, high));
}

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = NoBlock;

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const CodePanel& panel,
                                             const CodeRows& rows, int first) {
    const int64_t groups = (args.run_length + 3) / 4;
    const uint8_t* const* a = rows.source + first;
    const int8_t* b = panel.weights;
    __m512i half[MR][2 * NV];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < 2 * NV; ++j) half[i][j] = _mm512_setzero_si512();
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run[MR];
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < 4 * groups; k += 4, b += PANEL * 4) {
        __m512i x[MR];
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, run[i] + k, 4);
          const __m256i codes = _mm256_set1_epi32(four);
          x[i] = SIGNED ? _mm512_cvtepi8_epi16(codes) : _mm512_cvtepu8_epi16(codes);
        }
#pragma GCC unroll 8
        for (int j = 0; j < 2 * NV; ++j) {
          const __m512i w = _mm512_cvtepi8_epi16(
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * j)));
#pragma GCC unroll 4
          for (int i = 0; i < MR; ++i) {
            half[i][j] = _mm512_add_epi32(half[i][j], _mm512_madd_epi16(x[i], w));
          }
        }
      }
    }
    __m512i acc[MR][NV];
    start_tile<MR, NV>(panel, rows, first, acc);
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j)
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) {
        const __m512i sums = column_sums(half[i][2 * j], half[i][2 * j + 1]);
        acc[i][j] = _mm512_add_epi32(acc[i][j], sums);
      }
    store_tile<MR, NV>(args.epilogue, panel, rows, first, acc);
  }

  template <int NV>
  static void all_rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows) {
    int i = 0;
    for (; i + 3 <= rows.count; i += 3) tile<3, NV>(args, panel, rows, i);
    if (i + 2 <= rows.count) {
      tile<2, NV>(args, panel, rows, i);
    } else if (i < rows.count) {
      tile<1, NV>(args, panel, rows, i);
    }
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
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
