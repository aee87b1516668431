// pools.cpp: windows over channels-last images, and weighted sums of rows.
#include "case.h"
#include "plain.h"

namespace lp::check {
namespace {

PoolArgs draw_pool(Case& c, bool average) {
  Random& random = c.random;
  PoolArgs p{};
  p.images = random.between(1, 2);
  p.height = random.between(1, 9), p.width = random.between(1, 9);
  p.channels = random.size(140);
  p.kernel_h = random.between(1, 4), p.kernel_w = random.between(1, 4);
  p.stride_h = random.between(1, 3), p.stride_w = random.between(1, 3);
  p.dilation_h = random.between(1, 2), p.dilation_w = random.between(1, 2);
  p.pad_top = random.between(0, p.kernel_h - 1), p.pad_left = random.between(0, p.kernel_w - 1);
  p.pad_bottom = random.between(0, 2), p.pad_right = random.between(0, 2);
  p.count_padding = average && random.chance(2);
  p.out_height = random.between(1, 5), p.out_width = random.between(1, 5);
  c.describe(
      "images %d %d x %d x %d kernel %d x %d stride %d %d dilation %d %d pads %d %d %d %d "
      "count padding %d out %d x %d",
      static_cast<int>(p.images), static_cast<int>(p.height), static_cast<int>(p.width),
      static_cast<int>(p.channels), static_cast<int>(p.kernel_h), static_cast<int>(p.kernel_w),
      static_cast<int>(p.stride_h), static_cast<int>(p.stride_w), static_cast<int>(p.dilation_h),
      static_cast<int>(p.dilation_w), static_cast<int>(p.pad_top), static_cast<int>(p.pad_left),
      static_cast<int>(p.pad_bottom), static_cast<int>(p.pad_right), p.count_padding,
      static_cast<int>(p.out_height), static_cast<int>(p.out_width));
  return p;
}

// Calls body(output index, image, y, x, channel) for every output.
template <class Body>
void for_outputs(const PoolArgs& p, Body body) {
  int64_t at = 0;
  for (int64_t image = 0; image < p.images; ++image)
    for (int64_t y = 0; y < p.out_height; ++y)
      for (int64_t x = 0; x < p.out_width; ++x)
        for (int64_t channel = 0; channel < p.channels; ++channel) body(at++, image, y, x, channel);
}

// Calls tap(source index) for taps inside the image; returns how many an average counts.
template <class Tap>
int64_t for_taps(const PoolArgs& p, int64_t image, int64_t y, int64_t x, int64_t channel, Tap tap) {
  int64_t counted = 0;
  for (int64_t kh = 0; kh < p.kernel_h; ++kh) {
    for (int64_t kw = 0; kw < p.kernel_w; ++kw) {
      const int64_t row = y * p.stride_h - p.pad_top + kh * p.dilation_h;
      const int64_t col = x * p.stride_w - p.pad_left + kw * p.dilation_w;
      const bool inside = row >= 0 && row < p.height && col >= 0 && col < p.width;
      const bool padded = row >= -p.pad_top && row < p.height + p.pad_bottom &&
                          col >= -p.pad_left && col < p.width + p.pad_right;
      counted += p.count_padding ? padded : inside;
      if (inside) tap(((image * p.height + row) * p.width + col) * p.channels + channel);
    }
  }
  return counted;
}

template <class T, void (*Kernels::*entry)(const PoolArgs*)>
void max_pool(Case& c) {
  Random& random = c.random;
  PoolArgs p = draw_pool(c, false);
  const Guarded<T> x(p.images * p.height * p.width * p.channels, random.side());
  if constexpr (sizeof(T) == 1) {
    random.fill_codes(x);
  } else {
    random.fill(x, 5.0f, random.chance(2) ? 10 : 0);
  }
  const Guarded<T> expected(p.images * p.out_height * p.out_width * p.channels, Against::END);
  for_outputs(p, [&](int64_t at, int64_t image, int64_t row, int64_t col, int64_t channel) {
    T most = sizeof(T) == 1 ? static_cast<T>(T(-1) < T(0) ? -128 : 0) : static_cast<T>(-INFINITY);
    for_taps(p, image, row, col, channel, [&](int64_t i) {
      if (most == most && !(most > x[i])) most = x[i];
    });
    expected[at] = most;
  });
  p.src = x.data();
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<T> y(expected.size(), side);
    p.dst = y.data();
    (table.*entry)(&p);
    c.same("y", expected, y);
  });
}

