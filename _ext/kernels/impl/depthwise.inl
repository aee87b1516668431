// depthwise.inl: one filter per channel, channels-last.
//
// f32   written once over VF: per output one chain of FMAs over the taps in order, bias last.
// u8s8  weights [taps][C64] (C64: channels rounded up to 64). Scalar and AVX2 read those; AVX-512
// VNNI
//       reads the same weights regrouped by four taps (depthwise_avx512vnni.inl), so that all four
//       lanes of vpdpbusd do useful work.

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

// One vector of channels for N pixels in a row: a weight is loaded once for all of them.
template <int N>
LP_INLINE void depthwise_vector(const lp::DepthwiseArgs& args, const float* src,
                                const float* weights, int64_t stride, VF bias, int lanes,
                                float (*tile)[DEPTHWISE_BLOCK], int64_t at) {
  VF sum[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) sum[i] = vset(0.0f);
  for (int64_t t = 0; t < args.taps; ++t) {
    const float* x = src + args.tap_offset[t];
    const VF w = vload(weights + t * stride);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] = fma(vload_any(x + i * args.src_col, lanes), w, sum[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) vstore(tile[i] + at, sum[i] + bias);
}

static void depthwise_f32(const lp::DepthwiseArgs* arguments, const lp::Piece* piece) {
  const lp::DepthwiseArgs& args = *arguments;
  const int64_t stride = rounded_channels(args.channels);
  const int64_t out_bytes = output_bytes(args.epilogue);
  alignas(64) float tile[TILE_PIXELS][DEPTHWISE_BLOCK] = {};
  for (int64_t line = piece->row_begin; line < piece->row_end; ++line) {
    const int64_t image = line / args.rows, y = line % args.rows;
    const float* src_row =
        static_cast<const float*>(args.src) + image * args.src_image + y * args.src_row;
    uint8_t* dst_row =
        static_cast<uint8_t*>(args.dst) + (image * args.dst_image + y * args.dst_row) * out_bytes;
    for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
      const int64_t width = piece->n_end - c < DEPTHWISE_BLOCK ? piece->n_end - c : DEPTHWISE_BLOCK;
      const float* weights = static_cast<const float*>(args.weights) + c;
      const float* bias = static_cast<const float*>(args.bias) + c;
      for (int64_t x = 0; x < args.cols; x += TILE_PIXELS) {
        const int64_t pixels = args.cols - x < TILE_PIXELS ? args.cols - x : TILE_PIXELS;
        const float* src = src_row + x * args.src_col + c;
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
        finish_tile(tile, pixels, width, args.epilogue,
                    dst_row + (x * args.dst_col + c) * out_bytes, args.dst_col * out_bytes);
      }
    }
  }
}

#if !defined(LP_ISA_AVX512VNNI)
static void depthwise_u8s8(const lp::DepthwiseArgs* arguments, const lp::Piece* piece) {
  const lp::DepthwiseArgs& args = *arguments;
  const int8_t* weights = static_cast<const int8_t*>(args.weights);
  const int32_t* bias = static_cast<const int32_t*>(args.bias);
  const int64_t stride = rounded_channels(args.channels);
  const int64_t out_bytes = output_bytes(args.epilogue);
  RowWalk walk = RowWalk::at_row(args, piece->row_begin * args.cols);
  alignas(64) int32_t acc[DEPTHWISE_BLOCK];
  alignas(64) float scratch[DEPTHWISE_BLOCK];
  const int64_t end = piece->row_end * args.cols;
  for (int64_t i = piece->row_begin * args.cols; i < end; ++i, walk.step()) {
    const uint8_t* src = static_cast<const uint8_t*>(args.src) + walk.src(args);
    uint8_t* dst = static_cast<uint8_t*>(args.dst) + walk.dst(args) * out_bytes;
    for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
      const int64_t width = piece->n_end - c < DEPTHWISE_BLOCK ? piece->n_end - c : DEPTHWISE_BLOCK;
      memcpy(acc, bias + c, sizeof(acc));
#if defined(LP_ISA_AVX2)
      // Two taps at a time as s16 pairs. Reads up to 15 bytes past the channels: the arena has
      // slack.
      for (int64_t at = 0; at < width; at += 16) {
        __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
        for (int64_t t = 0; t < args.taps; t += 2) {
          const bool pair = t + 1 < args.taps;
          const auto u8 = [&](int64_t tap) __attribute__((always_inline)) {
            return _mm256_cvtepu8_epi16(_mm_loadu_si128(
                reinterpret_cast<const __m128i*>(src + args.tap_offset[tap] + c + at)));
          };
          const auto s8 = [&](int64_t tap) __attribute__((always_inline)) {
            return _mm256_cvtepi8_epi16(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + tap * stride + c + at)));
          };
          const __m256i x0 = u8(t), x1 = pair ? u8(t + 1) : _mm256_setzero_si256();
          const __m256i w0 = s8(t), w1 = pair ? s8(t + 1) : _mm256_setzero_si256();
          low = _mm256_add_epi32(
              low, _mm256_madd_epi16(_mm256_unpacklo_epi16(x0, x1), _mm256_unpacklo_epi16(w0, w1)));
          high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(x0, x1),
                                                          _mm256_unpackhi_epi16(w0, w1)));
        }
        // low: channels 0-3, 8-11; high: 4-7, 12-15.
        __m256i* out = reinterpret_cast<__m256i*>(acc + at);
        _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out),
                                                  _mm256_permute2x128_si256(low, high, 0x20)));
        _mm256_storeu_si256(out + 1, _mm256_add_epi32(_mm256_loadu_si256(out + 1),
                                                      _mm256_permute2x128_si256(low, high, 0x31)));
      }
#else
      for (int64_t t = 0; t < args.taps; ++t) {
        const uint8_t* x = src + args.tap_offset[t] + c;
        const int8_t* w = weights + t * stride + c;
        for (int64_t j = 0; j < width; ++j) acc[j] += x[j] * w[j];
      }
#endif
      finish_s32(acc, c, width, args.epilogue, dst + c * out_bytes, scratch);
    }
  }
}
#endif

}  // namespace
