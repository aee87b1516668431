// residual.cpp: products that add another tensor to their result before it leaves the registers.
//
//   x ──► QConv ──────────┐
//                         ├► Add ──► Relu ──► Quantize ──► yq      one step
//   rq ──► Dequantize ────┘
//
// The bits are those of the steps one by one: the sum commutes, and codes in between (y_dtype of
// the product itself) are rounded to and read back in the chain. Where the operand turns out to
// have another shape (it is broadcast, or the product's result is) the parts run one by one.
#include <string.h>

#include "engine/product.h"

namespace lp {

namespace {

bool is_code(DType dtype) { return dtype == DType::U8 || dtype == DType::S8; }

int scalar(Planner& p, float value) { return p.new_value(DType::F32, &value); }
int zero_point(Planner& p, DType dtype, int64_t value) {
  const uint8_t byte = static_cast<uint8_t>(value);
  return p.new_value(dtype, &byte);
}

// A node of standard ONNX over `inputs`; returns the value that it makes.
int add_part(Planner& p, const Node& whole, const char* op, const std::vector<int>& inputs,
             int made) {
  Node part;
  part.op = op;
  part.name = whole.name;
  part.inputs = inputs;
  part.outputs = {made};
  p.build_part(part);
  return made;
}

int add_cast(Planner& p, const Node& whole, int value, DType to, int made) {
  Node part;
  part.op = "Cast";
  part.name = whole.name;
  part.attributes["to"].ints = {static_cast<int64_t>(to)};
  part.inputs = {value};
  part.outputs = {made};
  p.build_part(part);
  return made;
}

}  // namespace

void extend_output(const Node& node, Output& output) {
  Epilogue& e = output.epilogue;
  std::vector<UnaryOp>& ops = output.ops;
  if (is_code(output.dtype)) {
    const bool u8 = output.dtype == DType::U8;
    const float zero = static_cast<float>(e.zero_point);
    const float unit = output.multiplies_to_codes ? 1.0f : e.scale;
    ops.push_back({u8 ? UNARY_THROUGH_U8 : UNARY_THROUGH_S8, unit, zero});
    if (output.multiplies_to_codes) {
      if (e.qmin > (u8 ? 0 : -128) || e.qmax < (u8 ? 255 : 127)) {
        ops.push_back(
            {UNARY_CLIP, static_cast<float>(e.qmin) - zero, static_cast<float>(e.qmax) - zero});
      }
      ops.push_back({UNARY_MUL, e.scale, 0.0f});
    }
  }
  ops.push_back({UNARY_ADD_RESIDUAL, 0.0f, 0.0f});
  const std::vector<UnaryOp> rest = chain_of(node, "sum_");
  ops.insert(ops.end(), rest.begin(), rest.end());
  const bool u8 = node.integer("sum_dtype", 0) == static_cast<int64_t>(DType::U8);
  output.dtype = DType::F32;
  e.kind = OUT_F32;
  const auto sum_dtype = static_cast<DType>(node.integer("sum_dtype", 1));
  if (sum_dtype == DType::BF16) {
    output.dtype = DType::BF16;
    e.kind = OUT_BF16;
  } else if (is_code(sum_dtype)) {
    output.dtype = u8 ? DType::U8 : DType::S8;
    e.kind = u8 ? OUT_U8 : OUT_S8;
    e.scale = node.real("sum_scale", 1.0f);
    e.zero_point = static_cast<int32_t>(node.integer("sum_zero_point", 0));
    e.qmin = u8 ? 0 : -128;
    e.qmax = u8 ? 255 : 127;
  }
  e.residual_scale = node.real("residual_scale", 1.0f);
  e.residual_zero_point = static_cast<int32_t>(node.integer("residual_zero_point", 0));
}

bool residual_fits(Planner& p, const Node& node, const Shape& result) {
  const DType dtype = p.dtype_of(node, RESIDUAL);
  const bool known =
      node.has("residual_scale") ? is_code(dtype) : dtype == DType::F32 || dtype == DType::BF16;
  return known && p.shape_of(node, RESIDUAL) == result;
}

int residual_operand(Planner& p, const Node& node, Layout layout, Output& output) {
  const int id = p.operand(node, RESIDUAL, layout);
  const DType dtype = p.tensor(id).dtype;
  output.epilogue.residual_kind = dtype == DType::U8     ? OUT_U8
                                  : dtype == DType::S8   ? OUT_S8
                                  : dtype == DType::BF16 ? OUT_BF16
                                                         : OUT_F32;
  return id;
}

bool is_bounded(const Node& node, const Packed& packed, const Output& output) {
  constexpr double LIMIT = 1073741824.0;
  if (!packed.fast || output.dtype == DType::F32 || !node.has("residual_scale") ||
      node.has_input(3) || node.has_input(5)) {  // a scale of the run bounds nothing
    return false;
  }
  const double own = output.multiplies_to_codes
                         ? 256.0 * static_cast<double>(node.real("y_scale", 1.0f))
                         : packed.largest;
  const double other = 256.0 * static_cast<double>(output.epilogue.residual_scale);
  return own + other < 0.99 * LIMIT * static_cast<double>(output.epilogue.scale);
}

void build_apart(Planner& p, const Node& node) {
  Node product;
  product.op = node.op;
  product.name = node.name;
  product.inputs.assign(node.inputs.begin(), node.inputs.begin() + RESIDUAL);
  product.attributes = node.attributes;
  product.attributes.erase("table");  // of the codes of the sum
  int sum = p.new_value();
  product.outputs = {sum};
  p.build_part(product);
  if (is_code(static_cast<DType>(node.integer("y_dtype", 1)))) {
    const int scale = scalar(p, node.real("y_scale", 1.0f));
    const int zero = zero_point(p, static_cast<DType>(node.integer("y_dtype", 0)),
                                node.integer("y_zero_point", 0));
    sum = add_part(p, node, "DequantizeLinear", {sum, scale, zero}, p.new_value());
  }
  int residual = node.inputs[RESIDUAL];
  if (node.has("residual_scale")) {
    const int scale = scalar(p, node.real("residual_scale", 1.0f));
    const int zero =
        zero_point(p, p.dtype_of(node, RESIDUAL), node.integer("residual_zero_point", 0));
    residual = add_part(p, node, "DequantizeLinear", {residual, scale, zero}, p.new_value());
  } else if (p.dtype_of(node, RESIDUAL) == DType::BF16) {
    residual = add_cast(p, node, residual, DType::F32, p.new_value());
  }
  const bool quantizes = node.has("sum_dtype"), has_chain = !node.integers("sum_codes").empty();
  const int result = node.outputs[0];
  sum = add_part(p, node, "Add", {sum, residual}, has_chain || quantizes ? p.new_value() : result);
  if (has_chain) {
    Node chain;
    chain.op = "UnaryChain";
    chain.name = node.name;
    for (const char* name : {"codes", "a", "b"}) {
      chain.attributes[name] = node.attributes.at(std::string("sum_") + name);
    }
    chain.inputs = {sum};
    sum = quantizes ? p.new_value() : result;
    chain.outputs = {sum};
    p.build_part(chain);
  }
  if (quantizes && static_cast<DType>(node.integer("sum_dtype", 0)) == DType::BF16) {
    add_cast(p, node, sum, DType::BF16, result);
  } else if (quantizes) {
    const int scale = scalar(p, node.real("sum_scale", 1.0f));
    const int zero = zero_point(p, static_cast<DType>(node.integer("sum_dtype", 0)),
                                node.integer("sum_zero_point", 0));
    const bool looks_up = node.has("table");
    sum =
        add_part(p, node, "QuantizeLinear", {sum, scale, zero}, looks_up ? p.new_value() : result);
    if (looks_up) {
      Node table;
      table.op = "QTable";
      table.name = node.name;
      table.attributes["table"] = node.attributes.at("table");
      table.attributes["y_dtype"] = node.attributes.at("sum_dtype");
      table.inputs = {sum};
      table.outputs = {result};
      p.build_part(table);
    }
  }
}

}  // namespace lp
