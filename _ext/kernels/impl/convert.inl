// convert.inl: between f32 and codes, bf16, f16, tf32. Written once over vec.h, compiled per ISA.
//
// Definition   lowprec/numerics/reference.py, bit for bit
// Contract     n elements, no alignment needed; source and destination may be the same memory only
//              where their elements have the same size; MXCSR holds its default (float_state.h)
// Rounding     Quantize divides: a product with 1 / scale is one ulp off for 27 % of the quotients
//              and then wrong at ties. No step may be contracted (-ffp-contract=off).
// NaN          vmax(NaN, low) is low: a NaN becomes the smallest code
// Tails        one element at a time through a buffer of W: every lane does the same arithmetic
#include "kernels/vec.h"

namespace {

template <class T>
struct CodeLimits;
template <>
struct CodeLimits<uint8_t> {
  static constexpr int32_t qmin = 0, qmax = 255;
};
template <>
struct CodeLimits<int8_t> {
  static constexpr int32_t qmin = -128, qmax = 127;
};

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
LP_INLINE VI load_u16_any(const uint16_t* p, int n) {
  if (n == W) return load_u16(p);
  uint16_t buffer[W] = {0};
  memcpy(buffer, p, static_cast<size_t>(n) * sizeof(uint16_t));
  return load_u16(buffer);
}
LP_INLINE void store_u16_any(uint16_t* p, VI a, int n) {
  if (n == W) {
    store_b16(p, a);
  } else {
    uint16_t buffer[W];
    store_b16(buffer, a);
    memcpy(p, buffer, static_cast<size_t>(n) * sizeof(uint16_t));
  }
}

// saturate(rint(x) + zero_point). Clamping to whole numbers first gives the same code, and keeps
// the conversion to s32 in range.
template <class T>
LP_INLINE VI to_code(VF x, int32_t zero_point) {
  const VF low = vset(static_cast<float>(CodeLimits<T>::qmin - zero_point));
  const VF high = vset(static_cast<float>(CodeLimits<T>::qmax - zero_point));
  return cvt_s32(vmin(vmax(x, low), high)) + vset_s32(zero_point);
}

template <class T>
LP_INLINE void quantize(const float* x, T* q, int64_t n, float scale, int32_t zero_point) {
  const VF divisor = vset(scale);
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    store_codes(q + i, to_code<T>(load_any(x + i, lanes_left) / divisor, zero_point), lanes_left);
  });
}

template <class T>
LP_INLINE void dequantize(const T* q, float* x, int64_t n, float scale, int32_t zero_point) {
  const VF factor = vset(scale);
  const VI zero = vset_s32(zero_point);
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    vstore_any(x + i, cvt_f32(load_codes(q + i, lanes_left) - zero) * factor, lanes_left);
  });
}

template <class T>
LP_INLINE void requantize(const int32_t* acc, T* q, int64_t n, float multiplier,
                          int32_t zero_point) {
  const VF factor = vset(multiplier);
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    const VF product = cvt_f32(load_any(acc + i, lanes_left)) * factor;
    store_codes(q + i, to_code<T>(product, zero_point), lanes_left);
  });
}

void quantize_u8(const float* x, uint8_t* q, int64_t n, float scale, int32_t zero_point) {
  quantize(x, q, n, scale, zero_point);
}
void quantize_s8(const float* x, int8_t* q, int64_t n, float scale, int32_t zero_point) {
  quantize(x, q, n, scale, zero_point);
}
void dequantize_u8(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  dequantize(q, x, n, scale, zero_point);
}
void dequantize_s8(const int8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  dequantize(q, x, n, scale, zero_point);
}
void requantize_u8(const int32_t* acc, uint8_t* q, int64_t n, float multiplier,
                   int32_t zero_point) {
  requantize(acc, q, n, multiplier, zero_point);
}
void requantize_s8(const int32_t* acc, int8_t* q, int64_t n, float multiplier, int32_t zero_point) {
  requantize(acc, q, n, multiplier, zero_point);
}

// ------------------------------------------------------------------------------------- bf16, tf32

// Half to even by integer arithmetic: vcvtneps2bf16 would flush denormals and keep NaN payloads.
LP_INLINE VI bf16_bits(VF x) {
  const VI bits = as_s32(x);
  const VI odd = shift_right<16>(bits) & vset_s32(1);
  const VI rounded = shift_right<16>(bits + vset_s32(0x7FFF) + odd);
  const VI quiet = (shift_right<16>(bits) & vset_s32(0x8000)) | vset_s32(0x7FC0);
  return select(is_nan(x), quiet, rounded);
}

void f32_to_bf16(const float* x, uint16_t* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    store_u16_any(y + i, bf16_bits(load_any(x + i, lanes_left)), lanes_left);
  });
}

void bf16_to_f32(const uint16_t* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    vstore_any(y + i, as_f32(shift_left<16>(load_u16_any(x + i, lanes_left))), lanes_left);
  });
}

void f32_to_tf32(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    const VF value = load_any(x + i, lanes_left);
    const VI bits = as_s32(value);
    const VI rounded = bits + vset_s32(0xFFF) + (shift_right<13>(bits) & vset_s32(1));
    const VI quiet = bits | vset_s32(0x400000);
    const VI kept = select(is_nan(value), quiet, rounded) & vset_s32(~0x1FFF);
    vstore_any(y + i, as_f32(kept), lanes_left);
  });
}

// ------------------------------------------------------------------------------------------- f16

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

void f32_to_f16(const float* x, uint16_t* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    store_u16_any(y + i, f16_bits(load_any(x + i, lanes_left)), lanes_left);
  });
}

void f16_to_f32(const uint16_t* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes_left) __attribute__((always_inline)) {
    vstore_any(y + i, f16_to_f32_value(load_u16_any(x + i, lanes_left)), lanes_left);
  });
}

}  // namespace
