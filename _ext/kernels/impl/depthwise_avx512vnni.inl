// depthwise_avx512vnni.inl: depthwise u8 x s8, four taps per vpdpbusd.
//
//   tap t0: c0 c1 c2 ...     unpack bytes,      lane of channel c: (t0, t1, t2, t3)
//   tap t1: c0 c1 c2 ...  ─────────────────►    vpdpbusd with (w0, w1, w2, w3)
//   tap t2, t3               then words
//
// Any kernel size, stride and dilation: only the tap offsets change. Unpacking works inside 128-bit
// lanes, so accumulator s, 128-bit lane L holds channels 16 * L + 4 * s ..: bias and multiplier are
// brought into that order once per row (a 4 x 4 transposition of 128-bit blocks), and packs put u8
// results back in order for free.
//
// Registers    4 accumulators, 8 for the interleave, 4 multipliers, up to 12 of weights
// Weights      [C64/64][ceil(taps/4)][4 accumulators][16 lanes][4 taps] (pack.h)

namespace {

static void depthwise_by_four(const lp::DepthwiseArgs& args, const lp::Piece* piece) {
  const lp::Epilogue& e = args.epilogue;
  const int64_t groups = (args.taps + 3) / 4;
  const int64_t out_bytes = output_bytes(e);
  const bool to_codes = is_requantisation(e);
  const Packer packer = Packer::from(e);
  const CodeRange range = code_range(e);
  alignas(64) int32_t tile[TILE_PIXELS][DEPTHWISE_BLOCK];
  RowBlock block;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(args.is_signed ? 0x80 : 0));
  for (int64_t line = piece->row_begin; line < piece->row_end; ++line) {
    const int64_t image = line / args.rows, y = line % args.rows;
    const uint8_t* src_row =
        static_cast<const uint8_t*>(args.src) + image * args.src_image + y * args.src_row;
    uint8_t* dst_row =
        static_cast<uint8_t*>(args.dst) + (image * args.dst_image + y * args.dst_row) * out_bytes;
    for (int64_t c = piece->n_begin; c < piece->n_end; c += 64) {
      const int width = static_cast<int>(piece->n_end - c < 64 ? piece->n_end - c : 64);
      const __mmask64 mask = byte_lanes(width);
      const int8_t* weights = static_cast<const int8_t*>(args.weights_by_four) + c * groups * 4;
      const int32_t* bias = static_cast<const int32_t*>(args.bias) + c;
      __m512i start[4], multiplier_bits[4];
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        start[s] = _mm512_loadu_si512(bias + 16 * s);
        multiplier_bits[s] =
            e.multiplier ? _mm512_loadu_si512(e.multiplier + c + 16 * s) : _mm512_setzero_si512();
      }
      transpose_blocks(start);
      transpose_blocks(multiplier_bits);
      for (int64_t x = 0; x < args.cols; ++x) {
        const uint8_t* src = src_row + x * args.src_col + c;
        __m512i acc[4] = {start[0], start[1], start[2], start[3]};
        const int8_t* w = weights;
        for (int64_t g = 0; g < groups; ++g, w += 256) {
          __m512i tap[4];
#pragma GCC unroll 4
          for (int64_t i = 0; i < 4; ++i) {
            // Past the last tap the weights are zero: any readable address will do.
            const int64_t t = 4 * g + i < args.taps ? 4 * g + i : 0;
            tap[i] = _mm512_xor_si512(_mm512_loadu_si512(src + args.tap_offset[t]), flip);
          }
          const __m512i a = _mm512_unpacklo_epi8(tap[0], tap[1]);
          const __m512i b = _mm512_unpackhi_epi8(tap[0], tap[1]);
          const __m512i p = _mm512_unpacklo_epi8(tap[2], tap[3]);
          const __m512i q = _mm512_unpackhi_epi8(tap[2], tap[3]);
          dot4(acc[0], _mm512_unpacklo_epi16(a, p), _mm512_loadu_si512(w));
          dot4(acc[1], _mm512_unpackhi_epi16(a, p), _mm512_loadu_si512(w + 64));
          dot4(acc[2], _mm512_unpacklo_epi16(b, q), _mm512_loadu_si512(w + 128));
          dot4(acc[3], _mm512_unpackhi_epi16(b, q), _mm512_loadu_si512(w + 192));
        }
        uint8_t* dst = dst_row + (x * args.dst_col + c) * out_bytes;
        if (to_codes) {
          __m512i q[4];
#pragma GCC unroll 4
          for (int s = 0; s < 4; ++s) {
            q[s] = requantized(acc[s], _mm512_castsi512_ps(multiplier_bits[s]), range, e.fast != 0);
          }
          _mm512_mask_storeu_epi8(dst, mask, packer.interleaved(q[0], q[1], q[2], q[3]));
          if (e.table != nullptr) apply_table(e.table, dst, width);
        } else {
          transpose_blocks(acc);
          const int64_t slot = x % TILE_PIXELS;
#pragma GCC unroll 4
          for (int s = 0; s < 4; ++s) _mm512_store_si512(tile[slot] + 16 * s, acc[s]);
          if (slot == TILE_PIXELS - 1 || x == args.cols - 1) {
            place_pixels(block, args, line, x - slot, slot + 1);
            finish_sums(e, block, 0, block.count, c, width, tile[0], DEPTHWISE_BLOCK);
          }
        }
      }
    }
  }
}

static void depthwise_u8s8(const lp::DepthwiseArgs* arguments, const lp::Piece* piece) {
  const lp::DepthwiseArgs& args = *arguments;
  if (args.weights_by_columns == nullptr) {
    depthwise_by_four(args, piece);
  } else if (args.taps == 9) {
    ByColumns<3>(args).run(*piece);
  } else {
    ByColumns<5>(args).run(*piece);
  }
}

}  // namespace
