// small_types.h: 8-bit floats and elements of fewer than 8 bits, one to a byte, as ml_dtypes holds
// them: the code is in the low bits, what is above them is 0.
#pragma once
#include "engine/engine.h"

namespace lp {

bool is_small_float(DType dtype);    // F8..., F4E2M1
bool is_small_integer(DType dtype);  // U4, S4, U2, S2

enum class Rounding : int32_t { UP, DOWN, NEAREST };  // of F8E8M0 only; all others: half to even

// y[i] = the real that code x[i] stands for.
void widen_small(DType from, const uint8_t* x, float* y, int64_t n);
// `saturate`: what is too large becomes the largest finite number, also infinity.
void narrow_small(DType to, const float* x, uint8_t* y, int64_t n, bool saturate,
                  Rounding rounding);

// Between codes of integers and s8 or u8 numbers; too large ones wrap.
void widen_integers(DType from, const uint8_t* x, uint8_t* y, int64_t n);
void narrow_integers(DType to, const uint8_t* x, uint8_t* y, int64_t n);

// The nearest f32 of odd mantissa where `x` is between two: rounding that again rounds once.
float round_to_odd(double x);

}  // namespace lp
