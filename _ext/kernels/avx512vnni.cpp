// avx512vnni.cpp: what VNNI makes faster than the avx512 table. The only exported symbol is add_.
#define LP_ISA_AVX512
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/impl/unary.inl"
//
#include "kernels/impl/finish.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/product_int8.inl"
#include "kernels/impl/tile_avx512.inl"
#include "kernels/impl/tile_forms_avx512.inl"
//
#include "kernels/impl/product_int8_avx512vnni.inl"
//
#include "kernels/impl/depthwise.inl"
#include "kernels/impl/depthwise_columns_avx512vnni.inl"
//
#include "kernels/impl/depthwise_3x3_avx512vnni.inl"
#include "kernels/impl/depthwise_tiles_avx512vnni.inl"
//
#include "kernels/impl/depthwise_avx512vnni.inl"
//
#include "kernels/impl/entries_int8.inl"

namespace lp {
void add_avx512vnni(Kernels* kernels) {
  kernels->product_u8s8 = product_u8s8;
  kernels->product_s8s8 = product_s8s8;
  kernels->depthwise_u8s8 = depthwise_u8s8;
}
}  // namespace lp
