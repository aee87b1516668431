// share_product.cpp: see share_product.h.
#include "share_product.h"

namespace lp {
namespace {

constexpr int64_t PANEL = 64;
constexpr int64_t ENOUGH_ROWS = 8;  // times the tile's, for each thread
constexpr int64_t TILE_ROWS = 4;    // pieces begin at a multiple of the int8 tile's rows

// Handing work over costs 0.3 us to threads that spin, 5 to 20 us to threads asleep; a thread
// does about 100 multiply-adds in a nanosecond.
constexpr double LEAST_AWAKE = 100e3, LEAST_ASLEEP = 4e6, LEAST_PER_THREAD = 50e3;

int threads_for(double macs) {
  if (macs < LEAST_AWAKE) return 1;
  const int threads = usable_threads();
  if (threads == 1 || (macs < LEAST_ASLEEP && !threads_are_awake())) return 1;
  const double most = macs / LEAST_PER_THREAD;
  return most < threads ? static_cast<int>(most) : threads;
}

int64_t cut(int64_t size, int64_t parts, int64_t align) {
  const int64_t part = (size + parts - 1) / parts;
  return (part + align - 1) / align * align;
}

template <class Kernel, class Args>
void run_grid(Kernel kernel, const Args& args, const Piece& all, const ProductGrid& grid) {
  // A thread takes neighbouring pieces: the longer side is the one that is walked last.
  const bool by_rows = grid.row_parts >= grid.channel_parts;
  parallel_tasks(grid.pieces(), [&](int64_t i) {
    const int64_t row = by_rows ? i / grid.channel_parts : i % grid.row_parts;
    const int64_t channel = by_rows ? i % grid.channel_parts : i / grid.row_parts;
    Piece piece;
    piece.row_begin = all.row_begin + row * grid.rows;
    piece.row_end = std::min(all.row_end, piece.row_begin + grid.rows);
    piece.n_begin = all.n_begin + channel * grid.channels;
    piece.n_end = std::min(all.n_end, piece.n_begin + grid.channels);
    kernel(&args, &piece);
  });
}

}  // namespace

ProductGrid product_grid(int64_t rows, int64_t channels, int threads, int64_t row_align) {
  // Several pieces a thread: one that is held up leaves the rest of its share to the others.
  constexpr int64_t PIECES_PER_THREAD = 4;
  // Weights are read once a piece, which costs as much as some more rows of it would.
  constexpr int64_t ROWS_PER_READING = 4;
  // Where rows are enough they alone are cut: then a thread reads in the next step what it wrote in
  // this one, and lines of memory do not move between processors (which can cost more than it
  // gains).
  const bool only_rows = rows >= ENOUGH_ROWS * row_align * threads;
  const int64_t panels = only_rows ? 1 : (channels + PANEL - 1) / PANEL;
  ProductGrid best = {1, rows, 1, channels};
  double best_cost = 0.0;
  for (int64_t wanted = 1; wanted <= PIECES_PER_THREAD; ++wanted) {
    for (int64_t channel_parts = 1; channel_parts <= std::min(panels, wanted * threads);
         channel_parts += channel_parts < 8 ? 1 : channel_parts / 4) {
      const int64_t row_parts = (wanted * threads + channel_parts - 1) / channel_parts;
      ProductGrid grid;
      grid.rows = cut(rows, row_parts, row_align);
      grid.row_parts = (rows + grid.rows - 1) / grid.rows;
      grid.channels = cut(channels, channel_parts, PANEL);  // one part: all of them
      grid.channel_parts = (channels + grid.channels - 1) / grid.channels;
      const int64_t turns = (grid.pieces() + threads - 1) / threads;
      const double work =
          static_cast<double>(turns * (grid.rows + ROWS_PER_READING) * (grid.channels / PANEL));
      const double held_up = 1.0 + 0.1 * threads / static_cast<double>(grid.pieces());
      if (best_cost == 0.0 || work * held_up < best_cost) {
        best_cost = work * held_up;
        best = grid;
      }
    }
  }
  return best;
}

int64_t products_per_range(double macs) {
  return macs >= LEAST_AWAKE ? 1 : static_cast<int64_t>(LEAST_AWAKE / std::max(macs, 1.0));
}

void run_product(Product product, const ProductArgs& args, const Piece& all) {
  const int64_t rows = all.row_end - all.row_begin, channels = all.n_end - all.n_begin;
  if (rows <= 0 || channels <= 0) return;  // kernels divide by the rows of an image
  const int threads = threads_for(static_cast<double>(rows) * static_cast<double>(channels) *
                                  static_cast<double>(args.runs * args.run_length));
  if (threads <= 1) return product(&args, &all);
  run_grid(product, args, all, product_grid(rows, channels, threads, TILE_ROWS));
}

void run_product(Depthwise product, const DepthwiseArgs& args, const Piece& all) {
  const int64_t lines = all.row_end - all.row_begin, channels = all.n_end - all.n_begin;
  if (lines <= 0 || channels <= 0) return;
  // What a multiply-add costs, a product's being 1: codes with kernels of their own (3x3, 5x5),
  // other codes, floats.
  const double cost = args.weights_by_columns != nullptr ? 2.0 : args.weights_by_four ? 3.0 : 10.0;
  const int threads = threads_for(cost * static_cast<double>(lines * args.cols) *
                                  static_cast<double>(channels) * static_cast<double>(args.taps));
  if (threads <= 1) return product(&args, &all);
  // Two lines share what they read of the image (depthwise_columns_avx512vnni.inl).
  run_grid(product, args, all, product_grid(lines, channels, threads, 2));
}

}  // namespace lp
