// product.inl: the driver of all products (matrix product, convolution by runs).
//
//   for each block of rows that stays in the second-level cache        (MC rows)
//     for each panel of 64 output channels                             (packed B is streamed)
//       for each tile of MR rows                                       (the ISA's microkernel)
//
// A microkernel type provides: Element (of A), Weight (of B), Bias; tile_rows(vectors) = the
// largest MR; and run(rows, a, dst, ...). K is never split, so a sum has one order.

namespace {

constexpr int64_t PANEL = 64;
constexpr int64_t BLOCK_ROWS = 128;
constexpr int64_t BLOCK_BYTES = 192 * 1024;

struct Panel {
  const void* weights;
  const void* bias;
  int64_t n0;   // first output channel
  int columns;  // 1..64
};

template <class Micro>
LP_INLINE void product(const lp::ProductArgs& args, const lp::Piece& piece) {
  using Element = typename Micro::Element;
  const int64_t depth = Micro::padded_depth(args);  // elements of one packed column
  const int64_t row_bytes = args.runs * args.run_length * static_cast<int64_t>(sizeof(Element));
  int64_t block = row_bytes > 0 ? BLOCK_BYTES / row_bytes : BLOCK_ROWS;
  block = block < 8 ? 8 : block > BLOCK_ROWS ? BLOCK_ROWS : block / 8 * 8;

  const Element* source[BLOCK_ROWS];
  uint8_t* target[BLOCK_ROWS];
  const int64_t out_bytes = output_bytes(args.epilogue);
  RowWalk walk = RowWalk::at_row(args, piece.row_begin);
  for (int64_t m0 = piece.row_begin; m0 < piece.row_end; m0 += block) {
    const int64_t rows = piece.row_end - m0 < block ? piece.row_end - m0 : block;
    for (int64_t i = 0; i < rows; ++i, walk.step()) {
      source[i] = static_cast<const Element*>(args.src) + walk.src(args);
      target[i] = static_cast<uint8_t*>(args.dst) + walk.dst(args) * out_bytes;
    }
    for (int64_t n0 = piece.n_begin; n0 < piece.n_end; n0 += PANEL) {
      Panel panel;
      panel.columns = static_cast<int>(piece.n_end - n0 < PANEL ? piece.n_end - n0 : PANEL);
      panel.weights = static_cast<const typename Micro::Weight*>(args.packed) + n0 * depth;
      panel.bias = static_cast<const typename Micro::Bias*>(args.bias) + n0;
      panel.n0 = n0;
      uint8_t* shifted[BLOCK_ROWS];
      for (int64_t i = 0; i < rows; ++i) shifted[i] = target[i] + n0 * out_bytes;
      Micro::rows(args, panel, source, shifted, static_cast<int>(rows));
    }
  }
}

}  // namespace
