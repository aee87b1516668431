// tile_avx512.inl: how a tile of int8 sums in registers starts, and how it becomes outputs.
//
// u8/s8 codes: multiply, round, packssdw, paddsw zero point, packuswb, one 64-byte store; exact
// because every |acc * multiplier| < 2^31 (`fast`), else clamped in float first. Needs finish.inl,
// product_int8.inl.

namespace {

// The start values of rows first.., with the terms that depend on row and column.
template <int MR, int NV>
LP_INLINE void start_tile(const CodePanel& panel, const CodeRows& rows, int first,
                          __m512i (&acc)[MR][NV]) {
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) {
    const __m512i start = _mm512_loadu_si512(panel.start + 16 * j);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) acc[i][j] = start;
  }
  for (int t = 0; t < panel.terms; ++t) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512i column = _mm512_loadu_si512(panel.column_term[t] + 16 * j);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const __m512i row = _mm512_set1_epi32(rows.term[t][first + i]);
        acc[i][j] = _mm512_add_epi32(acc[i][j], _mm512_mullo_epi32(row, column));
      }
    }
  }
}

// 64 s32 (NV vectors in order, the rest zero) to 64 codes.
struct Packer {
  static LP_MEMBER Packer from(const lp::Epilogue& e) {
    return {_mm512_set1_epi16(static_cast<int16_t>(e.zero_point)),
            _mm512_set1_epi8(static_cast<char>(e.qmin)),
            _mm512_set1_epi8(static_cast<char>(e.qmax)), e.kind == lp::OUT_S8};
  }
  // In the order that packs leave: 128-bit lane L of the result holds columns 16 * s + 4 * L.
  LP_MEMBER __m512i interleaved(__m512i q0, __m512i q1, __m512i q2, __m512i q3) const {
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q0, q1), zero_point);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(q2, q3), zero_point);
    if (is_signed) {
      const __m512i codes = _mm512_packs_epi16(low, high);
      return _mm512_min_epi8(_mm512_max_epi8(codes, qmin), qmax);
    }
    const __m512i codes = _mm512_packus_epi16(low, high);
    return _mm512_min_epu8(_mm512_max_epu8(codes, qmin), qmax);
  }
  LP_MEMBER __m512i ordered(__m512i q0, __m512i q1, __m512i q2, __m512i q3) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, interleaved(q0, q1, q2, q3));
  }
  __m512i zero_point, qmin, qmax;
  bool is_signed;
};

LP_INLINE __m512i requantized(__m512i acc, __m512 multiplier, const CodeRange& range, bool fast) {
  __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
  if (!fast) x = _mm512_min_ps(_mm512_max_ps(x, range.low.v), range.high.v);
  return _mm512_cvtps_epi32(x);
}

// The first `count` quarters (NV 1) or halves (NV 2) of a vector of codes, each to a row.
template <int NV>
LP_INLINE void store_parts(__m512i codes, __mmask64 mask, uint8_t* const* target, int count,
                           int64_t n0) {
  if constexpr (NV == 2) {
    const __mmask32 lanes = static_cast<__mmask32>(mask);
    _mm256_mask_storeu_epi8(target[0] + n0, lanes, _mm512_castsi512_si256(codes));
    if (count > 1) {
      _mm256_mask_storeu_epi8(target[1] + n0, lanes, _mm512_extracti64x4_epi64(codes, 1));
    }
  } else {
    const __mmask16 lanes = static_cast<__mmask16>(mask);
    _mm_mask_storeu_epi8(target[0] + n0, lanes, _mm512_castsi512_si128(codes));
    if (count > 1) _mm_mask_storeu_epi8(target[1] + n0, lanes, _mm512_extracti32x4_epi32(codes, 1));
    if (count > 2) _mm_mask_storeu_epi8(target[2] + n0, lanes, _mm512_extracti32x4_epi32(codes, 2));
    if (count > 3) _mm_mask_storeu_epi8(target[3] + n0, lanes, _mm512_extracti32x4_epi32(codes, 3));
  }
}

