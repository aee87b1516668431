// statistics.cpp: bins between given edges, and exact sums.
#include <algorithm>
#include <vector>

#include "case.h"

namespace lp::check {
namespace {

void edge_histogram(Case& c) {
  Random& random = c.random;
  const int64_t bins = random.between(1, 40), n = random.chance(10) ? 5000 : random.size(200);
  // Narrow bins far from zero make the quotient a poor guess.
  const float low = random.one_of<float>({0.0f, -1.0f, 1000.0f, -3e38f});
  const float width = low == -3e38f ? 1e37f : random.uniform(0.05f, 2.0f);
  const Guarded<float> edges(bins + 1, random.side());
  for (int64_t i = 0; i <= bins; ++i) {
    edges[i] = static_cast<float>(static_cast<double>(low) + static_cast<double>(width) * i);
  }
  const float inverse_width = static_cast<float>(
      static_cast<double>(bins) / (static_cast<double>(edges[bins]) - static_cast<double>(low)));
  const float far = std::max(fabsf(low), fabsf(edges[bins]));
  const BinEdges args = {edges.data(), bins, inverse_width,
                         static_cast<float>(bins) * 0x1p-21f + far * inverse_width * 0x1p-22f};
  const Guarded<float> x(n, random.side());
  const Guarded<int64_t> expected(bins + 2, Against::END);
  for (int64_t i = 0; i < bins + 2; ++i) expected[i] = i;
  for (int64_t i = 0; i < n; ++i) {
    const float edge = edges[random.between(0, bins)];
    x[i] = random.chance(3)   ? edge
           : random.chance(3) ? nextafterf(edge, random.chance(2) ? INFINITY : -INFINITY)
           : random.chance(9) ? random.special()
                              : random.uniform(low - width, edges[bins] + width);
    if (!isfinite(x[i])) continue;
    const float* above = std::upper_bound(edges.data(), edges.data() + bins + 1, x[i]);
    const int64_t bin = above - edges.data() - 1;
    ++expected[bin < 0 ? bins : x[i] > edges[bins] ? bins + 1 : std::min(bin, bins - 1)];
  }
  c.describe("n %d bins %d low %a width %a", static_cast<int>(n), static_cast<int>(bins),
             static_cast<double>(low), static_cast<double>(width));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<int64_t> counts(bins, side), outside(2, side);
    for (int64_t i = 0; i < bins; ++i) counts[i] = i;
    outside[0] = bins;
    outside[1] = bins + 1;
    table.edge_histogram(x.data(), n, &args, counts.data(), outside.data());
    c.same_bytes("counts", expected.data(), counts.data(), bins, 8);
    c.same_bytes("outside", expected.data() + bins, outside.data(), 2, 8);
  });
}

// Values with few bits, whose sums a 128-bit integer holds.
void moments(Case& c) {
  Random& random = c.random;
  const int64_t n = random.chance(6) ? MOMENT_BLOCK : random.size(300);
  const int scale = static_cast<int>(random.between(-100, 100));
  const Guarded<float> x(n, random.side());
  __extension__ __int128 sum = 0, squares = 0;
  std::vector<float> below;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t mantissa = random.between(-(1 << 24) + 1, (1 << 24) - 1);
    const int shift = static_cast<int>(random.between(0, 20));
    x[i] = random.chance(20) ? random.one_of<float>({INFINITY, -INFINITY, NAN, 0.0f})
                             : ldexpf(static_cast<float>(mantissa), scale - shift);
    if (!isfinite(x[i])) continue;
    // The window reaches 2^16 below 2^(24 + scale).
    if (fabsf(x[i]) < ldexpf(1.0f, 8 + scale)) {
      if (x[i] != 0) below.push_back(x[i]);
      continue;
    }
    const int64_t whole = llrint(ldexp(static_cast<double>(x[i]), 20 - scale));
    sum += whole;
    squares += static_cast<__int128>(whole) * whole;
  }
  c.describe("n %d scale 2^%d", static_cast<int>(n), scale);
  c.each_table([&](const Kernels& table) {
    double sums[3];
    const Guarded<float> rest(n, Against::END);
    const int64_t left = table.moments(x.data(), n, ldexp(1.0, 24 + scale), sums, rest.data());
    const int64_t expected_left = static_cast<int64_t>(below.size());
    c.same_bytes("left", &expected_left, &left, 1, 8);
    const auto exact = [](double value, int exponent) {
      int power = 0;
      const int64_t whole = static_cast<int64_t>(ldexp(frexp(value, &power), 53));
      const int by = power - 53 + exponent;
      if (whole == 0) return static_cast<__int128>(0);  // whose power says nothing
      return by >= 0 ? whole * (static_cast<__int128>(1) << by)
                     : static_cast<__int128>(whole >> -by);
    };
    const __int128 expected[] = {sum, squares};
    const __int128 actual[] = {exact(sums[0], 20 - scale),
                               exact(sums[1], 40 - 2 * scale) + exact(sums[2], 40 - 2 * scale)};
    c.same_bytes("sums", expected, actual, 4, 8);
    c.same_floats("rest", below.data(), rest.data(), left);
  });
}

}  // namespace

std::vector<Check> statistics_checks() {
  return {{"edge_histogram", edge_histogram, 200, {LP_ENTRY(edge_histogram)}},
          {"moments", moments, 200, {LP_ENTRY(moments)}}};
}

}  // namespace lp::check
