// packing.cpp: the packing kernel against pack.h's plain loops.
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

}  // namespace

std::vector<Check> packing_checks() {
  return {{"pack_rows_s8", pack_rows, 120, {LP_ENTRY(pack_rows_s8)}}};
}

}  // namespace lp::check
