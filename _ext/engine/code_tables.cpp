// code_tables.cpp: see code_tables.h.
#include "engine/code_tables.h"

#include <math.h>

#include <algorithm>

namespace lp {

uint8_t quantize_one(float x, Affine affine, DType dtype) {
  const int32_t lowest = dtype == DType::U8 ? 0 : -128;
  const float low = static_cast<float>(lowest - affine.zero_point);
  const float steps = rintf(x / affine.scale);
  const float inside = steps > low ? std::min(steps, low + 255.0f) : low;  // NaN: the smallest
  return static_cast<uint8_t>(static_cast<int32_t>(inside) + affine.zero_point);
}

float dequantize_one(int32_t code, Affine affine) {
  const int64_t steps = static_cast<int64_t>(code) - affine.zero_point;
  return static_cast<float>(steps) * affine.scale;
}

Affine affine_of(const Node& node, const char* operand) {
  const std::string name = operand;
  if (!node.has(name + "_scale")) throw Error(name + "_scale is missing");
  return {node.real(name + "_scale", 1.0f),
          static_cast<int32_t>(node.integer(name + "_zero_point", 0))};
}

DType result_dtype(const Node& node) {
  const DType dtype = static_cast<DType>(node.integer("y_dtype", static_cast<int>(DType::U8)));
  if (!is_code(dtype)) throw Error("y_dtype must be u8 or s8");
  return dtype;
}

DType code_dtype(Planner& planner, const Node& node, size_t i) {
  const DType dtype = planner.dtype_of(node, i);
  if (!is_code(dtype)) throw Error("operands must be u8 or s8");
  return dtype;
}

Table requantize_table(DType from, Affine a, DType to, Affine b) {
  Table table;
  for (int i = 0; i < 256; ++i) {
    const int32_t code = from == DType::U8 ? i : static_cast<int8_t>(i);
    table.code[i] = quantize_one(dequantize_one(code, a), b, to);
  }
  return table;
}

}  // namespace lp
