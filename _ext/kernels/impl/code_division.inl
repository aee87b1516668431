// code_division.inl: rint(x / scale) for 8-bit codes, without dividing.
//
// A product with r = 1 / scale is one ulp off for 27 % of the quotients and then wrong at ties. For
// 8-bit codes and ordinary scales the quotient is corrected instead (Markstein): q = x * r,
// q + (x - q * scale) * r. What that rounds to a whole number is what the division rounds to:
// tests/numerics/test_division.py enumerates every pair of a quotient near a tie and a scale that
// the error could reach. No step may be contracted (-ffp-contract=off).
#pragma once
#include "kernels/vec.h"

namespace {

// c - a * b, rounded once.
LP_INLINE VF remainder_of(VF a, VF b, VF c) {
#if defined(__AVX512BW__)
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
#elif defined(__AVX2__)
  return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
#else
  return fma(vset(0.0f) - a, b, c);
#endif
}

// Where x, the reciprocal and the products stay normal numbers by a wide margin.
LP_INLINE bool ordinary(float scale) { return scale >= 0x1p-100f && scale <= 0x1p100f; }

struct CodeDivision {
  static LP_MEMBER CodeDivision by(float scale) {
    // Nothing further out than 1024 steps has another code.
    return {vset(scale), vset(1.0f / scale), vset(-1024.0f * scale), vset(1024.0f * scale)};
  }
  // The scale must be `ordinary`. NaN becomes the fewest.
  LP_MEMBER VI steps(VF x) const { return steps_unclamped(vmin(vmax(x, low), high)); }
  // Of x within 2^30 steps. Further out than 1024 the steps need not be exact, only too many.
  LP_MEMBER VI steps_unclamped(VF x) const {
    const VF quotient = x * reciprocal;
    return cvt_s32(fma(remainder_of(quotient, scale, x), reciprocal, quotient));
  }
  VF scale, reciprocal, low, high;
};

}  // namespace
