// moments.inl: exact sums of f32 values and of their squares, a window of magnitudes at a time.
//
// Contract     n <= MOMENT_BLOCK values (kernels.h); upper a power of two above every finite
//              magnitude of interest. What lies in [upper / 2^16, upper) is summed; infinity, NaN
//              and what is above are skipped; what is below is handed back, so that the caller can
//              go on with the next window
// Exactness    no rounding anywhere, so any vector width gives the same: let U = upper, 4096
// values.
//              Values are multiples of U * 2^-39 and their sum below U * 2^12: 51 bits. Squares
//              p < U^2, multiples of U^2 * 2^-78, are cut in two: adding p to an accumulator that
//              starts at 1.5 * 2^52 * G, G = U^2 * 2^-39, and stays in that binade, rounds p to a
//              multiple of G; what rounding left, at most G / 2, is a double and is summed apart:
//              below U^2 * 2^-28 in multiples of U^2 * 2^-78: 50 bits
// Speed        six additions per value; few values are 2^16 times smaller than the largest around
//              them, and only those are looked at again
#pragma once
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

#if defined(__AVX512BW__)
constexpr int DOUBLES = 8;
struct VD {
  __m512d v;
};
LP_INLINE VD dset(double x) { return {_mm512_set1_pd(x)}; }
LP_INLINE VD operator+(VD a, VD b) { return {_mm512_add_pd(a.v, b.v)}; }
LP_INLINE VD operator-(VD a, VD b) { return {_mm512_sub_pd(a.v, b.v)}; }
LP_INLINE VD operator*(VD a, VD b) { return {_mm512_mul_pd(a.v, b.v)}; }
LP_INLINE void dstore(double* p, VD a) { _mm512_storeu_pd(p, a.v); }
template <int PART>
LP_INLINE VD widened(VF x) {
  return {_mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, PART))};
}
#elif defined(__AVX2__)
constexpr int DOUBLES = 4;
struct VD {
  __m256d v;
};
LP_INLINE VD dset(double x) { return {_mm256_set1_pd(x)}; }
LP_INLINE VD operator+(VD a, VD b) { return {_mm256_add_pd(a.v, b.v)}; }
LP_INLINE VD operator-(VD a, VD b) { return {_mm256_sub_pd(a.v, b.v)}; }
LP_INLINE VD operator*(VD a, VD b) { return {_mm256_mul_pd(a.v, b.v)}; }
LP_INLINE void dstore(double* p, VD a) { _mm256_storeu_pd(p, a.v); }
template <int PART>
LP_INLINE VD widened(VF x) {
  return {_mm256_cvtps_pd(_mm256_extractf128_ps(x.v, PART))};
}
#else
constexpr int DOUBLES = 1;
struct VD {
  double v;
};
LP_INLINE VD dset(double x) { return {x}; }
LP_INLINE VD operator+(VD a, VD b) { return {a.v + b.v}; }
LP_INLINE VD operator-(VD a, VD b) { return {a.v - b.v}; }
LP_INLINE VD operator*(VD a, VD b) { return {a.v * b.v}; }
LP_INLINE void dstore(double* p, VD a) { *p = a.v; }
template <int PART>
LP_INLINE VD widened(VF x) {
  float lanes_of[W];
  vstore(lanes_of, x);
  return {static_cast<double>(lanes_of[PART])};
}
#endif

struct MomentSums {
  VD sum, high, low;

  template <int PART>
  LP_MEMBER void add(VF x) {
    const VD value = widened<PART>(x);
    sum = sum + value;
    const VD square = value * value;
    const VD next = high + square;
    low = low + (square - (next - high));
    high = next;
  }
  template <int PART = 0>
  LP_MEMBER void add_all(VF x) {
    add<PART>(x);
    if constexpr ((PART + 1) * DOUBLES < W) add_all<PART + 1>(x);
  }
};

LP_INLINE double total_of(VD a, double start) {
  double lanes_of[DOUBLES], total = 0;
  dstore(lanes_of, a);
  for (int i = 0; i < DOUBLES; ++i) total += lanes_of[i] - start;
  return total;
}

int64_t moments(const float* x, int64_t n, double upper, double* sums, float* rest) {
  const double start = 1.5 * 0x1p52 * (upper * upper * 0x1p-39);
  MomentSums all = {dset(0), dset(start), dset(0)};
  const VF top = vset(upper < 0x1p128 ? static_cast<float>(upper) : __builtin_inff());
  // 0 where even the smallest f32 is inside.
  const VF bottom = vset(static_cast<float>(upper * 0x1p-16)), zero = vset(0.0f);
  int64_t below = 0;
  for_lanes(n, [&](int64_t i, int some) __attribute__((always_inline)) {
    const VF value = vload_any(x + i, some);
    const VF magnitude = as_f32(as_s32(value) & vset_s32(0x7FFFFFFF));
    const VM small = magnitude < bottom;
    all.add_all(select(small, zero, select(magnitude < top, value, zero)));
    if (__builtin_expect(mask_bits(small & (zero < magnitude)) == 0, 1)) return;
    float lanes_of[W];
    vstore(lanes_of, value);
    for (int bits = mask_bits(small & (zero < magnitude)); bits != 0; bits &= bits - 1) {
      rest[below++] = lanes_of[__builtin_ctz(static_cast<unsigned>(bits))];
    }
  });
  sums[0] = total_of(all.sum, 0);
  sums[1] = total_of(all.high, start);
  sums[2] = total_of(all.low, 0);
  return below;
}

}  // namespace
