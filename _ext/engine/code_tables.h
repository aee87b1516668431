// code_tables.h: operators on 8-bit codes as tables of what each code becomes.
#pragma once
#include "engine/engine.h"

namespace lp {

struct Affine {
  float scale;
  int32_t zero_point;
};

inline bool is_code(DType dtype) { return dtype == DType::U8 || dtype == DType::S8; }

// Attributes OPERAND_scale and OPERAND_zero_point; throws Error without a scale.
Affine affine_of(const Node& node, const char* operand);
DType result_dtype(const Node& node);                            // attribute y_dtype: u8 or s8
DType code_dtype(Planner& planner, const Node& node, size_t i);  // of an operand: u8 or s8

uint8_t quantize_one(float x, Affine affine, DType dtype);
float dequantize_one(int32_t code, Affine affine);

// For each code as u8 bits, the output code.
struct Table {
  uint8_t code[256];
};
Table requantize_table(DType from, Affine a, DType to, Affine b);

}  // namespace lp
