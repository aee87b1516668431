// matrix_product.h: one matrix product on plain row-major matrices, packed on the spot, with any
// epilogue: how tests reach one kernel of one set. lowprec.numerics calls linear.h; the engine
// packs once and calls the kernels itself.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"

namespace lp {

// The operands of a product of codes: a (m, k), rows `a_stride` >= k elements apart, times b (k, n)
// contiguous. Zero points: of all of a, or one a row; of b one a column, or null for 0.
struct CodeOperands {
  const void* a;
  const void* b;
  bool a_signed, b_signed;  // s8 rather than u8
  int64_t m, k, n, a_stride;
  int32_t a_zero_point;
  const int32_t* row_zero_points;
  const int32_t* column_zero_points;
};

// out (m, n) = epilogue(bias + (a - za) * (b - zb)). Nothing is read past the end of any argument.
// bias may be null (0); multiplier may be null where the epilogue needs none; addend may be null.
// The epilogue's own multiplier and addend are ignored.
void matmul_int8(const Kernels* kernels, const CodeOperands& operands, const int32_t* bias,
                 const float* multiplier, const float* addend, const Epilogue& epilogue, void* out);
// out (m, n) = epilogue(bias + a (m, k) * b (k, n)), the same way.
void matmul_f32(const Kernels* kernels, const float* a, const float* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out);
// The elements' bits.
void matmul_bf16(const Kernels* kernels, const uint16_t* a, const uint16_t* b, int64_t m, int64_t k,
                 int64_t n, const float* bias, const Epilogue& epilogue, void* out);
void matmul_f16(const Kernels* kernels, const uint16_t* a, const uint16_t* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out);

}  // namespace lp
