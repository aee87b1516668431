// joined_pixels.cpp: weights for several pixels of a convolution at once.
#include "engine/joined_pixels.h"

#include <algorithm>

namespace lp {

namespace {

constexpr int64_t PANEL = 64, LANES = 16;

int64_t joined_kernel(const Geometry& g, int64_t pixels) {
  return g.w.kernel + (pixels - 1) * g.w.stride;
}

// Cycles for one pixel: a vector of products for each four codes and 16 columns, and what a row
// costs besides (measured: about 20, and 5 for each of its vectors).
double cost(const Geometry& g, int64_t pixels) {
  const int64_t vectors = (pixels * g.out_channels + LANES - 1) / LANES;
  const int64_t steps = g.h.kernel * ((joined_kernel(g, pixels) * g.channels + 3) / 4);
  return static_cast<double>(steps * vectors + 20 + 5 * vectors) / static_cast<double>(pixels);
}

}  // namespace

int64_t pixels_to_join(const Geometry& g) {
  if (g.groups != 1 || g.w.dilation != 1 || g.out_channels > PANEL / 2) return 1;
  int64_t best = 1;
  const int64_t most = std::min(PANEL / g.out_channels, std::min<int64_t>(LANES, g.w.out));
  for (int64_t pixels = 2; pixels <= most; ++pixels) {
    if (cost(g, pixels) < 0.95 * cost(g, best)) best = pixels;
  }
  return best;
}

std::shared_ptr<JoinedPixels> join_pixels(const Node& node, const std::vector<int8_t>& last,
                                          const Geometry& g, const Packed& one) {
  auto made = std::make_shared<JoinedPixels>();
  made->pixels = pixels_to_join(g);
  if (made->pixels == 1) return made;
  Geometry joined = g;
  joined.out_channels = made->pixels * g.out_channels;
  joined.w.kernel = joined_kernel(g, made->pixels);
  made->run_length = joined.w.kernel * g.channels;

  const int64_t run = g.w.kernel * g.channels;
  std::vector<int8_t> weights(
      static_cast<size_t>(joined.out_channels * g.h.kernel * made->run_length), 0);
  for (int64_t pixel = 0; pixel < made->pixels; ++pixel) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      for (int64_t y = 0; y < g.h.kernel; ++y) {
        const auto from = last.begin() + (o * g.h.kernel + y) * run;
        const int64_t row = (pixel * g.out_channels + o) * g.h.kernel + y;
        std::copy(from, from + run,
                  weights.begin() + row * made->run_length + pixel * g.w.stride * g.channels);
      }
    }
  }
  Packed& packed = made->packed;
  pack_s8_weights(packed, node, weights, joined, false, true);
  const auto repeat = [&](const auto& values, auto& result) {
    if (values.empty()) return;
    result.assign(static_cast<size_t>(padded_channels(joined.out_channels)), 0);
    for (int64_t i = 0; i < joined.out_channels; ++i) {
      result[static_cast<size_t>(i)] = values[static_cast<size_t>(i % g.out_channels)];
    }
  };
  repeat(one.bias_s32, packed.bias_s32);
  repeat(one.multiplier, packed.multiplier);
  repeat(one.addend, packed.addend);
  packed.zero_point = one.zero_point;
  packed.exact = one.exact;
  packed.fast = one.fast;
  packed.largest = one.largest;
  return made;
}

}  // namespace lp
