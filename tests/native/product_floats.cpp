// product_floats.cpp: f32, bf16 and f16 matrix products and convolutions by runs.
#include <string.h>

#include <optional>
#include <type_traits>

#include "epilogues.h"
#include "pack.h"
#include "shapes.h"

#if defined(__x86_64__)
#include <stdio.h>
#include <xmmintrin.h>
#endif

namespace lp::check {
namespace {

struct F32 {
  using Element = float;
  static constexpr int GROUP = 1;
  static constexpr Product Kernels::* entry = &Kernels::product_f32;
  static float draw(Random& random, int odd) { return random.value(2.0f, odd); }
  static void pack(const float* w, const Shape& s, float* packed) {
    pack_f32(w, {s.depth(), s.length, 1}, s.n, s.count(), s.length, packed);
  }
  static float chain(const Shape& s, const float* a, const float* w) {
    float acc = 0.0f;
    for (const int64_t offset : s.offsets) {
      for (int64_t k = 0; k < s.length; ++k) acc = fmaf(a[offset + k], *w++, acc);
    }
    return acc;
  }
};

struct F16 {
  using Element = uint16_t;
  static constexpr int GROUP = 1;
  static constexpr Product Kernels::* entry = &Kernels::product_f16;
  static uint16_t draw(Random& random, int odd) { return plain_f16(random.value(2.0f, odd)); }
  static void pack(const uint16_t* w, const Shape& s, uint16_t* packed) {
    pack_f16(w, {s.depth(), s.length, 1}, s.n, s.count(), s.length, packed);
  }
  static float chain(const Shape& s, const uint16_t* a, const uint16_t* w) {
    float acc = 0.0f;
    for (const int64_t offset : s.offsets) {
      for (int64_t k = 0; k < s.length; ++k) {
        acc = fmaf(plain_from_f16(a[offset + k]), plain_from_f16(*w++), acc);
      }
    }
    return acc;
  }
};

struct BF16 {
  using Element = uint16_t;
  static constexpr int GROUP = 2;
  static constexpr Product Kernels::* entry = &Kernels::product_bf16;
  // Some cases live around the smallest normal number 2^-126, where sums are flushed; powers of two
  // make products that leave a sum of 2^-126 just below it before rounding.
  static uint16_t draw(Random& random, int odd) {
    if (odd != TINY) return plain_bf16(random.value(2.0f, odd));
    const float sign = random.chance(2) ? -1.0f : 1.0f;
    if (random.chance(2)) return plain_bf16(sign * random.one_of<float>({0x1p-63f, 0x1p-76f}));
    const int exponent = static_cast<int>(random.between(-66, -60));
    return plain_bf16(ldexpf(sign * random.uniform(1.0f, 2.0f), exponent));
  }
  static void pack(const uint16_t* w, const Shape& s, uint16_t* packed) {
    pack_bf16(w, {s.depth(), s.length, 1}, s.n, s.count(), s.length, packed);
  }
  // Pairs of k, the odd one first; a run's odd last element is paired with 0.
  static float chain(const Shape& s, const uint16_t* a, const uint16_t* w) {
    float acc = 0.0f;
    for (const int64_t offset : s.offsets) {
      for (int64_t k = 0; k < s.length; k += 2) {
        const bool both = k + 1 < s.length;
        acc = plain_flushed_fma(both ? plain_from_bf16(a[offset + k + 1]) : 0.0f,
                                both ? plain_from_bf16(w[k + 1]) : 0.0f, acc);
        acc = plain_flushed_fma(plain_from_bf16(a[offset + k]), plain_from_bf16(w[k]), acc);
      }
      w += s.length;
    }
    return acc;
  }
  // AMX: the even and the odd k of each 32 of a run are a chain each, which then join the sum.
  static float chain_amx(const Shape& s, const uint16_t* a, const uint16_t* w) {
    float acc = 0.0f;
    for (const int64_t offset : s.offsets) {
      for (int64_t k0 = 0; k0 < s.length; k0 += 32) {
        float sums[2] = {0.0f, 0.0f};
        for (int64_t k = k0; k < k0 + 32; ++k) {
          const bool real = k < s.length;
          sums[k % 2] = plain_flushed_fma(real ? plain_from_bf16(a[offset + k]) : 0.0f,
                                          real ? plain_from_bf16(w[k]) : 0.0f, sums[k % 2]);
        }
        acc = plain_flushed_fma(1.0f, plain_flushed_fma(1.0f, sums[0], sums[1]), acc);
      }
      w += s.length;
    }
    return acc;
  }
  static constexpr int TINY = -1;
};

// Intel's manual decides after rounding what is too small to keep; some versions of QEMU before it.
// There, nothing can be said about the cases where that makes a difference. (aarch64 does decide
// before rounding, and the kernels make up for it.)
bool machine_flushes_as_specified() {
#if defined(__x86_64__)
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(saved | 0x8040u);
  volatile float below_one = 1.0f - 0x1p-13f, above = 0x1p-126f + 0x1p-139f;
  volatile float rounds_up = below_one * above;  // 2^-126 (1 - 2^-26)
  _mm_setcsr(saved);
  static const bool told = rounds_up != 0.0f || puts(
                                                    "(this emulator flushes before rounding: no "
                                                    "bf16 sums around 2^-126)") < 0;
  return told;
#else
  return true;
#endif
}

template <class Format>
void product_floats(Case& c) {
  using Element = typename Format::Element;
  const Shape s = draw_product_shape(c);
  Random& random = c.random;
  int odd = random.chance(4) ? 200 : 0;
  if (Format::GROUP == 2 && random.chance(4) && machine_flushes_as_specified()) odd = -1;
  c.describe(", odd values %d", odd);
  const auto fill = [&](const Guarded<Element>& x) {
    for (int64_t i = 0; i < x.size(); ++i) x[i] = Format::draw(random, odd);
  };
  const Guarded<Element> a(s.src_extent(), random.side());
  const Guarded<Element> w(s.n * s.depth(), Against::END);  // [n][runs][run]
  fill(a);
  fill(w);
  const int64_t depth = packed_depth(s.count(), s.length, Format::GROUP);
  const Guarded<Element> packed(padded_channels(s.n) * depth, random.side());
  Format::pack(w.data(), s, packed.data());
  const Guarded<float> bias(padded_channels(s.n), random.side());
  random.fill(bias, odd < 0 ? 0x1p-120f : 4.0f, odd < 0 ? 0 : odd);
  EpilogueDraw epilogue(c, false, s, 1.0f);

  ProductArgs args = product_arguments(s, epilogue.get());
  args.src = a.data();
  args.packed = packed.data();
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const auto finish = [&](const Guarded<uint8_t>& expected, auto chain) {
    for_rows(s, args.epilogue, [&](const Row& row) {
      for (int64_t n = 0; n < s.n; ++n) {
        const float sum = chain(s, a.data() + row.src, w.data() + n * s.depth()) + bias[n];
        plain_finish_f32(c.scalar(), sum, {row.m, n, row.residual + n}, args.epilogue,
                         expected.data() + (row.dst + n) * out);
      }
    });
  };
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  finish(expected, Format::chain);
  std::optional<Guarded<uint8_t>> with_amx;
  run_tables_for(c, Format::entry, args, expected.size(),
                 [&](const Kernels& table) -> const Guarded<uint8_t>& {
                   if constexpr (std::is_same_v<Format, BF16>) {
                     if (strncmp(table.name, "amx", 3) == 0) {
                       if (!with_amx)
                         finish(with_amx.emplace(expected.size(), Against::END), Format::chain_amx);
                       return *with_amx;
                     }
                   }
                   return expected;
                 });
}

}  // namespace

std::vector<Check> product_float_checks() {
  return {{"product_f32", product_floats<F32>, 150, {LP_ENTRY(product_f32)}},
          {"product_bf16", product_floats<BF16>, 150, {LP_ENTRY(product_bf16)}},
          {"product_f16", product_floats<F16>, 80, {LP_ENTRY(product_f16)}}};
}

}  // namespace lp::check
