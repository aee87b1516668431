// short_chain.inl: the operators that mostly follow a float layer, applied in registers.
//
// The same functions as everywhere (unary.inl); only few of them, because a kernel that keeps its
// results in registers holds a copy for every shape of its tile.
#pragma once
#include "kernels/impl/unary.inl"

namespace {

LP_INLINE bool is_short(const lp::UnaryOp& op) {
  return op.code == lp::UNARY_RELU || op.code == lp::UNARY_CLIP || op.code == lp::UNARY_ADD ||
         op.code == lp::UNARY_MUL || op.code == lp::UNARY_HARD_SWISH;
}
// f32 or bf16 leaves, and what comes before that are at most these operators.
LP_INLINE bool has_short_chain(const lp::Epilogue& e) {
  if (e.kind != lp::OUT_F32 && e.kind != lp::OUT_BF16) return false;
  for (int i = 0; i < e.n_ops; ++i) {
    if (!is_short(e.ops[i])) return false;
  }
  return true;
}

// Calls visit(f) with the operator as a function of vectors.
template <class Visit>
LP_INLINE void with_short(const lp::UnaryOp& op, Visit visit) {
  const VF a = vset(op.a), b = vset(op.b), zero = vset(0.0f);
  switch (op.code) {
    case lp::UNARY_RELU:
      return visit([=](VF x) { return vmax(zero, x); });
    case lp::UNARY_CLIP:
      return visit([=](VF x) { return clamp_keeping_nan(x, a, b); });
    case lp::UNARY_ADD:
      return visit([=](VF x) { return x + a; });
    case lp::UNARY_MUL:
      return visit([=](VF x) { return x * a; });
    default:
      return visit([=](VF x) { return x * vhard_sigmoid(x, vset(1.0f / 6.0f), vset(0.5f)); });
  }
}

}  // namespace
