// avx512.cpp: every kernel, compiled for this set. The only exported symbol is the table.
#define LP_ISA_AVX512
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/impl/unary.inl"
//
#include "kernels/impl/convert.inl"
#include "kernels/impl/elementwise.inl"
#include "kernels/impl/finish.inl"
#include "kernels/impl/histogram.inl"
#include "kernels/impl/pool.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/product_int8.inl"
#include "kernels/impl/rows.inl"
//
#include "kernels/impl/attention.inl"
//
#include "kernels/impl/tile_avx512.inl"
#include "kernels/impl/tile_reals_avx512.inl"
//
#include "kernels/impl/product_bf16.inl"
#include "kernels/impl/product_f16.inl"
#include "kernels/impl/product_f32_avx512.inl"
#include "kernels/impl/product_int8_widened.inl"
//
#include "kernels/impl/depthwise.inl"
#include "kernels/impl/depthwise_f32.inl"
#include "kernels/impl/depthwise_u8s8.inl"
//
#include "kernels/impl/entries_int8.inl"
#include "kernels/impl/pack.inl"
#include "kernels/impl/pack_f32.inl"
#include "kernels/impl/table.inl"

namespace lp {
const Kernels* kernels_avx512() {
  static constexpr Kernels kernels = kernel_table("avx512");
  return &kernels;
}
}  // namespace lp
