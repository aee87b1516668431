// mathematics.cpp: exponentials, angles and their inverses, by series over a reduced range.
//
// Only +, -, *, / and sqrt of IEEE doubles, and exact scaling by powers of two; this file is built
// without contraction. Series are cut where the next term is below 2^-60 of the result.
#include "engine/mathematics.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <limits>

namespace lp {

namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();
constexpr double PI_2 = 0x1.921fb54442d18p+0, PI_2_LOW = 0x1.1a62633145c07p-54;
constexpr double LN2_HIGH = 0x1.62e42fee00000p-1, LN2_LOW = 0x1.a39ef35793c76p-33;

// e^x - 1 for |x| <= 0.35.
double small_expm1(double x) {
  double sum = 1.0;
  for (int n = 14; n >= 2; --n) sum = 1.0 + sum * x / n;
  return sum * x;
}

double expm1_of(double x) { return fabs(x) <= 0.35 ? small_expm1(x) : exp_of(x) - 1.0; }

// log((1 + s) / (1 - s)) for |s| < 0.18.
double log_ratio(double s) {
  const double square = s * s;
  double sum = 0.0;
  for (int n = 25; n >= 3; n -= 2) sum = (sum + 1.0 / n) * square;
  return 2.0 * s + 2.0 * s * sum;
}

double log1p_of(double x) { return fabs(x) < 0.3 ? log_ratio(x / (2.0 + x)) : log_of(1.0 + x); }

// The fraction bits of 2 / pi.
constexpr uint64_t TWO_OVER_PI[] = {
    0xa2f9836e4e441529ull, 0xfc2757d1f534ddc0ull, 0xdb6295993c439041ull, 0xfe5163abdebbc561ull,
    0xb7246e3a424dd2e0ull, 0x06492eea09d1921cull, 0xfe1deb1cb129a73eull, 0xe88235f52ebb4484ull,
    0xe99c7026b45f7e41ull, 0x3991d639835339f4ull, 0x9c845f8bbdf9283bull, 0x1ff897ffde05980full,
    0xef2f118b5a0a6d1full, 0x6d367ecf27cb09b7ull, 0x4f463f669e5fea2dull, 0x7527bac7ebe5f17bull,
    0x3d0739f78a5292eaull, 0x6bfb5fb11f8d5d08ull, 0x56033046fc7b6babull, 0xf0cfbc209af4361dull};

// x = quarters * pi / 2 + the result, in [-pi / 4, pi / 4]; quarters modulo 4. After Payne and
// Hanek: of x * 2 / pi only the bits around the point are worked out.
double reduce(double x, int* quarters) {
  *quarters = 0;
  if (fabs(x) <= PI_2 / 2) return x;
  int exponent = 0;
  const double fraction = frexp(fabs(x), &exponent);
  const auto mantissa = static_cast<uint64_t>(fraction * 0x1p53);
  const int scale = exponent - 53;  // |x| = mantissa * 2^scale
  // The bits of 2 / pi from position `first` on: what is before gives multiples of four.
  const int first = scale - 2 > 0 ? scale - 2 : 0;
  uint64_t window[4];
  for (int i = 0; i < 4; ++i) {
    const int at = first + 64 * i, shift = at % 64;
    window[i] = TWO_OVER_PI[at / 64] << shift;
    if (shift > 0) window[i] |= TWO_OVER_PI[at / 64 + 1] >> (64 - shift);
  }
  // mantissa * window, an integer of 320 bits, times 2^(scale - first - 256).
  uint64_t product[5];
  unsigned __int128 carry = 0;
  for (int i = 3; i >= 0; --i) {
    carry += static_cast<unsigned __int128>(mantissa) * window[i];
    product[i + 1] = static_cast<uint64_t>(carry);
    carry >>= 64;
  }
  product[0] = static_cast<uint64_t>(carry);
  // So many bits of it are before the point: 11 to 66, as 2^-53 <= 2^scale.
  const int whole = 64 + scale - first;
  const auto bits = [&](int at) -> uint64_t {  // 64 of them, from bit `at` on
    const uint64_t head = product[at / 64] << at % 64;
    return at % 64 == 0 ? head : head | product[at / 64 + 1] >> (64 - at % 64);
  };
  int quarter = static_cast<int>(bits(whole - 2) >> 62);
  uint64_t high = bits(whole), low = bits(whole + 64);
  bool negative = false;
  if (high >> 63) {  // above one half: the next quarter, less the rest
    ++quarter;
    negative = true;
    low = ~low + 1;
    high = ~high + (low == 0 ? 1 : 0);
  }
  double turn;
  if (high == 0) {
    turn = static_cast<double>(low) * 0x1p-128;
  } else {
    // The top 64 bits, so that a small rest keeps its precision.
    int lead = 0;
    while (!(high >> 63)) {
      high = high << 1 | low >> 63;
      low <<= 1;
      ++lead;
    }
    turn = ldexp(static_cast<double>(high), -64 - lead);
  }
  if (negative) turn = -turn;
  const double rest = turn * PI_2 + turn * PI_2_LOW;
  *quarters = (x < 0 ? -quarter : quarter) & 3;
  return x < 0 ? -rest : rest;
}

double small_sin(double x) {
  if (x == 0.0) return x;  // the sign of a zero
  const double square = x * x;
  double sum = 0.0;
  for (int n = 19; n >= 3; n -= 2) sum = (1.0 - sum) * square / (n * (n - 1.0));
  return x - x * sum;
}

double small_cos(double x) {
  const double square = x * x;
  double sum = 0.0;
  for (int n = 20; n >= 4; n -= 2) sum = (1.0 - sum) * square / (n * (n - 1.0));
  return 1.0 - (1.0 - sum) * square / 2.0;
}

// atan of |x| <= 1, its argument halved twice.
double small_atan(double x) {
  double half = x / (1.0 + sqrt(1.0 + x * x));
  half = half / (1.0 + sqrt(1.0 + half * half));
  const double square = half * half;
  double sum = 0.0;
  for (int n = 27; n >= 3; n -= 2) sum = (1.0 / n - sum) * square;
  return 4.0 * (half - half * sum);
}

}  // namespace

