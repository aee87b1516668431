// depthwise.cpp: one filter per channel.
#include <algorithm>

#include "case.h"
#include "epilogues.h"
#include "pack.h"
#include "plain.h"

namespace lp::check {
namespace {

struct Shape {
  int64_t images, rows, cols, channels;
  int64_t src_image, src_row, src_col, dst_image, dst_row, dst_col;
  std::vector<int64_t> offsets;

  int64_t taps() const { return static_cast<int64_t>(offsets.size()); }
  int64_t src_extent() const {
    return (images - 1) * src_image + (rows - 1) * src_row + (cols - 1) * src_col +
           *std::max_element(offsets.begin(), offsets.end()) + channels;
  }
  int64_t dst_extent() const {
    return (images - 1) * dst_image + (rows - 1) * dst_row + (cols - 1) * dst_col + channels;
  }
};

Shape draw_shape(Case& c) {
  Random& random = c.random;
  Shape s;
  s.channels = random.size(150);
  s.images = random.between(1, 2);
  s.rows = random.between(1, 4);
  s.cols = random.between(1, 19);
  const int64_t kh = random.between(1, 5), kw = random.between(1, 5);
  const int64_t stride = random.between(1, 2), dilation = random.chance(4) ? 2 : 1;
  const int64_t pixel = s.channels + (random.chance(2) ? 0 : random.between(1, 7));
  const int64_t width = (s.cols - 1) * stride + (kw - 1) * dilation + 1 + random.between(0, 2);
  for (int64_t y = 0; y < kh; ++y) {
    for (int64_t x = 0; x < kw; ++x) s.offsets.push_back((y * width + x) * dilation * pixel);
  }
  s.src_col = stride * pixel;
  s.src_row = stride * width * pixel;
  s.src_image = (s.rows * stride + kh * dilation) * width * pixel;
  s.dst_col = s.channels + random.between(0, 3);
  s.dst_row = s.cols * s.dst_col + random.between(0, 3);
  s.dst_image = s.rows * s.dst_row + random.between(0, 3);
  c.describe("images %d rows %d cols %d channels %d kernel %d x %d stride %d dilation %d pixel %d",
             static_cast<int>(s.images), static_cast<int>(s.rows), static_cast<int>(s.cols),
             static_cast<int>(s.channels), static_cast<int>(kh), static_cast<int>(kw),
             static_cast<int>(stride), static_cast<int>(dilation), static_cast<int>(pixel));
  return s;
}

DepthwiseArgs arguments(const Shape& s, const Epilogue& e) {
  DepthwiseArgs args{};
  args.images = s.images, args.rows = s.rows, args.cols = s.cols;
  args.src_image = s.src_image, args.src_row = s.src_row, args.src_col = s.src_col;
  args.dst_image = s.dst_image, args.dst_row = s.dst_row, args.dst_col = s.dst_col;
  args.tap_offset = s.offsets.data();
  args.taps = s.taps();
  args.channels = s.channels;
  args.epilogue = e;
  return args;
}

// Calls visit(source offset, destination offset, row) for every pixel.
template <class Visit>
void for_pixels(const Shape& s, Visit visit) {
  int64_t m = 0;
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t y = 0; y < s.rows; ++y) {
      for (int64_t x = 0; x < s.cols; ++x, ++m) {
        visit(image * s.src_image + y * s.src_row + x * s.src_col,
              image * s.dst_image + y * s.dst_row + x * s.dst_col, m);
      }
    }
  }
}

void run_tables(Case& c, Depthwise Kernels::* entry, DepthwiseArgs args, const Shape& s,
                const Guarded<uint8_t>& expected) {
  const Piece all = whole(args);
  std::vector<Piece> pieces = {all};
  if (c.random.chance(2)) {
    const int64_t row = c.random.between(0, all.row_end);
    const int64_t channel = c.random.between(0, all.n_end / 64) * 64;
    pieces = {{0, row, 0, channel},
              {row, all.row_end, 0, channel},
              {0, row, channel, all.n_end},
              {row, all.row_end, channel, all.n_end}};
  }
  const Against side = c.random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> dst(expected.size(), side);
    args.dst = dst.data();
    for (const Piece& piece : pieces) (table.*entry)(&args, &piece);
    if (args.epilogue.kind != OUT_F32) return c.same("dst", expected, dst);
    c.same_floats("dst", reinterpret_cast<const float*>(expected.data()),
                  reinterpret_cast<const float*>(dst.data()), s.dst_extent());
  });
}

