// elementwise.inl: two operands at a time, in f32 and on codes.
//
// Included inside a per-ISA translation unit, after unary.inl.
#pragma once
#include "kernels/impl/unary.inl"

namespace {

// ---------------------------------------------------------------------------------------- pow
// A float power through double: about 2^-46 relative before the one rounding to f32. Plain IEEE
// doubles, so every instruction set (and every C library) gives the same bits.

// log(m * 2^e) for a positive finite float, as a double.
static double log_of_float(float x) {
  int32_t bits;
  int32_t extra = 0;
  if (x < 0x1p-126f) {
    x *= 0x1p23f;
    extra = 23;
  }
  memcpy(&bits, &x, 4);
  const int32_t offset = bits - 0x3f3504f3;  // mantissa in [sqrt(1/2), sqrt(2))
  const int32_t mantissa = (offset & 0x7fffff) + 0x3f3504f3;
  float m;
  memcpy(&m, &mantissa, 4);
  const double t = (static_cast<double>(m) - 1.0) / (static_cast<double>(m) + 1.0);
  const double s = t * t;
  double p = 1.0 / 23.0;  // atanh(t) = t + t^3 / 3 + t^5 / 5 + ..., |t| <= 0.1716
  for (int k = 21; k >= 1; k -= 2) p = p * s + 1.0 / k;
  return ((offset >> 23) - extra) * 0x1.62e42fefa39efp-1 + 2.0 * t * p;
}

// e^y rounded to float.
static float exp_of_double(double y) {
  if (y > 200.0) return __builtin_inff();
  if (y < -200.0) return 0.0f;
  const double magic = 0x1.8p52;  // its sum with n holds n in the low bits
  const double shifted = y * 0x1.71547652b82fep+0 + magic;
  const double n = shifted - magic;
  const double r = (y - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;  // ln 2 in two parts
  double p = 1.0;
  for (int k = 13; k >= 1; --k) p = p * r / k + 1.0;
  const int64_t exponent = static_cast<int64_t>(n) + 1023;
  const int64_t bits = exponent << 52;
  double scale;
  memcpy(&scale, &bits, 8);
  return static_cast<float>(p * scale);
}

// x^y as C99 Annex F and NumPy have it; exact products, quotients and roots where y is a small
// number.
static float power(float x, float y) {
  if (y == 2.0f) return x * x;
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y == 1.0f) return x;
  if (y != y) return y;
  if (y == -1.0f) return 1.0f / x;
  if (y == 0.5f && x > 0.0f) return __builtin_sqrtf(x);
  if (y == 3.0f) return static_cast<float>(static_cast<double>(x) * x * x);
  const float size = __builtin_fabsf(x), infinity = __builtin_inff();
  if (size == 1.0f && __builtin_fabsf(y) == infinity) return 1.0f;
  const bool whole =
      __builtin_fabsf(y) >= 0x1p23f || static_cast<float>(static_cast<int32_t>(y)) == y;
  const bool odd = __builtin_fabsf(y) < 0x1p24f && whole && (static_cast<int32_t>(y) & 1) != 0;
  float result;
  if (size == 0.0f || size == infinity) {
    result = (size == 0.0f) == (y > 0.0f) ? 0.0f : infinity;
  } else if (__builtin_fabsf(y) == infinity) {
    result = (size < 1.0f) == (y > 0.0f) ? 0.0f : infinity;
  } else if (x < 0.0f && !whole) {
    return __builtin_nanf("");
  } else {
    result = exp_of_double(log_of_float(size) * static_cast<double>(y));
  }
  return __builtin_signbit(x) && odd ? -result : result;
}

static void power_rows(const lp::BinaryArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* a = args.a + row * args.a_row;
    const float* b = args.b + row * args.b_row;
    float* y = args.y + row * args.n;
    for (int64_t i = 0; i < args.n; ++i) y[i] = power(a[i * args.a_stride], b[i * args.b_stride]);
  }
}

// ------------------------------------------------------------------------------------- binary

template <bool A, bool B, class F>
LP_INLINE void binary_loop(const lp::BinaryArgs& args, F f) {
  const int64_t n = args.n;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* a = args.a + row * args.a_row;
    const float* b = args.b + row * args.b_row;
    float* y = args.y + row * n;
    // A repeated element is read once per row; there may be none to read when n is 0.
    const VF a_one = vset(A || n == 0 ? 0.0f : *a);
    const VF b_one = vset(B || n == 0 ? 0.0f : *b);
    for_lanes(n, [&](int64_t i, int lanes_left) {
      const VF x = A ? vload_any(a + i, lanes_left) : a_one;
      const VF z = B ? vload_any(b + i, lanes_left) : b_one;
      vstore_any(y + i, f(x, z), lanes_left);
    });
  }
}

template <class F>
LP_INLINE void binary_strides(const lp::BinaryArgs& args, F f) {
  if (args.a_stride != 0 && args.b_stride != 0) return binary_loop<true, true>(args, f);
  if (args.a_stride != 0) return binary_loop<true, false>(args, f);
  if (args.b_stride != 0) return binary_loop<false, true>(args, f);
  return binary_loop<false, false>(args, f);
}

