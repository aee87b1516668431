// depthwise_u8s8.inl: depthwise u8 x s8 and s8 x s8 without VNNI: widened to s16 by AVX2 (AVX-512,
// too) and by Advanced SIMD, plain C++ elsewhere.

namespace {

static void depthwise_u8s8(const lp::DepthwiseArgs* arguments, const lp::Piece* piece) {
  const lp::DepthwiseArgs& args = *arguments;
  const int8_t* weights = static_cast<const int8_t*>(args.weights);
  const int32_t* bias = static_cast<const int32_t*>(args.bias);
  const int64_t stride = rounded_channels(args.channels);
  const uint8_t flip = args.is_signed ? 0x80 : 0;
  RowBlock block;
  RowWalk walk = RowWalk::at_row(args, piece->row_begin * args.cols);
  alignas(64) int32_t acc[DEPTHWISE_BLOCK];
  const int64_t end = piece->row_end * args.cols;
  for (int64_t i = piece->row_begin * args.cols; i < end; ++i, walk.step()) {
    const uint8_t* src = static_cast<const uint8_t*>(args.src) + walk.src(args);
    block.m0 = i;
    block.place(args, 0, walk);
    for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
      const int64_t width = piece->n_end - c < DEPTHWISE_BLOCK ? piece->n_end - c : DEPTHWISE_BLOCK;
      memcpy(acc, bias + c, sizeof(acc));
#if defined(LP_ISA_AVX2) || defined(LP_ISA_AVX512)
      // Two taps at a time as s16 pairs. Reads up to 15 bytes past the channels: the arena has
      // slack.
      for (int64_t at = 0; at < width; at += 16) {
        __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
        for (int64_t t = 0; t < args.taps; t += 2) {
          const bool pair = t + 1 < args.taps;
          const auto u8 = [&](int64_t tap) __attribute__((always_inline)) {
            const __m128i codes = _mm_loadu_si128(
                reinterpret_cast<const __m128i*>(src + args.tap_offset[tap] + c + at));
            return _mm256_cvtepu8_epi16(
                _mm_xor_si128(codes, _mm_set1_epi8(static_cast<char>(flip))));
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
#elif defined(LP_ISA_NEON)
      for (int64_t at = 0; at < width; at += 16) {
        int32x4_t sum[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sum[j] = vld1q_s32(acc + at + 4 * j);
        for (int64_t t = 0; t < args.taps; ++t) {
          const uint8x16_t x =
              veorq_u8(vld1q_u8(src + args.tap_offset[t] + c + at), vdupq_n_u8(flip));
          const int8x16_t w = vld1q_s8(weights + t * stride + c + at);
          const int16x8_t x_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
          const int16x8_t x_high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(x)));
          const int16x8_t w_low = vmovl_s8(vget_low_s8(w)), w_high = vmovl_s8(vget_high_s8(w));
          sum[0] = vmlal_s16(sum[0], vget_low_s16(x_low), vget_low_s16(w_low));
          sum[1] = vmlal_s16(sum[1], vget_high_s16(x_low), vget_high_s16(w_low));
          sum[2] = vmlal_s16(sum[2], vget_low_s16(x_high), vget_low_s16(w_high));
          sum[3] = vmlal_s16(sum[3], vget_high_s16(x_high), vget_high_s16(w_high));
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) vst1q_s32(acc + at + 4 * j, sum[j]);
      }
#else
      for (int64_t t = 0; t < args.taps; ++t) {
        const uint8_t* x = src + args.tap_offset[t] + c;
        const int8_t* w = weights + t * stride + c;
        for (int64_t j = 0; j < width; ++j) acc[j] += (x[j] ^ flip) * w[j];
      }
#endif
      finish_sums(args.epilogue, block, 0, 1, c, static_cast<int>(width), acc, DEPTHWISE_BLOCK);
    }
  }
}

}  // namespace
