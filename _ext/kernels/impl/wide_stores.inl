// wide_stores.inl: results narrower than their sources, stored a whole vector at a time.
//
// Streaming stores (past the caches) write whole aligned vectors: what comes before the first
// aligned place, and what is left at the end, goes one masked vector at a time. They pay from about
// half of the last-level cache on (docs/numerics.md has figures); below, they would throw out of
// the cache what is needed next.
#pragma once
#include "kernels/vec.h"

// After the parameters of a lambda that must be inlined: its vectors would travel through memory.
#define LP_LAMBDA __attribute__((always_inline))

namespace {

#if defined(__AVX512BW__) || defined(__AVX2__)

// Four vectors of s32 as one of T, in order, saturated.
template <class T>
LP_INLINE VI pack_codes(VI a, VI b, VI c, VI d) {
  constexpr bool is_signed = static_cast<T>(-1) < 0;
#if defined(__AVX512BW__)
  const __m512i low = _mm512_packs_epi32(a.v, b.v), high = _mm512_packs_epi32(c.v, d.v);
  const __m512i bytes = is_signed ? _mm512_packs_epi16(low, high) : _mm512_packus_epi16(low, high);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {_mm512_permutexvar_epi32(order, bytes)};
#else
  const __m256i low = _mm256_packs_epi32(a.v, b.v), high = _mm256_packs_epi32(c.v, d.v);
  const __m256i bytes = is_signed ? _mm256_packs_epi16(low, high) : _mm256_packus_epi16(low, high);
  return {_mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
#endif
}

// Two vectors of s32 as one of T, in order, saturated.
template <class T>
LP_INLINE VI pack_words(VI a, VI b) {
  constexpr bool is_signed = static_cast<T>(-1) < 0;
#if defined(__AVX512BW__)
  const __m512i words = is_signed ? _mm512_packs_epi32(a.v, b.v) : _mm512_packus_epi32(a.v, b.v);
  return {_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), words)};
#else
  const __m256i words = is_signed ? _mm256_packs_epi32(a.v, b.v) : _mm256_packus_epi32(a.v, b.v);
  return {_mm256_permute4x64_epi64(words, 0xD8)};
#endif
}

LP_INLINE void store_vector(void* p, VI a) { vstore(static_cast<int32_t*>(p), a); }
LP_INLINE void stream_vector(void* p, VI a) {
#if defined(__AVX512BW__)
  _mm512_stream_si512(static_cast<__m512i*>(p), a.v);
#else
  _mm256_stream_si256(static_cast<__m256i*>(p), a.v);
#endif
}

// Fills y: packed(i) is what belongs to y[i] ... of VECTORS * W elements, some(i, lanes) stores
// lanes <= W of them.
template <int VECTORS, class T, class Packed, class Some>
LP_INLINE void write_vectors(T* y, int64_t n, bool streaming, Packed packed, Some some) {
  constexpr int64_t STEP = VECTORS * W, BYTES = W * 4;
  static_assert(STEP * sizeof(T) == BYTES);
  int64_t i = 0;
  if (streaming) {
    const uintptr_t past = reinterpret_cast<uintptr_t>(y) % BYTES;
    const int64_t head = past == 0 ? 0 : static_cast<int64_t>((BYTES - past) / sizeof(T));
    for (const int64_t end = head < n ? head : n; i < end;) {
      const int lanes_left = static_cast<int>(end - i < W ? end - i : W);
      some(i, lanes_left);
      i += lanes_left;
    }
    for (; i + STEP <= n; i += STEP) stream_vector(y + i, packed(i));
    _mm_sfence();
  } else {
    for (; i + STEP <= n; i += STEP) store_vector(y + i, packed(i));
  }
  for (; i + W <= n; i += W) some(i, W);
  if (i < n) some(i, static_cast<int>(n - i));
}

template <class Value>
LP_INLINE void write_floats(float* y, int64_t n, bool streaming, Value value) {
  write_vectors<1>(
      y, n, streaming, [&](int64_t i) LP_LAMBDA { return as_s32(value(i, W)); },
      [&](int64_t i, int some) LP_LAMBDA { vstore_any(y + i, value(i, some), some); });
}

#else

template <class T>
LP_INLINE VI pack_codes(VI a, VI, VI, VI) {
  return a;
}
template <class T>
LP_INLINE VI pack_words(VI a, VI) {
  return a;
}
template <int, class T, class Packed, class Some>
LP_INLINE void write_vectors(T*, int64_t n, bool, Packed, Some some) {
  for_lanes(n, some);
}
template <class Value>
LP_INLINE void write_floats(float* y, int64_t n, bool, Value value) {
  for_lanes(n, [&](int64_t i, int some) LP_LAMBDA { vstore_any(y + i, value(i, some), some); });
}

#endif

}  // namespace
