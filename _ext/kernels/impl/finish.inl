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
#include "kernels/impl/byte_table.inl"
#include "kernels/impl/code_division.inl"
#include "kernels/impl/elements.inl"
#include "kernels/impl/unary.inl"
#include "kernels/impl/wide_stores.inl"

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
  LP_MEMBER void step() { advance(1); }
  // At most to the end of the line.
  LP_MEMBER void advance(int64_t pixels) {
    if ((x += pixels) == cols) {
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

// The next rows.count rows of `walk`: where they read, rows.source, and where their outputs go.
template <class Element, class Rows>
LP_INLINE void place_rows(const lp::ProductArgs& args, RowWalk& walk, Rows& rows) {
  const lp::Epilogue& e = args.epilogue;
  const int64_t out_step = args.dst_col * output_bytes(e);
  const int64_t residual_step =
      e.residual == nullptr ? 0 : e.residual_col * element_bytes(e.residual_kind);
  for (int i = 0; i < rows.count;) {
    const int64_t left = walk.cols - walk.x;
    const int end = left < rows.count - i ? i + static_cast<int>(left) : rows.count;
    const Element* source = static_cast<const Element*>(args.src) + walk.src(args);
    uint8_t* target = static_cast<uint8_t*>(args.dst) + walk.dst(args) * output_bytes(e);
    const uint8_t* residual = walk.residual(e);
    walk.advance(end - i);
    for (; i < end; ++i) {
      rows.source[i] = source;
      rows.target[i] = target;
      rows.residual[i] = residual;
      source += args.src_col;
      target += out_step;
      residual += residual_step;
    }
  }
}

// Brings the lines that a tile will store into the first cache while it is computed: a large result
// is otherwise limited by the wait for each of them. From channel n0 on, `columns` of each row.
template <int MR>
[[maybe_unused]] LP_INLINE void fetch_target(const lp::Epilogue& e, const RowBlock& rows, int first,
                                             int64_t n0, int64_t columns) {
  const int64_t out_bytes = output_bytes(e);
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) {
    const uint8_t* line = rows.target[first + i] + n0 * out_bytes;
    for (int64_t at = 0; at < columns * out_bytes; at += 64) __builtin_prefetch(line + at, 1, 3);
  }
  if (e.residual == nullptr) return;
  const int64_t bytes = element_bytes(e.residual_kind);
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) {
    const uint8_t* line = rows.residual[first + i] + n0 * bytes;
    for (int64_t at = 0; at < columns * bytes; at += 64) __builtin_prefetch(line + at, 0, 3);
  }
}

// ---- what there is to do ----

// The chain is empty. Of an int8 product, a u8/s8 output is then one product and one rounding, and
// the table, if any, remains to be applied (apply_table).
LP_INLINE bool is_plain(const lp::Epilogue& e) { return e.n_ops == 0 && e.addend == nullptr; }
[[maybe_unused]] LP_INLINE bool is_requantisation(const lp::Epilogue& e) {
  return gives_codes(e) && is_plain(e);
}
// f32 leaves as it is: after the bias, or the multiplier and the addend.
[[maybe_unused]] LP_INLINE bool is_bare(const lp::Epilogue& e) {
  return e.kind == lp::OUT_F32 && e.n_ops == 0 && e.row_multiplier == nullptr;
}

struct CodeRange {
  VF low, high;  // of the code minus its zero point, as floats: clamping there equals saturating
  VI zero_point, qmin, qmax;
  bool packs;  // every code is allowed, and the scale is ordinary: see store_packed
  CodeDivision division;
};

LP_INLINE CodeRange code_range(const lp::Epilogue& e) {
  const int type_min = e.kind == lp::OUT_U8 ? 0 : -128;
  const int type_max = e.kind == lp::OUT_U8 ? 255 : 127;
  return {vset(static_cast<float>(type_min - e.zero_point)),
          vset(static_cast<float>(type_max - e.zero_point)),
          vset_s32(e.zero_point),
          vset_s32(e.qmin),
          vset_s32(e.qmax),
          e.qmin <= type_min && e.qmax >= type_max && ordinary(e.scale),
          CodeDivision::by(e.scale)};
}

