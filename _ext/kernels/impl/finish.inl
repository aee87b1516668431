// finish.inl: from accumulators to outputs (kernels.h, Epilogue), a tile of rows at a time. The
// only place where a product's result is rounded.
//
//   finish_sums   s32 accumulators          finish_reals   f32, the bias added
//
// Both take a tile: `count` rows of `stride` elements, the block's rows from `first` on, and the
// output channels [n0, n0 + columns), at most 64. A kernel with outputs in registers may take a
// path of its own where `is_requantisation` or `is_bare` says what little there is to do.
//
// Included inside a per-ISA translation unit, after vec.h.
#include "kernels/impl/elements.inl"
#include "kernels/impl/unary.inl"

namespace {

constexpr int FINISH_ROWS = 8;

LP_INLINE int64_t element_bytes(int32_t kind) {
  return kind == lp::OUT_U8 || kind == lp::OUT_S8 ? 1 : kind == lp::OUT_BF16 ? 2 : 4;
}
LP_INLINE int64_t output_bytes(const lp::Epilogue& e) { return element_bytes(e.kind); }
LP_INLINE bool gives_codes(const lp::Epilogue& e) {
  return e.kind == lp::OUT_U8 || e.kind == lp::OUT_S8;
}

// ---- where rows are ----

// Walks the rows (image, y, x) of a product or a depthwise convolution in order.
struct RowWalk {
  template <class Args>
  static LP_MEMBER RowWalk at_row(const Args& args, int64_t row) {
    const int64_t line = row / args.cols;
    return {line / args.rows, line % args.rows, row % args.cols, args.rows, args.cols};
  }
  template <class Args>
  LP_MEMBER int64_t src(const Args& args) const {
    return image * args.src_image + y * args.src_row + x * args.src_col;
  }
  template <class Args>
  LP_MEMBER int64_t dst(const Args& args) const {
    return image * args.dst_image + y * args.dst_row + x * args.dst_col;
  }
  LP_MEMBER const uint8_t* residual(const lp::Epilogue& e) const {
    if (e.residual == nullptr) return nullptr;
    const int64_t element = image * e.residual_image + y * e.residual_row + x * e.residual_col;
    return static_cast<const uint8_t*>(e.residual) + element * element_bytes(e.residual_kind);
  }
  LP_MEMBER void step() {
    if (++x == cols) {
      x = 0;
      if (++y == rows) {
        y = 0;
        ++image;
      }
    }
  }
  int64_t image, y, x, rows, cols;
};

constexpr int64_t BLOCK_ROWS = 128;

// The rows that a driver keeps at hand: where their outputs go, at output channel 0.
struct RowBlock {
  template <class Args>
  LP_MEMBER void place(const Args& args, int64_t i, const RowWalk& walk) {
    target[i] = static_cast<uint8_t*>(args.dst) + walk.dst(args) * output_bytes(args.epilogue);
    residual[i] = walk.residual(args.epilogue);
  }
  int64_t m0;  // number of the first one, counted over all rows
  int count;
  uint8_t* target[BLOCK_ROWS];
  const uint8_t* residual[BLOCK_ROWS];
};

// ---- what there is to do ----

// The chain is empty. Of an int8 product, a u8/s8 output is then one product and one rounding, and
// the table, if any, remains to be applied (apply_table).
LP_INLINE bool is_plain(const lp::Epilogue& e) { return e.n_ops == 0 && e.addend == nullptr; }
[[maybe_unused]] LP_INLINE bool is_requantisation(const lp::Epilogue& e) {
  return gives_codes(e) && is_plain(e);
}
// f32 leaves as it is: after the bias, or the multiplier.
[[maybe_unused]] LP_INLINE bool is_bare(const lp::Epilogue& e) {
  return e.kind == lp::OUT_F32 && is_plain(e) && e.row_multiplier == nullptr;
}

struct CodeRange {
  VF low, high;  // of the code minus its zero point, as floats: clamping there equals saturating
  VI zero_point, qmin, qmax;
};

LP_INLINE CodeRange code_range(const lp::Epilogue& e) {
  const int type_min = e.kind == lp::OUT_U8 ? 0 : -128;
  const int type_max = e.kind == lp::OUT_U8 ? 255 : 127;
  return {vset(static_cast<float>(type_min - e.zero_point)),
          vset(static_cast<float>(type_max - e.zero_point)), vset_s32(e.zero_point),
          vset_s32(e.qmin), vset_s32(e.qmax)};
}

// x is in units of the output scale. NaN becomes the lowest code.
LP_INLINE VI to_code(VF x, const CodeRange& range) {
  const VI code = cvt_s32(vmin(vmax(x, range.low), range.high)) + range.zero_point;
  return vmin(vmax(code, range.qmin), range.qmax);
}

[[maybe_unused]] static void apply_table(const uint8_t* table, uint8_t* codes, int count) {
  for (int i = 0; i < count; ++i) codes[i] = table[codes[i]];
}

// ---- operators that know the row and the column ----

LP_INLINE VF residual_value(const lp::Epilogue& e, const uint8_t* residual, int64_t i, int n) {
  switch (e.residual_kind) {
    case lp::OUT_F32: {
      return vload_any(reinterpret_cast<const float*>(residual) + i, n);
    }
    case lp::OUT_BF16:
      return as_f32(
          shift_left<16>(load_u16_any(reinterpret_cast<const uint16_t*>(residual) + i, n)));
    default: {
      const VI code = e.residual_kind == lp::OUT_U8
                          ? load_codes(residual + i, n)
                          : load_codes(reinterpret_cast<const int8_t*>(residual) + i, n);
      return cvt_f32(code - vset_s32(e.residual_zero_point)) * vset(e.residual_scale);
    }
  }
}

// x[i] = f(x[i], i) for `columns` elements of every row.
template <class F>
LP_INLINE void for_rows(float* x, int rows, int stride, int columns, F f) {
  for (int r = 0; r < rows; ++r) {
    float* row = x + r * stride;
    for_lanes(columns, [&](int64_t i, int n) __attribute__((always_inline)) {
      vstore_any(row + i, f(vload_any(row + i, n), r, i, n), n);
    });
  }
}

struct Tile {
  float* x;
  int rows, stride, columns;
  int64_t n0;
  const uint8_t* const* residual;  // per row
};

static __attribute__((noinline)) void apply_placed(const lp::Epilogue& e, const lp::UnaryOp& op,
                                                   const Tile& tile) {
  switch (op.code) {
    case lp::UNARY_ADD_RESIDUAL:
      for_rows(tile.x, tile.rows, tile.stride, tile.columns, [&](VF x, int r, int64_t i, int n) {
        return x + residual_value(e, tile.residual[r], tile.n0 + i, n);
      });
      return;
    case lp::UNARY_ADD_CHANNEL:
    case lp::UNARY_MUL_CHANNEL: {
      const float* values = e.channel_values[static_cast<int>(op.a)] + tile.n0;
      const bool add = op.code == lp::UNARY_ADD_CHANNEL;
      for_rows(tile.x, tile.rows, tile.stride, tile.columns, [&](VF x, int, int64_t i, int n) {
        const VF value = vload_any(values + i, n);
        return add ? x + value : x * value;
      });
      return;
    }
    default: {  // UNARY_THROUGH_U8, UNARY_THROUGH_S8
      const float low = op.code == lp::UNARY_THROUGH_U8 ? 0.0f : -128.0f;
      const VF least = vset(low - op.b), most = vset(low + 255.0f - op.b), scale = vset(op.a);
      for_rows(tile.x, tile.rows, tile.stride, tile.columns, [&](VF x, int, int64_t, int) {
        return cvt_f32(cvt_s32(vmin(vmax(x / scale, least), most))) * scale;
      });
    }
  }
}

LP_INLINE bool is_placed(const lp::UnaryOp& op) { return op.code >= lp::UNARY_ADD_RESIDUAL; }

// In order; element-wise operators run over the whole tile, columns past the end included.
static void apply_operators(const lp::Epilogue& e, const Tile& tile) {
  for (int i = 0; i < e.n_ops;) {
    int end = i;
    while (end < e.n_ops && !is_placed(e.ops[end])) ++end;
    apply_chain(e.ops + i, end - i, tile.x, static_cast<int64_t>(tile.rows) * tile.stride);
    if (end < e.n_ops) apply_placed(e, e.ops[end], tile);
    i = end + 1;
  }
}

// ---- outputs ----

static void store_row(const float* x, int64_t count, const lp::Epilogue& e, uint8_t* dst) {
  if (e.kind == lp::OUT_F32) {
    memcpy(dst, x, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  if (e.kind == lp::OUT_BF16) {
    uint16_t* bits = reinterpret_cast<uint16_t*>(dst);
    for_lanes(count, [&](int64_t i, int n) __attribute__((always_inline)) {
      store_u16_any(bits + i, bf16_bits(vload_any(x + i, n)), n);
    });
    return;
  }
  const CodeRange range = code_range(e);
  const VF scale = vset(e.scale);
  for_lanes(count, [&](int64_t i, int n) __attribute__((always_inline)) {
    store_codes(dst + i, to_code(vload_any(x + i, n) / scale, range), n);
  });
  if (e.table != nullptr) apply_table(e.table, dst, static_cast<int>(count));
}

// x: real values after the bias (or the multiplier); overwritten.
static __attribute__((noinline)) void finish_reals(const lp::Epilogue& e, const RowBlock& block,
                                                   int first, int count, int64_t n0, int columns,
                                                   float* x, int stride) {
  if (e.n_ops > 0) apply_operators(e, {x, count, stride, columns, n0, block.residual + first});
  const int64_t offset = n0 * output_bytes(e);
  for (int i = 0; i < count; ++i) {
    store_row(x + i * stride, columns, e, block.target[first + i] + offset);
  }
}

static void requantise_row(const int32_t* acc, const float* multiplier, int64_t count,
                           const lp::Epilogue& e, uint8_t* dst) {
  const CodeRange range = code_range(e);
  for_lanes(count, [&](int64_t i, int n) __attribute__((always_inline)) {
    const VF x = cvt_f32(load_any(acc + i, n)) * vload_any(multiplier + i, n);
    store_codes(dst + i, to_code(x, range), n);
  });
  if (e.table != nullptr) apply_table(e.table, dst, static_cast<int>(count));
}

[[maybe_unused]] static __attribute__((noinline)) void finish_sums(const lp::Epilogue& e,
                                                                   const RowBlock& block, int first,
                                                                   int count, int64_t n0,
                                                                   int columns, const int32_t* acc,
                                                                   int stride) {
  uint8_t* const* dst = block.target + first;
  const int64_t offset = n0 * output_bytes(e);
  if (e.kind == lp::OUT_S32) {
    for (int i = 0; i < count; ++i) {
      memcpy(dst[i] + offset, acc + i * stride, static_cast<size_t>(columns) * sizeof(int32_t));
    }
    return;
  }
  const float* multiplier = e.multiplier + n0;
  if (is_requantisation(e)) {
    for (int i = 0; i < count; ++i) {
      requantise_row(acc + i * stride, multiplier, columns, e, dst[i] + offset);
    }
    return;
  }
  const float* addend = e.addend ? e.addend + n0 : nullptr;
  alignas(64) float x[FINISH_ROWS * 64] = {};
  const int width = (columns + 15) / 16 * 16;
  for (int begin = 0; begin < count; begin += FINISH_ROWS) {
    const int rows = count - begin < FINISH_ROWS ? count - begin : FINISH_ROWS;
    for (int r = 0; r < rows; ++r) {
      const int64_t m = block.m0 + first + begin + r;
      const VF scale = vset(e.row_multiplier ? e.row_multiplier[m] : 1.0f);
      const int32_t* sums = acc + (begin + r) * stride;
      for_lanes(columns, [&](int64_t i, int n) __attribute__((always_inline)) {
        VF factor = vload_any(multiplier + i, n);
        if (e.row_multiplier) factor = scale * factor;
        VF value = cvt_f32(load_any(sums + i, n)) * factor;
        if (addend) value = value + vload_any(addend + i, n);
        vstore_any(x + r * width + i, value, n);
      });
    }
    finish_reals(e, block, first + begin, rows, n0, columns, x, width);
  }
}

}  // namespace
