// product_int8.inl: the driver of the int8 products (kernels.h, ProductArgs).
//
//   for each block of rows that stays in the second-level cache        (BLOCK_ROWS at most)
//     what only depends on the rows: sums of A's rows where weights have zero points
//     for each panel of 64 output channels                             (packed B is streamed)
//       what only depends on the channels: the start values
//       Micro::rows: tiles of some rows times the panel                (the ISA's microkernel)
//
// With za the zero point of A, zw those of the weights, in s32 modulo 2^32:
//   sum (a - za) (w - zw)  =  sum a w  -  za * sums[n]  -  (row sum - K * za) * zw[n]
// so a sum starts at bias[n] - za * sums[n], and what depends on both row and channel is at most
// two terms row[m] * column[n].
//
// A microkernel is a type with
//   static constexpr bool SIGNED     A holds s8
//   static constexpr bool FLIPS      it reads the s8 code a as the u8 code a ^ 0x80 = a + 128, or
//                                    (not SIGNED) the u8 code a as the s8 code a ^ 0x80 = a - 128
//   Block                            what it prepares once for a block of rows: Block(args, rows)
//   rows(args, panel, rows, block)   all rows of the block times one panel, down to the outputs
//   FOUR_PANELS, four_panels(args, panels, rows)     where it has them: one row times four panels

namespace {

struct CodePanel {
  const int8_t* weights;
  const int32_t* start;           // 64 values
  int terms;                      // how many of the following
  const int32_t* column_term[2];  // 64 values each
  int64_t n0;                     // first output channel
  int columns;                    // 1..64
};

struct CodeRows : RowBlock {
  const uint8_t* source[BLOCK_ROWS];  // s8 codes are read through this type too
  int32_t term[2][BLOCK_ROWS];
};

LP_INLINE int64_t padded_codes(const lp::ProductArgs& args) {
  return args.runs * ((args.run_length + 3) / 4) * 4;
}

LP_INLINE int32_t wrapping_product(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}
LP_INLINE int32_t wrapping_difference(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

// The sum of n bytes, each XOR `flip`.
LP_INLINE int64_t sum_bytes(const uint8_t* x, int64_t n, uint8_t flip) {
  int64_t sum = 0, i = 0;
#if defined(__AVX2__)
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(flip)), zero = _mm256_setzero_si256();
  __m256i sums = zero;
  for (; i + 32 <= n; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(_mm256_xor_si256(bytes, mask), zero));
  }
  alignas(32) int64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
  sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
#elif defined(LP_ISA_NEON)
  const uint8x16_t mask = vdupq_n_u8(flip);
  for (; i + 16 <= n; i += 16) sum += vaddlvq_u8(veorq_u8(vld1q_u8(x + i), mask));
#endif
  for (; i < n; ++i) sum += static_cast<uint8_t>(x[i] ^ flip);
  return sum;
}

// sum over k of a[m][k], as the microkernel reads a.
template <class Micro>
LP_INLINE int32_t row_sum(const lp::ProductArgs& args, const uint8_t* row) {
  int64_t sum = 0;
  for (int64_t r = 0; r < args.runs; ++r) {
    sum += sum_bytes(row + args.run_offset[r], args.run_length, Micro::SIGNED ? 0x80 : 0);
  }
  if (Micro::SIGNED != Micro::FLIPS) sum -= 128 * args.runs * args.run_length;  // it reads s8
  return static_cast<int32_t>(sum);
}

// What reading a with its top bit flipped adds to it, and so to its zero point.
template <class Micro>
constexpr int32_t FLIP = !Micro::FLIPS   ? 0
                         : Micro::SIGNED ? 128
                                         : -128;

template <class Micro>
LP_INLINE void row_terms(const lp::ProductArgs& args, CodeRows& rows) {
  const int32_t depth = static_cast<int32_t>(args.runs * args.run_length);
  int terms = 0;
  if (args.row_zero_points != nullptr) {
    for (int i = 0; i < rows.count; ++i) {
      rows.term[terms][i] = -(args.row_zero_points[rows.m0 + i] + FLIP<Micro>);
    }
    ++terms;
  }
  if (args.weight_zero_points != nullptr) {
    for (int i = 0; i < rows.count; ++i) {
      const int32_t za =
          (args.row_zero_points ? args.row_zero_points[rows.m0 + i] : args.zero_point) +
          FLIP<Micro>;
      rows.term[terms][i] =
          wrapping_difference(wrapping_product(depth, za), row_sum<Micro>(args, rows.source[i]));
    }
  }
}

