// tile_forms_avx512.inl: two frequent epilogues on a tile that stays in registers.
//
//   SUM      f32(acc) * multiplier [+ addend] + codes of a residual [, Relu] -> codes
//            (finish_sum.inl, where everything is bounded; whole panels)
//   SLOPES   f32(acc) * multiplier [+ addend], PRelu with a slope for each channel -> codes
//
// The same operations as finish.inl does on a tile in memory, so the same bits. What the epilogue
// is like is found out once for a block of rows. Needs tile_avx512.inl.

namespace {

struct TileForm {
  enum Kind : uint8_t { NONE, SUM, SLOPES };

  LP_MEMBER TileForm(const lp::ProductArgs& args, const CodeRows&) {
    const lp::Epilogue& e = args.epilogue;
    kind = NONE;
    if (e.n_ops == 0 || !gives_codes(e) || e.table != nullptr || e.row_multiplier != nullptr) {
      return;
    }
    const CodeRange range = code_range(e);
    if (!range.packs) return;
    if (e.n_ops == 1 && e.ops[0].code == lp::UNARY_PRELU_CHANNEL) {
      kind = SLOPES;
      slopes = e.channel_values[static_cast<int>(e.ops[0].a)];
      division = range.division;
    } else if (SumForm::of(e, range, sum) && sum.codes && sum.bounded && !sum.through) {
      kind = SUM;
      division = sum.division;
    }
  }

  Kind kind;
  const float* slopes;
  SumForm sum;
  CodeDivision division;
};

// The real values of row i of a tile.
template <int NV>
LP_INLINE void tile_reals(const lp::Epilogue& e, int64_t n0, const __m512i (&acc)[NV],
                          VF (&x)[NV]) {
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) {
    x[j] = VF{_mm512_cvtepi32_ps(acc[j])} * vload(e.multiplier + n0 + 16 * j);
  }
  if (e.addend == nullptr) return;
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) x[j] = x[j] + vload(e.addend + n0 + 16 * j);
}

// Steps of the output scale, within s16 or far outside of the codes, to codes.
template <int NV>
LP_INLINE __m512i packed_steps(const Packer& packer, const VI (&steps)[NV]) {
  __m512i q[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                  _mm512_setzero_si512()};
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) q[j] = steps[j].v;
  return packer.ordered(q[0], q[1], q[2], q[3]);
}

template <int MR, bool RELU>
LP_INLINE void store_sum_tile(const TileForm& form, const lp::Epilogue& e, const CodePanel& panel,
                              const RowBlock& rows, int first, const __m512i (&acc)[MR][4]) {
  const Packer packer = Packer::from(e);
  const VI zero_point = form.sum.residual_zero_point;
  const VF scale = form.sum.residual_scale, least = form.division.low;
  const CodeDivision division = form.division;
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    const uint8_t* residual = rows.residual[first + i] + panel.n0;
    VF x[4];
    VI steps[4];
    tile_reals<4>(e, panel.n0, acc[i], x);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      x[j] = x[j] + cvt_f32(load_u8(residual + 16 * j) - zero_point) * scale;
      if (RELU) x[j] = vmax(x[j], least);
      steps[j] = division.steps_unclamped(x[j]);
    }
    _mm512_storeu_si512(rows.target[first + i] + panel.n0, packed_steps<4>(packer, steps));
  }
}

template <int MR, int NV>
LP_INLINE void store_slopes_tile(const TileForm& form, const lp::Epilogue& e,
                                 const CodePanel& panel, const RowBlock& rows, int first,
                                 const __m512i (&acc)[MR][NV]) {
  const Packer packer = Packer::from(e);
  const CodeDivision division = form.division;
  const __mmask64 mask = byte_lanes(panel.columns);
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    VF x[NV];
    VI steps[NV];
    tile_reals<NV>(e, panel.n0, acc[i], x);
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const VF slope = vload(form.slopes + panel.n0 + 16 * j);
      x[j] = select(x[j] < vset(0.0f), slope * x[j], x[j]);
      steps[j] = division.steps(x[j]);
    }
    _mm512_mask_storeu_epi8(rows.target[first + i] + panel.n0, mask,
                            packed_steps<NV>(packer, steps));
  }
}

// False, and nothing done, where the epilogue is of another form.
template <int MR, int NV>
LP_INLINE bool store_form(const TileForm& form, const lp::Epilogue& e, const CodePanel& panel,
                          const RowBlock& rows, int first, const __m512i (&acc)[MR][NV]) {
  if (form.kind == TileForm::NONE) return false;
  if (form.kind == TileForm::SLOPES) {
    store_slopes_tile<MR, NV>(form, e, panel, rows, first, acc);
    return true;
  }
  if constexpr (NV == 4) {
    if (panel.columns < 64) return false;
    if (form.sum.relu) {
      store_sum_tile<MR, true>(form, e, panel, rows, first, acc);
    } else {
      store_sum_tile<MR, false>(form, e, panel, rows, first, acc);
    }
    return true;
  }
  return false;
}

}  // namespace
