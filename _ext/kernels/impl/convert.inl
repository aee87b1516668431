// convert.inl: between f32 (or s32 accumulators) and codes. Written once over vec.h, compiled per
// ISA.
//
// Definition   lowprec/numerics/reference.py, bit for bit
// Contract     kernels.h, ConvertArgs: n elements, no alignment needed but that of an element of y
//              where `streaming`; MXCSR holds its default (float_state.h)
// Rounding     Quantize divides; 8-bit codes by code_division.inl
// NaN          vmax(NaN, low) is low: a NaN becomes the smallest code
// Saturation   by clamping the steps to +-2^30, adding the zero point in s32, clamping (or packing
//              with saturation) to the code
// Stores       the wide loops fill whole vectors of y, aligned and past the caches if asked to
// Tails        one vector at a time through masks: every lane does the same arithmetic
#include "kernels/impl/code_division.inl"
#include "kernels/impl/elements.inl"
#include "kernels/impl/wide_stores.inl"
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

template <class T>
struct CodeLimits;
template <>
struct CodeLimits<uint8_t> {
  static constexpr int32_t qmin = 0, qmax = 255;
};
template <>
struct CodeLimits<int8_t> {
  static constexpr int32_t qmin = -128, qmax = 127;
};
template <>
struct CodeLimits<uint16_t> {
  static constexpr int32_t qmin = 0, qmax = 65535;
};
template <>
struct CodeLimits<int16_t> {
  static constexpr int32_t qmin = -32768, qmax = 32767;
};

LP_INLINE VI load_codes(const uint16_t* p, int n) { return load_u16_any(p, n); }
LP_INLINE VI load_codes(const int16_t* p, int n) {
  const VI words = load_u16_any(reinterpret_cast<const uint16_t*>(p), n);
  return shift_right_signed<16>(shift_left<16>(words));
}
template <class T>
LP_INLINE void store_clamped(T* p, VI codes, int n) {
  const VI low = vset_s32(CodeLimits<T>::qmin), high = vset_s32(CodeLimits<T>::qmax);
  const VI clamped = vmin(vmax(codes, low), high);
  if constexpr (sizeof(T) == 1) {
    store_codes(p, clamped, n);
  } else {
    store_u16_any(reinterpret_cast<uint16_t*>(p), clamped, n);
  }
}

// rint(x), within +-2^30; NaN becomes the smallest.
LP_INLINE VI to_steps(VF x) {
  return cvt_s32(vmin(vmax(x, vset(-1073741824.0f)), vset(1073741824.0f)));
}

// y[i] = saturate(codes(i, lanes)), codes in s32. The whole vectors of y may use a cheaper but
// equal form of the same: `full(i)`.
template <class T, class Full, class Codes>
LP_INLINE void write_codes(T* y, int64_t n, bool streaming, Full full, Codes codes) {
  const auto some = [&](int64_t i, int lanes_left)
                        LP_LAMBDA { store_clamped(y + i, codes(i, lanes_left), lanes_left); };
  const auto packed = [&](int64_t i) LP_LAMBDA {
    if constexpr (sizeof(T) == 1) {
      return pack_codes<T>(full(i), full(i + W), full(i + 2 * W), full(i + 3 * W));
    } else {
      return pack_words<T>(full(i), full(i + W));
    }
  };
  write_vectors<4 / static_cast<int>(sizeof(T))>(y, n, streaming, packed, some);
}

