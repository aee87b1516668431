// depthwise.inl: one filter per channel, channels-last: what the kernels of all types share.
//
// f32   depthwise_f32.inl, written once over VF
// u8s8  weights [taps][C64] (C64: channels rounded up to 64): depthwise_u8s8.inl. VNNI reads the
//       same weights regrouped by four taps (depthwise_avx512vnni.inl), so that all four lanes of
//       vpdpbusd do useful work.

namespace {

constexpr int64_t DEPTHWISE_BLOCK = 64;  // channels handled at a time

LP_INLINE int64_t rounded_channels(int64_t channels) { return (channels + 63) / 64 * 64; }

constexpr int64_t TILE_PIXELS = 8;

// Up to 8 pixels of a line.
[[maybe_unused]] LP_INLINE void place_pixels(RowBlock& block, const lp::DepthwiseArgs& args,
                                             int64_t line, int64_t x, int64_t pixels) {
  block.m0 = line * args.cols + x;
  block.count = static_cast<int>(pixels);
  RowWalk walk = RowWalk::at_row(args, block.m0);
  for (int64_t i = 0; i < pixels; ++i, walk.step()) block.place(args, i, walk);
}

}  // namespace
