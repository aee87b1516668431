// linear.h: products of plain matrices with weights that are packed once, or on the spot: what
// lowprec.numerics, lowprec.h and the .pxd files call. Arguments are trusted: callers check them.
//
//   acc    = bias + sum over k of (a - a_zero_point) * (w - zero_point)        8-bit codes
//   y s32  = acc
//   y real = activation(f32(acc) * (a_scale * scale) + addend + residual)
//   y code = requantised: saturate(rint(f32(acc) * ((a_scale * scale) / y_scale)) + y_zero_point),
//            where there is nothing but a relu on top; else quantised: y real / y_scale
//   float weights: acc is lowprec.numerics.reference's gemm_f32 (gemm_bf16 ...), y as above
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <vector>

#include "kernels/kernels.h"

namespace lp {

// Values of ONNX's TensorProto.DataType.
enum ValueType : int32_t {
  VALUE_NONE = 0,
  VALUE_F32 = 1,
  VALUE_U8 = 2,
  VALUE_S8 = 3,
  VALUE_S32 = 6,
  VALUE_F16 = 10,
  VALUE_BF16 = 16,
};

inline bool is_code(int32_t type) { return type == VALUE_U8 || type == VALUE_S8; }
inline int64_t value_bytes(int32_t type) {
  return is_code(type) ? 1 : type == VALUE_F16 || type == VALUE_BF16 ? 2 : 4;
}

// Weight (k, n) is data[k * stride_k + n * stride_n]. Lists per output channel hold 1 value for
// all, or n; none where null.
struct WeightsSource {
  int32_t type;
  const void* data;
  int64_t k, n, stride_k, stride_n;
  const int32_t* zero_points;  // in codes of `type`
  int64_t zero_point_count;
  const float* scales;
  int64_t scale_count;
  int32_t bias_type;  // VALUE_S32: in units of the accumulator; VALUE_F32: real; VALUE_NONE
  const void* bias;
  int64_t bias_count;
};

// What a product needs of its weights; lists are readable up to the next multiple of 64 channels.
struct Weights {
  int32_t type;  // VALUE_U8 is packed as s8, its zero points 128 less
  int64_t k, n;
  const void* panels;          // pack.h
  const int32_t* sums;         // per output channel; 8-bit codes only
  const int32_t* zero_points;  // null: 0
  const float* scales;         // null: 1
  const int32_t* bias_s32;     // never null for codes
  const float* bias_f32;       // null: none
  int64_t reach;               // no accumulator is further from 0, whatever the codes of A
  bool fits_s32() const { return reach < (int64_t{1} << 31); }
  bool has_real_bias() const { return bias_f32 != nullptr; }
};

// Memory that a product needs for the time of one call: small pieces without the heap.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  void* take(int64_t bytes);  // aligned to 64 bytes; throws std::bad_alloc
  template <class T>
  T* take_array(int64_t count) {
    return static_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  static constexpr int64_t LOCAL = 16 * 1024;
  alignas(64) uint8_t local_[LOCAL];
  int64_t used_ = 0;
  std::vector<void*> heap_;
};

// Bytes of the panels alone.
int64_t panel_bytes(int32_t type, int64_t k, int64_t n);
// Weights in `scratch`, for one call.
Weights pack_weights(const Kernels* kernels, const WeightsSource& source, Scratch& scratch);

class PackedWeights {
 public:
  PackedWeights(const Kernels* kernels, const WeightsSource& source)
      : view_(pack_weights(kernels, source, memory_)) {}
  const Weights& view() const { return view_; }

 private:
  Scratch memory_;
  Weights view_;
};

// Strides in elements.
struct Linear {
  const void* a;
  int32_t a_type;
  int64_t batches, m;
  int64_t a_batch, a_row;  // a row's elements follow each other
  int32_t a_zero_point;
  const int32_t* row_zero_points;  // one per row of all batches, or null
  float a_scale;
  const float* row_scales;  // likewise; only where y is f32 or bf16

  void* y;
  int32_t y_type;
  int64_t y_batch, y_row;
  float y_scale;
  int32_t y_zero_point;
  bool with_bias;  // for y s32: whether the bias is added

  const UnaryOp* ops;  // with UNARY_ADD_RESIDUAL where there is a residual
  int32_t n_ops;
  const void* residual;
  int32_t residual_type;
  int64_t residual_batch, residual_row;
  float residual_scale;
  int32_t residual_zero_point;
};

// Rows of f32 times codes: each row is quantised by its own range first, to u8 (reference.
// dynamic_quantize_linear). Returns how many values of such rows were NaN or infinite: then `y`
// holds nothing of use.
int64_t linear(const Kernels* kernels, const Weights& weights, const Linear& call);

}  // namespace lp
