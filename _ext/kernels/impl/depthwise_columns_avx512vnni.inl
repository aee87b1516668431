// depthwise_columns_avx512vnni.inl: depthwise u8 x s8 and s8 x s8, filters of 3x3 and 5x5.
//
//   row y     c0 c1 c2 ...     unpack bytes,      lane of channel c: (y, y+1, y+2, y+3)
//   row y+1   c0 c1 c2 ...  ─────────────────►    vpdpbusd with (w0, w1, w2, 0)   output row y
//   row y+2, y+3               then words                   and (0, w0, w1, w2)   output row y+1
//
// A column (one pixel of four rows, 64 channels: four vectors) is interleaved once and serves two
// output rows, where the stride between rows is 1, and all taps of the kernel across. 5x5: rows 4
// and 5 are interleaved by two pixels, a pair: (4 at x, 5 at x, 4 at x+1, 5 at x+1), so that an
// output is 5 columns and 3 pairs.
//
// 3x3 to codes  the columns of an output stay in registers and move on with it; weights are memory
//               operands (1 a cycle)
// 5x5, sums     columns are kept in the first-level cache (1 KB for 4 pixels), made just before the
//               tile that reads them first. A tile is 4 outputs of 64 channels in each line: a
//               weight is loaded once for 4 products. Not for 3x3: a store of 64 bytes takes 2
//               cycles, and three products are over sooner (80 to 117 GOP/s at stride 2)
// Few channels  A vector holds 64 / parts channels of `parts` neighbouring pixels: 2 up to 32
//               channels, 4 up to 16 (depthwise_pixels), the last channels of a wider image, too.
//               Only loads and stores differ; the weights are repeated.
// Order         Unpacking works inside 128-bit lanes: accumulator s, 128-bit lane L holds channels
//               16 * L + 4 * s ...; packs put codes back in order for free.
// Any stride    Strides across that columns cannot be shared at, and dilations: each output makes
//               columns of its own (STEP = K).
// Weights       pack.h, pack_depthwise_by_columns
// Registers     12 of columns, 8 of sums and what becomes of them; a tile: 8 accumulators, up to 11
//               columns, 2 weights, 8 words to be packed
// Measured      Zen 4, 3.66 GHz, one thread, to u8, GOP/s: 3x3 158 (56 x 56 x 128), 117 at stride
//               2, 123 with 32 channels; 5x5 175 to 190, 90 to 110 at stride 2

namespace {

// What a chunk of a line (or of two) reads.
struct ColumnSource {
  const uint8_t* row[6];  // of the first output, at the first channel
  int64_t tap;            // bytes from a tap to the next
  int64_t pixel;          // bytes from an output's first tap to the next output's
  int64_t vector;         // bytes from a vector's first tap to the next vector's
  int64_t limit;          // offset of the last tap of the last output: nothing is read beyond
};

constexpr int64_t MOST_COLUMNS = 40, MOST_VECTORS = 32;

// Pieces of 64 bytes from places `pixel` apart, none beyond the limit.
template <int PARTS, bool SIGNED>
struct ColumnReader {
  int64_t offset[PARTS];
  LP_MEMBER ColumnReader(int64_t base, int64_t pixel, int64_t limit) {
    offset[0] = base;
#pragma GCC unroll 4
    for (int p = 1; p < PARTS; ++p) {
      const int64_t at = base + p * pixel;
      offset[p] = at < limit ? at : limit;
    }
  }
  LP_MEMBER __m512i read(const uint8_t* row) const {
    __m512i codes;
    if constexpr (PARTS == 1) {
      codes = _mm512_loadu_si512(row + offset[0]);
    } else if constexpr (PARTS == 2) {
      codes = _mm512_inserti64x4(_mm512_castsi256_si512(half(row + offset[0])),
                                 half(row + offset[1]), 1);
    } else {
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(row + offset[0])),
                                                  quarter(row + offset[1]), 1);
      const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(row + offset[2])),
                                                   quarter(row + offset[3]), 1);
      codes = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    // An s8 code as the u8 code 128 higher: the sums start with what that adds.
    return SIGNED ? _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80))) : codes;
  }
  static LP_MEMBER __m256i half(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static LP_MEMBER __m128i quarter(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
};

using MakeColumns = void (*)(const ColumnSource&, int64_t, int64_t, __m512i*, __m512i*);

// One block of channels of one layer.
struct ColumnBlock {
  alignas(64) int32_t start[64];
  alignas(64) float multiplier[64];
  const int8_t* weights;
  MakeColumns make;
  void (*direct[2])(const struct ColumnChunk&);  // 3x3, codes: one line, two lines
  int64_t parts, width, step;
  bool scattered;  // the outputs of a vector are not 64 bytes in a row
  uint64_t mask;   // of what a vector stores
};

// V lines of at most MOST_VECTORS vectors.
struct ColumnChunk {
  const lp::Epilogue* epilogue;
  const ColumnBlock* block;
  ColumnSource source;
  int64_t vectors, pixels;  // pixels: outputs across
  uint8_t* target[2];       // codes
  int64_t dst_col;
  int32_t* sums;  // else: [V][MOST_VECTORS][64]
};

// What makes codes of sums, the same for u8 and s8: an s8 code is the u8 code 128 higher but for
// its first bit.
struct ColumnCodes {
  explicit LP_MEMBER ColumnCodes(const lp::Epilogue& e) {
    const int raise = e.kind == lp::OUT_S8 ? 128 : 0;
    zero_point = _mm512_set1_epi16(static_cast<int16_t>(e.zero_point + raise));
    qmin = _mm512_set1_epi8(static_cast<char>(e.qmin + raise));
    qmax = _mm512_set1_epi8(static_cast<char>(e.qmax + raise));
    flip = _mm512_set1_epi8(static_cast<char>(raise));
  }
  LP_MEMBER __m512i words(__m512i q0, __m512i q1) const {
    return _mm512_adds_epi16(_mm512_packs_epi32(q0, q1), zero_point);
  }
  LP_MEMBER __m512i bytes(__m512i low, __m512i high) const {
    const __m512i codes = _mm512_packus_epi16(low, high);
    return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(codes, qmin), qmax), flip);
  }
  __m512i zero_point, qmin, qmax, flip;
};

// Codes of `vectors` vectors from pixel x on, where they go through a table, or neighbouring pixels
// are not neighbours in memory, or some do not exist.
static __attribute__((noinline)) void scatter_codes(const ColumnChunk& chunk, uint8_t* target,
                                                    int64_t x, int64_t vectors, uint8_t* codes) {
  if (chunk.epilogue->table != nullptr) apply_table(chunk.epilogue->table, codes, vectors * 64);
  const int64_t parts = chunk.block->parts, each = 64 / parts;
  const __mmask64 mask = byte_lanes(static_cast<int>(chunk.block->width));
  int64_t end = x + vectors * parts;
  if (end > chunk.pixels) end = chunk.pixels;
  for (uint8_t* dst = target + x * chunk.dst_col; x < end; ++x, dst += chunk.dst_col) {
    _mm512_mask_storeu_epi8(dst, mask, _mm512_maskz_loadu_epi8(mask, codes));
    codes += each;
  }
}

}  // namespace
