// convert.inl: between f32 and codes, bf16, f16, tf32. Written once over vec.h, compiled per ISA.
//
// Definition   lowprec/numerics/reference.py, bit for bit
// Contract     n elements, no alignment needed; source and destination may be the same memory only
//              where their elements have the same size; MXCSR holds its default (float_state.h)
// Rounding     Quantize divides: a product with 1 / scale is one ulp off for 27 % of the quotients
//              and then wrong at ties. No step may be contracted (-ffp-contract=off).
// NaN          vmax(NaN, low) is low: a NaN becomes the smallest code
// Tails        one element at a time through a buffer of W: every lane does the same arithmetic
#include "kernels/impl/elements.inl"
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
