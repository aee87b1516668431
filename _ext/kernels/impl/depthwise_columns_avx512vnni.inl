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
// Columns are kept in the first-level cache (1 KB for 4 pixels), made just before the tile that
// reads them first, so that loads, shuffles and stores of one run beside the products of another.
// A tile is 4 outputs of 64 channels in each line: a weight is loaded once for 4 products.
//
// Few channels  A vector holds 64 / parts channels of `parts` neighbouring pixels: 2 up to 32
//               channels, 4 up to 16 (depthwise_pixels), the last channels of a wider image, too.
//               Only loads and stores differ; the weights are repeated.
// Order         Unpacking works inside 128-bit lanes: accumulator s, 128-bit lane L holds channels
//               16 * L + 4 * s ...; packs put codes back in order for free.
// Any stride    Strides across that columns cannot be shared at, and dilations: each output makes
//               columns of its own (STEP = K).
// Weights       pack.h, pack_depthwise_by_columns
// Registers     8 accumulators, up to 11 columns, 2 weights; 8 words to be packed

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

LP_INLINE void interleave_words(__m512i low01, __m512i high01, __m512i low23, __m512i high23,
                                __m512i* to) {
  _mm512_store_si512(to, _mm512_unpacklo_epi16(low01, low23));
  _mm512_store_si512(to + 1, _mm512_unpackhi_epi16(low01, low23));
  _mm512_store_si512(to + 2, _mm512_unpacklo_epi16(high01, high23));
  _mm512_store_si512(to + 3, _mm512_unpackhi_epi16(high01, high23));
}

// Columns [begin, end), STEP of them from an output vector to the next, and the pairs that begin
// at those of them where an output has one.
template <int K, int STEP, int PARTS, bool SIGNED>
static void make_columns(const ColumnSource& source, int64_t begin, int64_t end, __m512i* columns,
                         __m512i* pairs) {
  using Reader = ColumnReader<PARTS, SIGNED>;
  const uint8_t *const row0 = source.row[0], *const row1 = source.row[1],
                       *const row2 = source.row[2], *const row3 = source.row[3],
                       *const row4 = source.row[4], *const row5 = source.row[5];
  const int64_t tap = source.tap, pixel = source.pixel, vector = source.vector;
  const int64_t limit = source.limit;
  int64_t base = STEP < K ? begin * tap : begin / K * vector;
  int kx = 0;  // of a column that only one output has
  for (int64_t u = begin; u < end; ++u) {
    const Reader reader(base, pixel, limit);
    const __m512i r0 = reader.read(row0), r1 = reader.read(row1);
    const __m512i r2 = reader.read(row2), r3 = reader.read(row3);
    interleave_words(_mm512_unpacklo_epi8(r0, r1), _mm512_unpackhi_epi8(r0, r1),
                     _mm512_unpacklo_epi8(r2, r3), _mm512_unpackhi_epi8(r2, r3), columns + 4 * u);
    if (K == 5 && (STEP == 1 || (STEP == 2 ? u : kx) % 2 == 0)) {
      const int64_t right = base + tap;
      const Reader next(right < limit ? right : limit, pixel, limit);
      const __m512i r4 = reader.read(row4), r5 = reader.read(row5);
      const __m512i n4 = next.read(row4), n5 = next.read(row5);
      interleave_words(_mm512_unpacklo_epi8(r4, r5), _mm512_unpackhi_epi8(r4, r5),
                       _mm512_unpacklo_epi8(n4, n5), _mm512_unpackhi_epi8(n4, n5), pairs + 4 * u);
    }
    base += tap;
    if (STEP == K && ++kx == K) {
      kx = 0;
      base += vector - K * tap;
    }
  }
}
using MakeColumns = void (*)(const ColumnSource&, int64_t, int64_t, __m512i*, __m512i*);

template <int K, int STEP>
LP_INLINE MakeColumns column_maker(int64_t parts, bool is_signed) {
  if (parts == 1)
    return is_signed ? make_columns<K, STEP, 1, true> : make_columns<K, STEP, 1, false>;
  if (parts == 2)
    return is_signed ? make_columns<K, STEP, 2, true> : make_columns<K, STEP, 2, false>;
  return is_signed ? make_columns<K, STEP, 4, true> : make_columns<K, STEP, 4, false>;
}
template <int K>
static MakeColumns column_maker(int64_t step, int64_t parts, bool is_signed) {
  return step == 1   ? column_maker<K, 1>(parts, is_signed)
         : step == 2 ? column_maker<K, 2>(parts, is_signed)
                     : column_maker<K, K>(parts, is_signed);
}

