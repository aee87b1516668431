// unary.inl: unary float operators, one at a time (apply_unary) or as a chain over a buffer.
//
// Every function is a fixed sequence of IEEE f32 operations, so all instruction sets give the same
// bits. Largest errors against the exact function, over all floats
// (tests/engine/test_ops_unary.py): exp, erf, log 1 ulp, tanh 1.5 ulp; sigmoid 2.2 ulp above -10,
// 5.4 above -88; gelu 2.5e-7 of |x|. NaN gives NaN everywhere; exp overflows to infinity and
// underflows through the denormals to 0.
//
// Coefficients: weighted least-squares (Lawson) minimax fits to double, rounded to f32. Reduction
// of exp after Cody and Waite, "Software Manual for the Elementary Functions", 1980, ch. 6.
// Included inside a per-ISA translation unit, after vec.h.
#pragma once
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

LP_INLINE VF vneg(VF x) { return as_f32(as_s32(x) ^ vset_s32(INT32_MIN)); }
LP_INLINE VF vabs(VF x) { return as_f32(as_s32(x) & vset_s32(INT32_MAX)); }
LP_INLINE VF with_sign_of(VF magnitude, VF sign) {
  return as_f32((as_s32(magnitude) & vset_s32(INT32_MAX)) | (as_s32(sign) & vset_s32(INT32_MIN)));
}
// NaN in x stays (vmin and vmax give their second operand then).
LP_INLINE VF clamp_keeping_nan(VF x, VF low, VF high) { return vmin(high, vmax(low, x)); }

// y, or where x is NaN a quiet one. The scalar set may round a signalling NaN to itself; and of two
// different NaNs (x and -x) a compiler may let either one win.
LP_INLINE VF quiet(VF x, VF y) { return select(is_nan(x), x + x, y); }

// exp(x) = 2^n * (1 + q) where x = n ln 2 + r, |r| <= ln(2)/2 and q = r + r^2 P(r).
struct Reduced {
  VF q;
  VI n;
  VF whole;  // n as a float
};
LP_INLINE Reduced reduce_exp(VF x) {
  const VF magic = vset(12582912.0f);  // 1.5 * 2^23: its sum with n holds n in the low bits
  const VF shifted = fma(x, vset(1.44269504f), magic);
  const VF n = shifted - magic;
  VF r = fma(n, vset(-0x1.62e4p-1f), x);  // upper bits of ln 2: n times them is exact
  r = fma(n, vset(-0x1.7f7d1cp-20f), r);  // the rest of ln 2
  VF p = vset(0x1.6a2252p-10f);
  p = fma(p, r, vset(0x1.123b04p-7f));
  p = fma(p, r, vset(0x1.5558f8p-5f));
  p = fma(p, r, vset(0x1.555490p-3f));
  p = fma(p, r, vset(0x1.fffffcp-2f));
  return {fma(r * r, p, r), as_s32(shifted) - as_s32(magic), n};
}
LP_INLINE VF power_of_two(VI n) { return as_f32(shift_left<23>(n + vset_s32(127))); }

LP_INLINE VF vexp(VF x) {
  // e^89 is infinite, e^-104 rounds to 0.
  const Reduced e = reduce_exp(clamp_keeping_nan(x, vset(-104.0f), vset(89.0f)));
#if defined(LP_ISA_AVX512)
  return {_mm512_scalef_ps((vset(1.0f) + e.q).v, e.whole.v)};
#endif
  // Two factors, since 2^n itself may be denormal or too large; only the last product rounds.
  const VI half = shift_right_signed<1>(e.n);
  return (vset(1.0f) + e.q) * power_of_two(half) * power_of_two(e.n - half);
}

// exp(x) - 1 without cancellation, for x <= 0.
LP_INLINE VF vexpm1_negative(VF x) {
  const Reduced e = reduce_exp(vmax(vset(-30.0f), x));
  const VF scale = power_of_two(e.n);
  return fma(scale, e.q, scale - vset(1.0f));
}

