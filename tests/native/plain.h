// plain.h: what kernels.h says, one element at a time: no vectors, no tricks, nothing shared with
// the kernels. Transcendental operators come from the scalar table (the Python tests measure it
// against exact functions).
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

namespace lp::check {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

inline bool is_codes(int32_t kind) { return kind == OUT_U8 || kind == OUT_S8; }
inline int64_t bytes_of(int32_t kind) { return is_codes(kind) ? 1 : kind == OUT_BF16 ? 2 : 4; }
inline int32_t code_min(int32_t kind) { return kind == OUT_U8 ? 0 : -128; }
inline int32_t code_max(int32_t kind) { return kind == OUT_U8 ? 255 : 127; }

// saturate(rint(steps) + zero_point); NaN gives the smallest code. Exact: doubles hold the sum.
int32_t plain_code(float steps, int32_t zero_point, int32_t low, int32_t high);
// One operator, by the scalar table.
float plain_unary(const Kernels& scalar, const UnaryOp& op, float x);

// An output: its row (counted over all rows), its channel, and the element of the residual there.
struct Place {
  int64_t m, n, residual;
};
// The output from its accumulator, to dst.
void plain_finish_s32(const Kernels& scalar, int32_t acc, const Place& place, const Epilogue& e,
                      void* dst);
// x: the accumulator with its bias.
void plain_finish_f32(const Kernels& scalar, float x, const Place& place, const Epilogue& e,
                      void* dst);

uint16_t plain_bf16(float x);
uint16_t plain_f16(float x);
float plain_tf32(float x);
// a * b + c, denormals read as zero and (decided after rounding) flushed to zero; a and b are bf16.
float plain_flushed_fma(float a, float b, float c);
float plain_from_f16(uint16_t half);
inline float plain_from_bf16(uint16_t x) { return float_of(static_cast<uint32_t>(x) << 16); }

// 16 partial results, element i joins i % 16; then j and j + 8, + 4, + 2, + 1.
template <class Get, class Join>
float plain_reduction(int64_t depth, float first, Get get, Join join) {
  float partial[16];
  for (float& p : partial) p = first;
  for (int64_t i = 0; i < depth; ++i) partial[i % 16] = join(partial[i % 16], get(i));
  for (int half = 8; half >= 1; half /= 2) {
    for (int j = 0; j < half; ++j) partial[j] = join(partial[j], partial[j + half]);
  }
  return partial[0];
}

}  // namespace lp::check
