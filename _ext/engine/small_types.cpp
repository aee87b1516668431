// small_types.cpp: conversions of 8-bit floats and of elements of fewer than 8 bits.
#include "engine/small_types.h"

#include <math.h>
#include <string.h>

#include <limits>

namespace lp {

namespace {

// What a code with all exponent bits set means.
enum class Top { FINITE, ONE_NAN, IEEE };

struct Format {
  int32_t mantissa, exponents;  // bits
  int32_t bias;
  Top top;
  bool fnuz;  // one NaN at -0, no other special code
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::F8E4M3:
      return {3, 4, 7, Top::ONE_NAN, false};
    case DType::F8E4M3FNUZ:
      return {3, 4, 8, Top::FINITE, true};
    case DType::F8E5M2:
      return {2, 5, 15, Top::IEEE, false};
    case DType::F8E5M2FNUZ:
      return {2, 5, 16, Top::FINITE, true};
    case DType::F4E2M1:
      return {1, 2, 1, Top::FINITE, false};
    default:
      throw Error(std::string("no small float: ") + dtype_name(dtype));
  }
}

// The largest code of a finite number, without its sign.
int32_t largest_code(const Format& f) {
  const int32_t all = (1 << (f.mantissa + f.exponents)) - 1;
  if (f.top == Top::IEEE) return all - (1 << f.mantissa);
  return f.top == Top::ONE_NAN ? all - 1 : all;
}

float real_of(const Format& f, int32_t code) {
  const int32_t sign = 1 << (f.mantissa + f.exponents), bits = code & (sign - 1);
  if (f.fnuz && code == sign) return std::numeric_limits<float>::quiet_NaN();
  float value;
  if (bits > largest_code(f)) {
    const bool infinite = f.top == Top::IEEE && (bits & ((1 << f.mantissa) - 1)) == 0;
    value =
        infinite ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else {
    const int32_t exponent = bits >> f.mantissa, fraction = bits & ((1 << f.mantissa) - 1);
    value = exponent == 0 ? ldexpf(static_cast<float>(fraction), 1 - f.bias - f.mantissa)
                          : ldexpf(static_cast<float>(fraction + (1 << f.mantissa)),
                                   exponent - f.bias - f.mantissa);
  }
  return (code & sign) != 0 ? -value : value;
}

int32_t code_of(const Format& f, float x, bool saturate) {
  const int32_t sign_bit = 1 << (f.mantissa + f.exponents);
  const int32_t sign = signbit(x) ? sign_bit : 0, largest = largest_code(f);
  if (x != x) {
    if (f.fnuz) return sign_bit;
    // Without a NaN: a zero, of the sign that ml_dtypes gives it.
    if (f.top == Top::FINITE) return sign_bit - sign;
    return sign + (f.top == Top::ONE_NAN ? largest + 1 : sign_bit - (1 << f.mantissa) + 2);
  }
  int exponent = 0;
  frexpf(fabsf(x), &exponent);  // |x| < 2^exponent
  const int32_t lowest = 1 - f.bias;
  const bool infinite = fabsf(x) > std::numeric_limits<float>::max();
  int32_t code = largest + 1;
  if (!infinite) {
    const int32_t at = x == 0.0f || exponent - 1 < lowest ? lowest : exponent - 1;
    if (at <= f.bias + 2) {
      // A carry out of the mantissa is the next exponent.
      const auto steps = static_cast<int32_t>(nearbyintf(ldexpf(fabsf(x), f.mantissa - at)));
      code = ((at - lowest) << f.mantissa) + steps;
    }
  }
  if (code > largest) {
    if (saturate || (f.top == Top::FINITE && !f.fnuz)) {
      code = largest;
    } else if (f.fnuz) {
      return sign_bit;
    } else {
      code = largest + 1;  // the infinity, or the NaN
    }
  }
  return f.fnuz && code == 0 ? 0 : sign + code;
}

uint8_t power_code(float x, bool saturate, Rounding rounding) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  uint32_t exponent = bits >> 23 & 0xff;
  if (exponent == 0xff) return 0xff;
  bool up = rounding == Rounding::UP && (bits & 0x7fffff) != 0;
  if (rounding == Rounding::NEAREST) {
    up = (bits & 0x400000) != 0 && ((bits & 0x3fffff) != 0 || exponent > 0);
  }
  if (up && !(saturate && exponent == 0xfe)) ++exponent;
  return static_cast<uint8_t>(exponent);
}

int32_t bits_of(DType dtype) { return dtype == DType::U2 || dtype == DType::S2 ? 2 : 4; }
bool is_signed(DType dtype) { return dtype == DType::S4 || dtype == DType::S2; }

}  // namespace

bool is_small_float(DType dtype) {
  switch (dtype) {
    case DType::F8E4M3:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2:
    case DType::F8E5M2FNUZ:
    case DType::F4E2M1:
    case DType::F8E8M0:
      return true;
    default:
      return false;
  }
}

bool is_small_integer(DType dtype) {
  return dtype == DType::U4 || dtype == DType::S4 || dtype == DType::U2 || dtype == DType::S2;
}

void widen_small(DType from, const uint8_t* x, float* y, int64_t n) {
  float table[256];
  for (int32_t code = 0; code < 256; ++code) {
    if (from == DType::F8E8M0) {
      table[code] =
          code == 255 ? std::numeric_limits<float>::quiet_NaN() : ldexpf(1.0f, code - 127);
    } else {
      const Format format = format_of(from);
      table[code] = real_of(format, code & ((2 << (format.mantissa + format.exponents)) - 1));
    }
  }
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

void narrow_small(DType to, const float* x, uint8_t* y, int64_t n, bool saturate,
                  Rounding rounding) {
  if (to == DType::F8E8M0) {
    for (int64_t i = 0; i < n; ++i) y[i] = power_code(x[i], saturate, rounding);
    return;
  }
  const Format format = format_of(to);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint8_t>(code_of(format, x[i], saturate));
}

void widen_integers(DType from, const uint8_t* x, uint8_t* y, int64_t n) {
  const int32_t bits = bits_of(from), half = is_signed(from) ? 1 << (bits - 1) : 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = x[i] & ((1 << bits) - 1);
    y[i] = static_cast<uint8_t>((code ^ half) - half);
  }
}

void narrow_integers(DType to, const uint8_t* x, uint8_t* y, int64_t n) {
  const int32_t mask = (1 << bits_of(to)) - 1;
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint8_t>(x[i] & mask);
}

float round_to_odd(double x) {
  float y = static_cast<float>(x);
  if (static_cast<double>(y) == x || x != x) return y;
  uint32_t bits;
  memcpy(&bits, &y, 4);
  if (fabs(static_cast<double>(y)) > fabs(x)) --bits;  // towards zero
  bits |= 1;
  memcpy(&y, &bits, 4);
  return y;
}

}  // namespace lp