// One block of channels of one layer.
struct ColumnBlock {
  alignas(64) int32_t start[64];
  alignas(64) float multiplier[64];
  const int8_t* weights;
  MakeColumns make;
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

struct ColumnTaps {
  template <int K>
  static constexpr int items() {
    return K == 3 ? 3 : 8;
  }
};

// The sums of XT vectors of V lines: accumulator s of the four.
template <int K, int V, int STEP, int XT>
LP_INLINE void sum_columns(const ColumnBlock& block, const __m512i* columns, const __m512i* pairs,
                           int s, __m512i (&acc)[V][XT]) {
  constexpr int SHARED = (XT - 1) * STEP + K, HELD = STEP < K ? SHARED : 1;
  const __m512i start = _mm512_load_si512(block.start + 16 * s);
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
    for (int x = 0; x < XT; ++x) acc[v][x] = start;
  __m512i held[HELD];
  if constexpr (STEP < K) {
#pragma GCC unroll 16
    for (int u = 0; u < SHARED; ++u) held[u] = _mm512_load_si512(columns + 4 * u + s);
  }
#pragma GCC unroll 5
  for (int kx = 0; kx < K; ++kx) {
    __m512i w[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      w[v] = _mm512_load_si512(block.weights + ((kx * 2 + v) * 4 + s) * 64);
    }
#pragma GCC unroll 4
    for (int x = 0; x < XT; ++x) {
      const int u = x * STEP + kx;
      const __m512i column = STEP < K ? held[u] : _mm512_load_si512(columns + 4 * u + s);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) dot4(acc[v][x], column, w[v]);
    }
  }
  if constexpr (K == 5) {
#pragma GCC unroll 3
    for (int p = 0; p < 3; ++p) {
      __m512i w[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        w[v] = _mm512_load_si512(block.weights + (((K + p) * 2 + v) * 4 + s) * 64);
      }
#pragma GCC unroll 4
      for (int x = 0; x < XT; ++x) {
        const __m512i pair = _mm512_load_si512(pairs + 4 * (x * STEP + 2 * p) + s);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) dot4(acc[v][x], pair, w[v]);
      }
    }
  }
}

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

// One tile, down to codes: XT vectors from j on.
template <int K, int V, int STEP, int XT>
LP_INLINE void code_tile(const ColumnChunk& chunk, const ColumnCodes& maker, const __m512i* columns,
                         const __m512i* pairs, int64_t j) {
  const ColumnBlock& block = *chunk.block;
  columns += j * STEP * 4;
  pairs += j * STEP * 4;
  // Two accumulators of each output at a time are rounded while the next two are summed.
  __m512i words[2][V][XT];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    __m512i q[2][V][XT];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int s = 2 * half + i;
      sum_columns<K, V, STEP, XT>(block, columns, pairs, s, q[i]);
      const __m512 multiplier = _mm512_load_ps(block.multiplier + 16 * s);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
        for (int x = 0; x < XT; ++x) {
          q[i][v][x] =
              _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(q[i][v][x]), multiplier));
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
      for (int x = 0; x < XT; ++x) words[half][v][x] = maker.words(q[0][v][x], q[1][v][x]);
  }
  alignas(64) uint8_t gathered[V][XT * 64];
  const bool scattered =
      block.scattered || chunk.epilogue->table != nullptr || (j + XT) * block.parts > chunk.pixels;
  const int64_t step = scattered ? 64 : block.parts * chunk.dst_col;
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    uint8_t* dst = scattered ? gathered[v] : chunk.target[v] + j * step;
#pragma GCC unroll 4
    for (int x = 0; x < XT; ++x, dst += step) {
      _mm512_mask_storeu_epi8(dst, block.mask, maker.bytes(words[0][v][x], words[1][v][x]));
    }
  }
  if (scattered) {
    for (int v = 0; v < V; ++v) {
      scatter_codes(chunk, chunk.target[v], j * block.parts, XT, gathered[v]);
    }
  }
}

