// neon.cpp: every kernel for Advanced SIMD, which every aarch64 machine has. The only exported
// symbol is the table.
#define LP_ISA_NEON
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
#include "kernels/impl/product_bf16.inl"
#include "kernels/impl/product_f16.inl"
#include "kernels/impl/product_f32_neon.inl"
#include "kernels/impl/product_int8_neon.inl"
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
const Kernels* kernels_neon() {
  static constexpr Kernels kernels = kernel_table("neon");
  return &kernels;
}
}  // namespace lp
