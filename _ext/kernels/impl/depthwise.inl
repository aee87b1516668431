// depthwise.inl: one filter per channel, channels-last: what the kernels of all types share.
//
// f32   depthwise_f32.inl, written once over VF
// u8s8  weights [taps][C64] (C64: channels rounded up to 64): depthwise_u8s8.inl. VNNI reads the
//       same weights regrouped by four taps (depthwise_avx512vnni.inl), so that all four lanes of
//       vpdpbusd do useful work.

namespace {

constexpr int64_t DEPTHWISE_BLOCK = 64;  // channels handled at a time

LP_INLINE int64_t rounded_channels(int64_t channels) { return (channels + 63) / 64 * 64; }

// A tile of `pixels` rows of 64 floats to outputs: the chain runs once over all of it.
LP_INLINE void finish_tile(float (*tile)[DEPTHWISE_BLOCK], int64_t pixels, int64_t width,
                           const lp::Epilogue& e, uint8_t* dst, int64_t dst_step) {
  if (e.n_ops > 0) apply_chain(e.ops, e.n_ops, tile[0], pixels * DEPTHWISE_BLOCK);
  lp::Epilogue rest = e;
  rest.n_ops = 0;
  for (int64_t i = 0; i < pixels; ++i) finish_f32(tile[i], width, rest, dst + i * dst_step);
}

constexpr int64_t TILE_PIXELS = 8;

}  // namespace
