// conversions.h: what lowprec.numerics calls. Arrays of any strides, one scale or one per channel
// or block; the floating point state is set and restored here, large arrays are shared by threads.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"
#include "sources.h"
#include "strided.h"

namespace lp {

// Values of ONNX's TensorProto.DataType.
enum CodeType : int32_t { CODE_U8 = 2, CODE_S8 = 3, CODE_U16 = 4, CODE_S16 = 5, CODE_S32 = 6 };

// Which scale an element has. An array is [outer][depth][inner] around its channel axis.
struct Granularity {
  enum Kind : int32_t { PER_TENSOR, PER_CHANNEL, PER_BLOCK };
  int32_t kind;
  const float* scale;         // () or (depth) or [outer][ceil(depth / block)][inner]
  const int32_t* zero_point;  // as many
  int64_t outer, depth, inner;
  int64_t block;  // elements along depth that share a scale
};

// y = x in another float type; `code` is a cast of kernels.h to or from f32. Before a cast from
// f32, x of another float type is rounded to f32.
void cast(const Kernels* kernels, ConversionCode code, FloatType from, const Strided& x,
          const Strided& y, bool saturate);

void quantize(const Kernels* kernels, FloatType from, const Strided& x, CodeType type,
              const Strided& y, const Granularity& granularity);
void dequantize(const Kernels* kernels, CodeType type, const Strided& x, const Strided& y,
                const Granularity& granularity);
// x is s32 or, by its item size, s64; the scales are multipliers.
void requantize(const Kernels* kernels, const Strided& x, CodeType type, const Strided& y,
                const Granularity& granularity);

// u8 codes of `rows` equal parts of x, each by its own finite range widened to hold 0, which goes
// to scale and zero_point. Returns how many values are not finite; then nothing is written.
int64_t dynamic_quantize(const Kernels* kernels, FloatType from, const Strided& x, const Strided& y,
                         int64_t rows, float* scale, uint8_t* zero_point);

// counts[floor(x * inverse_width) - origin] += 1 for every finite x; bins outside are clamped.
// inverse_width is a power of two.
void count_bins(const Kernels* kernels, const float* x, int64_t n, float inverse_width,
                int64_t origin, int64_t bins, int64_t* counts);

}  // namespace lp