// x is in units of the output scale. NaN becomes the lowest code.
LP_INLINE VI to_code(VF x, const CodeRange& range) {
  const VI code = cvt_s32(vmin(vmax(x, range.low), range.high)) + range.zero_point;
  return vmin(vmax(code, range.qmin), range.qmax);
}

// ---- operators that know the row and the column ----

// x[j] += what the residual has from element i on.
template <int V>
LP_INLINE void add_residual(const lp::Epilogue& e, const uint8_t* residual, int64_t i, int n,
                            VF (&x)[V]) {
  const auto add = [&](auto value) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) x[j] = x[j] + value(i + j * W);
  };
  const VI zero_point = vset_s32(e.residual_zero_point);
  const VF scale = vset(e.residual_scale);
  switch (e.residual_kind) {
    case lp::OUT_F32:
      return add([&](int64_t at) __attribute__((always_inline)) {
        return vload_any(reinterpret_cast<const float*>(residual) + at, n);
      });
    case lp::OUT_BF16:
      return add([&](int64_t at) __attribute__((always_inline)) {
        return as_f32(
            shift_left<16>(load_u16_any(reinterpret_cast<const uint16_t*>(residual) + at, n)));
      });
    case lp::OUT_U8:
      return add([&](int64_t at) __attribute__((always_inline)) {
        return cvt_f32(load_codes(residual + at, n) - zero_point) * scale;
      });
    default:
      return add([&](int64_t at) __attribute__((always_inline)) {
        const int8_t* codes = reinterpret_cast<const int8_t*>(residual);
        return cvt_f32(load_codes(codes + at, n) - zero_point) * scale;
      });
  }
}

// A scale of 1, as where the multiplier gives codes already, needs no division.
LP_INLINE VF through_codes(VF x, const lp::UnaryOp& op) {
  const float low = op.code == lp::UNARY_THROUGH_U8 ? 0.0f : -128.0f;
  const VF least = vset(low - op.b), most = vset(low + 255.0f - op.b), scale = vset(op.a);
  if (op.a == 1.0f) return cvt_f32(cvt_s32(vmin(vmax(x, least), most)));
  return cvt_f32(cvt_s32(vmin(vmax(x / scale, least), most))) * scale;
}

// One row of a tile: where it goes, and where it finds what belongs to its columns.
struct OutputRow {
  int64_t n0;
  uint8_t* dst;             // its element of channel n0
  const uint8_t* residual;  // its element of channel 0
};

// x: V vectors of neighbouring columns from n0 + at on, `n` lanes of each. False, and nothing done,
// where the operator is neither placed nor simple.
template <int V>
LP_INLINE bool apply_in_registers(const lp::Epilogue& e, const lp::UnaryOp& op,
                                  const OutputRow& row, int64_t at, int n, VF (&x)[V]) {
  switch (op.code) {
    case lp::UNARY_ADD_RESIDUAL:
      add_residual<V>(e, row.residual, row.n0 + at, n, x);
      return true;
    case lp::UNARY_ADD_CHANNEL:
    case lp::UNARY_MUL_CHANNEL: {
      const float* values = e.channel_values[static_cast<int>(op.a)] + row.n0 + at;
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) {
        const VF value = vload_any(values + j * W, n);
        x[j] = op.code == lp::UNARY_ADD_CHANNEL ? x[j] + value : x[j] * value;
      }
      return true;
    }
    case lp::UNARY_PRELU_CHANNEL: {
      const float* slopes = e.channel_values[static_cast<int>(op.a)] + row.n0 + at;
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) {
        x[j] = select(x[j] < vset(0.0f), vload_any(slopes + j * W, n) * x[j], x[j]);
      }
      return true;
    }
    case lp::UNARY_THROUGH_U8:
    case lp::UNARY_THROUGH_S8:
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) x[j] = through_codes(x[j], op);
      return true;
    default:
      return with_simple(op, [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int j = 0; j < V; ++j) x[j] = f(x[j]);
      });
  }
}

