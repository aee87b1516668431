// shapes.h: draws where the rows of a product or a depthwise convolution are, and runs it in
// pieces.
#pragma once
#include <algorithm>
#include <vector>

#include "case.h"
#include "plain.h"

namespace lp::check {

// Row m = (image, y, x); `offsets` are those of the runs of a product, each of `length` elements,
// or of the taps of a depthwise convolution, `length` channels each.
struct Shape {
  int64_t images, rows, cols, n, length;
  int64_t src_image, src_row, src_col, dst_image, dst_row, dst_col;
  std::vector<int64_t> offsets;
  int64_t kernel_h = 0, kernel_w = 0;  // of a depthwise convolution

  int64_t count() const { return static_cast<int64_t>(offsets.size()); }
  int64_t depth() const { return count() * length; }
  int64_t m() const { return images * rows * cols; }
  int64_t src_extent() const {
    return (images - 1) * src_image + (rows - 1) * src_row + (cols - 1) * src_col +
           *std::max_element(offsets.begin(), offsets.end()) + length;
  }
  int64_t dst_extent() const {
    return (images - 1) * dst_image + (rows - 1) * dst_row + (cols - 1) * dst_col + n;
  }
};
Shape draw_product_shape(Case& c);
Shape draw_depthwise_shape(Case& c);

template <class Args>
Args place(const Shape& s, const Epilogue& e) {
  Args args{};
  args.images = s.images, args.rows = s.rows, args.cols = s.cols;
  args.src_image = s.src_image, args.src_row = s.src_row, args.src_col = s.src_col;
  args.dst_image = s.dst_image, args.dst_row = s.dst_row, args.dst_col = s.dst_col;
  args.epilogue = e;
  return args;
}
inline ProductArgs product_arguments(const Shape& s, const Epilogue& e) {
  ProductArgs args = place<ProductArgs>(s, e);
  args.run_offset = s.offsets.data(), args.runs = s.count(), args.run_length = s.length;
  args.n = s.n;
  return args;
}
inline DepthwiseArgs depthwise_arguments(const Shape& s, const Epilogue& e) {
  DepthwiseArgs args = place<DepthwiseArgs>(s, e);
  args.tap_offset = s.offsets.data(), args.taps = s.count();
  args.channels = s.n;
  return args;
}

struct Row {
  int64_t m, src, dst, residual;  // the number of the row; the offsets of its first elements
};
// Calls visit(Row) for every row in order.
template <class Visit>
void for_rows(const Shape& s, const Epilogue& e, Visit visit) {
  int64_t m = 0;
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t y = 0; y < s.rows; ++y) {
      for (int64_t x = 0; x < s.cols; ++x, ++m) {
        visit(Row{m, image * s.src_image + y * s.src_row + x * s.src_col,
                  image * s.dst_image + y * s.dst_row + x * s.dst_col,
                  image * e.residual_image + y * e.residual_row + x * e.residual_col});
      }
    }
  }
}

// Pieces that together are everything: rows cut anywhere, channels at multiples of 64.
std::vector<Piece> draw_pieces(Random& random, const Piece& all);

// Runs the entry of every table, whole or in pieces, and compares `dst` with expected(table), as
// many bytes as `size`, the gaps between rows included.
template <class Args, class Entry, class Expected>
void run_tables_for(Case& c, Entry Kernels::* entry, Args args, int64_t size, Expected expected) {
  const std::vector<Piece> pieces = draw_pieces(c.random, whole(args));
  const Against side = c.random.side();
  c.describe(", %d pieces", static_cast<int>(pieces.size()));
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> dst(size, side);
    args.dst = dst.data();
    for (const Piece& piece : pieces) (table.*entry)(&args, &piece);
    c.same_outputs("dst", args.epilogue.kind, expected(table), dst);
  });
}

// The same, where all tables agree.
template <class Args, class Entry>
void run_tables(Case& c, Entry Kernels::* entry, Args args, const Guarded<uint8_t>& expected) {
  run_tables_for(c, entry, args, expected.size(),
                 [&](const Kernels&) -> const Guarded<uint8_t>& { return expected; });
}

}  // namespace lp::check