// One tile, down to sums in the order of the channels.
template <int K, int V, int STEP, int XT>
LP_INLINE void sum_tile(const ColumnChunk& chunk, const __m512i* columns, const __m512i* pairs,
                        int64_t j) {
  __m512i acc[4][V][XT];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    sum_columns<K, V, STEP, XT>(*chunk.block, columns + j * STEP * 4, pairs + j * STEP * 4, s,
                                acc[s]);
  }
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
    for (int x = 0; x < XT; ++x) {
      __m512i four[4] = {acc[0][v][x], acc[1][v][x], acc[2][v][x], acc[3][v][x]};
      transpose_blocks(four);
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        _mm512_store_si512(chunk.sums + ((v * MOST_VECTORS + j + x) * 64 + 16 * s), four[s]);
      }
    }
}

template <int K, int V, int STEP, int XT, bool CODES>
LP_INLINE void column_tile(const ColumnChunk& chunk, const ColumnCodes& maker,
                           const __m512i* columns, const __m512i* pairs, int64_t j) {
  if constexpr (CODES) {
    code_tile<K, V, STEP, XT>(chunk, maker, columns, pairs, j);
  } else {
    sum_tile<K, V, STEP, XT>(chunk, columns, pairs, j);
  }
}

template <int K, int V, int STEP, bool CODES>
static void run_column_chunk(const ColumnChunk& chunk) {
  alignas(64) __m512i columns[4 * MOST_COLUMNS];
  alignas(64) __m512i pairs[K == 5 ? 4 * MOST_COLUMNS : 4];
  const ColumnCodes maker(*chunk.epilogue);
  int64_t made = 0;
  const auto make_until = [&](int64_t end) __attribute__((always_inline)) {
    if (made < end) chunk.block->make(chunk.source, made, end, columns, pairs);
    made = end;
  };
  const int64_t n = chunk.vectors;
  for (int64_t j = 0; j < n;) {
    // A narrow rest is done by a wider tile that repeats some outputs.
    if (n - j > 2 && n >= 4) {
      if (j > n - 4) j = n - 4;
      make_until((j + 3) * STEP + K);
      column_tile<K, V, STEP, 4, CODES>(chunk, maker, columns, pairs, j);
      j += 4;
    } else if (n >= 2) {
      if (j > n - 2) j = n - 2;
      make_until((j + 1) * STEP + K);
      column_tile<K, V, STEP, 2, CODES>(chunk, maker, columns, pairs, j);
      j += 2;
    } else {
      make_until(K);
      column_tile<K, V, STEP, 1, CODES>(chunk, maker, columns, pairs, 0);
      j = 1;
    }
  }
}

template <int K, int V, bool CODES>
LP_INLINE void run_column_chunk(const ColumnChunk& chunk) {
  switch (chunk.block->step) {
    case 1:
      return run_column_chunk<K, V, 1, CODES>(chunk);
    case 2:
      return run_column_chunk<K, V, 2, CODES>(chunk);
    default:
      return run_column_chunk<K, V, K, CODES>(chunk);
  }
}

template <int K>
struct ByColumns {
  const lp::DepthwiseArgs& args;
  const lp::Epilogue& e;
  int64_t tap, tap_row;
  bool codes;
  RowBlock rows;
  alignas(64) int32_t sums[2 * MOST_VECTORS * 64];

  explicit LP_MEMBER ByColumns(const lp::DepthwiseArgs& a)
      : args(a),
        e(a.epilogue),
        tap(a.tap_offset[1] - a.tap_offset[0]),
        tap_row(a.tap_offset[K] - a.tap_offset[0]),
        codes(is_requantisation(a.epilogue) && a.epilogue.fast != 0) {}

