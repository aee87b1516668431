// depthwise_tiles_avx512vnni.inl: 5x5, and sums of both, columns in the first-level cache
// (depthwise_columns_avx512vnni.inl).

namespace {

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

}  // namespace