LP_INLINE VF vlog(VF x) {
  const VM tiny = x < vset(0x1p-126f);
  const VF scaled = select(tiny, x * vset(0x1p23f), x);
  // Mantissa in [sqrt(1/2), sqrt(2)).
  const VI offset = as_s32(scaled) - vset_s32(0x3f3504f3);
  const VI exponent = shift_right_signed<23>(offset) - select(tiny, vset_s32(23), vset_s32(0));
  const VF f = as_f32((offset & vset_s32(0x7fffff)) + vset_s32(0x3f3504f3)) - vset(1.0f);
  VF p = vset(-0x1.38b4ecp-4f);
  p = fma(p, f, vset(0x1.055b5ep-3f));
  p = fma(p, f, vset(-0x1.0d8558p-3f));
  p = fma(p, f, vset(0x1.22da20p-3f));
  p = fma(p, f, vset(-0x1.547242p-3f));
  p = fma(p, f, vset(0x1.99a008p-3f));
  p = fma(p, f, vset(-0x1.000228p-2f));
  p = fma(p, f, vset(0x1.555554p-2f));
  const VF n = cvt_f32(exponent);
  const VF square = f * f;
  VF low = n * vset(0x1.7f7d1cp-20f);  // n times the lower bits of ln 2
  low = fma(square * f, p, low);
  low = fma(square, vset(-0.5f), low);
  const VF y = fma(n, vset(0x1.62e4p-1f), f + low);
  const VF infinity = vset(__builtin_inff());
  const VF ends = select(x == vset(0.0f), vneg(infinity), vset(__builtin_nanf("")));
  return select(is_nan(x), x, select(x <= vset(0.0f), ends, select(x == infinity, x, y)));
}

// log(1 + u) for u in [0, 1].
LP_INLINE VF vlog1p_unit(VF u) {
  const VF w = vset(1.0f) + u;
  return vlog(w) + (u - (w - vset(1.0f))) / w;  // what rounding 1 + u lost, to first order
}

// 1 / (1 + exp(-x)), where exp(-x) = 2^n e^-r: past 20 the sum is 1, below -88 the result 0.
LP_INLINE VF vsigmoid(VF x) {
  const VF near = vmin(x, vset(20.0f));
  const VF magic = vset(12582912.0f);  // as in reduce_exp
  const VF shifted = fma(near, vset(-1.44269504f), magic);
  const VF n = shifted - magic;
  const VF r = fma(n, vset(0.693147182f), near);  // off by n * 2e-9
  VF p = vset(0x1.6ae6e0p-10f);
  p = fma(p, r, vset(-0x1.1267d8p-7f));
  p = fma(p, r, vset(0x1.555824p-5f));
  p = fma(p, r, vset(-0x1.555418p-3f));
  p = fma(p, r, vset(0x1.fffffcp-2f));
  p = fma(p, r, vset(-1.0f));
  p = fma(p, r, vset(1.0f));
  const VF power = as_f32(as_s32(p) + shift_left<23>(as_s32(shifted)));
  // NaN stays, as vmax gives its second operand then.
  return select(vset(-88.0f) <= x, vset(1.0f) / (vset(1.0f) + power), vmax(vset(0.0f), x));
}
// The bits of Sigmoid and Mul, one after the other.
LP_INLINE VF vsilu(VF x) { return x * vsigmoid(x); }

LP_INLINE VF vtanh(VF x) {
  const VF s = x * x;
  VF p = vset(-0x1.75b9ccp-8f);
  p = fma(p, s, vset(0x1.521e02p-6f));
  p = fma(p, s, vset(-0x1.b83b18p-5f));
  p = fma(p, s, vset(0x1.11071ep-3f));
  p = fma(p, s, vset(-0x1.555532p-2f));
  const VF near = fma(p * s, x, x);
  const VF size = vabs(x);
  const VF far = vset(1.0f) - vset(2.0f) / (vexp(size + size) + vset(1.0f));
  return select(size < vset(0.625f), near, with_sign_of(far, x));
}

