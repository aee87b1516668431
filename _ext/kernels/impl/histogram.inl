// histogram.inl: extremes and bin counts of f32 values. Written once over vec.h, compiled per ISA.
//
// Definition   bin = floor(x * inverse_width) - origin in exact arithmetic; NaN and infinity in
// none Exactness    inverse_width is a power of two, so the product is exact or underflows towards
// zero
//              (where a negative x still belongs to bin -1). Extremes are order independent: a zero
//              is always returned as +0. Between given edges the quotient is only a guess, and is
//              compared with the edges where it lies near a whole number
// Speed        a bin that many neighbours hit (the zeros after a Relu) would make each increment
//              wait for the one before, so neighbours count in four tables that are summed at the
//              end
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

LP_INLINE VM is_finite(VF x) { return vset_s32(0x7F800000) > (as_s32(x) & vset_s32(0x7FFFFFFF)); }

// Widens [low, high] by n values (a multiple of W) and returns true, or changes nothing: one of
// them is NaN or infinite.
LP_INLINE bool all_finite(const float* x, int64_t n, VF* low, VF* high) {
  VF lowest = *low, highest = *high, zero = vset(0.0f);
  for (int64_t i = 0; i < n; i += W) {
    const VF value = vload(x + i);
    lowest = vmin(value, lowest);
    highest = vmax(value, highest);
    zero = fma(value, vset(0.0f), zero);  // NaN as soon as one is not finite
  }
  if (mask_bits(is_nan(zero)) != 0) return false;
  *low = lowest;
  *high = highest;
  return true;
}

// Widens [low, high] by x where that is finite; returns whether it is.
LP_INLINE bool one_by_one(float x, VF* low, VF* high) {
  if (!(x - x == 0.0f)) return false;
  *low = vmin(vset(x), *low);
  *high = vmax(vset(x), *high);
  return true;
}

void range(const float* x, int64_t n, float* minimum, float* maximum, int64_t* nonfinite) {
  constexpr int64_t CHUNK = 65536;  // what is read again where a value is not finite
  const VF infinity = vset(__builtin_inff()), minus_infinity = vset(-__builtin_inff());
  VF low = infinity, high = minus_infinity;
  for (int64_t start = 0; start < n; start += CHUNK) {
    const int64_t size = n - start < CHUNK ? n - start : CHUNK;
    // Lanes past the end read as 0, which must not widen the range: the tail goes one by one.
    const int64_t whole = size - size % W;
    if (all_finite(x + start, whole, &low, &high)) {
      for (int64_t i = start + whole; i < start + size; ++i) {
        if (!one_by_one(x[i], &low, &high)) ++*nonfinite;
      }
      continue;
    }
    VI bad = vset_s32(0);
    for (int64_t i = 0; i < whole; i += W) {
      const VF value = vload(x + start + i);
      const VM finite = is_finite(value);
      low = vmin(select(finite, value, infinity), low);
      high = vmax(select(finite, value, minus_infinity), high);
      bad = bad + select(finite, vset_s32(0), vset_s32(1));
    }
    int32_t counts[W];
    vstore(counts, bad);
    for (int lane = 0; lane < W; ++lane) *nonfinite += counts[lane];
    for (int64_t i = start + whole; i < start + size; ++i) {
      if (!one_by_one(x[i], &low, &high)) ++*nonfinite;
    }
  }
  float lows[W], highs[W];
  vstore(lows, low);
  vstore(highs, high);
  for (int lane = 0; lane < W; ++lane) {
    if (lows[lane] < *minimum) *minimum = lows[lane];
    if (highs[lane] > *maximum) *maximum = highs[lane];
  }
  *minimum += 0.0f;  // -0 becomes +0
  *maximum += 0.0f;
}

struct BinIndex {
  VF inverse_width, first, last, none;

  // Bin of each lane; `none` (one past the last) for NaN and infinity. Clamped: memory stays safe
  // whatever the data is.
  LP_INLINE VI of(const BinIndex& b, VF x) {
    // A negative product that underflowed to zero belongs to the bin below it.
    VF bin = x * b.inverse_width;
    bin = select(x < vset(0.0f), vmin(bin, vset(-0x1p-126f)), bin);
    bin = vmin(vmax(vfloor(bin), b.first), b.last) - b.first;
    return cvt_s32(select(is_finite(x), bin, b.none));
  }
};

