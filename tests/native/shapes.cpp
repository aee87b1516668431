// shapes.cpp: see shapes.h.
#include "shapes.h"

#include "pack.h"

namespace lp::check {
namespace {

void draw_matrices(Random& random, Shape& s) {
  const bool batched = random.chance(3);
  s.images = batched ? random.between(1, 3) : 1;
  s.rows = 1;
  s.cols = random.chance(4) ? random.between(1, 4) : random.size(140);
  s.length = random.chance(12) ? random.between(200, 700) : random.size(70);
  s.offsets = {random.chance(8) ? random.between(1, 9) : 0};
  s.src_col = s.length + (random.chance(2) ? 0 : random.between(1, 9));
  s.src_row = random.between(0, 100);
  s.src_image = random.chance(4) ? 0 : s.cols * s.src_col + random.between(0, 5);
}

void draw_convolution(Random& random, Shape& s) {
  const int64_t channels = random.size(40), kh = random.between(1, 4), kw = random.between(1, 4);
  const int64_t stride = random.between(1, 2), dilation = random.chance(4) ? 2 : 1;
  s.images = random.between(1, 2);
  s.rows = random.between(1, 5);
  s.cols = random.between(1, 12);
  const int64_t width = (s.cols - 1) * stride + (kw - 1) * dilation + 1 + random.between(0, 2);
  const int64_t line = width * channels + random.between(0, 5);
  const bool together = dilation == 1;
  s.length = together ? kw * channels : channels;
  for (int64_t y = 0; y < kh; ++y) {
    for (int64_t x = 0; x < (together ? 1 : kw); ++x) {
      s.offsets.push_back(y * line * dilation + x * dilation * channels);
    }
  }
  s.src_col = stride * channels;
  s.src_row = stride * line;
  s.src_image = (s.rows * stride + kh * dilation) * line;
}

void draw_destination(Random& random, Shape& s, int64_t widest_gap) {
  s.dst_col = s.n + (random.chance(2) ? 0 : random.between(1, widest_gap));
  s.dst_row = s.cols * s.dst_col + random.between(0, 3);
  s.dst_image = s.rows * s.dst_row + random.between(0, 3);
}

void describe(Case& c, const Shape& s) {
  const auto number = [](int64_t x) { return static_cast<int>(x); };
  c.describe("images %d rows %d cols %d n %d, %d x %d, src strides %d %d %d, dst %d %d %d",
             number(s.images), number(s.rows), number(s.cols), number(s.n), number(s.count()),
             number(s.length), number(s.src_image), number(s.src_row), number(s.src_col),
             number(s.dst_image), number(s.dst_row), number(s.dst_col));
}

}  // namespace

Shape draw_product_shape(Case& c) {
  Shape s;
  if (c.random.chance(3)) {
    draw_convolution(c.random, s);
  } else {
    draw_matrices(c.random, s);
  }
  s.n = c.random.chance(8) ? c.random.between(129, 300) : c.random.size(130);
  draw_destination(c.random, s, 70);
  describe(c, s);
  return s;
}

Shape draw_depthwise_shape(Case& c) {
  Random& random = c.random;
  Shape s;
  s.n = s.length = random.chance(4) ? 16 * random.between(1, 4) : random.size(150);
  s.images = random.between(1, 2);
  s.rows = random.between(1, 6);
  s.cols = random.chance(8) ? random.between(30, 90) : random.between(1, 19);
  // Square filters of odd sizes have kernels of their own.
  const int64_t square = random.chance(2) ? 0 : random.chance(2) ? 3 : 5;
  const int64_t kh = s.kernel_h = square > 0 ? square : random.between(1, 5);
  const int64_t kw = s.kernel_w = square > 0 ? square : random.between(1, 5);
  const int64_t stride = random.between(1, 3), dilation = random.chance(4) ? 2 : 1;
  const int64_t row_stride = random.chance(2) ? stride : random.between(1, 2);
  const int64_t pixel = s.n + (random.chance(2) ? 0 : random.between(1, 7));
  const int64_t width = (s.cols - 1) * stride + (kw - 1) * dilation + 1 + random.between(0, 2);
  for (int64_t y = 0; y < kh; ++y) {
    for (int64_t x = 0; x < kw; ++x) s.offsets.push_back((y * width + x) * dilation * pixel);
  }
  s.src_col = stride * pixel;
  s.src_row = row_stride * width * pixel;
  s.src_image = (s.rows * row_stride + kh * dilation) * width * pixel;
  draw_destination(random, s, 3);
  describe(c, s);
  return s;
}

std::vector<Piece> draw_pieces(Random& random, const Piece& all) {
  if (random.chance(2)) return {all};
  std::vector<Piece> pieces;
  for (int64_t row = 0; row < all.row_end;) {
    const int64_t row_end = std::min(all.row_end, row + random.size(all.row_end));
    for (int64_t n = 0; n < all.n_end;) {
      const int64_t n_end = std::min(all.n_end, n + PACK_PANEL * random.between(1, 3));
      pieces.push_back({row, row_end, n, n_end});
      n = n_end;
    }
    row = row_end;
  }
  return pieces;
}

}  // namespace lp::check