LP_INLINE bool is_placed(const lp::UnaryOp& op) { return op.code >= lp::UNARY_ADD_RESIDUAL; }
// The first operator that is not of a few instructions; n_ops if there is none.
LP_INLINE int first_long(const lp::Epilogue& e, int begin = 0) {
  int i = begin;
  while (i < e.n_ops && (is_placed(e.ops[i]) || with_simple(e.ops[i], [](auto) {}))) ++i;
  return i;
}

// Calls visit(f) with the operator as a function of one vector, if it is one that networks have
// after most of their layers; otherwise returns false.
template <class Visit>
LP_INLINE bool with_frequent(const lp::UnaryOp& op, Visit visit) {
  switch (op.code) {
    case lp::UNARY_SIGMOID:
      visit([](VF x) __attribute__((always_inline)) { return vsigmoid(x); });
      return true;
    case lp::UNARY_SILU:
      visit([](VF x) __attribute__((always_inline)) { return vsilu(x); });
      return true;
    case lp::UNARY_TANH:
      visit([](VF x) __attribute__((always_inline)) { return vtanh(x); });
      return true;
    case lp::UNARY_GELU:
      visit([](VF x) __attribute__((always_inline)) { return vgelu(x); });
      return true;
    default:
      return false;
  }
}

// ---- outputs ----

// Four vectors of codes, within s16, saturated.
template <int V>
LP_INLINE void store_packed(bool is_signed, uint8_t* dst, const VI (&codes)[V]) {
#if defined(__AVX512BW__) || defined(__AVX2__)
  if constexpr (V == 4) {
    store_vector(dst, is_signed ? pack_codes<int8_t>(codes[0], codes[1], codes[2], codes[3])
                                : pack_codes<uint8_t>(codes[0], codes[1], codes[2], codes[3]));
  }
#else
  const VI low = vset_s32(is_signed ? -128 : 0), high = vset_s32(is_signed ? 127 : 255);
  for (int j = 0; j < V; ++j) store_codes(dst + j * W, vmin(vmax(codes[j], low), high), W);
#endif
}

template <int V>
LP_INLINE void store_outputs(const lp::Epilogue& e, const CodeRange& range, const OutputRow& row,
                             int64_t at, int n, const VF (&x)[V]) {
  if (e.kind == lp::OUT_F32) {
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      vstore_any(reinterpret_cast<float*>(row.dst) + at + j * W, x[j], n);
    }
  } else if (e.kind == lp::OUT_BF16) {
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      store_bf16(reinterpret_cast<uint16_t*>(row.dst) + at + j * W, x[j], n);
    }
  } else if (V == 4 && W > 1 && range.packs) {
    VI steps[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) steps[j] = range.division.steps(x[j]) + range.zero_point;
    store_packed(e.kind == lp::OUT_S8, row.dst + at, steps);
  } else if (W > 1 && range.packs) {
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      const VI code = range.division.steps(x[j]) + range.zero_point;
      store_codes(row.dst + at + j * W, vmin(vmax(code, range.qmin), range.qmax), n);
    }
  } else {
    const VF scale = vset(e.scale);
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      store_codes(row.dst + at + j * W, to_code(x[j] / scale, range), n);
    }
  }
}

// Calls body(V, at, n) over `columns` columns: four vectors at a time, then two, then one by one.
template <int V>
struct Vectors {
  static constexpr int value = V;
};
template <class Body>
LP_INLINE void for_vectors(int columns, Body body) {
  constexpr int V = W == 1 ? 8 : 4;
  int at = 0;
  for (; at + V * W <= columns; at += V * W) body(Vectors<V>(), at, W);
  if (W > 1 && at + 2 * W <= columns) {
    body(Vectors<2>(), at, W);
    at += 2 * W;
  }
  for (; at < columns; at += W) body(Vectors<1>(), at, columns - at < W ? columns - at : W);
}