// Adds up the bins that index(VF) -> VI in [0, bins] gives; `bins` stands for none. What is past
// the end of x is given to index as NaN.
template <class Index>
LP_INLINE void count(const float* x, int64_t n, int64_t bins, int64_t* counts, const Index& index) {
  constexpr int64_t MAX_BINS = 2048, CHUNK = 65536;
  constexpr int STEP = W < 4 ? 4 : W;
  int32_t buffer[STEP];
  const auto find = [&](const float* p) __attribute__((always_inline)) {
    for (int lane = 0; lane < STEP; lane += W) vstore(buffer + lane, index(vload(p + lane)));
  };
  if (bins <= MAX_BINS && n >= 2 * MAX_BINS) {
    uint16_t tables[4][MAX_BINS + 1];
    while (n >= STEP) {
      // A table gets a quarter of a chunk: its counts fit.
      const int64_t size = (n < CHUNK ? n : CHUNK) / STEP * STEP;
      for (auto& table : tables) memset(table, 0, static_cast<size_t>(bins + 1) * sizeof(uint16_t));
      for (int64_t i = 0; i < size; i += STEP) {
        find(x + i);
#pragma GCC unroll 16
        for (int lane = 0; lane < STEP; ++lane) ++tables[lane % 4][buffer[lane]];
      }
      for (int64_t bin = 0; bin < bins; ++bin) {
        counts[bin] += tables[0][bin] + tables[1][bin] + tables[2][bin] + tables[3][bin];
      }
      x += size;
      n -= size;
    }
  }
  for (; n >= STEP; x += STEP, n -= STEP) {
    find(x);
    for (int lane = 0; lane < STEP; ++lane) {
      if (buffer[lane] < bins) ++counts[buffer[lane]];
    }
  }
  if (n > 0) {
    float rest[STEP];
    for (int lane = 0; lane < STEP; ++lane) rest[lane] = lane < n ? x[lane] : __builtin_nanf("");
    find(rest);
    for (int64_t i = 0; i < n; ++i) {
      if (buffer[i] < bins) ++counts[buffer[i]];
    }
  }
}

LP_INLINE void any_histogram(const float* x, int64_t n, float inverse_width, int64_t origin,
                             int64_t bins, int64_t* counts) {
  const BinIndex index = {vset(inverse_width), vset(static_cast<float>(origin)),
                          vset(static_cast<float>(origin + bins - 1)),
                          vset(static_cast<float>(bins))};
  count(x, n, bins, counts,
        [&](VF value) __attribute__((always_inline)) { return BinIndex::of(index, value); });
}

#if defined(LP_ISA_AVX512)
// Bins of values that are not 0, packed; false where one is in none of them (then nothing is
// valid).
LP_INLINE bool pack_bins(const float* x, int64_t n, float inverse_width, int64_t origin,
                         int64_t bins, uint16_t* found, int64_t* kept) {
  constexpr int DOWN = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 factor = _mm512_set1_ps(inverse_width), zero = _mm512_setzero_ps();
  const __m512i first = _mm512_set1_epi32(static_cast<int32_t>(origin));
  const __m512i limit = _mm512_set1_epi32(static_cast<int32_t>(bins));
  unsigned outside = 0;
  uint16_t* next = found;
  for (int64_t i = 0; i < n; i += W) {
    const __m512 value = vload_n(x + i, n - i < W ? static_cast<int>(n - i) : W).v;
    // Rounded down, a negative product that underflows stays below 0. NaN, infinity and what is far
    // outside become large numbers.
    const __m512i bin = _mm512_sub_epi32(
        _mm512_cvt_roundps_epi32(_mm512_mul_round_ps(value, factor, DOWN), DOWN), first);
    const __mmask16 counted = _mm512_cmp_ps_mask(value, zero, _CMP_NEQ_UQ);
    outside |= _mm512_mask_cmpge_epu32_mask(counted, bin, limit);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(next),
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(counted, bin)));
    next += __builtin_popcount(counted);
  }
  *kept = next - found;
  return outside == 0;
}

