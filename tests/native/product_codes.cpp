// product_codes.cpp: int8 matrix products and convolutions by runs.
#include "epilogues.h"
#include "pack.h"
#include "shapes.h"

namespace lp::check {
namespace {

// Weights of s8 or u8, packed, with the sums and zero points that go with them.
template <class Weight>
struct CodeWeights {
  CodeWeights(Random& random, const Shape& s)
      : depth(s.depth()),
        codes(s.n * depth, Against::END),
        packed(packed_s8_bytes(s.n, s.count(), s.length), random.side()),
        sums(padded_channels(s.n), random.side()),
        zero_points(padded_channels(s.n), random.side()) {
    constexpr bool is_signed = static_cast<Weight>(-1) < 0;
    random.fill_codes(codes);
    const WeightStrides strides = {depth, s.length, 1};  // [n][runs][run]
    if constexpr (is_signed) {
      pack_s8(codes.data(), strides, s.n, s.count(), s.length, packed.data(), sums.data());
    } else {
      pack_u8(codes.data(), strides, s.n, s.count(), s.length, packed.data(), sums.data());
    }
    has_zero_points = !is_signed || random.chance(3);
    for (int64_t n = 0; n < zero_points.size(); ++n) {
      const int64_t drawn = random.between(is_signed ? -128 : 0, is_signed ? 127 : 255);
      zero_points[n] = has_zero_points ? static_cast<int32_t>(drawn) : 0;
    }
  }
  // As the kernels want them; `stored` keeps them.
  const int32_t* for_kernels(std::vector<int32_t>& stored) const {
    if (!has_zero_points) return nullptr;
    for (int64_t n = 0; n < zero_points.size(); ++n) {
      const bool is_signed = static_cast<Weight>(-1) < 0;
      stored.push_back(is_signed ? zero_points[n] : u8_zero_point(zero_points[n]));
    }
    return stored.data();
  }

  int64_t depth;
  Guarded<Weight> codes;
  Guarded<int8_t> packed;
  Guarded<int32_t> sums, zero_points;
  bool has_zero_points;
};

template <class Code, class Weight, Product Kernels::* entry>
void product_codes(Case& c) {
  constexpr bool is_signed = static_cast<Code>(-1) < 0;
  const Shape s = draw_product_shape(c);
  Random& random = c.random;
  const Guarded<Code> a(s.src_extent(), random.side(), 3);
  random.fill_codes(a);
  for (int64_t i = 0; i < 3; ++i) a[a.size() + i] = static_cast<Code>(random.bits());
  const CodeWeights<Weight> w(random, s);
  const Guarded<int32_t> bias(padded_channels(s.n), random.side());
  for (int64_t n = 0; n < bias.size(); ++n) {
    bias[n] = static_cast<int32_t>(random.between(-1000000, 1000000));
  }
  const auto draw_zero_point = [&] {
    return static_cast<int32_t>(random.between(is_signed ? -128 : 0, is_signed ? 127 : 255));
  };
  const int32_t zero_point = random.chance(3) ? 0 : draw_zero_point();
  const bool by_row = random.chance(4);
  const Guarded<int32_t> row_zero_points(s.m(), random.side());
  for (int64_t m = 0; m < s.m(); ++m) row_zero_points[m] = by_row ? draw_zero_point() : zero_point;
  c.describe(", zero points: a %d%s, weights %s", zero_point, by_row ? " by row" : "",
             w.has_zero_points ? "some" : "none");
  EpilogueDraw epilogue(c, true, s, 255.0f * 64.0f * static_cast<float>(w.depth));
  epilogue.settle_fast(c, 1e6 + 255.0 * 255.0 * static_cast<double>(w.depth));

  ProductArgs args = product_arguments(s, epilogue.get());
  std::vector<int32_t> stored;
  args.src = a.data();
  args.packed = w.packed.data();
  args.bias = bias.data();
  args.sums = w.sums.data();
  args.zero_point = zero_point;
  args.row_zero_points = by_row ? row_zero_points.data() : nullptr;
  args.weight_zero_points = w.for_kernels(stored);
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_rows(s, args.epilogue, [&](const Row& row) {
    for (int64_t n = 0; n < s.n; ++n) {
      int64_t acc = bias[n];
      const Weight* weight = w.codes.data() + n * w.depth;
      for (const int64_t offset : s.offsets) {
        for (int64_t k = 0; k < s.length; ++k) {
          acc +=
              (a[row.src + offset + k] - row_zero_points[row.m]) * (*weight++ - w.zero_points[n]);
        }
      }
      plain_finish_s32(c.scalar(), static_cast<int32_t>(acc), {row.m, n, row.residual + n},
                       args.epilogue, expected.data() + (row.dst + n) * out);
    }
  });
  run_tables(c, entry, args, expected);
}

}  // namespace

std::vector<Check> product_code_checks() {
  using K = Kernels;
  const std::vector<size_t> u8 = {LP_ENTRY(product_u8s8)}, s8 = {LP_ENTRY(product_s8s8)};
  return {{"product_u8s8", product_codes<uint8_t, int8_t, &K::product_u8s8>, 200, u8},
          {"product_s8s8", product_codes<int8_t, int8_t, &K::product_s8s8>, 200, s8},
          {"product_u8u8", product_codes<uint8_t, uint8_t, &K::product_u8s8>, 80, u8},
          {"product_s8u8", product_codes<int8_t, uint8_t, &K::product_s8s8>, 80, s8}};
}

}  // namespace lp::check
