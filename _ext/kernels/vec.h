// vec.h: one float vector (VF), one s32 vector (VI) and one mask (VM) per instruction set.
//
// Kernels that are written once over these types give the same bits everywhere: every operation is
// IEEE, lane-wise and in the same order; only the number of lanes W differs. Included only by the
// per-ISA translation units (scalar.cpp, avx2.cpp, avx512vnni.cpp), inside an unnamed namespace, so
// that no symbol compiled with wide flags can be chosen by the linker for the baseline.
//
// Semantics fixed here because instruction sets differ:
//   vmin(a, b) = a < b ? a : b      vmax(a, b) = a > b ? a : b     (so NaN in `a` gives `b`)
//   vrint      rounds half to even; cvt_s32 rounds half to even and needs |x| < 2^31
//   fma        one rounding, always (the scalar set calls fmaf)
//   swap_lanes<K>  lane i has what lane i ^ K had; K a power of two below W
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(LP_ISA_AVX512) || defined(LP_ISA_AVX2)
// GCC 12 warns about its own _mm512_undefined_ps() (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#elif defined(LP_ISA_NEON)
#include <arm_neon.h>
#endif

#define LP_MEMBER inline __attribute__((always_inline))
#define LP_INLINE static LP_MEMBER

namespace {

#if defined(LP_ISA_AVX512)
// ------------------------------------------------------------------------------------ AVX-512
constexpr int W = 16;
struct VF {
  __m512 v;
};
struct VI {
  __m512i v;
};
struct VM {
  __mmask16 v;
};
LP_INLINE __mmask16 lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
LP_INLINE VF vload(const float* p) { return {_mm512_loadu_ps(p)}; }
LP_INLINE VF vload_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes(n), p)}; }
LP_INLINE void vstore(float* p, VF a) { _mm512_storeu_ps(p, a.v); }
LP_INLINE void vstore_n(float* p, VF a, int n) { _mm512_mask_storeu_ps(p, lanes(n), a.v); }
LP_INLINE VF vset(float x) { return {_mm512_set1_ps(x)}; }
LP_INLINE VF operator+(VF a, VF b) { return {_mm512_add_ps(a.v, b.v)}; }
LP_INLINE VF operator-(VF a, VF b) { return {_mm512_sub_ps(a.v, b.v)}; }
LP_INLINE VF operator*(VF a, VF b) { return {_mm512_mul_ps(a.v, b.v)}; }
LP_INLINE VF operator/(VF a, VF b) { return {_mm512_div_ps(a.v, b.v)}; }
LP_INLINE VF fma(VF a, VF b, VF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
LP_INLINE VF vmin(VF a, VF b) { return {_mm512_min_ps(a.v, b.v)}; }
LP_INLINE VF vmax(VF a, VF b) { return {_mm512_max_ps(a.v, b.v)}; }
LP_INLINE VF vsqrt(VF a) { return {_mm512_sqrt_ps(a.v)}; }
template <int K>
LP_INLINE VF swap_lanes(VF a) {
  if constexpr (K == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
  if constexpr (K == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
  return {_mm512_permute_ps(a.v, K == 2 ? 0x4e : 0xb1)};
}
LP_INLINE float first_lane(VF a) { return _mm512_cvtss_f32(a.v); }
LP_INLINE VF vrint(VF a) { return {_mm512_roundscale_ps(a.v, 8)}; }
LP_INLINE VF vfloor(VF a) { return {_mm512_roundscale_ps(a.v, 9)}; }
LP_INLINE VF vceil(VF a) { return {_mm512_roundscale_ps(a.v, 10)}; }
LP_INLINE VM operator<(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
LP_INLINE VM operator<=(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
LP_INLINE VM operator==(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
LP_INLINE VM is_nan(VF a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
LP_INLINE VM first_lanes(int n) { return {lanes(n)}; }
LP_INLINE VF select(VM m, VF yes, VF no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
LP_INLINE VI select(VM m, VI yes, VI no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
LP_INLINE VM operator&(VM a, VM b) { return {static_cast<__mmask16>(a.v & b.v)}; }
LP_INLINE VM operator|(VM a, VM b) { return {static_cast<__mmask16>(a.v | b.v)}; }
LP_INLINE int mask_bits(VM m) { return m.v; }
LP_INLINE VI vload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
LP_INLINE VI vload_n(const int32_t* p, int n) { return {_mm512_maskz_loadu_epi32(lanes(n), p)}; }
LP_INLINE void vstore(int32_t* p, VI a) { _mm512_storeu_si512(p, a.v); }
LP_INLINE void vstore_n(int32_t* p, VI a, int n) { _mm512_mask_storeu_epi32(p, lanes(n), a.v); }
LP_INLINE VI vset_s32(int32_t x) { return {_mm512_set1_epi32(x)}; }
LP_INLINE VI operator+(VI a, VI b) { return {_mm512_add_epi32(a.v, b.v)}; }
LP_INLINE VI operator-(VI a, VI b) { return {_mm512_sub_epi32(a.v, b.v)}; }
LP_INLINE VI operator&(VI a, VI b) { return {_mm512_and_si512(a.v, b.v)}; }
LP_INLINE VI operator|(VI a, VI b) { return {_mm512_or_si512(a.v, b.v)}; }
LP_INLINE VI operator^(VI a, VI b) { return {_mm512_xor_si512(a.v, b.v)}; }
LP_INLINE VM operator==(VI a, VI b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
LP_INLINE VM operator>(VI a, VI b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
LP_INLINE VI vmin(VI a, VI b) { return {_mm512_min_epi32(a.v, b.v)}; }
LP_INLINE VI vmax(VI a, VI b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int S>
LP_INLINE VI shift_left(VI a) {
  return {_mm512_slli_epi32(a.v, S)};
}
template <int S>
LP_INLINE VI shift_right(VI a) {  // logical
  return {_mm512_srli_epi32(a.v, S)};
}
template <int S>
LP_INLINE VI shift_right_signed(VI a) {
  return {_mm512_srai_epi32(a.v, S)};
}
LP_INLINE VI cvt_s32(VF a) { return {_mm512_cvtps_epi32(a.v)}; }
LP_INLINE VF cvt_f32(VI a) { return {_mm512_cvtepi32_ps(a.v)}; }
LP_INLINE VI as_s32(VF a) { return {_mm512_castps_si512(a.v)}; }
LP_INLINE VF as_f32(VI a) { return {_mm512_castsi512_ps(a.v)}; }
LP_INLINE VI load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LP_INLINE VI load_s8(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LP_INLINE VI load_u8_n(const uint8_t* p, int n) {
  return {_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes(n), p))};
}
LP_INLINE VI load_s8_n(const int8_t* p, int n) {
  return {_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes(n), p))};
}
// Stores the low byte of each lane.
LP_INLINE void store_b8(void* p, VI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
LP_INLINE void store_b8_n(void* p, VI a, int n) {
  _mm512_mask_cvtepi32_storeu_epi8(p, lanes(n), a.v);
}
LP_INLINE VI load_u16(const uint16_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
LP_INLINE void store_b16(void* p, VI a) {  // low 16 bits of each lane
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}

// Masks of the first n lanes; any n, also below 0 and above the number of lanes.
[[maybe_unused]] LP_INLINE __mmask64 byte_lanes(int n) {
  return n >= 64 ? ~static_cast<__mmask64>(0) : (static_cast<__mmask64>(1) << n) - 1;
}
[[maybe_unused]] LP_INLINE __mmask16 float_lanes(int n) {
  return static_cast<__mmask16>(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1u);
}

[[maybe_unused]] LP_INLINE __mmask32 word_lanes(int n) {
  return n >= 32 ? ~static_cast<__mmask32>(0) : n <= 0 ? 0 : (static_cast<__mmask32>(1) << n) - 1;
}

#elif defined(LP_ISA_AVX2)
// --------------------------------------------------------------------------------------- AVX2
constexpr int W = 8;
struct VF {
  __m256 v;
};
struct VI {
  __m256i v;
};
struct VM {
  __m256 v;
};
LP_INLINE __m256i lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LP_INLINE VF vload(const float* p) { return {_mm256_loadu_ps(p)}; }
LP_INLINE VF vload_n(const float* p, int n) { return {_mm256_maskload_ps(p, lanes(n))}; }
LP_INLINE void vstore(float* p, VF a) { _mm256_storeu_ps(p, a.v); }
LP_INLINE void vstore_n(float* p, VF a, int n) { _mm256_maskstore_ps(p, lanes(n), a.v); }
LP_INLINE VF vset(float x) { return {_mm256_set1_ps(x)}; }
LP_INLINE VF operator+(VF a, VF b) { return {_mm256_add_ps(a.v, b.v)}; }
LP_INLINE VF operator-(VF a, VF b) { return {_mm256_sub_ps(a.v, b.v)}; }
LP_INLINE VF operator*(VF a, VF b) { return {_mm256_mul_ps(a.v, b.v)}; }
LP_INLINE VF operator/(VF a, VF b) { return {_mm256_div_ps(a.v, b.v)}; }
LP_INLINE VF fma(VF a, VF b, VF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
LP_INLINE VF vmin(VF a, VF b) { return {_mm256_min_ps(a.v, b.v)}; }
LP_INLINE VF vmax(VF a, VF b) { return {_mm256_max_ps(a.v, b.v)}; }
LP_INLINE VF vsqrt(VF a) { return {_mm256_sqrt_ps(a.v)}; }
template <int K>
LP_INLINE VF swap_lanes(VF a) {
  if constexpr (K == 4) return {_mm256_permute2f128_ps(a.v, a.v, 1)};
  return {_mm256_permute_ps(a.v, K == 2 ? 0x4e : 0xb1)};
}
LP_INLINE float first_lane(VF a) { return _mm256_cvtss_f32(a.v); }
LP_INLINE VF vrint(VF a) { return {_mm256_round_ps(a.v, 8)}; }
LP_INLINE VF vfloor(VF a) { return {_mm256_round_ps(a.v, 9)}; }
LP_INLINE VF vceil(VF a) { return {_mm256_round_ps(a.v, 10)}; }
LP_INLINE VM operator<(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
LP_INLINE VM operator<=(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
LP_INLINE VM operator==(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
LP_INLINE VM is_nan(VF a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
LP_INLINE VM first_lanes(int n) { return {_mm256_castsi256_ps(lanes(n))}; }
LP_INLINE VF select(VM m, VF yes, VF no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
LP_INLINE VI select(VM m, VI yes, VI no) {
  return {_mm256_castps_si256(
      _mm256_blendv_ps(_mm256_castsi256_ps(no.v), _mm256_castsi256_ps(yes.v), m.v))};
}
LP_INLINE VM operator&(VM a, VM b) { return {_mm256_and_ps(a.v, b.v)}; }
LP_INLINE VM operator|(VM a, VM b) { return {_mm256_or_ps(a.v, b.v)}; }
LP_INLINE int mask_bits(VM m) { return _mm256_movemask_ps(m.v); }
LP_INLINE VI vload(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
LP_INLINE VI vload_n(const int32_t* p, int n) { return {_mm256_maskload_epi32(p, lanes(n))}; }
LP_INLINE void vstore(int32_t* p, VI a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
LP_INLINE void vstore_n(int32_t* p, VI a, int n) { _mm256_maskstore_epi32(p, lanes(n), a.v); }
LP_INLINE VI vset_s32(int32_t x) { return {_mm256_set1_epi32(x)}; }
LP_INLINE VI operator+(VI a, VI b) { return {_mm256_add_epi32(a.v, b.v)}; }
LP_INLINE VI operator-(VI a, VI b) { return {_mm256_sub_epi32(a.v, b.v)}; }
LP_INLINE VI operator&(VI a, VI b) { return {_mm256_and_si256(a.v, b.v)}; }
LP_INLINE VI operator|(VI a, VI b) { return {_mm256_or_si256(a.v, b.v)}; }
LP_INLINE VI operator^(VI a, VI b) { return {_mm256_xor_si256(a.v, b.v)}; }
LP_INLINE VM operator==(VI a, VI b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
LP_INLINE VM operator>(VI a, VI b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
LP_INLINE VI vmin(VI a, VI b) { return {_mm256_min_epi32(a.v, b.v)}; }
LP_INLINE VI vmax(VI a, VI b) { return {_mm256_max_epi32(a.v, b.v)}; }
template <int S>
LP_INLINE VI shift_left(VI a) {
  return {_mm256_slli_epi32(a.v, S)};
}
template <int S>
LP_INLINE VI shift_right(VI a) {  // logical
  return {_mm256_srli_epi32(a.v, S)};
}
template <int S>
LP_INLINE VI shift_right_signed(VI a) {
  return {_mm256_srai_epi32(a.v, S)};
}
LP_INLINE VI cvt_s32(VF a) { return {_mm256_cvtps_epi32(a.v)}; }
LP_INLINE VF cvt_f32(VI a) { return {_mm256_cvtepi32_ps(a.v)}; }
LP_INLINE VI as_s32(VF a) { return {_mm256_castps_si256(a.v)}; }
LP_INLINE VF as_f32(VI a) { return {_mm256_castsi256_ps(a.v)}; }
LP_INLINE VI load_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
LP_INLINE VI load_s8(const int8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
LP_INLINE VI load_u8_n(const uint8_t* p, int n) {
  uint8_t buffer[8] = {0};
  memcpy(buffer, p, static_cast<size_t>(n));
  return load_u8(buffer);
}
LP_INLINE VI load_s8_n(const int8_t* p, int n) {
  int8_t buffer[8] = {0};
  memcpy(buffer, p, static_cast<size_t>(n));
  return load_s8(buffer);
}
// Stores the low byte of each lane.
LP_INLINE void store_b8(void* p, VI a) {
  const __m256i pick =
      _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                       0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i bytes = _mm256_shuffle_epi8(a.v, pick);
  _mm_storel_epi64(
      reinterpret_cast<__m128i*>(p),
      _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}
LP_INLINE void store_b8_n(void* p, VI a, int n) {
  uint8_t buffer[8];
  store_b8(buffer, a);
  memcpy(p, buffer, static_cast<size_t>(n));
}
LP_INLINE VI load_u16(const uint16_t* p) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LP_INLINE void store_b16(void* p, VI a) {  // low 16 bits of each lane
  const __m256i pick =
      _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,  //
                       0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i words = _mm256_shuffle_epi8(a.v, pick);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_unpacklo_epi64(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

#elif defined(LP_ISA_NEON)
#include "kernels/vec_neon.h"

#else
// ------------------------------------------------------------------------------------- scalar
constexpr int W = 1;
struct VF {
  float v;
};
struct VI {
  int32_t v;
};
struct VM {
  bool v;
};
LP_INLINE VF vload(const float* p) { return {*p}; }
LP_INLINE VF vload_n(const float* p, int n) { return {n > 0 ? *p : 0.0f}; }
LP_INLINE void vstore(float* p, VF a) { *p = a.v; }
LP_INLINE void vstore_n(float* p, VF a, int n) {
  if (n > 0) *p = a.v;
}
LP_INLINE VF vset(float x) { return {x}; }
LP_INLINE VF operator+(VF a, VF b) { return {a.v + b.v}; }
LP_INLINE VF operator-(VF a, VF b) { return {a.v - b.v}; }
LP_INLINE VF operator*(VF a, VF b) { return {a.v * b.v}; }
LP_INLINE VF operator/(VF a, VF b) { return {a.v / b.v}; }
LP_INLINE VF fma(VF a, VF b, VF c) { return {__builtin_fmaf(a.v, b.v, c.v)}; }
LP_INLINE VF vmin(VF a, VF b) { return {a.v < b.v ? a.v : b.v}; }
LP_INLINE VF vmax(VF a, VF b) { return {a.v > b.v ? a.v : b.v}; }
LP_INLINE VF vsqrt(VF a) { return {__builtin_sqrtf(a.v)}; }
template <int K>
LP_INLINE VF swap_lanes(VF a) {
  static_assert(K < 1, "there is one lane");
  return a;
}
LP_INLINE float first_lane(VF a) { return a.v; }
LP_INLINE VF vrint(VF a) { return {__builtin_rintf(a.v)}; }
LP_INLINE VF vfloor(VF a) { return {__builtin_floorf(a.v)}; }
LP_INLINE VF vceil(VF a) { return {__builtin_ceilf(a.v)}; }
LP_INLINE VM operator<(VF a, VF b) { return {a.v < b.v}; }
LP_INLINE VM operator<=(VF a, VF b) { return {a.v <= b.v}; }
LP_INLINE VM operator==(VF a, VF b) { return {a.v == b.v}; }
LP_INLINE VM is_nan(VF a) { return {a.v != a.v}; }
LP_INLINE VM first_lanes(int n) { return {n > 0}; }
LP_INLINE VF select(VM m, VF yes, VF no) { return m.v ? yes : no; }
LP_INLINE VM operator&(VM a, VM b) { return {a.v && b.v}; }
LP_INLINE VM operator|(VM a, VM b) { return {a.v || b.v}; }
LP_INLINE int mask_bits(VM m) { return m.v ? 1 : 0; }
LP_INLINE VI vload(const int32_t* p) { return {*p}; }
LP_INLINE VI vload_n(const int32_t* p, int n) { return {n > 0 ? *p : 0}; }
LP_INLINE void vstore(int32_t* p, VI a) { *p = a.v; }
LP_INLINE void vstore_n(int32_t* p, VI a, int n) {
  if (n > 0) *p = a.v;
}
LP_INLINE VI vset_s32(int32_t x) { return {x}; }
LP_INLINE VI select(VM m, VI yes, VI no) { return m.v ? yes : no; }
LP_INLINE VI wrapped(uint32_t x) { return {static_cast<int32_t>(x)}; }
LP_INLINE uint32_t bits(VI a) { return static_cast<uint32_t>(a.v); }
LP_INLINE VI operator+(VI a, VI b) { return wrapped(bits(a) + bits(b)); }
LP_INLINE VI operator-(VI a, VI b) { return wrapped(bits(a) - bits(b)); }
LP_INLINE VI operator&(VI a, VI b) { return {a.v & b.v}; }
LP_INLINE VI operator|(VI a, VI b) { return {a.v | b.v}; }
LP_INLINE VI operator^(VI a, VI b) { return {a.v ^ b.v}; }
LP_INLINE VM operator==(VI a, VI b) { return {a.v == b.v}; }
LP_INLINE VM operator>(VI a, VI b) { return {a.v > b.v}; }
LP_INLINE VI vmin(VI a, VI b) { return {a.v < b.v ? a.v : b.v}; }
LP_INLINE VI vmax(VI a, VI b) { return {a.v > b.v ? a.v : b.v}; }
template <int S>
LP_INLINE VI shift_left(VI a) {
  return wrapped(bits(a) << S);
}
template <int S>
LP_INLINE VI shift_right(VI a) {  // logical
  return wrapped(bits(a) >> S);
}
template <int S>
LP_INLINE VI shift_right_signed(VI a) {
  return {a.v >> S};
}
LP_INLINE VI cvt_s32(VF a) { return {static_cast<int32_t>(__builtin_rintf(a.v))}; }
LP_INLINE VF cvt_f32(VI a) { return {static_cast<float>(a.v)}; }
LP_INLINE VI as_s32(VF a) {
  VI r;
  memcpy(&r.v, &a.v, 4);
  return r;
}
LP_INLINE VF as_f32(VI a) {
  VF r;
  memcpy(&r.v, &a.v, 4);
  return r;
}
LP_INLINE VI load_u8(const uint8_t* p) { return {*p}; }
LP_INLINE VI load_s8(const int8_t* p) { return {*p}; }
LP_INLINE VI load_u8_n(const uint8_t* p, int n) { return {n > 0 ? *p : 0}; }
LP_INLINE VI load_s8_n(const int8_t* p, int n) { return {n > 0 ? *p : 0}; }
LP_INLINE void store_b8(void* p, VI a) { *static_cast<uint8_t*>(p) = static_cast<uint8_t>(a.v); }
LP_INLINE void store_b8_n(void* p, VI a, int n) {
  if (n > 0) store_b8(p, a);
}
LP_INLINE VI load_u16(const uint16_t* p) { return {*p}; }
LP_INLINE void store_b16(void* p, VI a) {  // low 16 bits of each lane
  const uint16_t x = static_cast<uint16_t>(a.v);
  memcpy(p, &x, 2);
}
#endif

// Runs body(i, n) over [0, count) in steps of W; n < W only for the last step.
template <class Body>
LP_INLINE void for_lanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + W <= count; i += W) body(i, W);
  if (i < count) body(i, static_cast<int>(count - i));
}
LP_INLINE VF vload_any(const float* p, int n) { return n == W ? vload(p) : vload_n(p, n); }
LP_INLINE void vstore_any(float* p, VF a, int n) {
  if (n == W) {
    vstore(p, a);
  } else {
    vstore_n(p, a, n);
  }
}

}  // namespace