LP_INLINE VF verf(VF x) {
  const VF s = x * x;
  VF p = vset(0x1.5cd4aap-14f);
  p = fma(p, s, vset(-0x1.aa3f2cp-11f));
  p = fma(p, s, vset(0x1.54c7f4p-8f));
  p = fma(p, s, vset(-0x1.b80e90p-6f));
  p = fma(p, s, vset(0x1.ce2e0ap-4f));
  p = fma(p, s, vset(-0x1.812742p-2f));
  p = fma(p, s, vset(0x1.06eba8p-3f));
  const VF near = fma(p, x, x);
  const VF size = vabs(x);
  const VF t = vmin(vset(4.0f), size);  // erf(4) rounds to 1
  VF q = vset(-0x1.6309b2p-16f);        // log(1 - erf(t))
  q = fma(q, t, vset(0x1.c85c2ep-12f));
  q = fma(q, t, vset(-0x1.1196e4p-8f));
  q = fma(q, t, vset(0x1.9bb518p-6f));
  q = fma(q, t, vset(-0x1.bb926ep-4f));
  q = fma(q, t, vset(-0x1.444470p-1f));
  q = fma(q, t, vset(-0x1.212846p+0f));
  q = fma(q, t, vset(0x1.70d5f0p-13f));
  const VF far = vset(1.0f) - vexp(q);
  return select(size < vset(0.925f), near, with_sign_of(far, x));
}

// x * (1 + erf(x / sqrt(2))) / 2 by a quotient of polynomials, less than half of the work of verf:
// erf(x / sqrt(2)) / 2 = x P(x^2) / Q(x^2) to 3e-8, and 0.5 at the ends of the clamp to the bit.
// Just before the lower end it is a little more: no result there may be above 0.
LP_INLINE VF vgelu(VF x) {
  const VF t = clamp_keeping_nan(x, vset(-0x1.5d70a4p+2f), vset(0x1.5d70a4p+2f));
  const VF s = t * t;
  VF p = vset(0x1.f2d434p-34f);
  p = fma(p, s, vset(-0x1.7c6308p-26f));
  p = fma(p, s, vset(0x1.ad063cp-19f));
  p = fma(p, s, vset(0x1.5b8e7ep-13f));
  p = fma(p, s, vset(0x1.25894cp-8f));
  p = fma(p, s, vset(0x1.227f64p-5f));
  p = fma(p, s, vset(0x1.98844cp-2f));
  VF q = vset(0x1.fe5110p-15f);
  q = fma(q, s, vset(0x1.d8be9cp-10f));
  q = fma(q, s, vset(0x1.d83c80p-6f));
  q = fma(q, s, vset(0x1.05af96p-2f));
  q = fma(q, s, vset(1.0f));
  return x * vmax(vset(0.0f), vset(0.5f) + t * p / q);
}

LP_INLINE VF vsoftplus(VF x) {
  return quiet(x, vmax(vset(0.0f), x) + vlog1p_unit(vexp(vneg(vabs(x)))));
}

LP_INLINE VF vhard_sigmoid(VF x, VF slope, VF shift) {
  return clamp_keeping_nan(x * slope + shift, vset(0.0f), vset(1.0f));
}

// Calls visit(f) with the operator as a function of one vector, if it is one of a few instructions;
// otherwise returns false. The switch is outside of any loop.
template <class Visit>
LP_INLINE bool with_simple(const lp::UnaryOp& op, Visit visit) {
  const VF a = vset(op.a), b = vset(op.b), zero = vset(0.0f);
  switch (op.code) {
    case lp::UNARY_RELU:
      visit([=](VF x) { return vmax(zero, x); });
      return true;
    case lp::UNARY_CLIP:
      visit([=](VF x) { return clamp_keeping_nan(x, a, b); });
      return true;
    case lp::UNARY_ADD:
      visit([=](VF x) { return x + a; });
      return true;
    case lp::UNARY_MUL:
      visit([=](VF x) { return x * a; });
      return true;
    case lp::UNARY_DIV:
      visit([=](VF x) { return x / a; });
      return true;
    case lp::UNARY_RSUB:
      visit([=](VF x) { return a - x; });
      return true;
    case lp::UNARY_LEAKY_RELU:
      visit([=](VF x) { return select(x < zero, a * x, x); });
      return true;
    case lp::UNARY_HARD_SIGMOID:
      visit([=](VF x) { return vhard_sigmoid(x, a, b); });
      return true;
    case lp::UNARY_HARD_SWISH:
      visit([=](VF x) { return x * vhard_sigmoid(x, vset(1.0f / 6.0f), vset(0.5f)); });
      return true;
    case lp::UNARY_NEG:
      visit([=](VF x) { return vneg(x); });
      return true;
    case lp::UNARY_ABS:
      visit([=](VF x) { return vabs(x); });
      return true;
    case lp::UNARY_SQUARE:
      visit([=](VF x) { return x * x; });
      return true;
    default:
      return false;
  }
}

