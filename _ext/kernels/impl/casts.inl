// casts.inl: f32 to and from bf16, f16, tf32, e4m3fn, e5m2. Written once over vec.h, compiled per
// ISA.
//
// Definition   lowprec/numerics/reference.py, bit for bit; ml_dtypes agrees where it has the type
// Rounding     half to even, once, denormals kept on both sides
// NaN          bf16: 0x7fc0 with its sign; f16, tf32: quiet, with its sign and upper payload;
//              e4m3fn: 0x7f, e5m2: 0x7e, with its sign
#pragma once
#include "kernels/impl/elements.inl"
#include "kernels/impl/wide_stores.inl"
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

// y[i] = the low half of words(i, lanes); `pair(i)` is two whole vectors of it, packed.
template <class Pair, class Words>
LP_INLINE void write_words(uint16_t* y, int64_t n, bool streaming, Pair pair, Words words) {
  write_vectors<2>(y, n, streaming, pair, [&](int64_t i, int some) LP_LAMBDA {
    store_u16_any(y + i, words(i, some), some);
  });
}

// ------------------------------------------------------------------------------------- bf16, tf32

LP_INLINE void to_bf16(const float* x, uint16_t* y, int64_t n, bool streaming) {
  write_words(
      y, n, streaming,
      [&](int64_t i) LP_LAMBDA {
        return pack_words<uint16_t>(bf16_bits(vload(x + i)), bf16_bits(vload(x + i + W)));
      },
      [&](int64_t i, int some) LP_LAMBDA { return bf16_bits(vload_any(x + i, some)); });
}

LP_INLINE void from_bf16(const uint16_t* x, float* y, int64_t n, bool streaming) {
  write_floats(y, n, streaming, [&](int64_t i, int some) LP_LAMBDA {
    return as_f32(shift_left<16>(load_u16_any(x + i, some)));
  });
}

LP_INLINE void to_tf32(const float* x, float* y, int64_t n, bool streaming) {
  write_floats(y, n, streaming, [&](int64_t i, int some) LP_LAMBDA {
    const VF value = vload_any(x + i, some);
    const VI bits = as_s32(value);
    const VI rounded = bits + vset_s32(0xFFF) + (shift_right<13>(bits) & vset_s32(1));
    const VI quiet = bits | vset_s32(0x400000);
    return as_f32(select(is_nan(value), quiet, rounded) & vset_s32(~0x1FFF));
  });
}

// ------------------------------------------------------------------------------------------- f16

// Two whole vectors, packed.
LP_INLINE VI f16_pair(VF a, VF b) {
#if defined(__AVX512BW__)
  const __m512i low = _mm512_castsi256_si512(_mm512_cvtps_ph(a.v, 0));
  return {_mm512_inserti64x4(low, _mm512_cvtps_ph(b.v, 0), 1)};
#elif defined(__AVX2__)
  return {_mm256_set_m128i(_mm256_cvtps_ph(b.v, 0), _mm256_cvtps_ph(a.v, 0))};
#else
  return pack_words<uint16_t>(f16_bits(a), f16_bits(b));
#endif
}

LP_INLINE void to_f16(const float* x, uint16_t* y, int64_t n, bool streaming) {
  write_words(
      y, n, streaming,
      [&](int64_t i) LP_LAMBDA { return f16_pair(vload(x + i), vload(x + i + W)); },
      [&](int64_t i, int some) LP_LAMBDA { return f16_bits(vload_any(x + i, some)); });
}

LP_INLINE void from_f16(const uint16_t* x, float* y, int64_t n, bool streaming) {
  write_floats(y, n, streaming, [&](int64_t i, int some) LP_LAMBDA {
    return f16_to_f32_value(load_u16_any(x + i, some));
  });
}

// ------------------------------------------------------------------------------------------- f8

// What the 8-bit formats differ in.
struct E4M3 {
  static constexpr int fraction = 3, bias = 7;
  static constexpr int32_t largest = 0x7E, beyond = 0x7F, nan = 0x7F;
};
struct E5M2 {
  static constexpr int fraction = 2, bias = 15;
  static constexpr int32_t largest = 0x7B, beyond = 0x7C, nan = 0x7E;
};

// Codes above the largest become `overflow`.
template <class F8>
LP_INLINE VI f8_bits(VF x, VI overflow) {
  constexpr int dropped = 23 - F8::fraction;
  const VI bits = as_s32(x);
  const VI magnitude = bits & vset_s32(0x7FFFFFFF);
  const VI sign = shift_right<24>(bits) & vset_s32(0x80);
  const VI odd = shift_right<dropped>(magnitude) & vset_s32(1);
  constexpr int32_t half = (1 << (dropped - 1)) - 1;
  const VI rebased = magnitude - vset_s32(((127 - F8::bias) << 23) - half) + odd;
  const VI normal = shift_right_signed<dropped>(rebased);
  // Below the smallest normal number: a whole number of steps. The product is exact.
  constexpr float steps = static_cast<float>(1 << (F8::bias - 1 + F8::fraction));
  const VI subnormal = cvt_s32(vmin(as_f32(magnitude), vset(1.0f)) * vset(steps));
  const VI finite = select(vset_s32((128 - F8::bias) << 23) > magnitude, subnormal, normal);
  const VI bounded = select(finite > vset_s32(F8::largest), overflow, finite);
  return sign | select(is_nan(x), vset_s32(F8::nan), bounded);
}

