// packing.cpp: the packing kernels against pack.h's plain loops.
#include "case.h"
#include "pack.h"

namespace lp::check {
namespace {

void pack_rows(Case& c) {
  Random& random = c.random;
  const int64_t k = random.size(70), n = random.size(200), stride = n + random.between(0, 9);
  const bool flip = random.chance(2);
  const Guarded<uint8_t> b(k > 0 ? (k - 1) * stride + n : 0, random.side());
  random.fill_codes(b);
  const Guarded<int8_t> expected(packed_s8_bytes(n, 1, k), Against::END);
  const Guarded<int32_t> expected_sums(padded_channels(n), Against::END);
  const WeightStrides strides{1, 0, stride};
  if (flip) {
    pack_u8(b.data(), strides, n, 1, k, expected.data(), expected_sums.data());
  } else {
    pack_s8(reinterpret_cast<const int8_t*>(b.data()), strides, n, 1, k, expected.data(),
            expected_sums.data());
  }
  c.describe("k %d n %d stride %d flip %d", static_cast<int>(k), static_cast<int>(n),
             static_cast<int>(stride), flip);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<int8_t> packed(expected.size(), side);
    const Guarded<int32_t> sums(expected_sums.size(), side);
    table.pack_rows_s8(b.data(), stride, k, n, flip ? 0x80 : 0, packed.data(), sums.data());
    c.same("packed", expected, packed);
    c.same("sums", expected_sums, sums);
  });
}

void pack_turned(Case& c) {
  Random& random = c.random;
  const int64_t k = random.size(70), n = random.size(200), stride = k + random.between(0, 9);
  const float factor = random.chance(4) ? 1.0f : 0.42044820762685725f;
  const Guarded<float> x(n > 0 ? (n - 1) * stride + k : 0, random.side());
  random.fill(x, 2.0f, 0);
  const Guarded<float> times(x.size(), Against::END);
  for (int64_t i = 0; i < x.size(); ++i) times.data()[i] = x.data()[i] * factor;
  const Guarded<float> expected(padded_channels(n) * k, Against::END);
  pack_f32(times.data(), {stride, 0, 1}, n, 1, k, expected.data());
  c.describe("k %d n %d stride %d", static_cast<int>(k), static_cast<int>(n),
             static_cast<int>(stride));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> packed(expected.size(), side);
    table.pack_turned_f32(x.data(), stride, n, k, factor, packed.data());
    c.same("packed", expected, packed);
  });
}

}  // namespace

std::vector<Check> packing_checks() {
  return {{"pack_rows_s8", pack_rows, 120, {LP_ENTRY(pack_rows_s8)}},
          {"pack_turned_f32", pack_turned, 120, {LP_ENTRY(pack_turned_f32)}}};
}

}  // namespace lp::check
