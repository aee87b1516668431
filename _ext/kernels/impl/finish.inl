// finish.inl: from accumulators to outputs (kernels.h, Epilogue), one row of at most a few hundred
// columns at a time. The only place where a product's result is rounded.
//
// Needs vec.h, unary.inl. Included once per ISA.

namespace {

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

// x: real values after the bias (or the multiplier); overwritten.
LP_INLINE void finish_f32(float* x, int64_t count, const lp::Epilogue& e, void* dst) {
  if (e.n_ops > 0) apply_chain(e.ops, e.n_ops, x, count);
  if (e.kind == lp::OUT_F32) {
    memcpy(dst, x, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const CodeRange range = code_range(e);
  const VF scale = vset(e.scale);
  uint8_t* codes = static_cast<uint8_t*>(dst);
  for_lanes(count, [&](int64_t i, int n) __attribute__((always_inline)) {
    const VI code = to_code(vload_any(x + i, n) / scale, range);
    if (n == W) {
      store_b8(codes + i, code);
    } else {
      store_b8_n(codes + i, code, n);
    }
  });
}

LP_INLINE bool is_plain(const lp::Epilogue& e) { return e.n_ops == 0 && e.addend == nullptr; }

// The row starts at output channel n0; `scratch` holds count floats.
LP_INLINE void finish_s32(const int32_t* acc, int64_t n0, int64_t count, const lp::Epilogue& e,
                          void* dst, float* scratch) {
  if (e.kind == lp::OUT_S32) {
    memcpy(dst, acc, static_cast<size_t>(count) * sizeof(int32_t));
    return;
  }
  const float* multiplier = e.multiplier + n0;
  if (e.kind == lp::OUT_F32 || !is_plain(e)) {
    for (int64_t i = 0; i < count; i += W) {
      const int n = count - i < W ? static_cast<int>(count - i) : W;
      const VI a = n == W ? vload(acc + i) : vload_n(acc + i, n);
      VF x = cvt_f32(a) * vload_any(multiplier + i, n);
      if (e.addend) x = x + vload_any(e.addend + n0 + i, n);
      vstore_any(scratch + i, x, n);
    }
    finish_f32(scratch, count, e, dst);
    return;
  }
  const CodeRange range = code_range(e);
  uint8_t* codes = static_cast<uint8_t*>(dst);
  for (int64_t i = 0; i < count; i += W) {
    const int n = count - i < W ? static_cast<int>(count - i) : W;
    const VI a = n == W ? vload(acc + i) : vload_n(acc + i, n);
    const VI code = to_code(cvt_f32(a) * vload_any(multiplier + i, n), range);
    if (n == W) {
      store_b8(codes + i, code);
    } else {
      store_b8_n(codes + i, code, n);
    }
  }
}

// The chain runs once over the whole tile; columns past the end are computed and dropped.
[[maybe_unused]] static __attribute__((noinline)) void finish_buffer(float* x, int rows, int stride,
                                                                     int columns,
                                                                     const lp::Epilogue& e,
                                                                     uint8_t* const* dst) {
  apply_chain(e.ops, e.n_ops, x, static_cast<int64_t>(rows) * stride);
  lp::Epilogue rest = e;
  rest.n_ops = 0;
  for (int i = 0; i < rows; ++i) finish_f32(x + i * stride, columns, rest, dst[i]);
}

LP_INLINE int64_t output_bytes(const lp::Epilogue& e) {
  return e.kind == lp::OUT_U8 || e.kind == lp::OUT_S8 ? 1 : 4;
}

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

}  // namespace
