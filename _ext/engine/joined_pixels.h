// joined_pixels.h: convolutions with few output channels, several pixels at a time.
//
// A product computes whole vectors of 16 columns and pays something for each of its rows: an RGB
// image to ten channels leaves half of the work unused. So `pixels` neighbours along a line are one
// row of the product, their channels side by side as they lie in memory:
//
//     input line   a b c d e ..        pixel 0 sees  a b c .        one run: a b c d,
//     3x1 kernel                       pixel 1 sees  . b c d        with weights of zero for "."
//
// The sums are the same integers.
#pragma once
#include "engine/product.h"

namespace lp {

struct JoinedPixels : Prepared {
  int64_t pixels = 1;  // 1: not worth it
  int64_t run_length = 0;
  Packed packed;
};

// How many pixels of such a convolution of codes are computed best as one.
int64_t pixels_to_join(const Geometry& g);
// `last`: from channels_last_weights; `one`: everything of the channels, as for one pixel.
std::shared_ptr<JoinedPixels> join_pixels(const Node& node, const std::vector<int8_t>& last,
                                          const Geometry& g, const Packed& one);

}  // namespace lp
