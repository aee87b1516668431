// depthwise_3x3_avx512vnni.inl: 3x3 down to codes, columns in registers
// (depthwise_columns_avx512vnni.inl).

namespace {

// 3x3 outputs down to codes, columns in registers: where an output needs two or three new columns,
// storing them first would take longer than all products.
template <int V, int STEP, int PARTS, bool SIGNED>
static void run_direct_chunk(const ColumnChunk& chunk) {
  using Reader = ColumnReader<PARTS, SIGNED>;
  const ColumnBlock& block = *chunk.block;
  const ColumnSource& source = chunk.source;
  const uint8_t *const row0 = source.row[0], *const row1 = source.row[1],
                       *const row2 = source.row[2], *const row3 = source.row[3];
  const int64_t tap = source.tap, pixel = source.pixel, limit = source.limit;
  const ColumnCodes maker(*chunk.epilogue);
  const int8_t* const weights = block.weights;
  const auto column = [&](int64_t base, __m512i(&c)[4]) __attribute__((always_inline)) {
    const Reader reader(base, pixel, limit);
    const __m512i r0 = reader.read(row0), r1 = reader.read(row1), r2 = reader.read(row2);
    const __m512i r3 = V == 2 ? reader.read(row3) : r2;
    const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
    const __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
    c[0] = _mm512_unpacklo_epi16(low01, low23);
    c[1] = _mm512_unpackhi_epi16(low01, low23);
    c[2] = _mm512_unpacklo_epi16(high01, high23);
    c[3] = _mm512_unpackhi_epi16(high01, high23);
  };
  const bool gathers = block.scattered || chunk.epilogue->table != nullptr ||
                       chunk.vectors * block.parts > chunk.pixels;
  alignas(64) uint8_t gathered[V][MOST_VECTORS * 64];
  uint8_t* dst[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) dst[v] = gathers ? gathered[v] : chunk.target[v];
  const int64_t move = gathers ? 64 : block.parts * chunk.dst_col;
  const __mmask64 mask = block.mask;
  __m512i left[4], middle[4], right[4];
  if (STEP < 3) column(0, right);
  if (STEP == 1) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) middle[s] = right[s];
    column(tap, right);
  }
  int64_t base = 0, to = 0;
#pragma GCC unroll 3
  for (int64_t j = 0; j < chunk.vectors; ++j, base += source.vector, to += move) {
    if constexpr (STEP == 3) {
      column(base, left);
    } else {
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) left[s] = STEP == 1 ? middle[s] : right[s];
    }
    if constexpr (STEP == 1) {
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) middle[s] = right[s];
    } else {
      column(base + tap, middle);
    }
    column(base + 2 * tap, right);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      __m512i q[4];
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        q[s] = _mm512_load_si512(block.start + 16 * s);
        dot4(q[s], left[s], weights + (v * 4 + s) * 64);
        dot4(q[s], middle[s], weights + 512 + (v * 4 + s) * 64);
        dot4(q[s], right[s], weights + 1024 + (v * 4 + s) * 64);
      }
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        const __m512 multiplier = _mm512_load_ps(block.multiplier + 16 * s);
        q[s] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(q[s]), multiplier));
      }
      _mm512_mask_storeu_epi8(dst[v] + to, mask,
                              maker.bytes(maker.words(q[0], q[1]), maker.words(q[2], q[3])));
    }
  }
  if (gathers) {
    for (int v = 0; v < V; ++v) {
      scatter_codes(chunk, chunk.target[v], 0, chunk.vectors, gathered[v]);
    }
  }
}
using RunChunk = void (*)(const ColumnChunk&);
template <int V, int STEP>
LP_INLINE RunChunk direct_chunk(int64_t parts, bool is_signed) {
  if (parts == 1) {
    return is_signed ? run_direct_chunk<V, STEP, 1, true> : run_direct_chunk<V, STEP, 1, false>;
  }
  if (parts == 2) {
    return is_signed ? run_direct_chunk<V, STEP, 2, true> : run_direct_chunk<V, STEP, 2, false>;
  }
  return is_signed ? run_direct_chunk<V, STEP, 4, true> : run_direct_chunk<V, STEP, 4, false>;
}
template <int V>
static RunChunk direct_chunk(int64_t step, int64_t parts, bool is_signed) {
  return step == 1   ? direct_chunk<V, 1>(parts, is_signed)
         : step == 2 ? direct_chunk<V, 2>(parts, is_signed)
                     : direct_chunk<V, 3>(parts, is_signed);
}

}  // namespace
