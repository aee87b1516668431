// ops_bits.cpp: operators on the bits of integers.
#include <limits>
#include <type_traits>

#include "engine/element_loops.h"

namespace lp {
namespace {

// Calls f(T()) with the C++ type of an integer dtype.
template <class F>
void with_integer(DType dtype, const Node& node, F f) {
  if (dtype == DType::F32 || dtype == DType::F64) {
    throw Error(node.op + " is an operator of integers, not of " + dtype_name(dtype));
  }
  with_number(dtype, node, [&](auto zero) {
    if constexpr (std::is_integral_v<decltype(zero)>) f(zero);
  });
}

// By more bits than there are: zeros, or copies of the sign.
template <class T>
T shifted(T a, T b, bool left) {
  using U = std::make_unsigned_t<T>;
  const int64_t bits = 8 * static_cast<int64_t>(sizeof(T));
  const bool outside = b < T(0) || static_cast<uint64_t>(b) >= static_cast<uint64_t>(bits);
  if (left) return outside ? T(0) : static_cast<T>(static_cast<uint64_t>(static_cast<U>(a)) << b);
  if (outside) return a < T(0) ? static_cast<T>(-1) : T(0);
  return static_cast<T>(a >> b);  // of a negative number: arithmetic, on every compiler
}

void build_shift(Planner& planner, const Node& node) {
  const std::string direction = node.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") throw Error("direction must be LEFT or RIGHT");
  const bool left = direction == "LEFT";
  const DType dtype = planner.dtype_of(node, 0);
  if (planner.dtype_of(node, 1) != dtype) throw Error("both operands must have one element type");
  with_integer(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    add_typed_binary<T>(planner, node, dtype, [=](T a, T b) { return shifted<T>(a, b, left); });
  });
}

template <class T, class F>
void add_bitwise(Planner& planner, const Node& node, DType dtype, F f) {
  add_typed_binary<T>(planner, node, dtype, [=](T a, T b) { return static_cast<T>(f(a, b)); });
}

void build_bitwise(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  if (planner.dtype_of(node, 1) != dtype) throw Error("both operands must have one element type");
  with_integer(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    if (node.op == "BitwiseAnd") {
      add_bitwise<T>(planner, node, dtype, [](T a, T b) { return a & b; });
    } else if (node.op == "BitwiseOr") {
      add_bitwise<T>(planner, node, dtype, [](T a, T b) { return a | b; });
    } else {
      add_bitwise<T>(planner, node, dtype, [](T a, T b) { return a ^ b; });
    }
  });
}

void build_bitwise_not(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  with_integer(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    add_map<T>(planner, node, dtype, [](T x) { return static_cast<T>(~x); });
  });
}

}  // namespace

const std::vector<Operator>& bit_operators() {
  static const std::vector<Operator> table = {
      {"BitShift", {{"BitShift", nullptr, build_shift}}},
      {"BitwiseAnd", {{"BitwiseAnd", nullptr, build_bitwise}}},
      {"BitwiseOr", {{"BitwiseOr", nullptr, build_bitwise}}},
      {"BitwiseXor", {{"BitwiseXor", nullptr, build_bitwise}}},
      {"BitwiseNot", {{"BitwiseNot", nullptr, build_bitwise_not}}},
  };
  return table;
}

}  // namespace lp
