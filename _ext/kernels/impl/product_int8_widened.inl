// product_int8_widened.inl: exact int8 products without VNNI: AVX2, AVX-512.
//
// vpmaddubsw, the one instruction that multiplies bytes there, clamps to s16 (255 * 127 * 2 >
// 32767) and is never used. Both sides are widened to s16 instead, for vpmaddwd.
//
// Microkernel  MR x (LANES * NV); K in groups of 4
// A            widened once for a panel of 64 channels: of each group of codes (a0 a1 a2 a3) the
// s16
//              pair (a0, a2) goes to one list and (a1, a3) to another
// B            a vector of packed weights holds 4 codes of each of LANES columns. Shifts widen it
// to
//              two vectors of s16 pairs, (w0, w2) and (w1, w3): vpmaddwd with the broadcast pair of
//              A leaves one s32 a column, with nothing to be added across lanes at the end
// Exactness    |a w + a' w'| <= 2 * 255 * 128 fits s32
// Bound        2 vpmaddwd and 2 vpaddd for LANES * 4 products

namespace {

#if defined(LP_ISA_AVX512)
constexpr int LANES = 16, MOST_VECTORS = 4;
using Vector = __m512i;
LP_INLINE Vector load_vector(const void* p) { return _mm512_loadu_si512(p); }
LP_INLINE Vector load_groups(const void* p, int n) { return _mm512_maskz_loadu_epi32(lanes(n), p); }
LP_INLINE void store_vector(void* p, Vector x) { _mm512_storeu_si512(p, x); }
LP_INLINE Vector zero_vector() { return _mm512_setzero_si512(); }
LP_INLINE Vector broadcast(int32_t x) { return _mm512_set1_epi32(x); }
LP_INLINE Vector add_s32(Vector x, Vector y) { return _mm512_add_epi32(x, y); }
LP_INLINE Vector dot_pairs(Vector x, Vector y) { return _mm512_madd_epi16(x, y); }
LP_INLINE Vector odd_s8(Vector x) { return _mm512_srai_epi16(x, 8); }
LP_INLINE Vector even_s8(Vector x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
LP_INLINE Vector odd_u8(Vector x) { return _mm512_srli_epi16(x, 8); }
LP_INLINE Vector even_u8(Vector x) { return _mm512_and_si512(x, _mm512_set1_epi16(0xFF)); }
#else
constexpr int LANES = 8, MOST_VECTORS = 2;
using Vector = __m256i;
LP_INLINE Vector load_vector(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
LP_INLINE Vector load_groups(const void* p, int n) {
  return _mm256_maskload_epi32(static_cast<const int32_t*>(p), lanes(n));
}
LP_INLINE void store_vector(void* p, Vector x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
LP_INLINE Vector zero_vector() { return _mm256_setzero_si256(); }
LP_INLINE Vector broadcast(int32_t x) { return _mm256_set1_epi32(x); }
LP_INLINE Vector add_s32(Vector x, Vector y) { return _mm256_add_epi32(x, y); }
LP_INLINE Vector dot_pairs(Vector x, Vector y) { return _mm256_madd_epi16(x, y); }
LP_INLINE Vector odd_s8(Vector x) { return _mm256_srai_epi16(x, 8); }
LP_INLINE Vector even_s8(Vector x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
LP_INLINE Vector odd_u8(Vector x) { return _mm256_srli_epi16(x, 8); }
LP_INLINE Vector even_u8(Vector x) { return _mm256_and_si256(x, _mm256_set1_epi16(0xFF)); }
#endif

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = NoBlock;

  static constexpr int MOST_ROWS = 6;
  static constexpr int64_t SEGMENT = 512;  // groups that are widened at a time: 24 KB

  struct Widened {
    alignas(64) int32_t even[MOST_ROWS][SEGMENT];  // pairs of s16
    alignas(64) int32_t odd[MOST_ROWS][SEGMENT];
  };

  static LP_MEMBER void widen(Vector codes, int32_t* even, int32_t* odd) {
    store_vector(even, SIGNED ? even_s8(codes) : even_u8(codes));
    store_vector(odd, SIGNED ? odd_s8(codes) : odd_u8(codes));
  }
  static LP_MEMBER void widen_row(const uint8_t* codes, int64_t groups, int32_t* even,
                                  int32_t* odd) {
    int64_t g = 0;
    for (; g + LANES <= groups; g += LANES) widen(load_vector(codes + 4 * g), even + g, odd + g);
    if (g < groups) {
      widen(load_groups(codes + 4 * g, static_cast<int>(groups - g)), even + g, odd + g);
    }
  }

  // acc += x w. The empty asm keeps GCC from adding products to each other first, which needs twice
  // the registers.
  static LP_MEMBER void add_dot(Vector& acc, Vector x, Vector w) {
    acc = add_s32(acc, dot_pairs(x, w));
    __asm__("" : "+v"(acc));
  }

  // sums (rows of PANEL) = start (rows of `start_row`) + the widened rows times LANES * NV columns
  // of `groups` groups of B.
  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const Widened& a, const int8_t* b, int64_t groups,
                                             const int32_t* start, int64_t start_row,
                                             int32_t* sums) {
    Vector acc[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = load_vector(start + i * start_row + LANES * j);
    for (int64_t g = 0; g < groups; ++g, b += PANEL * 4) {
      Vector w[NV];
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) w[j] = even_s8(load_vector(b + LANES * 4 * j));
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const Vector x = broadcast(a.even[i][g]);
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) add_dot(acc[i][j], x, w[j]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) w[j] = odd_s8(load_vector(b + LANES * 4 * j));
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const Vector x = broadcast(a.odd[i][g]);
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) add_dot(acc[i][j], x, w[j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) store_vector(sums + i * PANEL + LANES * j, acc[i][j]);
  }

  template <int MR, int NV>
  static LP_MEMBER void columns(const Widened& a, const int8_t* b, int64_t groups,
                                const int32_t* start, int64_t start_row, int32_t* sums,
                                int columns) {
    int at = 0;
    for (; at + LANES * (NV - 1) < columns; at += LANES * NV) {
      tile<MR, NV>(a, b + at * 4, groups, start + at, start_row, sums + at);
    }
    if (at >= columns) return;
    switch ((columns - at + LANES - 1) / LANES) {
      case 1:
        tile<MR, 1>(a, b + at * 4, groups, start + at, start_row, sums + at);
        break;
      case 2:
        if constexpr (NV > 2) tile<MR, 2>(a, b + at * 4, groups, start + at, start_row, sums + at);
        break;
      default:
        if constexpr (NV > 3) tile<MR, 3>(a, b + at * 4, groups, start + at, start_row, sums + at);
    }
  }

  template <int MR>
  static void tile_rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                        int first) {
    const int64_t groups = (args.run_length + 3) / 4;
    alignas(64) int32_t sums[MR][PANEL];
    Widened a;
    const int32_t* start = panel.start;
    int64_t start_row = 0;
    if (panel.terms > 0 || groups * args.runs == 0) {
      for (int i = 0; i < MR; ++i) start_sums(panel, rows, first + i, sums[i]);
      start = sums[0];
      start_row = PANEL;
    }
    const int8_t* b = panel.weights;
    for (int64_t r = 0; r < args.runs; ++r) {
      for (int64_t g = 0; g < groups; g += SEGMENT) {
        const int64_t count = groups - g < SEGMENT ? groups - g : SEGMENT;
        for (int i = 0; i < MR; ++i) {
          const uint8_t* codes = rows.source[first + i] + args.run_offset[r] + 4 * g;
          widen_row(codes, count, a.even[i], a.odd[i]);
        }
        columns<MR, MOST_VECTORS>(a, b, count, start, start_row, sums[0], panel.columns);
        start = sums[0];
        start_row = PANEL;
        b += count * PANEL * 4;
      }
    }
    finish_sums(args.epilogue, rows, first, MR, panel.n0, panel.columns, sums[0], PANEL);
  }

  // In tiles of at most MOST_ROWS whose sizes differ by at most one.
  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    int first = 0;
    for (int left = (rows.count + MOST_ROWS - 1) / MOST_ROWS; left > 0; --left) {
      const int count = (rows.count - first + left - 1) / left;
      switch (count) {
        case 1:
          tile_rows<1>(args, panel, rows, first);
          break;
        case 2:
          tile_rows<2>(args, panel, rows, first);
          break;
        case 3:
          tile_rows<3>(args, panel, rows, first);
          break;
        case 4:
          tile_rows<4>(args, panel, rows, first);
          break;
        case 5:
          tile_rows<5>(args, panel, rows, first);
          break;
        default:
          tile_rows<6>(args, panel, rows, first);
      }
      first += count;
    }
  }
};

}  // namespace
