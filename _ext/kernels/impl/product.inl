// product.inl: the driver of the float products (matrix product, convolution by runs).
//
//   for each block of rows that stays in the second-level cache        (BLOCK_ROWS at most)
//     for each panel of 64 output channels                             (packed B is streamed)
//       Micro::rows: tiles of some rows times the panel                (the ISA's microkernel)
//
// A microkernel is a type with Element (of A and B), padded_depth(args) = elements of one packed
// column, and rows(args, panel, rows); where FEW_ROWS > 0, few_rows(...) does so few rows times
// four panels at a time. K is never split, so a sum has one order.

namespace {

constexpr int64_t PANEL = 64;
constexpr int64_t BLOCK_BYTES = 192 * 1024;

template <class Element>
struct Panel {
  const Element* weights;
  const float* bias;
  int64_t n0;     // first output channel
  int columns;    // 1..64
  int64_t n_end;  // of all channels there are to do
};

// The panel `count` further on; only its outputs are of interest.
template <class Element>
LP_INLINE Panel<Element> part(const Panel<Element>& panel, int64_t count) {
  const int64_t n0 = panel.n0 + count * PANEL, left = panel.n_end - n0;
  return {nullptr, panel.bias + count * PANEL, n0, static_cast<int>(left < PANEL ? left : PANEL),
          panel.n_end};
}

template <class Element>
struct Rows : RowBlock {
  const Element* source[BLOCK_ROWS];
};

// Calls visit(height, first) for tiles of at most MOST rows, as equal as they can be: 7 rows are
// 4 and 3. The height is a type, height::value.
template <int N>
struct Height {
  static constexpr int value = N;
};
template <int N, class Visit>
LP_INLINE void with_height(int height, int first, Visit visit) {
  if constexpr (N > 1) {
    if (height < N) return with_height<N - 1>(height, first, visit);
  }
  visit(Height<N>(), first);
}
template <int MOST, class Visit>
LP_INLINE void split_rows(int count, Visit visit) {
  int first = 0;
  for (int tiles = (count + MOST - 1) / MOST; tiles > 0; --tiles) {
    const int height = (count - first + tiles - 1) / tiles;
    with_height<MOST>(height, first, visit);
    first += height;
  }
}

// Micro::FEW_ROWS, or 0.
template <class Micro>
constexpr auto few_rows_of(int) -> decltype(Micro::FEW_ROWS) {
  return Micro::FEW_ROWS;
}
template <class Micro>
constexpr int few_rows_of(long) {
  return 0;
}

// Blocks are multiples of STEP rows, except for the last one.
template <class Micro, int STEP = 8>
LP_INLINE void product(const lp::ProductArgs& args, const lp::Piece& piece) {
  using Element = typename Micro::Element;
  const int64_t depth = Micro::padded_depth(args);
  const int64_t row_bytes = args.runs * args.run_length * static_cast<int64_t>(sizeof(Element));
  int64_t most = row_bytes > 0 ? BLOCK_BYTES / row_bytes : BLOCK_ROWS;
  most = most < STEP ? STEP : most > BLOCK_ROWS ? BLOCK_ROWS : most / STEP * STEP;

  Rows<Element> rows;
  RowWalk walk = RowWalk::at_row(args, piece.row_begin);
  for (rows.m0 = piece.row_begin; rows.m0 < piece.row_end; rows.m0 += rows.count) {
    const int64_t left = piece.row_end - rows.m0;
    rows.count = static_cast<int>(left < most ? left : most);
    place_rows<Element>(args, walk, rows);
    for (int64_t n0 = piece.n_begin; n0 < piece.n_end; n0 += PANEL) {
      const int columns = static_cast<int>(piece.n_end - n0 < PANEL ? piece.n_end - n0 : PANEL);
      const Panel<Element> panel = {static_cast<const Element*>(args.packed) + n0 * depth,
                                    static_cast<const float*>(args.bias) + n0, n0, columns,
                                    piece.n_end};
      if constexpr (few_rows_of<Micro>(0) > 0) {
        if (rows.count <= few_rows_of<Micro>(0) && piece.n_end - n0 > 3 * PANEL) {
          Micro::few_rows(args, panel, rows);
          n0 += 3 * PANEL;
          continue;
        }
      }
      Micro::rows(args, panel, rows);
    }
  }
}

}  // namespace