// The last steps of one row: `load(at, n)` gives real values. ops[middle], if there is such an
// operator, is `function`.
template <class Load, class Function>
LP_INLINE void finish_row(const lp::Epilogue& e, const CodeRange& range, const OutputRow& row,
                          int columns, Load load, int middle, Function function) {
  for_vectors(columns, [&](auto vectors, int64_t at, int n) __attribute__((always_inline)) {
    constexpr int V = decltype(vectors)::value;
    VF x[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) x[j] = load(at + j * W, n);
    for (int i = 0; i < middle; ++i) apply_in_registers<V>(e, e.ops[i], row, at, n, x);
    if (middle < e.n_ops) {
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) x[j] = function(x[j]);
    }
    for (int i = middle + 1; i < e.n_ops; ++i) apply_in_registers<V>(e, e.ops[i], row, at, n, x);
    store_outputs<V>(e, range, row, at, n, x);
  });
  if (gives_codes(e) && e.table != nullptr) apply_table(e.table, row.dst, columns);
}

// What else there is of many instructions runs over the whole tile, columns past the end included;
// operators that know their place, row by row.
static void apply_long_chain(const lp::Epilogue& e, const RowBlock& block, int first, int count,
                             int64_t n0, int columns, float* x, int stride) {
  for (int i = 0; i < e.n_ops;) {
    int end = i;
    while (end < e.n_ops && !is_placed(e.ops[end])) ++end;
    apply_chain(e.ops + i, end - i, x, static_cast<int64_t>(count) * stride);
    for (int r = 0; end < e.n_ops && r < count; ++r) {
      const OutputRow row = {n0, nullptr, block.residual[first + r]};
      float* values = x + r * stride;
      for_vectors(columns, [&](auto vectors, int64_t at, int n) __attribute__((always_inline)) {
        constexpr int V = decltype(vectors)::value;
        VF v[V];
#pragma GCC unroll 8
        for (int j = 0; j < V; ++j) v[j] = vload_any(values + at + j * W, n);
        apply_in_registers<V>(e, e.ops[end], row, at, n, v);
#pragma GCC unroll 8
        for (int j = 0; j < V; ++j) vstore_any(values + at + j * W, v[j], n);
      });
    }
    i = end + 1;
  }
}

template <class Function>
LP_INLINE void finish_tile(const lp::Epilogue& e, const CodeRange& range, const RowBlock& block,
                           int first, int count, int64_t n0, int columns, const float* x,
                           int stride, int middle, Function function) {
  for (int r = 0; r < count; ++r) {
    const OutputRow row = {n0, block.target[first + r] + n0 * output_bytes(e),
                           block.residual[first + r]};
    const float* values = x + r * stride;
    const auto load = [&](int64_t at, int n)
                          __attribute__((always_inline)) { return vload_any(values + at, n); };
    finish_row(e, range, row, columns, load, middle, function);
  }
}

// x: real values after the bias (or the multiplier); overwritten.
[[maybe_unused]] static __attribute__((noinline)) void finish_reals(const lp::Epilogue& e,
                                                                    const RowBlock& block,
                                                                    int first, int count,
                                                                    int64_t n0, int columns,
                                                                    float* x, int stride) {
  const CodeRange range = code_range(e);
  const auto finish = [&](const lp::Epilogue& rest, int middle,
                          auto function) __attribute__((always_inline)) {
    finish_tile(rest, range, block, first, count, n0, columns, x, stride, middle, function);
  };
  const auto nothing = [](VF value) __attribute__((always_inline)) { return value; };
  const int middle = first_long(e);
  if (middle == e.n_ops) return finish(e, middle, nothing);
  if (first_long(e, middle + 1) == e.n_ops &&
      with_frequent(e.ops[middle],
                    [&](auto f) __attribute__((always_inline)) { finish(e, middle, f); })) {
    return;
  }
  apply_long_chain(e, block, first, count, n0, columns, x, stride);
  lp::Epilogue rest = e;
  rest.n_ops = 0;
  finish(rest, 0, nothing);
}

}  // namespace

