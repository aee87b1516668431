// share_product.h: a product cut into pieces that the threads of the pool share.
//
// A piece is some rows and some panels of 64 output channels (kernels.h); a sum is never cut, so
// the bits do not depend on the cuts. Small products run whole on the calling thread.
#pragma once
#include "kernels/kernels.h"
#include "pack.h"
#include "threads.h"

namespace lp {

// rows x channels cut into row_parts x channel_parts pieces of at most `rows` x `channels`.
struct ProductGrid {
  int64_t row_parts, rows, channel_parts, channels;
  int64_t pieces() const { return row_parts * channel_parts; }
};
// The cut that keeps `threads` threads busy longest together. `row_align`: pieces begin at
// multiples of so many rows.
ProductGrid product_grid(int64_t rows, int64_t channels, int threads, int64_t row_align);

// A piece of a product, or the whole of it.
void run_product(Product product, const ProductArgs& args, const Piece& all);
void run_product(Depthwise product, const DepthwiseArgs& args, const Piece& all);
template <class Kernel, class Args>
void run_product(Kernel product, const Args& args) {
  run_product(product, args, whole(args));
}

// How many products of so many multiply-adds are worth handing to another thread together.
int64_t products_per_range(double macs);

// The products make(0), make(1) ... make(count - 1), all of one size: several at a time where they
// are many, else one after the other, each shared out.
template <class Make>
void run_products(Product product, int64_t count, const Make& make) {
  if (count == 0) return;
  const ProductArgs first = make(0);
  const double macs = static_cast<double>(first.images * first.rows * first.cols) *
                      static_cast<double>(first.n) *
                      static_cast<double>(first.runs * first.run_length);
  if (count < 2 * usable_threads()) {
    for (int64_t i = 0; i < count; ++i) run_product(product, make(i));
    return;
  }
  parallel_rows(count, products_per_range(macs), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ProductArgs args = make(i);
      const Piece piece = whole(args);
      product(&args, &piece);
    }
  });
}

// Calls pack(first channel, channels) for whole panels of weights of this depth.
template <class Pack>
void parallel_panels(int64_t n, int64_t depth, const Pack& pack) {
  parallel_rows(panels(n), grain_of_rows(PLAIN_GRAIN, PACK_PANEL * depth),
                [&](int64_t begin, int64_t end) {
                  const int64_t first = begin * PACK_PANEL;
                  pack(first, std::min(n, end * PACK_PANEL) - first);
                });
}

}  // namespace lp
