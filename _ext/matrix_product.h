// matrix_product.h: one matrix product on plain row-major matrices, packed on the spot; for
// lowprec.numerics. The engine packs once and calls the kernels itself.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"

namespace lp {

// out (m, n) = epilogue(bias + a (m, k) * b (k, n)). Nothing is read past the end of any argument.
// bias may be null (0); multiplier may be null where the epilogue needs none; addend may be null.
// The epilogue's own multiplier and addend are ignored.
void matmul_u8s8(const Kernels* kernels, const uint8_t* a, const int8_t* b, int64_t m, int64_t k,
                 int64_t n, const int32_t* bias, const float* multiplier, const float* addend,
                 const Epilogue& epilogue, void* out);
void matmul_f32(const Kernels* kernels, const float* a, const float* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out);

}  // namespace lp
