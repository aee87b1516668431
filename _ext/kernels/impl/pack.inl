// pack.inl: row-major B [k][n] of one byte to panels (pack.h), with the sums of its columns: for
// operands that change from call to call, where packing is part of the product's time.
//
//   four rows of 64 bytes   ── unpack bytes, then words ──►   lanes (k, k+1, k+2, k+3) of a column
//
// Unpacking works inside 128-bit lanes, so that the columns come out in blocks of four; a
// transposition of 128-bit blocks puts them in order (AVX-512).
// flip: 0x80 turns u8 into s8 (minus 128), 0 leaves s8. Rows and columns past the end are zeros.

namespace {

#if defined(LP_ISA_AVX512)

// The four s8 of each lane, added to an s32.
LP_INLINE __m512i add_quads(__m512i sum, __m512i quads) {
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(quads, 8), 8);
  const __m512i odd = _mm512_srai_epi16(quads, 8);
  return _mm512_add_epi32(sum,
                          _mm512_madd_epi16(_mm512_add_epi16(even, odd), _mm512_set1_epi16(1)));
}

static void pack_rows_s8(const void* b, int64_t row_stride, int64_t k, int64_t n, int32_t flip,
                         int8_t* packed, int32_t* sums) {
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  for (int64_t n0 = 0; n0 < n; n0 += 64, sums += 64) {
    const int8_t* source = static_cast<const int8_t*>(b) + n0;
    const __mmask64 mask = byte_lanes(static_cast<int>(n - n0 < 64 ? n - n0 : 64));
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                      _mm512_setzero_si512()};
    for (int64_t k0 = 0; k0 < k; k0 += 4, source += 4 * row_stride, packed += 256) {
      __m512i row[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        row[i] = k0 + i < k ? _mm512_maskz_loadu_epi8(mask, source + i * row_stride)
                            : _mm512_setzero_si512();
        row[i] = k0 + i < k ? _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(row[i], flips)) : row[i];
      }
      const __m512i a = _mm512_unpacklo_epi8(row[0], row[1]),
                    c = _mm512_unpackhi_epi8(row[0], row[1]);
      const __m512i p = _mm512_unpacklo_epi8(row[2], row[3]),
                    q = _mm512_unpackhi_epi8(row[2], row[3]);
      __m512i out[4] = {_mm512_unpacklo_epi16(a, p), _mm512_unpackhi_epi16(a, p),
                        _mm512_unpacklo_epi16(c, q), _mm512_unpackhi_epi16(c, q)};
      transpose_blocks(out);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        _mm512_storeu_si512(packed + 64 * i, out[i]);
        sum[i] = add_quads(sum[i], out[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(sums + 16 * i, sum[i]);
  }
}

#else

static void pack_rows_s8(const void* b, int64_t row_stride, int64_t k, int64_t n, int32_t flip,
                         int8_t* packed, int32_t* sums) {
  for (int64_t n0 = 0; n0 < n; n0 += 64, sums += 64) {
    const int64_t columns = n - n0 < 64 ? n - n0 : 64;
    memset(sums, 0, 64 * sizeof(int32_t));
    for (int64_t k0 = 0; k0 < k; k0 += 4, packed += 256) {
      const int64_t rows = k - k0 < 4 ? k - k0 : 4;
      const int8_t* source = static_cast<const int8_t*>(b) + k0 * row_stride + n0;
      int64_t column = 0;
#if defined(LP_ISA_AVX2)
      const __m128i flips = _mm_set1_epi8(static_cast<char>(flip));
      for (; rows == 4 && column + 16 <= columns; column += 16) {
        __m128i row[4];
        for (int64_t i = 0; i < 4; ++i) {
          row[i] = _mm_xor_si128(
              flips,
              _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i * row_stride + column)));
        }
        const __m128i a = _mm_unpacklo_epi8(row[0], row[1]), c = _mm_unpackhi_epi8(row[0], row[1]);
        const __m128i p = _mm_unpacklo_epi8(row[2], row[3]), q = _mm_unpackhi_epi8(row[2], row[3]);
        const __m128i out[4] = {_mm_unpacklo_epi16(a, p), _mm_unpackhi_epi16(a, p),
                                _mm_unpacklo_epi16(c, q), _mm_unpackhi_epi16(c, q)};
        for (int64_t i = 0; i < 4; ++i) {
          const int64_t at = column + 4 * i;
          _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + 4 * at), out[i]);
          const __m128i even = _mm_srai_epi16(_mm_slli_epi16(out[i], 8), 8);
          const __m128i pairs = _mm_add_epi16(even, _mm_srai_epi16(out[i], 8));
          __m128i* sum = reinterpret_cast<__m128i*>(sums + at);
          _mm_storeu_si128(
              sum, _mm_add_epi32(_mm_loadu_si128(sum), _mm_madd_epi16(pairs, _mm_set1_epi16(1))));
        }
      }
#endif
      for (; column < 64; ++column) {
        for (int64_t i = 0; i < 4; ++i) {
          const bool inside = i < rows && column < columns;
          const int8_t w =
              inside ? static_cast<int8_t>(source[i * row_stride + column] ^ flip) : int8_t{0};
          packed[4 * column + i] = w;
          sums[column] += w;
        }
      }
    }
  }
}

#endif

}  // namespace
