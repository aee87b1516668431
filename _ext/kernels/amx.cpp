// amx.cpp: what AMX makes faster than the avx512bf16 table. The only exported symbol is add_.
//
// amx_model.cpp compiles this file a second time over a model of the instructions (amx_tiles.h), so
// that everything but the instructions themselves is tested on machines without AMX.
#define LP_ISA_AVX512
#include "kernels/kernels.h"
#include "kernels/vec.h"
//
#include "kernels/amx_tiles.h"
//
#include "kernels/impl/unary.inl"
//
#include "kernels/impl/finish.inl"
#include "kernels/impl/product.inl"
#include "kernels/impl/product_int8.inl"
#include "kernels/impl/tile_avx512.inl"
//
#include "kernels/impl/product_amx.inl"
#include "kernels/impl/product_bf16_amx.inl"
#include "kernels/impl/product_int8_amx.inl"

namespace {

// Of the table that this one is laid over: for the last rows.
lp::Product below_u8s8, below_s8s8;

static void product_u8s8(const lp::ProductArgs* args, const lp::Piece* piece) {
  product_int8_amx<uint8_t>(*args, *piece, below_u8s8);
}
static void product_s8s8(const lp::ProductArgs* args, const lp::Piece* piece) {
  product_int8_amx<int8_t>(*args, *piece, below_s8s8);
}
static void product_bf16(const lp::ProductArgs* args, const lp::Piece* piece) {
  product<MicroBF16Amx, 2 * TILE_ROWS>(*args, *piece);
}

}  // namespace

namespace lp {
#if defined(LP_MODEL)
void add_amx_model(Kernels* kernels) {
#else
void add_amx(Kernels* kernels) {
#endif
  below_u8s8 = kernels->product_u8s8;
  below_s8s8 = kernels->product_s8s8;
  kernels->product_u8s8 = product_u8s8;
  kernels->product_s8s8 = product_s8s8;
  kernels->product_bf16 = product_bf16;
}
}  // namespace lp