template <class T>
LP_INLINE void quantize(const lp::ConvertArgs& args) {
  const float* x = static_cast<const float*>(args.x);
  T* y = static_cast<T*>(args.y);
  const bool streaming = args.streaming != 0;
  if (args.each) {
    const float* scale = args.scale;
    const int32_t* zero_point = args.zero_point;
    const auto codes = [&](int64_t i, int some) LP_LAMBDA {
      const VF divisor = some == W ? vload(scale + i) : vload_n(scale + i, some);
      return to_steps(load_any(x + i, some) / divisor) + load_any(zero_point + i, some);
    };
    return write_codes(
        y, args.n, streaming, [&](int64_t i) LP_LAMBDA { return codes(i, W); }, codes);
  }
  const VF divisor = vset(*args.scale);
  const VI zero_point = vset_s32(*args.zero_point);
  const auto codes = [&](int64_t i, int some) LP_LAMBDA {
    return to_steps(load_any(x + i, some) / divisor) + zero_point;
  };
  if (W > 1 && sizeof(T) == 1 && ordinary(*args.scale)) {
    const CodeDivision division = CodeDivision::by(*args.scale);
    return write_codes(
        y, args.n, streaming,
        [&](int64_t i) LP_LAMBDA { return division.steps(vload(x + i)) + zero_point; }, codes);
  }
  write_codes(y, args.n, streaming, [&](int64_t i) LP_LAMBDA { return codes(i, W); }, codes);
}

// A batch normalisation and the codes of its result.
static void scale_shift_u8(const lp::ScaleShiftCodesArgs* args) {
  const VF divisor = vset(args->code_scale);
  const VI zero_point = vset_s32(args->zero_point);
  const bool quick = W > 1 && ordinary(args->code_scale);
  const CodeDivision division = CodeDivision::by(quick ? args->code_scale : 1.0f);
  const float *shift = args->shift, *scale = args->scale, *offset = args->offset;
  for (int64_t row = 0; row < args->rows; ++row) {
    const float* x = args->x + row * args->x_row;
    uint8_t* q = args->q + row * args->n;
    const auto value = [&](int64_t i, int some) LP_LAMBDA {
      const VF moved =
          (load_any(x + i, some) - load_any(shift + i, some)) * load_any(scale + i, some);
      return moved + load_any(offset + i, some);
    };
    const auto codes = [&](int64_t i, int some)
                           LP_LAMBDA { return to_steps(value(i, some) / divisor) + zero_point; };
    const auto full = [&](int64_t i) LP_LAMBDA {
      return quick ? division.steps(value(i, W)) + zero_point : codes(i, W);
    };
    write_codes(q, args->n, false, full, codes);
  }
}

template <class T>
LP_INLINE void dequantize(const lp::ConvertArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  float* y = static_cast<float*>(args.y);
  if (args.each) {
    const float* scale = args.scale;
    const int32_t* zero_point = args.zero_point;
    return write_floats(y, args.n, args.streaming != 0, [&](int64_t i, int some) LP_LAMBDA {
      const VI steps = load_codes(x + i, some) - load_any(zero_point + i, some);
      return cvt_f32(steps) * load_any(scale + i, some);
    });
  }
  const VF factor = vset(*args.scale);
  const VI zero_point = vset_s32(*args.zero_point);
  write_floats(y, args.n, args.streaming != 0, [&](int64_t i, int some) LP_LAMBDA {
    return cvt_f32(load_codes(x + i, some) - zero_point) * factor;
  });
}

template <class T>
LP_INLINE void requantize(const lp::ConvertArgs& args) {
  const int32_t* x = static_cast<const int32_t*>(args.x);
  T* y = static_cast<T*>(args.y);
  const bool streaming = args.streaming != 0;
  if (args.each) {
    const float* multiplier = args.scale;
    const int32_t* zero_point = args.zero_point;
    const auto codes = [&](int64_t i, int some) LP_LAMBDA {
      const VF product = cvt_f32(load_any(x + i, some)) * load_any(multiplier + i, some);
      return to_steps(product) + load_any(zero_point + i, some);
    };
    return write_codes(
        y, args.n, streaming, [&](int64_t i) LP_LAMBDA { return codes(i, W); }, codes);
  }
  const VF multiplier = vset(*args.scale);
  const VI zero_point = vset_s32(*args.zero_point);
  const auto codes = [&](int64_t i, int some) LP_LAMBDA {
    return to_steps(cvt_f32(load_any(x + i, some)) * multiplier) + zero_point;
  };
  write_codes(y, args.n, streaming, [&](int64_t i) LP_LAMBDA { return codes(i, W); }, codes);
}