#include "kernels/impl/finish_sum.inl"

namespace {

// Calls use(r, real) for each row, where real(at, n) is acc * multiplier + addend.
template <class Use>
LP_INLINE void with_reals(const lp::Epilogue& e, int64_t m, int count, int64_t n0,
                          const int32_t* acc, int stride, Use use) {
  const float* multiplier = e.multiplier + n0;
  const float* addend = e.addend ? e.addend + n0 : nullptr;
  for (int r = 0; r < count; ++r) {
    const int32_t* sums = acc + r * stride;
    const VF scale = vset(e.row_multiplier ? e.row_multiplier[m + r] : 1.0f);
    use(r, [&](int64_t at, int n) __attribute__((always_inline)) {
      VF factor = vload_any(multiplier + at, n);
      if (e.row_multiplier) factor = scale * factor;
      const VF x = cvt_f32(load_any(sums + at, n)) * factor;
      return addend ? x + vload_any(addend + at, n) : x;
    });
  }
}

[[maybe_unused]] static __attribute__((noinline)) void finish_sums(const lp::Epilogue& e,
                                                                   const RowBlock& block, int first,
                                                                   int count, int64_t n0,
                                                                   int columns, const int32_t* acc,
                                                                   int stride) {
  uint8_t* const* target = block.target + first;
  const int64_t offset = n0 * output_bytes(e), m = block.m0 + first;
  if (e.kind == lp::OUT_S32) {
    for (int r = 0; r < count; ++r) {
      memcpy(target[r] + offset, acc + r * stride, static_cast<size_t>(columns) * sizeof(int32_t));
    }
    return;
  }
  const CodeRange range = code_range(e);
  if (is_requantisation(e)) {
    with_reals(e, m, count, n0, acc, stride, [&](int r, auto real) __attribute__((always_inline)) {
      uint8_t* dst = target[r] + offset;
      for_lanes(columns, [&](int64_t at, int n) __attribute__((always_inline)) {
        store_codes(dst + at, to_code(real(at, n), range), n);
      });
      if (e.table != nullptr) apply_table(e.table, dst, columns);
    });
    return;
  }
  const int middle = first_long(e);
  const auto finish_rows = [&](auto function) __attribute__((always_inline)) {
    const int64_t begin = n0 * output_bytes(e);
    with_reals(e, m, count, n0, acc, stride, [&](int r, auto real) __attribute__((always_inline)) {
      finish_row(e, range, {n0, target[r] + begin, block.residual[first + r]}, columns, real,
                 middle, function);
    });
  };
  if (middle == e.n_ops) {
    SumForm form;
    if (columns >= 4 * W && SumForm::of(e, range, form)) {
      finish_sum_tile(e, form, block, first, count, n0, columns, acc, stride);
      if (columns % (4 * W) == 0) return;
      const int done = columns / (4 * W) * (4 * W);
      n0 += done, columns -= done, acc += done;
    }
    finish_rows([](VF value) __attribute__((always_inline)) { return value; });
    return;
  }
  if (first_long(e, middle + 1) == e.n_ops && with_frequent(e.ops[middle], finish_rows)) return;
  alignas(64) float x[FINISH_ROWS * 64] = {};
  const int width = (columns + 15) / 16 * 16;
  for (int begin = 0; begin < count; begin += FINISH_ROWS) {
    const int rows = count - begin < FINISH_ROWS ? count - begin : FINISH_ROWS;
    with_reals(e, m + begin, rows, n0, acc + begin * stride, stride,
               [&](int r, auto real) __attribute__((always_inline)) {
                 for_lanes(columns, [&](int64_t at, int n) __attribute__((always_inline)) {
                   vstore_any(x + r * width + at, real(at, n), n);
                 });
               });
    finish_reals(e, block, first + begin, rows, n0, columns, x, width);
  }
}

}  // namespace