double exp_of(double x) {
  if (x != x) return x;
  if (x > 709.8) return INF;
  if (x < -745.2) return 0.0;
  const double k = nearbyint(x * 0x1.71547652b82fep+0);
  const double rest = (x - k * LN2_HIGH) - k * LN2_LOW;
  return ldexp(1.0 + small_expm1(rest), static_cast<int>(k));
}

double log_of(double x) {
  if (x != x || x == INF) return x;
  if (x < 0.0) return NOT_A_NUMBER;
  if (x == 0.0) return -INF;
  int exponent = 0;
  double fraction = frexp(x, &exponent);
  if (fraction < 0x1.6a09e667f3bcdp-1) {
    fraction *= 2.0;
    --exponent;
  }
  const double rest = log_ratio((fraction - 1.0) / (fraction + 1.0));
  return exponent * LN2_HIGH + (rest + exponent * LN2_LOW);
}

double sigmoid_of(double x) {
  if (x >= 0.0) return 1.0 / (1.0 + exp_of(-x));
  const double e = exp_of(x);
  return e / (1.0 + e);
}

double tanh_of(double x) {
  if (x != x) return x;
  if (fabs(x) > 22.0) return x < 0.0 ? -1.0 : 1.0;
  const double e = expm1_of(2.0 * fabs(x));
  const double y = e / (e + 2.0);
  return signbit(x) ? -y : y;
}

double sinh_of(double x) {
  if (x != x || fabs(x) == INF) return x;
  const double magnitude = fabs(x);
  double y;
  if (magnitude > 30.0) {
    const double root = exp_of(magnitude / 2.0);  // exp itself may be infinite
    y = root / 2.0 * root;
  } else {
    const double e = expm1_of(magnitude);
    y = (e + e / (e + 1.0)) / 2.0;
  }
  return signbit(x) ? -y : y;
}

double cosh_of(double x) {
  const double magnitude = fabs(x);
  if (magnitude > 30.0) {
    const double root = exp_of(magnitude / 2.0);
    return root / 2.0 * root;
  }
  const double e = exp_of(magnitude);
  return (e + 1.0 / e) / 2.0;
}

double asinh_of(double x) {
  if (x != x || fabs(x) == INF) return x;
  const double magnitude = fabs(x);
  double y;
  if (magnitude > 1e9) {
    y = log_of(magnitude) + log_of(2.0);
  } else {
    const double square = magnitude * magnitude;
    y = log1p_of(magnitude + square / (1.0 + sqrt(square + 1.0)));
  }
  return signbit(x) ? -y : y;
}

double acosh_of(double x) {
  if (x < 1.0) return NOT_A_NUMBER;
  if (x != x || x == INF) return x;
  if (x > 1e9) return log_of(x) + log_of(2.0);
  const double t = x - 1.0;
  return log1p_of(t + sqrt(2.0 * t + t * t));
}

double atanh_of(double x) {
  const double magnitude = fabs(x);
  if (magnitude > 1.0) return NOT_A_NUMBER;
  if (magnitude == 1.0) return x < 0.0 ? -INF : INF;
  if (x != x) return x;
  const double y = 0.5 * log1p_of(2.0 * magnitude / (1.0 - magnitude));
  return signbit(x) ? -y : y;
}

double sin_of(double x) {
  if (x != x || fabs(x) == INF) return NOT_A_NUMBER;
  int quarters;
  const double rest = reduce(x, &quarters);
  const double y = quarters & 1 ? small_cos(rest) : small_sin(rest);
  return quarters & 2 ? -y : y;
}

double cos_of(double x) {
  if (x != x || fabs(x) == INF) return NOT_A_NUMBER;
  int quarters;
  const double rest = reduce(x, &quarters);
  const double y = quarters & 1 ? small_sin(rest) : small_cos(rest);
  return quarters == 1 || quarters == 2 ? -y : y;
}

double tan_of(double x) {
  if (x != x || fabs(x) == INF) return NOT_A_NUMBER;
  int quarters;
  const double rest = reduce(x, &quarters);
  return quarters & 1 ? -small_cos(rest) / small_sin(rest) : small_sin(rest) / small_cos(rest);
}

double atan_of(double x) {
  if (x != x) return x;
  const double magnitude = fabs(x);
  double y;
  if (magnitude <= 1.0) {
    y = small_atan(magnitude);
  } else {
    y = PI_2 - (small_atan(1.0 / magnitude) - PI_2_LOW);
  }
  return signbit(x) ? -y : y;
}

double asin_of(double x) {
  const double magnitude = fabs(x);
  if (magnitude > 1.0) return NOT_A_NUMBER;
  if (magnitude == 1.0) return x < 0.0 ? -PI_2 : PI_2;
  return atan_of(x / sqrt((1.0 - x) * (1.0 + x)));
}

double acos_of(double x) {
  if (fabs(x) > 1.0) return NOT_A_NUMBER;
  if (x == -1.0) return 2.0 * PI_2;
  return 2.0 * atan_of(sqrt((1.0 - x) / (1.0 + x)));
}

}  // namespace lp