template <class T>
void quantize_to(const lp::ConvertArgs* args) {
  quantize<T>(*args);
}
template <class T>
void dequantize_from(const lp::ConvertArgs* args) {
  dequantize<T>(*args);
}
template <class T>
void requantize_to(const lp::ConvertArgs* args) {
  requantize<T>(*args);
}

// The plain forms.
LP_INLINE lp::ConvertArgs one_scale(const void* x, void* y, int64_t n, const float* scale,
                                    const int32_t* zero_point) {
  return {x, y, n, scale, zero_point, 0, 0, 0};
}
void quantize_u8(const float* x, uint8_t* q, int64_t n, float scale, int32_t zero_point) {
  quantize<uint8_t>(one_scale(x, q, n, &scale, &zero_point));
}
void quantize_s8(const float* x, int8_t* q, int64_t n, float scale, int32_t zero_point) {
  quantize<int8_t>(one_scale(x, q, n, &scale, &zero_point));
}
void dequantize_u8(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  dequantize<uint8_t>(one_scale(q, x, n, &scale, &zero_point));
}
void dequantize_s8(const int8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  dequantize<int8_t>(one_scale(q, x, n, &scale, &zero_point));
}
void requantize_u8(const int32_t* acc, uint8_t* q, int64_t n, float multiplier,
                   int32_t zero_point) {
  requantize<uint8_t>(one_scale(acc, q, n, &multiplier, &zero_point));
}
void requantize_s8(const int32_t* acc, int8_t* q, int64_t n, float multiplier, int32_t zero_point) {
  requantize<int8_t>(one_scale(acc, q, n, &multiplier, &zero_point));
}

}  // namespace

#include "kernels/impl/casts.inl"

namespace {

constexpr void add_conversions(lp::Kernels& k) {
  lp::Convert* c = k.convert;
  c[lp::F32_TO_BF16] = cast_f32_to_bf16;
  c[lp::BF16_TO_F32] = cast_bf16_to_f32;
  c[lp::F32_TO_F16] = cast_f32_to_f16;
  c[lp::F16_TO_F32] = cast_f16_to_f32;
  c[lp::F32_TO_TF32] = cast_f32_to_tf32;
  c[lp::F32_TO_E4M3] = cast_f32_to_e4m3;
  c[lp::E4M3_TO_F32] = cast_e4m3_to_f32;
  c[lp::F32_TO_E5M2] = cast_f32_to_e5m2;
  c[lp::E5M2_TO_F32] = cast_e5m2_to_f32;
  c[lp::QUANTIZE_U8] = quantize_to<uint8_t>;
  c[lp::QUANTIZE_S8] = quantize_to<int8_t>;
  c[lp::QUANTIZE_U16] = quantize_to<uint16_t>;
  c[lp::QUANTIZE_S16] = quantize_to<int16_t>;
  c[lp::DEQUANTIZE_U8] = dequantize_from<uint8_t>;
  c[lp::DEQUANTIZE_S8] = dequantize_from<int8_t>;
  c[lp::DEQUANTIZE_U16] = dequantize_from<uint16_t>;
  c[lp::DEQUANTIZE_S16] = dequantize_from<int16_t>;
  c[lp::REQUANTIZE_U8] = requantize_to<uint8_t>;
  c[lp::REQUANTIZE_S8] = requantize_to<int8_t>;
  c[lp::REQUANTIZE_U16] = requantize_to<uint16_t>;
  c[lp::REQUANTIZE_S16] = requantize_to<int16_t>;
  k.quantize_u8 = quantize_u8;
  k.quantize_s8 = quantize_s8;
  k.dequantize_u8 = dequantize_u8;
  k.dequantize_s8 = dequantize_s8;
  k.requantize_u8 = requantize_u8;
  k.requantize_s8 = requantize_s8;
  k.f32_to_bf16 = f32_to_bf16;
  k.bf16_to_f32 = bf16_to_f32;
  k.f32_to_f16 = f32_to_f16;
  k.f16_to_f32 = f16_to_f32;
  k.f32_to_tf32 = f32_to_tf32;
}

}  // namespace
