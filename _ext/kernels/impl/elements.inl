// elements.inl: loads and stores of codes, bf16 and f16, up to W at a time, and their roundings.
//
// Included inside a per-ISA translation unit, after vec.h.
#pragma once
#include "kernels/vec.h"

namespace {

LP_INLINE VI load_codes(const uint8_t* p, int n) { return n == W ? load_u8(p) : load_u8_n(p, n); }
LP_INLINE VI load_codes(const int8_t* p, int n) { return n == W ? load_s8(p) : load_s8_n(p, n); }
LP_INLINE VI load_any(const int32_t* p, int n) { return n == W ? vload(p) : vload_n(p, n); }
LP_INLINE VF load_any(const float* p, int n) { return vload_any(p, n); }
LP_INLINE void store_codes(void* p, VI codes, int n) {
  if (n == W) {
    store_b8(p, codes);
  } else {
    store_b8_n(p, codes, n);
  }
}
#if defined(LP_ISA_AVX512)
LP_INLINE VI load_u16_any(const uint16_t* p, int n) {
  if (n == W) return load_u16(p);
  return {_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p))};
}
LP_INLINE void store_u16_any(uint16_t* p, VI a, int n) {
  if (n == W) return store_b16(p, a);
  _mm256_mask_storeu_epi16(p, lanes(n), _mm512_cvtepi32_epi16(a.v));
}
#else
LP_INLINE VI load_u16_any(const uint16_t* p, int n) {
  if (n == W) return load_u16(p);
  if (n < 0 || n > W) __builtin_unreachable();  // or GCC warns of memcpy
  uint16_t buffer[W] = {0};
  memcpy(buffer, p, static_cast<size_t>(n) * sizeof(uint16_t));
  return load_u16(buffer);
}
LP_INLINE void store_u16_any(uint16_t* p, VI a, int n) {
  if (n == W) {
    store_b16(p, a);
  } else {
    if (n < 0 || n > W) __builtin_unreachable();
    uint16_t buffer[W];
    store_b16(buffer, a);
    memcpy(p, buffer, static_cast<size_t>(n) * sizeof(uint16_t));
  }
}
#endif

// Half to even by integer arithmetic: vcvtneps2bf16 would flush denormals and keep NaN payloads.
LP_INLINE VI bf16_bits(VF x) {
  const VI bits = as_s32(x);
  const VI odd = shift_right<16>(bits) & vset_s32(1);
  const VI rounded = shift_right<16>(bits + vset_s32(0x7FFF) + odd);
  const VI quiet = (shift_right<16>(bits) & vset_s32(0x8000)) | vset_s32(0x7FC0);
  return select(is_nan(x), quiet, rounded);
}

// Rounded to bf16. LP_HAS_BF16: the instruction, which flushes denormals and keeps the payload of a
// NaN; those are rare enough to look for.
LP_INLINE void store_bf16(uint16_t* p, VF x, int n) {
#if defined(LP_HAS_BF16)
  constexpr int RARE = 0x01 | 0x20 | 0x80;  // quiet NaN, denormal, signalling NaN
  if (__builtin_expect(_mm512_fpclass_ps_mask(x.v, RARE) == 0, 1)) {
    const __m256bh rounded = _mm512_cvtneps_pbh(x.v);
    __m256i bits;
    memcpy(&bits, &rounded, sizeof(bits));
    if (n == W) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
    } else {
      _mm256_mask_storeu_epi16(p, lanes(n), bits);
    }
    return;
  }
#endif
  store_u16_any(p, bf16_bits(x), n);
}

// Reals as they are stored: f32, or bf16.
[[maybe_unused]] LP_INLINE VF load_real(const float* p, int n) { return vload_any(p, n); }
[[maybe_unused]] LP_INLINE VF load_real(const uint16_t* p, int n) {
  return as_f32(shift_left<16>(load_u16_any(p, n)));
}
[[maybe_unused]] LP_INLINE void store_real(float* p, VF x, int n) { vstore_any(p, x, n); }
[[maybe_unused]] LP_INLINE void store_real(uint16_t* p, VF x, int n) { store_bf16(p, x, n); }

#if defined(LP_ISA_AVX512)
// The instructions round as told (0: half to even), ignore DAZ and FTZ, and make NaN quiet.
LP_INLINE VI f16_bits(VF x) { return {_mm512_cvtepu16_epi32(_mm512_cvtps_ph(x.v, 0))}; }
LP_INLINE VF f16_to_f32_value(VI half) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(half.v))}; }
#elif defined(LP_ISA_AVX2)
LP_INLINE VI f16_bits(VF x) { return {_mm256_cvtepu16_epi32(_mm256_cvtps_ph(x.v, 0))}; }
LP_INLINE VF f16_to_f32_value(VI half) {
  const __m128i low = _mm256_castsi256_si128(half.v), high = _mm256_extracti128_si256(half.v, 1);
  return {_mm256_cvtph_ps(_mm_packus_epi32(low, high))};
}
#elif defined(LP_ISA_NEON)
LP_INLINE VI f16_bits(VF x) {
  return {vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_f16(vcvt_f16_f32(x.v))))};
}
LP_INLINE VF f16_to_f32_value(VI half) {
  return {vcvt_f32_f16(vreinterpret_f16_s16(vmovn_s32(half.v)))};
}
#else
LP_INLINE VI f16_bits(VF x) {
  const VI bits = as_s32(x);
  const VI magnitude = bits & vset_s32(0x7FFFFFFF);
  const VI sign = shift_right<16>(bits) & vset_s32(0x8000);
  const VI odd = shift_right<13>(magnitude) & vset_s32(1);
  // Rebias 127 to 15, drop 13 bits; a carry reaches infinity by itself.
  const VI normal = vmin(shift_right_signed<13>(magnitude - vset_s32((112 << 23) - 0xFFF) + odd),
                         vset_s32(0x7C00));
  // Below 2^-14: a whole number of steps of 2^-24. The product with 2^24 is exact.
  const VF small = vmin(as_f32(magnitude), vset(1.0f));
  const VI subnormal = cvt_s32(small * vset(16777216.0f));
  const VI finite = select(vset_s32(113 << 23) > magnitude, subnormal, normal);
  const VI quiet = (shift_right<13>(magnitude) & vset_s32(0x1FF)) | vset_s32(0x7E00);
  return sign | select(is_nan(x), quiet, finite);
}
LP_INLINE VF f16_to_f32_value(VI half) {
  const VI sign = shift_left<16>(half & vset_s32(0x8000));
  const VI magnitude = half & vset_s32(0x7FFF);
  const VI fraction = half & vset_s32(0x3FF);
  const VI subnormal = as_s32(cvt_f32(fraction) * vset(5.9604644775390625e-8f));  // 2^-24: exact
  const VI normal = shift_left<13>(magnitude) + vset_s32(112 << 23);
  const VI infinity = shift_left<13>(magnitude) | vset_s32(0x7F800000);
  const VI quiet = infinity | vset_s32(0x400000);
  const VI special = select(magnitude > vset_s32(0x7C00), quiet, infinity);
  const VI large = select(magnitude > vset_s32(0x7BFF), special, normal);
  return as_f32(sign | select(vset_s32(0x400) > magnitude, subnormal, large));
}
#endif

}  // namespace