void depthwise_u8s8(Case& c) {
  const Shape s = draw_shape(c);
  Random& random = c.random;
  const int64_t wide = padded_channels(s.channels), taps = s.taps();
  const Guarded<uint8_t> a(s.src_extent(), random.side(), 63);
  random.fill_codes(a);
  const Guarded<int8_t> drawn(taps * s.channels, Against::END);
  random.fill_codes(drawn);
  const Guarded<int8_t> w(taps * wide, random.side());
  for (int64_t i = 0; i < w.size(); ++i) {
    w[i] = i % wide < s.channels ? drawn[i / wide * s.channels + i % wide] : int8_t{0};
  }
  const Guarded<int8_t> by_four(wide * ((taps + 3) / 4) * 4, random.side());
  pack_depthwise_by_four(w.data(), s.channels, taps, by_four.data());
  const Guarded<int32_t> bias(wide, random.side());
  for (int64_t i = 0; i < wide; ++i) bias[i] = static_cast<int32_t>(random.between(-90000, 90000));
  EpilogueDraw epilogue(c, true, s.channels, 255.0f * 64.0f * static_cast<float>(taps));
  epilogue.settle_fast(c, 9e4 + 255.0 * 128.0 * static_cast<double>(taps));

  DepthwiseArgs args = arguments(s, epilogue.get());
  args.src = a.data();
  args.weights = w.data();
  args.weights_by_four = by_four.data();
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_pixels(s, [&](int64_t src, int64_t dst, int64_t m) {
    for (int64_t n = 0; n < s.channels; ++n) {
      int32_t acc = bias[n];
      for (int64_t t = 0; t < taps; ++t) {
        acc += a[src + s.offsets[static_cast<size_t>(t)] + n] * w[t * wide + n];
      }
      plain_finish_s32(c.scalar(), acc, n, m, args.epilogue, expected.data() + (dst + n) * out);
    }
  });
  run_tables(c, &Kernels::depthwise_u8s8, args, s, expected);
}

void depthwise_f32(Case& c) {
  const Shape s = draw_shape(c);
  Random& random = c.random;
  const int64_t wide = padded_channels(s.channels), taps = s.taps();
  const Guarded<float> a(s.src_extent(), random.side()), w(taps * wide, random.side());
  const Guarded<float> bias(wide, random.side());
  const int odd = random.chance(4) ? 200 : 0;
  random.fill(a, 2.0f, odd);
  random.fill(w, 2.0f, odd);
  random.fill(bias, 2.0f, odd);
  EpilogueDraw epilogue(c, false, s.channels, 1.0f);

  DepthwiseArgs args = arguments(s, epilogue.get());
  args.src = a.data();
  args.weights = w.data();
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_pixels(s, [&](int64_t src, int64_t dst, int64_t m) {
    for (int64_t n = 0; n < s.channels; ++n) {
      float acc = 0.0f;
      for (int64_t t = 0; t < taps; ++t) {
        acc = fmaf(a[src + s.offsets[static_cast<size_t>(t)] + n], w[t * wide + n], acc);
      }
      plain_finish_f32(c.scalar(), acc + bias[n], n, m, args.epilogue,
                       expected.data() + (dst + n) * out);
    }
  });
  run_tables(c, &Kernels::depthwise_f32, args, s, expected);
}

}  // namespace

std::vector<Check> depthwise_checks() {
  return {{"depthwise_u8s8", depthwise_u8s8, 120, {LP_ENTRY(depthwise_u8s8)}},
          {"depthwise_f32", depthwise_f32, 80, {LP_ENTRY(depthwise_f32)}}};
}

}  // namespace lp::check
