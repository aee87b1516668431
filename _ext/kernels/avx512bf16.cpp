// avx512bf16.cpp: what AVX512_BF16 makes faster than the avx512vnni table. The only exported symbol
// is add_.
#define LP_ISA_AVX512
#define LP_HAS_BF16
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/impl/finish.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/tile_reals_avx512.inl"
//
#include "kernels/impl/product_bf16_avx512.inl"
//
#include "kernels/impl/depthwise.inl"
#include "kernels/impl/depthwise_f32.inl"

namespace {

static void product_bf16(const lp::ProductArgs* args, const lp::Piece* piece) {
  product<MicroBF16>(*args, *piece);
}

}  // namespace

namespace lp {
void add_avx512bf16(Kernels* kernels) {
  kernels->product_bf16 = product_bf16;
  kernels->depthwise_bf16 = depthwise_bf16;
}
}  // namespace lp