// The same for every operator.
template <class Visit>
LP_INLINE void with_unary(const lp::UnaryOp& op, Visit visit) {
  if (with_simple(op, visit)) return;
  const VF a = vset(op.a), b = vset(op.b), one = vset(1.0f), zero = vset(0.0f);
  switch (op.code) {
    case lp::UNARY_RDIV:
      return visit([=](VF x) { return a / x; });
    case lp::UNARY_SIGMOID:
      return visit([=](VF x) { return vsigmoid(x); });
    case lp::UNARY_SILU:
      return visit([=](VF x) { return vsilu(x); });
    case lp::UNARY_TANH:
      return visit([=](VF x) { return vtanh(x); });
    case lp::UNARY_EXP:
      return visit([=](VF x) { return vexp(x); });
    case lp::UNARY_LOG:
      return visit([=](VF x) { return vlog(x); });
    case lp::UNARY_SQRT:
      return visit([=](VF x) { return vsqrt(x); });
    case lp::UNARY_RECIPROCAL:
      return visit([=](VF x) { return one / x; });
    case lp::UNARY_ERF:
      return visit([=](VF x) { return verf(x); });
    case lp::UNARY_GELU:
      return visit([=](VF x) { return vgelu(x); });
    case lp::UNARY_GELU_TANH:
      return visit([=](VF x) {
        const VF inner = vset(0.79788456f) * (x + vset(0.044715f) * (x * x * x));
        return vset(0.5f) * x * (one + vtanh(inner));
      });
    case lp::UNARY_SOFTPLUS:
      return visit([=](VF x) { return vsoftplus(x); });
    case lp::UNARY_ELU:
      return visit([=](VF x) { return select(x < zero, a * vexpm1_negative(x), x); });
    case lp::UNARY_FLOOR:
      return visit([=](VF x) { return quiet(x, vfloor(x)); });
    case lp::UNARY_CEIL:
      return visit([=](VF x) { return quiet(x, vceil(x)); });
    case lp::UNARY_ROUND:
      return visit([=](VF x) { return quiet(x, vrint(x)); });
    case lp::UNARY_SIGN:
      return visit([=](VF x) { return select(zero < x, one, select(x < zero, vset(-1.0f), x)); });
    case lp::UNARY_SELU:
      return visit([=](VF x) { return b * select(x < zero, a * vexpm1_negative(x), x); });
    case lp::UNARY_SOFTSIGN:
      return visit([=](VF x) { return quiet(x, x / (one + vabs(x))); });
    case lp::UNARY_MISH:
      return visit([=](VF x) { return x * vtanh(vsoftplus(x)); });
    default:
      return visit([=](VF x) { return x; });
  }
}

[[maybe_unused]] LP_INLINE VF apply_unary(const lp::UnaryOp& op, VF x) {
  VF y = x;
  with_unary(op, [&](auto f) { y = f(x); });
  return y;
}

// y = op(x); y may be x.
static void apply_one(const lp::UnaryOp& op, const float* x, float* y, int64_t count) {
  with_unary(op, [=](auto f) {
    int64_t i = 0;
    for (; i + W <= count; i += W) vstore(y + i, f(vload(x + i)));
    if (W > 1 && i < count) {
      const int n = static_cast<int>(count - i);
      vstore_n(y + i, f(vload_n(x + i, n)), n);
    }
  });
}

// In place; small buffers (an epilogue's tile) go through it whole.
[[maybe_unused]] static void apply_chain(const lp::UnaryOp* ops, int n_ops, float* x,
                                         int64_t count) {
  for (int i = 0; i < n_ops; ++i) apply_one(ops[i], x, x, count);
}

// y = chain(x), block by block so that what one operator writes is still in the L1 cache for the
// next.
[[maybe_unused]] static void unary(const lp::UnaryOp* ops, int32_t n_ops, const float* x, float* y,
                                   int64_t n) {
  constexpr int64_t BLOCK = 1024;
  if (n_ops == 0) {
    if (x != y) memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; i += BLOCK) {
    const int64_t block = n - i < BLOCK ? n - i : BLOCK;
    apply_one(ops[0], x + i, y + i, block);
    apply_chain(ops + 1, n_ops - 1, y + i, block);
  }
}

}  // namespace
