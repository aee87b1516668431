// pack_rows.h: row-major 8-bit weights to panels (pack.h), four rows at a time.
//
// Weights that are packed for one product alone (numerics.matmul_integer) cost more to pack, value
// by value, than to multiply.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "pack.h"

namespace lp {

// Four rows of 64 codes to [64][4]; `flip` is 0x80 for u8, which becomes s8 128 lower.
inline void interleave_four(const uint8_t* const* rows, uint8_t flip, int8_t* packed) {
#if defined(__SSE2__)
  const __m128i sign = _mm_set1_epi8(static_cast<char>(flip));
  __m128i* out = reinterpret_cast<__m128i*>(packed);
  for (int j = 0; j < 64; j += 16, out += 4) {
    const auto load = [&](int r) {
      return _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + j)), sign);
    };
    const __m128i r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
    const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1);
    const __m128i low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
    _mm_storeu_si128(out, _mm_unpacklo_epi16(low01, low23));
    _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(low01, low23));
    _mm_storeu_si128(out + 2, _mm_unpacklo_epi16(high01, high23));
    _mm_storeu_si128(out + 3, _mm_unpackhi_epi16(high01, high23));
  }
#else
  for (int j = 0; j < 64; ++j) {
    for (int r = 0; r < 4; ++r) packed[4 * j + r] = static_cast<int8_t>(rows[r][j] ^ flip);
  }
#endif
}

// sums[j] += the four codes of channel j.
inline void add_four(const int8_t* packed, int32_t* sums) {
#if defined(__SSE2__)
  const __m128i ones = _mm_set1_epi16(1);
  for (int j = 0; j < 64; j += 4, packed += 16) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
    const __m128i sign = _mm_cmpgt_epi8(_mm_setzero_si128(), codes);
    const __m128 low = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpacklo_epi8(codes, sign), ones));
    const __m128 high = _mm_castsi128_ps(_mm_madd_epi16(_mm_unpackhi_epi8(codes, sign), ones));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0)));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i* target = reinterpret_cast<__m128i*>(sums + j);
    _mm_storeu_si128(target, _mm_add_epi32(_mm_loadu_si128(target), _mm_add_epi32(even, odd)));
  }
#else
  for (int j = 0; j < 64; ++j) {
    for (int r = 0; r < 4; ++r) sums[j] += packed[4 * j + r];
  }
#endif
}

// Weight (k, n) is w[k * stride_k + n]. Also fills sums (n rounded up to 64), modulo 2^32.
inline void pack_code_rows(const uint8_t* w, int64_t stride_k, int64_t k, int64_t n, uint8_t flip,
                           int8_t* packed, int32_t* sums) {
  memset(sums, 0, static_cast<size_t>(padded_channels(n)) * sizeof(int32_t));
  uint8_t buffer[4][64];
  for (int64_t n0 = 0; n0 < n; n0 += PACK_PANEL) {
    const int64_t columns = n - n0 < PACK_PANEL ? n - n0 : PACK_PANEL;
    for (int64_t k0 = 0; k0 < k; k0 += 4, packed += 4 * PACK_PANEL) {
      const uint8_t* rows[4];
      for (int64_t r = 0; r < 4; ++r) {
        rows[r] = w + (k0 + r) * stride_k + n0;
        if (columns == PACK_PANEL && k0 + r < k) continue;
        memset(buffer[r], flip, sizeof(buffer[r]));  // packed as 0
        if (k0 + r < k) memcpy(buffer[r], rows[r], static_cast<size_t>(columns));
        rows[r] = buffer[r];
      }
      interleave_four(rows, flip, packed);
      add_four(packed, sums + n0);
    }
  }
}

}  // namespace lp
