// finish_sum.inl: the epilogue of residual networks in one walk over a row's registers.
//
//   f32(acc) * multiplier [, to codes and back] + residual [, Relu] -> codes
//
// The same bits as the operators one after the other (finish.inl), with what they have in common
// done once: Relu is the lower end of the clamp that saturates, zero points are subtracted as
// floats (exact), and the way through codes rounds without leaving float. Needs finite values, so
// the residual is codes, or f32 without Relu; whatever is not of this form is interpreted.
//
// Included by finish.inl.

namespace {

struct SumForm {
  // False: `e` is something else.
  static LP_MEMBER bool of(const lp::Epilogue& e, const CodeRange& range, SumForm& form) {
    if (W == 1 || !gives_codes(e) || !range.packs || e.residual == nullptr ||
        e.row_multiplier != nullptr || e.table != nullptr) {
      return false;
    }
    const lp::UnaryOp *op = e.ops, *end = e.ops + e.n_ops;
    form.through = false;
    float low = 0.0f, high = 0.0f, back = 1.0f;
    if (op + 1 < end && op->a == 1.0f &&
        (op->code == lp::UNARY_THROUGH_U8 || op->code == lp::UNARY_THROUGH_S8)) {
      low = (op->code == lp::UNARY_THROUGH_U8 ? 0.0f : -128.0f) - op->b;
      high = low + 255.0f;
      ++op;
      if (op + 1 < end && op->code == lp::UNARY_CLIP) {
        low = op->a > low ? op->a : low;
        high = op->b < high ? op->b : high;
        ++op;
      }
      if (op->code != lp::UNARY_MUL) return false;
      back = op->a;
      ++op;
      form.through = true;
    }
    if (op == end || op->code != lp::UNARY_ADD_RESIDUAL) return false;
    ++op;
    const bool relu = op < end && op->code == lp::UNARY_RELU;
    if (relu) ++op;
    if (op != end) return false;
    form.codes = e.residual_kind == lp::OUT_U8;
    if (!form.codes && (e.residual_kind != lp::OUT_F32 || relu)) return false;
    // Codes times such a scale, and a sum of two of them, are finite.
    if (form.codes && !ordinary(e.residual_scale)) return false;
    if (form.through && !ordinary(back)) return false;
    form.bounded = form.codes && e.fast != 0;
    // Saturation does what Relu does where the zero point is the smallest code.
    form.relu = relu && e.zero_point != (e.kind == lp::OUT_U8 ? 0 : -128);
    form.low = vset_s32(static_cast<int32_t>(low));
    form.high = vset_s32(static_cast<int32_t>(high));
    form.back = vset(back);
    form.residual_zero_point = vset_s32(e.residual_zero_point);
    form.residual_scale = vset(e.residual_scale);
    form.zero_point = range.zero_point;
    form.division = range.division;
    if (relu) form.division.low = vset(0.0f);
    return true;
  }

  bool through, codes, bounded, relu;
  VI low, high;  // the codes in between, less their zero point
  VF back;       // their scale
  VI residual_zero_point;
  VF residual_scale;
  VI zero_point;
  CodeDivision division;
};

// Four vectors of columns: f32 values to one vector of codes. BOUNDED (Epilogue::fast): products
// stay below 2^31 and sums below 2^30 steps, so that nothing needs clamping before it is rounded.
template <bool THROUGH, bool CODES, bool BOUNDED>
LP_INLINE void store_sum(bool is_signed, const SumForm& form, const uint8_t* residual, uint8_t* dst,
                         VF (&x)[4]) {
  VI steps[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if (THROUGH) {
      const VF limit = vset(1073741824.0f);
      const VF near = BOUNDED ? x[j] : vmin(vmax(x[j], vset(0.0f) - limit), limit);
      x[j] = cvt_f32(vmin(vmax(cvt_s32(near), form.low), form.high)) * form.back;
    }
    if (CODES) {
      const VI code = load_u8(residual + j * W) - form.residual_zero_point;
      x[j] = x[j] + cvt_f32(code) * form.residual_scale;
    } else {
      x[j] = x[j] + vload(reinterpret_cast<const float*>(residual) + j * W);
    }
    if (BOUNDED) {
      if (form.relu) x[j] = vmax(x[j], form.division.low);
      steps[j] = form.division.steps_unclamped(x[j]) + form.zero_point;
    } else {
      steps[j] = form.division.steps(x[j]) + form.zero_point;
    }
  }
  store_packed(is_signed, dst, steps);
}

// The columns that fill groups of four vectors, of `count` rows of a tile from row `first` on.
template <bool THROUGH, bool CODES, bool BOUNDED>
LP_INLINE void finish_sum_rows(const lp::Epilogue& e, const SumForm& constants,
                               const RowBlock& block, int first, int count, int64_t n0, int columns,
                               const int32_t* acc, int stride) {
  const SumForm form =
      constants;  // nothing that is stored can change a copy: it stays in registers
  const bool is_signed = e.kind == lp::OUT_S8;
  const float* multiplier = e.multiplier + n0;
  const float* addend = e.addend ? e.addend + n0 : nullptr;
  constexpr int64_t RESIDUAL_BYTES = CODES ? 1 : 4;
  for (int r = 0; r < count; ++r) {
    const int32_t* sums = acc + r * stride;
    const uint8_t* residual = block.residual[first + r] + n0 * RESIDUAL_BYTES;
    uint8_t* dst = block.target[first + r] + n0;
    for (int at = 0; at + 4 * W <= columns; at += 4 * W) {
      VF x[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        x[j] = cvt_f32(vload(sums + at + j * W)) * vload(multiplier + at + j * W);
      }
      if (addend != nullptr) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) x[j] = x[j] + vload(addend + at + j * W);
      }
      store_sum<THROUGH, CODES, BOUNDED>(is_signed, form, residual + at * RESIDUAL_BYTES, dst + at,
                                         x);
    }
  }
}

static __attribute__((noinline)) void finish_sum_tile(const lp::Epilogue& e, const SumForm& form,
                                                      const RowBlock& block, int first, int count,
                                                      int64_t n0, int columns, const int32_t* acc,
                                                      int stride) {
  if (form.through && form.bounded) {
    finish_sum_rows<true, true, true>(e, form, block, first, count, n0, columns, acc, stride);
  } else if (form.bounded) {
    finish_sum_rows<false, true, true>(e, form, block, first, count, n0, columns, acc, stride);
  } else if (form.through && form.codes) {
    finish_sum_rows<true, true, false>(e, form, block, first, count, n0, columns, acc, stride);
  } else if (form.codes) {
    finish_sum_rows<false, true, false>(e, form, block, first, count, n0, columns, acc, stride);
  } else if (form.through) {
    finish_sum_rows<true, false, false>(e, form, block, first, count, n0, columns, acc, stride);
  } else {
    finish_sum_rows<false, false, false>(e, form, block, first, count, n0, columns, acc, stride);
  }
}

}  // namespace