void average_pool_f32(Case& c) {
  Random& random = c.random;
  PoolArgs p = draw_pool(c, true);
  const Guarded<float> x(p.images * p.height * p.width * p.channels, random.side());
  random.fill(x, 5.0f, random.chance(4) ? 30 : 0);
  const Guarded<float> expected(p.images * p.out_height * p.out_width * p.channels, Against::END);
  for_outputs(p, [&](int64_t at, int64_t image, int64_t row, int64_t col, int64_t channel) {
    float sum = 0.0f;
    const int64_t counted =
        for_taps(p, image, row, col, channel, [&](int64_t i) { sum = sum + x[i]; });
    expected[at] = sum / static_cast<float>(counted);
  });
  p.src = x.data();
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(expected.size(), side);
    p.dst = y.data();
    table.average_pool_f32(&p);
    c.same("y", expected, y);
  });
}

// bf16 windows are those of the widened pixels, the result rounded. No NaN: of two that meet in a
// sum, either may give the sign.
template <void (*Kernels::*entry)(const PoolArgs*), bool AVERAGE>
void pool_bf16(Case& c) {
  Random& random = c.random;
  PoolArgs p = draw_pool(c, AVERAGE);
  const int64_t pixels = p.images * p.height * p.width * p.channels;
  const Guarded<float> drawn(pixels, Against::END);
  const Guarded<uint16_t> x(pixels, random.side());
  random.fill(drawn, 5.0f, 0);
  for (int64_t i = 0; i < pixels; ++i) x[i] = plain_bf16(drawn[i]);
  const Guarded<uint16_t> expected(p.images * p.out_height * p.out_width * p.channels,
                                   Against::END);
  for_outputs(p, [&](int64_t at, int64_t image, int64_t row, int64_t col, int64_t channel) {
    float result = AVERAGE ? 0.0f : -INFINITY;
    const int64_t counted = for_taps(p, image, row, col, channel, [&](int64_t i) {
      const float tap = plain_from_bf16(x[i]);
      result = AVERAGE ? result + tap : result > tap ? result : tap;
    });
    // No tap at all: the average is NaN.
    expected[at] = AVERAGE && counted == 0
                       ? uint16_t{0xFFC0}
                       : plain_bf16(AVERAGE ? result / static_cast<float>(counted) : result);
  });
  p.src = x.data();
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint16_t> y(expected.size(), side);
    p.dst = y.data();
    (table.*entry)(&p);
    for (int64_t i = 0; i < y.size(); ++i) {  // the sign of a NaN is the machine's choice
      if (expected[i] == 0xFFC0 && y[i] == 0x7FC0) y[i] = 0xFFC0;
    }
    c.same("y", expected, y);
  });
}

void blend(Case& c) {
  Random& random = c.random;
  const int64_t n = random.size(140), taps = random.between(0, 9);
  const Guarded<float> x(taps * n, random.side()), weights(taps, random.side());
  random.fill(x, 3.0f, random.chance(3) ? 30 : 0);
  random.fill(weights, 1.0f, 0);
  std::vector<const float*> sources;
  for (int64_t t = 0; t < taps; ++t) sources.push_back(x.data() + t * n);
  const Guarded<float> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int64_t t = 0; t < taps; ++t) sum = fmaf(x[t * n + i], weights[t], sum);
    expected[i] = sum;
  }
  c.describe("n %d taps %d", static_cast<int>(n), static_cast<int>(taps));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(n, side);
    table.blend(sources.data(), weights.data(), taps, y.data(), n);
    c.same("y", expected, y);
  });
}

}  // namespace

std::vector<Check> pool_checks() {
  using K = Kernels;
  return {{"max_pool_f32", max_pool<float, &K::max_pool_f32>, 80, {LP_ENTRY(max_pool_f32)}},
          {"max_pool_bf16", pool_bf16<&K::max_pool_bf16, false>, 80, {LP_ENTRY(max_pool_bf16)}},
          {"average_pool_bf16",
           pool_bf16<&K::average_pool_bf16, true>,
           80,
           {LP_ENTRY(average_pool_bf16)}},
          {"max_pool_u8", max_pool<uint8_t, &K::max_pool_u8>, 80, {LP_ENTRY(max_pool_u8)}},
          {"max_pool_s8", max_pool<int8_t, &K::max_pool_s8>, 80, {LP_ENTRY(max_pool_s8)}},
          {"average_pool_f32", average_pool_f32, 80, {LP_ENTRY(average_pool_f32)}},
          {"blend", blend, 100, {LP_ENTRY(blend)}}};
}

}  // namespace lp::check
