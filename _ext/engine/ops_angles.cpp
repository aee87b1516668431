// ops_angles.cpp: trigonometric and hyperbolic functions and their inverses, in f32 and f64.
#include "engine/element_loops.h"
#include "engine/mathematics.h"

namespace lp {
namespace {

struct Row {
  const char* op;
  double (*function)(double);
};
const Row ROWS[] = {
    {"Sin", sin_of},     {"Cos", cos_of},     {"Tan", tan_of},     {"Asin", asin_of},
    {"Acos", acos_of},   {"Atan", atan_of},   {"Sinh", sinh_of},   {"Cosh", cosh_of},
    {"Asinh", asinh_of}, {"Acosh", acosh_of}, {"Atanh", atanh_of},
};

void build_angle(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  for (const Row& row : ROWS) {
    if (node.op != row.op) continue;
    double (*function)(double) = row.function;
    if (dtype == DType::F64) return add_map<double>(planner, node, dtype, function);
    require_f32(planner, node);
    return add_map<float>(planner, node, dtype,
                          [=](float x) { return static_cast<float>(function(x)); });
  }
  throw Error("no function " + node.op);
}

}  // namespace

const std::vector<Operator>& angle_operators() {
  static const std::vector<Operator> table = [] {
    std::vector<Operator> all;
    for (const Row& row : ROWS) all.push_back({row.op, {{row.op, nullptr, build_angle}}});
    return all;
  }();
  return table;
}

}  // namespace lp
