// avxvnni.cpp: what AVX-VNNI makes faster than the avx2 table. The only exported symbol is add_.
//
// avxvnni_evex.cpp compiles this file a second time, with the EVEX encoding of the same vpdpbusd:
// so that the kernel is tested on machines that have AVX-512 VNNI and no AVX-VNNI.
#define LP_ISA_AVX2
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/impl/unary.inl"
//
#include "kernels/impl/finish.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/product_int8.inl"
#include "kernels/impl/product_int8_avxvnni.inl"
//
#include "kernels/impl/depthwise.inl"
#include "kernels/impl/depthwise_avxvnni.inl"
//
#include "kernels/impl/entries_int8.inl"

namespace lp {
#if defined(LP_MODEL)
void add_avxvnni_evex(Kernels* kernels) {
#else
void add_avxvnni(Kernels* kernels) {
#endif
  kernels->product_u8s8 = product_u8s8;
  kernels->product_s8s8 = product_s8s8;
  kernels->depthwise_u8s8 = depthwise_u8s8;
}
}  // namespace lp
