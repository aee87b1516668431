// plain.cpp: see plain.h.
#include "plain.h"

namespace lp::check {
namespace {

// x rounded half to even to a whole number of `step`s, a power of two. Exact in double.
double to_steps(float x, double step) { return nearbyint(static_cast<double>(x) / step) * step; }

void store_codes(int32_t code, const Epilogue& e, void* dst) {
  const int32_t clamped = code < e.qmin ? e.qmin : code > e.qmax ? e.qmax : code;
  const uint8_t byte = static_cast<uint8_t>(clamped);
  *static_cast<uint8_t*>(dst) = e.table != nullptr ? e.table[byte] : byte;
}

float residual_value(const Epilogue& e, int64_t at) {
  switch (e.residual_kind) {
    case OUT_F32:
      return static_cast<const float*>(e.residual)[at];
    case OUT_BF16:
      return plain_from_bf16(static_cast<const uint16_t*>(e.residual)[at]);
    default: {
      const int32_t code = e.residual_kind == OUT_U8 ? static_cast<const uint8_t*>(e.residual)[at]
                                                     : static_cast<const int8_t*>(e.residual)[at];
      return static_cast<float>(code - e.residual_zero_point) * e.residual_scale;
    }
  }
}

float placed_operator(const Epilogue& e, const UnaryOp& op, float x, const Place& place) {
  switch (op.code) {
    case UNARY_ADD_RESIDUAL:
      return x + residual_value(e, place.residual);
    case UNARY_ADD_CHANNEL:
      return x + e.channel_values[static_cast<int>(op.a)][place.n];
    case UNARY_MUL_CHANNEL:
      return x * e.channel_values[static_cast<int>(op.a)][place.n];
    case UNARY_PRELU_CHANNEL:
      return x < 0.0f ? e.channel_values[static_cast<int>(op.a)][place.n] * x : x;
    default: {
      const int32_t low = op.code == UNARY_THROUGH_U8 ? 0 : -128;
      const int32_t zero_point = static_cast<int32_t>(op.b);
      return static_cast<float>(plain_code(x / op.a, zero_point, low, low + 255) - zero_point) *
             op.a;
    }
  }
}

float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

}  // namespace

int32_t plain_code(float steps, int32_t zero_point, int32_t low, int32_t high) {
  const double code = nearbyint(static_cast<double>(steps)) + zero_point;
  if (!(code > low)) return low;  // NaN too
  return code < high ? static_cast<int32_t>(code) : high;
}

float plain_unary(const Kernels& scalar, const UnaryOp& op, float x) {
  float y;
  scalar.unary(&op, 1, &x, &y, 1);
  return y;
}

void plain_finish_f32(const Kernels& scalar, float x, const Place& place, const Epilogue& e,
                      void* dst) {
  for (int32_t i = 0; i < e.n_ops; ++i) {
    x = e.ops[i].code >= UNARY_ADD_RESIDUAL ? placed_operator(e, e.ops[i], x, place)
                                            : plain_unary(scalar, e.ops[i], x);
  }
  if (is_codes(e.kind)) {
    store_codes(plain_code(x / e.scale, e.zero_point, code_min(e.kind), code_max(e.kind)), e, dst);
  } else if (e.kind == OUT_BF16) {
    const uint16_t half = plain_bf16(x);
    memcpy(dst, &half, 2);
  } else {
    memcpy(dst, &x, 4);
  }
}

void plain_finish_s32(const Kernels& scalar, int32_t acc, const Place& place, const Epilogue& e,
                      void* dst) {
  if (e.kind == OUT_S32) {
    memcpy(dst, &acc, 4);
    return;
  }
  float multiplier = e.multiplier[place.n];
  if (e.row_multiplier != nullptr) multiplier = e.row_multiplier[place.m] * multiplier;
  float x = static_cast<float>(acc) * multiplier;
  if (is_codes(e.kind) && e.n_ops == 0 && e.addend == nullptr) {
    store_codes(plain_code(x, e.zero_point, code_min(e.kind), code_max(e.kind)), e, dst);
    return;
  }
  if (e.addend != nullptr) x = x + e.addend[place.n];
  plain_finish_f32(scalar, x, place, e, dst);
}

uint16_t plain_bf16(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u;
  if (isnan(x)) return static_cast<uint16_t>(sign | 0x7FC0u);
  const uint32_t below = bits & 0xFFFFu, kept = bits >> 16;
  const bool up = below > 0x8000u || (below == 0x8000u && (kept & 1) != 0);
  return static_cast<uint16_t>(kept + (up ? 1 : 0));
}

uint16_t plain_f16(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u;
  if (isnan(x)) return static_cast<uint16_t>(sign | 0x7E00u | (bits >> 13 & 0x1FFu));
  int exponent;
  frexp(static_cast<double>(x), &exponent);  // |x| in [2^(exponent - 1), 2^exponent)
  const int lowest = exponent - 11 < -24 ? -24 : exponent - 11;
  const double rounded = fabs(to_steps(x, ldexp(1.0, lowest)));
  if (rounded >= 65536.0) return static_cast<uint16_t>(sign | 0x7C00u);
  if (rounded < 0x1p-14)
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(rounded * 0x1p24));
  const double fraction = frexp(rounded, &exponent);  // in [1/2, 1)
  const uint32_t mantissa = static_cast<uint32_t>((fraction * 2.0 - 1.0) * 1024.0);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent + 14) << 10 | mantissa);
}

float plain_from_f16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, fraction = half & 0x3FFu;
  const int exponent = half >> 10 & 0x1F;
  if (exponent == 31) {
    return float_of(sign | 0x7F800000u | (fraction != 0 ? fraction << 13 | 0x400000u : 0));
  }
  const double size =
      exponent == 0 ? fraction * 0x1p-24 : ldexp(1.0 + fraction / 1024.0, exponent - 15);
  return float_of(sign | bits_of(static_cast<float>(size)));
}

float plain_tf32(float x) {
  const uint32_t bits = bits_of(x);
  if (isnan(x)) return float_of((bits | 0x400000u) & ~0x1FFFu);
  const uint32_t below = bits & 0x1FFFu, kept = bits & ~0x1FFFu;
  const bool up = below > 0x1000u || (below == 0x1000u && (bits >> 13 & 1) != 0);
  return float_of(kept + (up ? 0x2000u : 0));
}

float plain_flushed_fma(float a, float b, float c) {
  a = flushed(a), b = flushed(b), c = flushed(c);
  const float sum = fmaf(a, b, c);
  if (!(fabsf(sum) <= 0x1p-126f)) return sum;
  // As if exponents had no limit: the same a factor of 2^64 up. Where the sum is that small and not
  // zero, so are c and a * b, and the larger of a and b is below 2^47.
  const bool first = fabsf(a) < fabsf(b);
  const float above = fmaf(first ? a * 0x1p64f : a, first ? b : b * 0x1p64f, c * 0x1p64f);
  return fabsf(above) < 0x1p-62f ? copysignf(0.0f, above) : sum;
}

}  // namespace lp::check