// As histogram(), for bins <= 2048 that hold 0. The bins of a block first, then the counting: 0.36
// ns a value on Zen 4 where both in one loop take 0.6. Zeros are left out: after a Relu they would
// all wait for one counter.
void packed_histogram(const float* x, int64_t n, float inverse_width, int64_t origin, int64_t bins,
                      int64_t* counts) {
  constexpr int64_t MAX_BINS = 2048, BLOCK = 1024, CHUNK = 65536;
  uint16_t tables[4][MAX_BINS + 1], found[BLOCK + W];
  while (n > 0) {
    const int64_t chunk = n < CHUNK ? n : CHUNK;  // a table gets a quarter of it: its counts fit
    for (auto& table : tables) memset(table, 0, static_cast<size_t>(bins + 1) * sizeof(uint16_t));
    for (int64_t start = 0; start < chunk; start += BLOCK) {
      const int64_t size = chunk - start < BLOCK ? chunk - start : BLOCK;
      int64_t kept = 0;
      if (!pack_bins(x + start, size, inverse_width, origin, bins, found, &kept)) {
        any_histogram(x + start, size, inverse_width, origin, bins, counts);
        continue;
      }
      counts[-origin] += size - kept;
      while (kept % 4 != 0) found[kept++] = static_cast<uint16_t>(bins);
      for (int64_t i = 0; i < kept; i += 4) {
        uint64_t four;
        memcpy(&four, found + i, sizeof four);
        ++tables[0][four & 0xFFFF];
        ++tables[1][four >> 16 & 0xFFFF];
        ++tables[2][four >> 32 & 0xFFFF];
        ++tables[3][four >> 48];
      }
    }
    for (int64_t bin = 0; bin < bins; ++bin) {
      counts[bin] += tables[0][bin] + tables[1][bin] + tables[2][bin] + tables[3][bin];
    }
    x += chunk;
    n -= chunk;
  }
}
#endif

void histogram(const float* x, int64_t n, float inverse_width, int64_t origin, int64_t bins,
               int64_t* counts) {
#if defined(LP_ISA_AVX512)
  if (bins <= 2048 && n >= bins && origin <= 0 && -origin < bins) {
    return packed_histogram(x, n, inverse_width, origin, bins, counts);
  }
#endif
  any_histogram(x, n, inverse_width, origin, bins, counts);
}

void edge_histogram(const float* x, int64_t n, const lp::BinEdges* bins, int64_t* counts,
                    int64_t* outside) {
  const float* edges = bins->edges;
  const int32_t last = static_cast<int32_t>(bins->bins - 1);
  const VF low = vset(edges[0]), high = vset(edges[bins->bins]), factor = vset(bins->inverse_width);
  const VF nearest = vset(bins->doubt), furthest = vset(1.0f - bins->doubt);
  const VF first_bin = vset(0.0f), last_bin = vset(static_cast<float>(last));
  const VF none = vset(static_cast<float>(bins->bins));
  const VF largest = vset(0x1.fffffep127f), smallest = vset(-0x1.fffffep127f);
  int64_t below = 0, above = 0;
  count(x, n, bins->bins, counts, [&](VF value) __attribute__((always_inline)) {
    const VF place = (value - low) * factor;
    const VF bin = vfloor(place);
    const VF part = place - bin;
    const VM inside = (low <= value) & (value <= high);
    const VI found = cvt_s32(select(inside, vmin(vmax(bin, first_bin), last_bin), none));
    const int certain = mask_bits((nearest < part) & (part < furthest));
    const int unsure = mask_bits(inside) & ~certain;
    below +=
        __builtin_popcount(static_cast<unsigned>(mask_bits((smallest <= value) & (value < low))));
    above +=
        __builtin_popcount(static_cast<unsigned>(mask_bits((high < value) & (value <= largest))));
    if (__builtin_expect(unsure == 0, 1)) return found;
    float values[W];
    int32_t bin_of[W];
    vstore(values, value);
    vstore(bin_of, found);
    for (int lane = 0; lane < W; ++lane) {
      if ((unsure >> lane & 1) == 0) continue;
      int32_t i = bin_of[lane];
      while (i > 0 && values[lane] < edges[i]) --i;
      while (i < last && values[lane] >= edges[i + 1]) ++i;
      bin_of[lane] = i;
    }
    return vload(bin_of);
  });
  outside[0] += below;
  outside[1] += above;
}

}  // namespace

#include "kernels/impl/moments.inl"