// `buffer` holds 64 values for the start, where it is not the bias itself.
template <class Micro>
LP_INLINE CodePanel code_panel(const lp::ProductArgs& args, int64_t n0, int64_t n_end,
                               int32_t* buffer) {
  CodePanel panel;
  panel.n0 = n0;
  panel.columns = static_cast<int>(n_end - n0 < PANEL ? n_end - n0 : PANEL);
  panel.weights = static_cast<const int8_t*>(args.packed) + n0 * padded_codes(args);
  panel.start = static_cast<const int32_t*>(args.bias) + n0;
  panel.terms = 0;
  const int32_t za = args.zero_point + FLIP<Micro>;
  if (args.row_zero_points != nullptr) {
    panel.column_term[panel.terms++] = args.sums + n0;
  } else if (za != 0) {
#pragma GCC ivdep
    for (int64_t j = 0; j < PANEL; ++j) {
      buffer[j] = wrapping_difference(panel.start[j], wrapping_product(za, args.sums[n0 + j]));
    }
    panel.start = buffer;
  }
  if (args.weight_zero_points != nullptr) {
    panel.column_term[panel.terms++] = args.weight_zero_points + n0;
  }
  return panel;
}

// Blocks are multiples of STEP rows, except for the last one.
template <class Micro>
constexpr auto has_four_panels(int) -> decltype(Micro::FOUR_PANELS) {
  return Micro::FOUR_PANELS;
}
template <class Micro>
constexpr bool has_four_panels(long) {
  return false;
}

template <class Micro, int STEP = 8>
LP_INLINE void product_int8(const lp::ProductArgs& args, const lp::Piece& piece) {
  const int64_t row_bytes = args.runs * args.run_length;
  int64_t most = row_bytes > 0 ? BLOCK_BYTES / row_bytes : BLOCK_ROWS;
  most = most < STEP ? STEP : most > BLOCK_ROWS ? BLOCK_ROWS : most / STEP * STEP;

  CodeRows rows;
  RowWalk walk = RowWalk::at_row(args, piece.row_begin);
  for (rows.m0 = piece.row_begin; rows.m0 < piece.row_end; rows.m0 += rows.count) {
    const int64_t left = piece.row_end - rows.m0;
    rows.count = static_cast<int>(left < most ? left : most);
    place_rows<uint8_t>(args, walk, rows);
    row_terms<Micro>(args, rows);
    const typename Micro::Block block(args, rows);
    int64_t n0 = piece.n_begin;
    if constexpr (has_four_panels<Micro>(0)) {
      for (; rows.count == 1 && n0 + 4 * PANEL <= piece.n_end; n0 += 4 * PANEL) {
        alignas(64) int32_t buffers[4][PANEL];
        const CodePanel panels[4] = {
            code_panel<Micro>(args, n0, piece.n_end, buffers[0]),
            code_panel<Micro>(args, n0 + PANEL, piece.n_end, buffers[1]),
            code_panel<Micro>(args, n0 + 2 * PANEL, piece.n_end, buffers[2]),
            code_panel<Micro>(args, n0 + 3 * PANEL, piece.n_end, buffers[3])};
        Micro::four_panels(args, panels, rows);
      }
    }
    for (; n0 < piece.n_end; n0 += PANEL) {
      alignas(64) int32_t buffer[PANEL];
      Micro::rows(args, code_panel<Micro>(args, n0, piece.n_end, buffer), rows, block);
    }
  }
}

// The sums of one row before any product: the start and the terms of the row.
LP_INLINE void start_sums(const CodePanel& panel, const CodeRows& rows, int i, int32_t* acc) {
  memcpy(acc, panel.start, PANEL * sizeof(int32_t));
  for (int t = 0; t < panel.terms; ++t) {
#pragma GCC ivdep
    for (int64_t j = 0; j < PANEL; ++j) {
      acc[j] = static_cast<int32_t>(static_cast<uint32_t>(acc[j]) +
                                    static_cast<uint32_t>(rows.term[t][i]) *
                                        static_cast<uint32_t>(panel.column_term[t][j]));
    }
  }
}

struct NoBlock {
  LP_MEMBER NoBlock(const lp::ProductArgs&, const CodeRows&) {}
};

}  // namespace