// A tile's codes, requantised in registers. FAST: |acc * multiplier| < 2^31 is proven. TABLE: the
// codes are looked up in e.table.
template <int MR, int NV, bool FAST, bool TABLE>
LP_INLINE void store_codes_tile(const lp::Epilogue& e, const CodePanel& panel,
                                const __m512i (&acc)[MR][NV], uint8_t* const* target) {
  const Packer packer = Packer::from(e);
  const CodeRange range = code_range(e);
  __m512i table[4];
  if (TABLE) ByteTable::load(e.table, table);
  const float* scale = e.multiplier + panel.n0;
  const bool full = panel.columns == 64;
  const __mmask64 mask = byte_lanes(panel.columns);
  __m512 multiplier[4];
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) multiplier[j] = _mm512_loadu_ps(scale + 16 * j);
  if constexpr (NV <= 2 && MR > 1) {  // two or four rows fill a vector of codes
    constexpr int TOGETHER = 4 / NV;
#pragma GCC unroll 4
    for (int first = 0; first < MR; first += TOGETHER) {
      __m512i q[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const int i = first + k / NV, j = k % NV;
        q[k] = i < MR ? requantized(acc[i < MR ? i : 0][j], multiplier[j], range, FAST)
                      : _mm512_setzero_si512();
      }
      __m512i codes = packer.ordered(q[0], q[1], q[2], q[3]);
      if (TABLE) codes = ByteTable::look_up(table, codes);
      store_parts<NV>(codes, mask, target + first, MR - first < TOGETHER ? MR - first : TOGETHER,
                      panel.n0);
    }
    return;
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    __m512i q[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) q[j] = requantized(acc[i][j], multiplier[j], range, FAST);
    __m512i codes = packer.ordered(q[0], q[1], q[2], q[3]);
    if (TABLE) codes = ByteTable::look_up(table, codes);
    if (NV == 4 && full) {
      _mm512_storeu_si512(target[i] + panel.n0, codes);
    } else {
      _mm512_mask_storeu_epi8(target[i] + panel.n0, mask, codes);
    }
  }
}

// 32-bit values: the sums, or f32 in their place.
template <int MR, int NV>
LP_INLINE void store_words_tile(const CodePanel& panel, const __m512i (&x)[MR][NV],
                                uint8_t* const* target) {
  const int64_t offset = panel.n0 * 4;
  if (panel.columns >= 16 * NV) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) _mm512_storeu_si512(target[i] + offset + 64 * j, x[i][j]);
    return;
  }
  const __mmask64 mask = byte_lanes(panel.columns);
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      _mm512_mask_storeu_epi32(target[i] + offset + 64 * j, static_cast<__mmask16>(mask >> 16 * j),
                               x[i][j]);
    }
}

// Row i of the tile is row first + i of the block; it has 16 * NV columns from panel.n0 on, of
// which panel.columns exist.
template <int MR, int NV>
LP_INLINE void store_tile(const lp::Epilogue& e, const CodePanel& panel, const RowBlock& rows,
                          int first, __m512i (&acc)[MR][NV]) {
  uint8_t* const* target = rows.target + first;
  if (is_requantisation(e) && e.fast) {
    if (e.table == nullptr) {
      store_codes_tile<MR, NV, true, false>(e, panel, acc, target);
    } else {
      store_codes_tile<MR, NV, true, true>(e, panel, acc, target);
    }
    return;
  }
  if (e.kind == lp::OUT_S32) {
    store_words_tile<MR, NV>(panel, acc, target);
    return;
  }
  if (is_bare(e)) {
    const float* scale = e.multiplier + panel.n0;
    const float* addend = e.addend == nullptr ? nullptr : e.addend + panel.n0;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512 multiplier = _mm512_loadu_ps(scale + 16 * j);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        acc[i][j] = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][j]), multiplier));
      }
      if (addend == nullptr) continue;
      // Not padded, unlike multipliers.
      const __m512 add =
          _mm512_maskz_loadu_ps(float_lanes(panel.columns - 16 * j), addend + 16 * j);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        acc[i][j] = _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(acc[i][j]), add));
      }
    }
    store_words_tile<MR, NV>(panel, acc, target);
    return;
  }
  alignas(64) int32_t sums[MR][16 * NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) _mm512_store_si512(sums[i] + 16 * j, acc[i][j]);
  finish_sums(e, rows, first, MR, panel.n0, panel.columns, sums[0], 16 * NV);
}

// The 4 x 4 blocks of 128 bits of four vectors, transposed.
[[maybe_unused]] LP_INLINE void transpose_blocks(__m512i (&v)[4]) {
  const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44),
                b = _mm512_shuffle_i32x4(v[0], v[1], 0xEE);
  const __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44),
                d = _mm512_shuffle_i32x4(v[2], v[3], 0xEE);
  v[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  v[1] = _mm512_shuffle_i32x4(a, c, 0xDD);
  v[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  v[3] = _mm512_shuffle_i32x4(b, d, 0xDD);
}

}  // namespace
