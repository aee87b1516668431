// depthwise_avxvnni.inl: depthwise u8 x s8, four taps per vpdpbusd, 32 channels at a time.
//
// As depthwise_avx512vnni.inl, whose weights it reads: halves h = 0, 1 of 64 channels are the lanes
// 8 * h .. 8 * h + 7 of each accumulator there. Accumulator s, 128-bit lane L holds channels
// 32 * h + 16 * L + 4 * s ...; sums start in that order and are stored back in the channels' own.
//
// Registers    4 accumulators + 8 for the interleave

namespace {

struct HalfBlock {
  const lp::DepthwiseArgs& args;
  const int8_t* weights;  // of the half
  __m256i start[4], flip;

  LP_MEMBER HalfBlock(const lp::DepthwiseArgs& a, const int32_t* bias, const int8_t* w)
      : args(a), weights(w), flip(_mm256_set1_epi8(static_cast<char>(a.is_signed ? 0x80 : 0))) {
    for (int s = 0; s < 4; ++s) {
      const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bias + 4 * s));
      const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bias + 16 + 4 * s));
      start[s] = _mm256_set_m128i(high, low);
    }
  }

  LP_MEMBER void sum(const uint8_t* src, int32_t* sums) const {
    __m256i acc[4] = {start[0], start[1], start[2], start[3]};
    const int8_t* w = weights;
    for (int64_t first = 0; first < args.taps; first += 4, w += 256) {
      __m256i tap[4];
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; ++i) {
        // Past the last tap the weights are zero: any readable address will do.
        const int64_t t = first + i < args.taps ? first + i : 0;
        tap[i] = _mm256_xor_si256(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + args.tap_offset[t])), flip);
      }
      const __m256i a = _mm256_unpacklo_epi8(tap[0], tap[1]);
      const __m256i b = _mm256_unpackhi_epi8(tap[0], tap[1]);
      const __m256i p = _mm256_unpacklo_epi8(tap[2], tap[3]);
      const __m256i q = _mm256_unpackhi_epi8(tap[2], tap[3]);
      dot4(acc[0], _mm256_unpacklo_epi16(a, p), four_taps(w));
      dot4(acc[1], _mm256_unpackhi_epi16(a, p), four_taps(w + 64));
      dot4(acc[2], _mm256_unpacklo_epi16(b, q), four_taps(w + 128));
      dot4(acc[3], _mm256_unpackhi_epi16(b, q), four_taps(w + 192));
    }
    for (int s = 0; s < 4; ++s) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + 4 * s), _mm256_castsi256_si128(acc[s]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + 16 + 4 * s),
                       _mm256_extracti128_si256(acc[s], 1));
    }
  }

  static LP_MEMBER __m256i four_taps(const int8_t* w) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  }
};

static void depthwise_u8s8(const lp::DepthwiseArgs* arguments, const lp::Piece* piece) {
  const lp::DepthwiseArgs& args = *arguments;
  const int64_t groups = (args.taps + 3) / 4;
  alignas(64) int32_t sums[TILE_PIXELS][DEPTHWISE_BLOCK];
  RowBlock block;
  for (int64_t line = piece->row_begin; line < piece->row_end; ++line) {
    const RowWalk walk = RowWalk::at_row(args, line * args.cols);
    const uint8_t* src_row = static_cast<const uint8_t*>(args.src) + walk.src(args);
    for (int64_t x = 0; x < args.cols; x += TILE_PIXELS) {
      const int64_t pixels = args.cols - x < TILE_PIXELS ? args.cols - x : TILE_PIXELS;
      place_pixels(block, args, line, x, pixels);
      for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
        const int64_t left = piece->n_end - c;
        const int width = static_cast<int>(left < DEPTHWISE_BLOCK ? left : DEPTHWISE_BLOCK);
        const int8_t* weights = static_cast<const int8_t*>(args.weights_by_four) + c * groups * 4;
        const int32_t* bias = static_cast<const int32_t*>(args.bias) + c;
        for (int half = 0; half < width; half += 32) {
          const HalfBlock channels(args, bias + half, weights + half);
          for (int64_t i = 0; i < pixels; ++i) {
            channels.sum(src_row + (x + i) * args.src_col + c + half, sums[i] + half);
          }
        }
        finish_sums(args.epilogue, block, 0, block.count, c, width, sums[0], DEPTHWISE_BLOCK);
      }
    }
  }
}

}  // namespace
