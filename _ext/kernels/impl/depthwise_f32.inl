// depthwise_f32.inl: per output one chain of FMAs over the taps in order, bias last. f32 or bf16
// pixels (widened, which is exact); the weights are f32.

namespace {

// One vector of channels for N pixels in a row: a weight is loaded once for all of them.
template <int N, class T>
LP_INLINE void depthwise_vector(const lp::DepthwiseArgs& args, const T* src, const float* weights,
                                int64_t stride, VF bias, int lanes, float (*tile)[DEPTHWISE_BLOCK],
                                int64_t at) {
  VF sum[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) sum[i] = vset(0.0f);
  for (int64_t t = 0; t < args.taps; ++t) {
    const T* x = src + args.tap_offset[t];
    const VF w = vload(weights + t * stride);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] = fma(load_real(x + i * args.src_col, lanes), w, sum[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) vstore(tile[i] + at, sum[i] + bias);
}

template <class T>
LP_INLINE void depthwise_reals(const lp::DepthwiseArgs& args, const lp::Piece* piece) {
  const int64_t stride = rounded_channels(args.channels);
  RowBlock block;
  alignas(64) float tile[TILE_PIXELS][DEPTHWISE_BLOCK] = {};
  for (int64_t line = piece->row_begin; line < piece->row_end; ++line) {
    const int64_t image = line / args.rows, y = line % args.rows;
    const T* src_row = static_cast<const T*>(args.src) + image * args.src_image + y * args.src_row;
    for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
      const int64_t width = piece->n_end - c < DEPTHWISE_BLOCK ? piece->n_end - c : DEPTHWISE_BLOCK;
      const float* weights = static_cast<const float*>(args.weights) + c;
      const float* bias = static_cast<const float*>(args.bias) + c;
      for (int64_t x = 0; x < args.cols; x += TILE_PIXELS) {
        const int64_t pixels = args.cols - x < TILE_PIXELS ? args.cols - x : TILE_PIXELS;
        const T* src = src_row + x * args.src_col + c;
        for (int64_t at = 0; at < width; at += W) {
          const int n = width - at < W ? static_cast<int>(width - at) : W;
          const VF add = vload(bias + at);
          if (pixels == TILE_PIXELS && n == W) {
            depthwise_vector<TILE_PIXELS>(args, src + at, weights + at, stride, add, W, tile, at);
            continue;
          }
          for (int64_t i = 0; i < pixels; ++i) {
            depthwise_vector<1>(args, src + i * args.src_col + at, weights + at, stride, add, n,
                                tile + i, at);
          }
        }
        place_pixels(block, args, line, x, pixels);
        finish_reals(args.epilogue, block, 0, block.count, c, static_cast<int>(width), tile[0],
                     DEPTHWISE_BLOCK);
      }
    }
  }
}

static void depthwise_f32(const lp::DepthwiseArgs* args, const lp::Piece* piece) {
  depthwise_reals<float>(*args, piece);
}
static void depthwise_bf16(const lp::DepthwiseArgs* args, const lp::Piece* piece) {
  depthwise_reals<uint16_t>(*args, piece);
}

}  // namespace
