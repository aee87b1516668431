// tile_forms_avx512.inl: three frequent epilogues of a tile.
//
//   SUM      f32(acc) * multiplier [+ addend] + codes of a residual [, Relu] -> codes
//            (finish_sum.inl, where everything is bounded; whole panels)
//   SLOPES   f32(acc) * multiplier [+ addend], PRelu with a slope for each channel -> codes
//   SILU     f32(acc) * multiplier [+ addend], silu -> codes; the sums go through memory, since the
//            function needs the registers
//
// The same operations as finish.inl does on a tile in memory, so the same bits. What the epilogue
// is like is found out once for a block of rows. Needs tile_avx512.inl.

namespace {

struct TileForm {
  enum Kind : uint8_t { NONE, SUM, SLOPES, SILU };

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
    } else if (e.n_ops == 1 && e.ops[0].code == lp::UNARY_SILU) {
      kind = SILU;
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

// The sums of `count` rows, `stride` apart, from row `first` of the block on.
static __attribute__((noinline)) void store_silu_rows(const TileForm& form, const lp::Epilogue& e,
                                                      const CodePanel& panel, const RowBlock& rows,
                                                      int first, int count, const int32_t* sums,
                                                      int stride) {
  const Packer packer = Packer::from(e);
  const CodeDivision division = form.division;
  const float* multiplier = e.multiplier + panel.n0;
  const float* addend = e.addend == nullptr ? nullptr : e.addend + panel.n0;
  const int columns = panel.columns;
  const __mmask64 mask = byte_lanes(columns);
  const auto steps_of = [&](int64_t at, int n) __attribute__((always_inline)) {
    VF x = cvt_f32(vload(sums + at)) * vload(multiplier + at);
    if (addend != nullptr) x = x + vload_any(addend + at, n);
    return division.steps(vsilu(x));
  };
  for (int r = 0; r < count; ++r, sums += stride) {
    VI steps[4] = {vset_s32(0), vset_s32(0), vset_s32(0), vset_s32(0)};
    if (columns == 64) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) steps[j] = steps_of(16 * j, 16);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const int left = columns - 16 * j;
        if (left > 0) steps[j] = steps_of(16 * j, left < 16 ? left : 16);
      }
    }
    _mm512_mask_storeu_epi8(rows.target[first + r] + panel.n0, mask,
                            packed_steps<4>(packer, steps));
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
  if (form.kind == TileForm::SILU) {
    alignas(64) int32_t sums[MR][16 * NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) _mm512_store_si512(sums[i] + 16 * j, acc[i][j]);
    store_silu_rows(form, e, panel, rows, first, MR, sums[0], 16 * NV);
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
