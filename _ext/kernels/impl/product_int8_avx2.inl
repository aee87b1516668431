// product_int8_avx2.inl: exact int8 products with AVX2.
//
// Microkernel  u8 x s8: 3 x 16, K in groups of 4; both sides widened to s16 in registers, vpmaddwd.
//              vpmaddubsw would saturate at s16 (255 * 127 * 2 > 32767): never used.
// Registers    12 accumulators + 1 A broadcast + 1 B + 2 temporaries = 16 ymm
// Packed B     [col][4] bytes: 16 bytes widen to 4 columns x 4 k; vpmaddwd leaves two partial sums
// a
//              column, added once at the end (vphaddd)

namespace {

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = NoBlock;

  template <int MR>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const int8_t* weights,
                                             const uint8_t* const* a, int32_t (*acc_out)[PANEL],
                                             int64_t groups, int column) {
    __m256i acc[MR][4];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < 4; ++j) acc[i][j] = _mm256_setzero_si256();
    const int8_t* b = weights + column * 4;
    for (int64_t r = 0; r < args.runs; ++r) {
      const int64_t offset = args.run_offset[r];
      for (int64_t g = 0; g < groups; ++g, b += PANEL * 4) {
        __m256i x[MR];
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, a[i] + offset + 4 * g, 4);
          const __m128i codes = _mm_cvtsi32_si128(four);
          x[i] =
              _mm256_broadcastq_epi64(SIGNED ? _mm_cvtepi8_epi16(codes) : _mm_cvtepu8_epi16(codes));
        }
#pragma GCC unroll 8
        for (int j = 0; j < 4; ++j) {
          const __m256i w =
              _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16 * j)));
#pragma GCC unroll 8
          for (int i = 0; i < MR; ++i) {
            acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(x[i], w));
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < 4; j += 2) {
        const __m256i sums =
            _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[i][j], acc[i][j + 1]), 0xD8);
        __m256i* out = reinterpret_cast<__m256i*>(acc_out[i] + column + 4 * j);
        _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), sums));
      }
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    const int64_t groups = (args.run_length + 3) / 4;
    alignas(64) int32_t acc[3][PANEL];
    for (int i = 0; i < rows.count; i += 3) {
      const int mr = rows.count - i < 3 ? rows.count - i : 3;
      const uint8_t* const* a = rows.source + i;
      for (int r = 0; r < mr; ++r) start_sums(panel, rows, i + r, acc[r]);
      for (int column = 0; column < panel.columns; column += 16) {
        if (mr == 3) {
          tile<3>(args, panel.weights, a, acc, groups, column);
        } else if (mr == 2) {
          tile<2>(args, panel.weights, a, acc, groups, column);
        } else {
          tile<1>(args, panel.weights, a, acc, groups, column);
        }
      }
      finish_sums(args.epilogue, rows, i, mr, panel.n0, panel.columns, acc[0], PANEL);
    }
  }
};

}  // namespace
