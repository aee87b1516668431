// sources.h: the elements of a strided array in runs that a kernel can walk.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"
#include "strided.h"

namespace lp {

// Values of ONNX's TensorProto.DataType.
enum FloatType : int32_t { FLOAT_F32 = 1, FLOAT_F16 = 10, FLOAT_F64 = 11, FLOAT_BF16 = 16 };

// Elements that go through buffers at a time: source, its f32 form and a result stay in the
// first-level cache.
constexpr int64_t RUN = 2048;

inline void widen(const Kernels* kernels, FloatType from, const void* x, float* y, int64_t n) {
  if (from == FLOAT_F16) return kernels->f16_to_f32(static_cast<const uint16_t*>(x), y, n);
  if (from == FLOAT_BF16) return kernels->bf16_to_f32(static_cast<const uint16_t*>(x), y, n);
  const double* wide = static_cast<const double*>(x);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(wide[i]);
}

// Runs of x as f32, wherever they come from.
class FloatSource {
 public:
  FloatSource(const Kernels* kernels, FloatType from, const Strided& x)
      : kernels_(kernels), from_(from), x_(x), direct_(from == FLOAT_F32 && x.is_plain()) {}

  bool direct() const { return direct_; }
  // n <= RUN unless direct.
  const float* run(int64_t begin, int64_t n) {
    if (direct_) return reinterpret_cast<const float*>(x_.at(begin));
    if (from_ == FLOAT_F32) {
      x_.read(begin, n, floats_);
      return floats_;
    }
    const void* raw = raw_;
    if (x_.is_plain()) {
      raw = x_.at(begin);
    } else {
      x_.read(begin, n, raw_);
    }
    widen(kernels_, from_, raw, floats_, n);
    return floats_;
  }

 private:
  const Kernels* kernels_;
  FloatType from_;
  const Strided& x_;
  bool direct_;
  alignas(64) float floats_[RUN];
  alignas(64) uint8_t raw_[RUN * 8];
};

class PlainSource {
 public:
  explicit PlainSource(const Strided& x) : x_(x) {}
  bool direct() const { return x_.is_plain(); }
  const void* run(int64_t begin, int64_t n) {
    if (x_.is_plain()) return x_.at(begin);
    x_.read(begin, n, raw_);
    return raw_;
  }

 private:
  const Strided& x_;
  alignas(64) uint8_t raw_[RUN * 8];
};

}  // namespace lp