template <class F8>
LP_INLINE VF f8_value(VI code) {
  constexpr int dropped = 23 - F8::fraction;
  constexpr float step = 1.0f / static_cast<float>(1 << (F8::bias - 1 + F8::fraction));
  const VI sign = shift_left<24>(code & vset_s32(0x80));
  const VI magnitude = code & vset_s32(0x7F);
  const VI normal = shift_left<dropped>(magnitude) + vset_s32((127 - F8::bias) << 23);
  const VI subnormal = as_s32(cvt_f32(magnitude) * vset(step));
  const VI finite = select(vset_s32(1 << F8::fraction) > magnitude, subnormal, normal);
  VI value = select(magnitude > vset_s32(F8::largest), vset_s32(0x7FC00000), finite);
  if (F8::beyond != F8::nan) {
    value = select(magnitude == vset_s32(F8::beyond), vset_s32(0x7F800000), value);
  }
  return as_f32(sign | value);
}

template <class F8>
LP_INLINE void to_f8(const lp::ConvertArgs& args) {
  const float* x = static_cast<const float*>(args.x);
  uint8_t* y = static_cast<uint8_t*>(args.y);
  const VI overflow = vset_s32(args.saturate ? F8::largest : F8::beyond);
  const auto code = [&](int64_t i) LP_LAMBDA { return f8_bits<F8>(vload(x + i), overflow); };
  write_vectors<4>(
      y, args.n, args.streaming != 0,
      [&](int64_t i) LP_LAMBDA {
        return pack_codes<uint8_t>(code(i), code(i + W), code(i + 2 * W), code(i + 3 * W));
      },
      [&](int64_t i, int some) LP_LAMBDA {
        const VI codes = f8_bits<F8>(vload_any(x + i, some), overflow);
        if (some == W) {
          store_b8(y + i, codes);
        } else {
          store_b8_n(y + i, codes, some);
        }
      });
}

template <class F8>
LP_INLINE void from_f8(const lp::ConvertArgs& args) {
  const uint8_t* x = static_cast<const uint8_t*>(args.x);
  float* y = static_cast<float*>(args.y);
  write_floats(y, args.n, args.streaming != 0, [&](int64_t i, int some) LP_LAMBDA {
    return f8_value<F8>(some == W ? load_u8(x + i) : load_u8_n(x + i, some));
  });
}

// --------------------------------------------------------------------------------- by table entry

LP_INLINE const float* floats(const void* p) { return static_cast<const float*>(p); }
LP_INLINE float* floats(void* p) { return static_cast<float*>(p); }
LP_INLINE const uint16_t* halves(const void* p) { return static_cast<const uint16_t*>(p); }
LP_INLINE uint16_t* halves(void* p) { return static_cast<uint16_t*>(p); }

void cast_f32_to_bf16(const lp::ConvertArgs* a) {
  to_bf16(floats(a->x), halves(a->y), a->n, a->streaming != 0);
}
void cast_bf16_to_f32(const lp::ConvertArgs* a) {
  from_bf16(halves(a->x), floats(a->y), a->n, a->streaming != 0);
}
void cast_f32_to_f16(const lp::ConvertArgs* a) {
  to_f16(floats(a->x), halves(a->y), a->n, a->streaming != 0);
}
void cast_f16_to_f32(const lp::ConvertArgs* a) {
  from_f16(halves(a->x), floats(a->y), a->n, a->streaming != 0);
}
void cast_f32_to_tf32(const lp::ConvertArgs* a) {
  to_tf32(floats(a->x), floats(a->y), a->n, a->streaming != 0);
}
void cast_f32_to_e4m3(const lp::ConvertArgs* a) { to_f8<E4M3>(*a); }
void cast_e4m3_to_f32(const lp::ConvertArgs* a) { from_f8<E4M3>(*a); }
void cast_f32_to_e5m2(const lp::ConvertArgs* a) { to_f8<E5M2>(*a); }
void cast_e5m2_to_f32(const lp::ConvertArgs* a) { from_f8<E5M2>(*a); }

// The plain forms.
void f32_to_bf16(const float* x, uint16_t* y, int64_t n) { to_bf16(x, y, n, false); }
void bf16_to_f32(const uint16_t* x, float* y, int64_t n) { from_bf16(x, y, n, false); }
void f32_to_f16(const float* x, uint16_t* y, int64_t n) { to_f16(x, y, n, false); }
void f16_to_f32(const uint16_t* x, float* y, int64_t n) { from_f16(x, y, n, false); }
void f32_to_tf32(const float* x, float* y, int64_t n) { to_tf32(x, y, n, false); }

}  // namespace
