// tile_reals_avx512.inl: what often follows a float product, while its tile is in registers.
#include "kernels/impl/short_chain.inl"

namespace {

// Applies the chain where it is short and f32 or bf16 leaves; true: there is nothing left of it.
// Everything else goes through finish_reals, in memory.
template <int MR, int NV>
LP_INLINE bool finish_in_registers(const lp::Epilogue& e, __m512 (&acc)[MR][NV]) {
  if (!has_short_chain(e)) return false;
  for (int op = 0; op < e.n_ops; ++op) {
    with_short(e.ops[op], [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) acc[i][j] = f(VF{acc[i][j]}).v;
    });
  }
  return true;
}

}  // namespace
