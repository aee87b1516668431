// conversions.cpp: see conversions.h. Codes of 16 and 32 bits are rare (biases, indices): one loop
// each.
#include "conversions.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "float_state.h"

namespace lp {
namespace {

// Exact for every code type: a double holds rint(f32) + s32 wherever the sum does not saturate.
template <class T>
T saturated(float steps, int32_t zero_point) {
  constexpr double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  const double code = std::nearbyint(static_cast<double>(steps)) + zero_point;
  if (!(code > low)) return std::numeric_limits<T>::min();  // NaN too
  return code < high ? static_cast<T>(code) : std::numeric_limits<T>::max();
}

template <class T>
void quantize_row(const float* x, void* q, int64_t n, float scale, int32_t zero_point) {
  T* codes = static_cast<T*>(q);
  for (int64_t i = 0; i < n; ++i) codes[i] = saturated<T>(x[i] / scale, zero_point);
}

template <class T>
void dequantize_row(const void* q, float* x, int64_t n, float scale, int32_t zero_point) {
  const T* codes = static_cast<const T*>(q);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(static_cast<int64_t>(codes[i]) - zero_point) * scale;
  }
}

template <class Acc, class T>
void requantize_row(const void* acc, void* q, int64_t n, float multiplier, int32_t zero_point) {
  const Acc* sums = static_cast<const Acc*>(acc);
  T* codes = static_cast<T*>(q);
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = saturated<T>(static_cast<float>(sums[i]) * multiplier, zero_point);
  }
}

int64_t code_bytes(CodeType type) {
  return type == CODE_S32 ? 4 : type == CODE_U16 || type == CODE_S16 ? 2 : 1;
}

template <class Pointer>
Pointer offset(Pointer p, int64_t bytes) {
  using Byte =
      std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const uint8_t, uint8_t>;
  return static_cast<Byte*>(p) + bytes;
}

// Calls visit(T{}) with the C type of `type`.
template <class Visit>
void with_code_type(CodeType type, Visit visit) {
  switch (type) {
    case CODE_U8:
      return visit(uint8_t{});
    case CODE_S8:
      return visit(int8_t{});
    case CODE_U16:
      return visit(uint16_t{});
    case CODE_S16:
      return visit(int16_t{});
    case CODE_S32:
      return visit(int32_t{});
  }
}

}  // namespace

void quantize_rows(const Kernels* kernels, const float* x, void* q, CodeType type, int64_t rows,
                   int64_t n, const float* scales, const int32_t* zero_points) {
  const FloatingPointState state;
  for (int64_t r = 0; r < rows; ++r, x += n, q = offset(q, n * code_bytes(type))) {
    if (type == CODE_U8) {
      kernels->quantize_u8(x, static_cast<uint8_t*>(q), n, scales[r], zero_points[r]);
    } else if (type == CODE_S8) {
      kernels->quantize_s8(x, static_cast<int8_t*>(q), n, scales[r], zero_points[r]);
    } else {
      with_code_type(type, [&](auto code) {
        quantize_row<decltype(code)>(x, q, n, scales[r], zero_points[r]);
      });
    }
  }
}

void dequantize_rows(const Kernels* kernels, const void* q, float* x, CodeType type, int64_t rows,
                     int64_t n, const float* scales, const int32_t* zero_points) {
  const FloatingPointState state;
  for (int64_t r = 0; r < rows; ++r, x += n, q = offset(q, n * code_bytes(type))) {
    if (type == CODE_U8) {
      kernels->dequantize_u8(static_cast<const uint8_t*>(q), x, n, scales[r], zero_points[r]);
    } else if (type == CODE_S8) {
      kernels->dequantize_s8(static_cast<const int8_t*>(q), x, n, scales[r], zero_points[r]);
    } else {
      with_code_type(type, [&](auto code) {
        dequantize_row<decltype(code)>(q, x, n, scales[r], zero_points[r]);
      });
    }
  }
}

void requantize_rows(const Kernels* kernels, const void* acc, bool wide, void* q, CodeType type,
                     int64_t rows, int64_t n, const float* multipliers,
                     const int32_t* zero_points) {
  const FloatingPointState state;
  for (int64_t r = 0; r < rows;
       ++r, acc = offset(acc, n * (wide ? 8 : 4)), q = offset(q, n * code_bytes(type))) {
    const float multiplier = multipliers[r];
    const int32_t zero_point = zero_points[r];
    const int32_t* sums = static_cast<const int32_t*>(acc);
    if (!wide && type == CODE_U8) {
      kernels->requantize_u8(sums, static_cast<uint8_t*>(q), n, multiplier, zero_point);
    } else if (!wide && type == CODE_S8) {
      kernels->requantize_s8(sums, static_cast<int8_t*>(q), n, multiplier, zero_point);
    } else {
      with_code_type(type, [&](auto code) {
        using T = decltype(code);
        if (wide) {
          requantize_row<int64_t, T>(acc, q, n, multiplier, zero_point);
        } else {
          requantize_row<int32_t, T>(acc, q, n, multiplier, zero_point);
        }
      });
    }
  }
}

void cast(const Kernels* kernels, CastKind kind, const void* x, void* y, int64_t n) {
  const FloatingPointState state;
  switch (kind) {
    case CAST_F32_TO_BF16:
      return kernels->f32_to_bf16(static_cast<const float*>(x), static_cast<uint16_t*>(y), n);
    case CAST_BF16_TO_F32:
      return kernels->bf16_to_f32(static_cast<const uint16_t*>(x), static_cast<float*>(y), n);
    case CAST_F32_TO_F16:
      return kernels->f32_to_f16(static_cast<const float*>(x), static_cast<uint16_t*>(y), n);
    case CAST_F16_TO_F32:
      return kernels->f16_to_f32(static_cast<const uint16_t*>(x), static_cast<float*>(y), n);
    case CAST_F32_TO_TF32:
      return kernels->f32_to_tf32(static_cast<const float*>(x), static_cast<float*>(y), n);
  }
}

int64_t finite_range(const Kernels* kernels, const float* x, int64_t n, float* minimum,
                     float* maximum) {
  const FloatingPointState state;
  int64_t nonfinite = 0;
  *minimum = std::numeric_limits<float>::infinity();
  *maximum = -std::numeric_limits<float>::infinity();
  kernels->range(x, n, minimum, maximum, &nonfinite);
  return nonfinite;
}

void count_bins(const Kernels* kernels, const float* x, int64_t n, float inverse_width,
                int64_t origin, int64_t bins, int64_t* counts) {
  const FloatingPointState state;
  kernels->histogram(x, n, inverse_width, origin, bins, counts);
}

}  // namespace lp