// The elements of a short row with the same operand for every row (one value a channel of a picture
// with few channels), written out for several rows that then are one.
struct RowsAsOne {
  static constexpr int64_t MOST = 256;
  static LP_MEMBER bool helps(const lp::BinaryArgs& args) {
    const bool a_repeated = args.a_row == 0 && args.a_stride == 1;
    const bool b_repeated = args.b_row == 0 && args.b_stride == 1;
    const bool a_dense = args.a_row == args.n && args.a_stride == 1;
    const bool b_dense = args.b_row == args.n && args.b_stride == 1;
    return W > 1 && args.n > 0 && args.n <= MOST / 4 && args.rows > 1 &&
           ((a_repeated && b_dense) || (b_repeated && a_dense));
  }
  explicit LP_MEMBER RowsAsOne(const lp::BinaryArgs& args)
      : a_repeats(args.a_row == 0),
        together(MOST / args.n < args.rows ? MOST / args.n : args.rows) {
    const float* operand = a_repeats ? args.a : args.b;
    for (int64_t row = 0; row < together; ++row) {
      memcpy(written + row * args.n, operand, static_cast<size_t>(args.n) * sizeof(float));
    }
  }
  // The rows [first, first + count * width) as `count` of `width` of them.
  LP_MEMBER lp::BinaryArgs joined(const lp::BinaryArgs& args, int64_t first, int64_t count,
                                  int64_t width) const {
    const int64_t begin = first * args.n, n = width * args.n;
    return {a_repeats ? written : args.a + begin,
            a_repeats ? args.b + begin : written,
            args.y + begin,
            count,
            n,
            a_repeats ? 0 : n,
            1,
            a_repeats ? n : 0,
            1};
  }
  bool a_repeats;
  int64_t together;
  float written[MOST];
};

static void binary_rows(int32_t code, const lp::BinaryArgs* pointer) {
  const lp::BinaryArgs& args = *pointer;
  if (RowsAsOne::helps(args)) {
    const RowsAsOne rows(args);
    const int64_t whole = args.rows / rows.together, done = whole * rows.together;
    const lp::BinaryArgs body = rows.joined(args, 0, whole, rows.together);
    binary_rows(code, &body);
    if (done < args.rows) {
      const lp::BinaryArgs rest = rows.joined(args, done, 1, args.rows - done);
      binary_rows(code, &rest);
    }
    return;
  }
  switch (code) {
    case lp::BINARY_ADD:
      return binary_strides(args, [](VF a, VF b) { return a + b; });
    case lp::BINARY_SUB:
      return binary_strides(args, [](VF a, VF b) { return a - b; });
    case lp::BINARY_MUL:
      return binary_strides(args, [](VF a, VF b) { return a * b; });
    case lp::BINARY_DIV:
      return binary_strides(args, [](VF a, VF b) { return a / b; });
    case lp::BINARY_MIN:
      return binary_strides(args, [](VF a, VF b) { return select(is_nan(a), a, vmin(a, b)); });
    case lp::BINARY_MAX:
      return binary_strides(args, [](VF a, VF b) { return select(is_nan(a), a, vmax(a, b)); });
    case lp::BINARY_PRELU:
      return binary_strides(args, [](VF a, VF b) { return select(a < vset(0.0f), a * b, a); });
    case lp::BINARY_POW:
      return power_rows(args);
    default:
      return;
  }
}

static void binary(int32_t code, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                   float* y, int64_t n) {
  const lp::BinaryArgs args = {a, b, y, 1, n, 0, a_stride, 0, b_stride};
  binary_rows(code, &args);
}

// -------------------------------------------------------------------------------------- codes

struct QOperand {
  const uint8_t* data;
  bool is_signed, repeated;
  VI zero_point;
  VF scale;

  VF real(VI code) const { return cvt_f32(code - zero_point) * scale; }
  VF load(int64_t i, int n) const {
    if (repeated) return real(vset_s32(is_signed ? static_cast<int8_t>(*data) : *data));
    if (is_signed) {
      const int8_t* p = reinterpret_cast<const int8_t*>(data) + i;
      return real(n == W ? load_s8(p) : load_s8_n(p, n));
    }
    return real(n == W ? load_u8(data + i) : load_u8_n(data + i, n));
  }
};

template <class F>
LP_INLINE void qbinary_loop(const lp::QBinaryArgs& args, F f) {
  // saturate(rint(x / scale) + zero_point), clamped while still float: NaN gives the smallest.
  const float lowest = static_cast<float>((args.y_signed ? -128 : 0) - args.y_zero_point);
  const VF low = vset(lowest), high = vset(lowest + 255.0f), scale = vset(args.y_scale);
  const VI zero_point = vset_s32(args.y_zero_point);
  for (int64_t row = 0; row < args.rows; ++row) {
    const QOperand a = {static_cast<const uint8_t*>(args.a) + row * args.a_row, args.a_signed != 0,
                        args.a_stride == 0, vset_s32(args.a_zero_point), vset(args.a_scale)};
    const QOperand b = {static_cast<const uint8_t*>(args.b) + row * args.b_row, args.b_signed != 0,
                        args.b_stride == 0, vset_s32(args.b_zero_point), vset(args.b_scale)};
    uint8_t* y = static_cast<uint8_t*>(args.y) + row * args.n;
    for_lanes(args.n, [&](int64_t i, int n) {
      const VF steps = vrint(f(a.load(i, n), b.load(i, n)) / scale);
      const VI code = cvt_s32(vmin(vmax(steps, low), high)) + zero_point;
      if (n == W) {
        store_b8(y + i, code);
      } else {
        store_b8_n(y + i, code, n);
      }
    });
  }
}

static void qbinary_rows(int32_t code, const lp::QBinaryArgs* args) {
  if (code == lp::BINARY_ADD) {
    qbinary_loop(*args, [](VF a, VF b) { return a + b; });
  } else {
    qbinary_loop(*args, [](VF a, VF b) { return a * b; });
  }
}

}  // namespace
