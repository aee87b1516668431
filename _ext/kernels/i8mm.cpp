// i8mm.cpp: what SMMLA and USMMLA make faster than the dotprod table. The only exported symbol is
// add_.
#define LP_ISA_NEON
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/impl/unary.inl"
//
#include "kernels/impl/finish.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/product_int8.inl"
#include "kernels/impl/product_int8_i8mm.inl"
//
#include "kernels/impl/entries_int8.inl"

namespace lp {
void add_i8mm(Kernels* kernels) {
  kernels->product_u8s8 = product_u8s8;
  kernels->product_s8s8 = product_s8s8;
}
}  // namespace lp
