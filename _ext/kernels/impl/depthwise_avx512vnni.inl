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

struct ColumnTaps {
  template <int K>
  static constexpr int items() {
    return K == 3 ? 3 : 8;
  }
};

// By columns (depthwise_columns_avx512vnni.inl): blocks of channels, pairs of lines.
template <int K>
struct ByColumns {
  const lp::DepthwiseArgs& args;
  const lp::Epilogue& e;
  int64_t tap, tap_row;
  bool codes;
  RowBlock rows;
  alignas(64) int32_t sums[2 * MOST_VECTORS * 64];

  explicit LP_MEMBER ByColumns(const lp::DepthwiseArgs& a)
      : args(a),
        e(a.epilogue),
        tap(a.tap_offset[1] - a.tap_offset[0]),
        tap_row(a.tap_offset[K] - a.tap_offset[0]),
        codes(is_requantisation(a.epilogue) && a.epilogue.fast != 0) {}

  // In the order of the accumulators, repeated for the parts.
  LP_MEMBER void spread(const void* values, int64_t c, int64_t parts, void* to) const {
    alignas(64) int32_t words[64];
    const int64_t each = 64 / parts;
    for (int64_t i = 0; i < 64; i += each) {
      memcpy(words + i, static_cast<const int32_t*>(values) + c, static_cast<size_t>(each) * 4);
    }
    __m512i v[4];
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) v[s] = _mm512_load_si512(words + 16 * s);
    transpose_blocks(v);
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) _mm512_store_si512(static_cast<int32_t*>(to) + 16 * s, v[s]);
  }

  LP_MEMBER void prepare(int64_t c, int64_t width, ColumnBlock& block) const {
    block.width = width;
    block.parts = lp::depthwise_pixels(width);
    block.weights =
        static_cast<const int8_t*>(args.weights_by_columns) + c / 64 * ColumnTaps::items<K>() * 512;
    const int64_t across = args.src_col * block.parts;
    block.step = across == tap ? 1 : across == 2 * tap ? 2 : K;
    // Neighbouring pixels that lie side by side are one load.
    const bool together = block.parts * args.src_col == 64;
    block.scattered = block.parts > 1 && (block.parts * args.dst_col != 64 || width < args.dst_col);
    block.mask = block.parts > 1 ? ~uint64_t{0} : byte_lanes(static_cast<int>(width));
    const int64_t loads = together ? 1 : block.parts;
    if constexpr (K == 3) {
      block.direct[0] = direct_chunk<1>(block.step, loads, args.is_signed != 0);
      block.direct[1] = direct_chunk<2>(block.step, loads, args.is_signed != 0);
    }
    block.make = column_maker<K>(block.step, loads, args.is_signed != 0);
    spread(args.bias, c, block.parts, block.start);
    if (codes) spread(e.multiplier, c, block.parts, block.multiplier);
  }

  // `lines` of them: 2 neighbouring ones of an image, or 1.
  LP_MEMBER void run_lines(const ColumnBlock& block, int64_t c, int64_t line, int lines) {
    const RowWalk walk = RowWalk::at_row(args, line * args.cols);
    const uint8_t* src = static_cast<const uint8_t*>(args.src) + walk.src(args) + c;
    uint8_t* dst = static_cast<uint8_t*>(args.dst) + (walk.dst(args) + c) * output_bytes(e);
    const int64_t vectors = (args.cols + block.parts - 1) / block.parts;
    int64_t most = (MOST_COLUMNS - K) / block.step + 1;
    if (most > MOST_VECTORS) most = MOST_VECTORS;
    const int64_t chunks = (vectors + most - 1) / most, each = (vectors + chunks - 1) / chunks;
    ColumnChunk chunk;
    chunk.epilogue = &e;
    chunk.block = &block;
    chunk.dst_col = args.dst_col;
    chunk.sums = sums;
    chunk.source.tap = tap;
    chunk.source.pixel = args.src_col;
    chunk.source.vector = block.parts * args.src_col;
    for (int64_t first = 0; first < vectors; first += each) {
      const int64_t x = first * block.parts;
      chunk.vectors = vectors - first < each ? vectors - first : each;
      const int64_t left = args.cols - x, whole = chunk.vectors * block.parts;
      chunk.pixels = left < whole ? left : whole;
      // Rows past the last one that any output needs meet weights of zero.
      const int last = K - 1 + (lines - 1);
      for (int r = 0; r < 6; ++r) {
        chunk.source.row[r] = src + x * args.src_col + (r < last ? r : last) * tap_row;
      }
      chunk.source.limit = (left - 1) * args.src_col + (K - 1) * tap;
      chunk.target[0] = dst + x * args.dst_col;
      chunk.target[1] = chunk.target[0] + args.dst_row;
      if (codes) {
        if constexpr (K == 3) {
          block.direct[lines - 1](chunk);
        } else {
          lines == 2 ? run_column_chunk<K, 2, true>(chunk) : run_column_chunk<K, 1, true>(chunk);
        }
        continue;
      }
      lines == 2 ? run_column_chunk<K, 2, false>(chunk) : run_column_chunk<K, 1, false>(chunk);
      for (int v = 0; v < lines; ++v) {
        place_pixels(rows, args, line + v, x, chunk.pixels);
        finish_sums(e, rows, 0, rows.count, c, static_cast<int>(block.width),
                    sums + v * MOST_VECTORS * 64, static_cast<int>(64 / block.parts));
      }
    }
  }

  LP_MEMBER void run(const lp::Piece& piece) {
    // So many lines that what they read stays in the second-level cache while all channels pass.
    constexpr int64_t BAND_BYTES = 262144;
    const int64_t row = args.src_row > 0 ? args.src_row : 1;
    const int64_t band = BAND_BYTES / row < 2 ? 2 : BAND_BYTES / row / 2 * 2;
    const bool pairs = args.src_row == tap_row;
    ColumnBlock block;
    for (int64_t begin = piece.row_begin; begin < piece.row_end; begin += band) {
      const int64_t end = piece.row_end - begin < band ? piece.row_end : begin + band;
      for (int64_t c = piece.n_begin; c < piece.n_end; c += 64) {
        prepare(c, piece.n_end - c < 64 ? piece.n_end - c : 64, block);
        for (int64_t line = begin; line < end;) {
          const bool two = pairs && line + 1 < end && line % args.rows + 1 < args.rows;
          run_lines(block, c, line, two ? 2 : 1);
          line += two ? 2 : 1;
        }
      }
    }
  }
};

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