  // In the order of the accumulators, repeated for the parts.
  LP_MEMBER void spread(const void* values, int64_t c, int64_t parts, void* to) const {
    alignas(64) int32_t words[64];
    const int64_t each = 64 / parts;
    for (int64_t i = 0; i < 64; i += each) {
      memcpy(words + i, static_cast<const int32_t*>(values) + c, static_cast<size_t>(each) * 4);
    }
    __m512i v[4];
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) v[s] = _mm512_load_si512(words + 16 * s);
    transpose_blocks(v);
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) _mm512_store_si512(static_cast<int32_t*>(to) + 16 * s, v[s]);
  }

  LP_MEMBER void prepare(int64_t c, int64_t width, ColumnBlock& block) const {
    block.width = width;
    block.parts = lp::depthwise_pixels(width);
    block.weights =
        static_cast<const int8_t*>(args.weights_by_columns) + c / 64 * ColumnTaps::items<K>() * 512;
    const int64_t across = args.src_col * block.parts;
    block.step = across == tap ? 1 : across == 2 * tap ? 2 : K;
    // Neighbouring pixels that lie side by side are one load.
    const bool together = block.parts * args.src_col == 64;
    block.scattered = block.parts > 1 && (block.parts * args.dst_col != 64 || width < args.dst_col);
    block.mask = block.parts > 1 ? ~uint64_t{0} : byte_lanes(static_cast<int>(width));
    block.make = column_maker<K>(block.step, together ? 1 : block.parts, args.is_signed != 0);
    spread(args.bias, c, block.parts, block.start);
    if (codes) spread(e.multiplier, c, block.parts, block.multiplier);
  }

  // `lines` of them: 2 neighbouring ones of an image, or 1.
  LP_MEMBER void run_lines(const ColumnBlock& block, int64_t c, int64_t line, int lines) {
    const RowWalk walk = RowWalk::at_row(args, line * args.cols);
    const uint8_t* src = static_cast<const uint8_t*>(args.src) + walk.src(args) + c;
    uint8_t* dst = static_cast<uint8_t*>(args.dst) + (walk.dst(args) + c) * output_bytes(e);
    const int64_t vectors = (args.cols + block.parts - 1) / block.parts;
    int64_t most = (MOST_COLUMNS - K) / block.step + 1;
    if (most > MOST_VECTORS) most = MOST_VECTORS;
    const int64_t chunks = (vectors + most - 1) / most, each = (vectors + chunks - 1) / chunks;
    ColumnChunk chunk;
    chunk.epilogue = &e;
    chunk.block = &block;
    chunk.dst_col = args.dst_col;
    chunk.sums = sums;
    chunk.source.tap = tap;
    chunk.source.pixel = args.src_col;
    chunk.source.vector = block.parts * args.src_col;
    for (int64_t first = 0; first < vectors; first += each) {
      const int64_t x = first * block.parts;
      chunk.vectors = vectors - first < each ? vectors - first : each;
      const int64_t left = args.cols - x, whole = chunk.vectors * block.parts;
      chunk.pixels = left < whole ? left : whole;
      // Rows past the last one that any output needs meet weights of zero.
      const int last = K - 1 + (lines - 1);
      for (int r = 0; r < 6; ++r) {
        chunk.source.row[r] = src + x * args.src_col + (r < last ? r : last) * tap_row;
      }
      chunk.source.limit = (left - 1) * args.src_col + (K - 1) * tap;
      chunk.target[0] = dst + x * args.dst_col;
      chunk.target[1] = chunk.target[0] + args.dst_row;
      if (codes) {
        lines == 2 ? run_column_chunk<K, 2, true>(chunk) : run_column_chunk<K, 1, true>(chunk);
        continue;
      }
      lines == 2 ? run_column_chunk<K, 2, false>(chunk) : run_column_chunk<K, 1, false>(chunk);
      for (int v = 0; v < lines; ++v) {
        place_pixels(rows, args, line + v, x, chunk.pixels);
        finish_sums(e, rows, 0, rows.count, c, static_cast<int>(block.width),
                    sums + v * MOST_VECTORS * 64, static_cast<int>(64 / block.parts));
      }
    }
  }

  LP_MEMBER void run(const lp::Piece& piece) {
    // So many lines that what they read stays in the second-level cache while all channels pass.
    constexpr int64_t BAND_BYTES = 262144;
    const int64_t row = args.src_row > 0 ? args.src_row : 1;
    const int64_t band = BAND_BYTES / row < 2 ? 2 : BAND_BYTES / row / 2 * 2;
    const bool pairs = args.src_row == tap_row;
    ColumnBlock block;
    for (int64_t begin = piece.row_begin; begin < piece.row_end; begin += band) {
      const int64_t end = piece.row_end - begin < band ? piece.row_end : begin + band;
      for (int64_t c = piece.n_begin; c < piece.n_end; c += 64) {
        prepare(c, piece.n_end - c < 64 ? piece.n_end - c : 64, block);
        for (int64_t line = begin; line < end;) {
          const bool two = pairs && line + 1 < end && line % args.rows + 1 < args.rows;
          run_lines(block, c, line, two ? 2 : 1);
          line += two ? 2 : 1;
        }
      }
    }
  }
};

}  // namespace
