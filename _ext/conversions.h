// conversions.h: what lowprec.numerics calls. Plain pointers and sizes, any code type, one row per
// channel; the floating point state is set and restored here. 8-bit codes run on the kernels.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"

namespace lp {

// Values of ONNX's TensorProto.DataType.
enum CodeType : int32_t { CODE_U8 = 2, CODE_S8 = 3, CODE_U16 = 4, CODE_S16 = 5, CODE_S32 = 6 };

enum CastKind : int32_t {
  CAST_F32_TO_BF16,
  CAST_BF16_TO_F32,
  CAST_F32_TO_F16,
  CAST_F16_TO_F32,
  CAST_F32_TO_TF32,
};

// Row r of the (rows, n) arrays has scales[r] and zero_points[r].
void quantize_rows(const Kernels* kernels, const float* x, void* q, CodeType type, int64_t rows,
                   int64_t n, const float* scales, const int32_t* zero_points);
void dequantize_rows(const Kernels* kernels, const void* q, float* x, CodeType type, int64_t rows,
                     int64_t n, const float* scales, const int32_t* zero_points);
// acc is s32, or s64 where `wide`.
void requantize_rows(const Kernels* kernels, const void* acc, bool wide, void* q, CodeType type,
                     int64_t rows, int64_t n, const float* multipliers, const int32_t* zero_points);

void cast(const Kernels* kernels, CastKind kind, const void* x, void* y, int64_t n);

// Of the finite values; (+inf, -inf) if there are none. Returns how many are not finite.
int64_t finite_range(const Kernels* kernels, const float* x, int64_t n, float* minimum,
                     float* maximum);

// counts[floor(x * inverse_width) - origin] += 1 for every finite x; bins outside are clamped.
// inverse_width is a power of two.
void count_bins(const Kernels* kernels, const float* x, int64_t n, float inverse_width,
                int64_t origin, int64_t bins, int64_t* counts);

}  // namespace lp
