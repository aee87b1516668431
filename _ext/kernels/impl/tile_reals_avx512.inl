// tile_reals_avx512.inl: what often follows a float product, while its tile is in registers.

namespace {

// Applies the chain where it is one operator of those below and f32 or bf16 leaves; true: there is
// nothing left of it. Everything else goes through finish_reals, in memory.
template <int MR, int NV>
LP_INLINE bool finish_in_registers(const lp::Epilogue& e, __m512 (&acc)[MR][NV]) {
  if (e.n_ops == 0) return true;
  if (e.n_ops != 1 || gives_codes(e)) return false;
  const lp::UnaryOp& op = e.ops[0];
  if (op.code == lp::UNARY_RELU) {
    const VF zero = vset(0.0f);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = vmax(zero, {acc[i][j]}).v;
    return true;
  }
  if (op.code == lp::UNARY_CLIP) {
    const VF low = vset(op.a), high = vset(op.b);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = clamp_keeping_nan({acc[i][j]}, low, high).v;
    return true;
  }
  return false;
}

}  // namespace
