// ops_elementwise.cpp: operators that treat every element alike, with NumPy broadcasting.
//
// Float arithmetic goes through the kernels (same bits on every instruction set). Integers, masks
// and doubles are shape arithmetic: plain loops. Both keep the layout that images have.
#include <math.h>
#include <string.h>

#include <limits>
#include <type_traits>

#include "engine/element_loops.h"
#include "engine/mathematics.h"

namespace lp {
namespace {

// -------------------------------------------------------------------------------------- unary

void add_unary(Planner& planner, const Node& node, std::vector<UnaryOp> ops) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  const int y = planner.output(node, 0, DType::F32, tensor.shape, tensor.layout);
  const auto kernel = planner.kernels().unary;
  const int64_t n = tensor.elements();
  planner
      .add({x}, {y},
           [=](Pointers t, uint8_t*) {
             const float* src = reinterpret_cast<const float*>(t[x]);
             float* dst = reinterpret_cast<float*>(t[y]);
             parallel_rows(n, VECTOR_GRAIN / 2, [&](int64_t begin, int64_t end) {
               kernel(ops.data(), static_cast<int32_t>(ops.size()), src + begin, dst + begin,
                      end - begin);
             });
           })
      .inplace = 0;
}

// What a unary operator does to doubles; nullptr where that takes a parameter, or is not there.
double (*double_function(int32_t code))(double) {
  switch (code) {
    case UNARY_EXP:
      return exp_of;
    case UNARY_LOG:
      return log_of;
    case UNARY_SQRT:
      return [](double x) { return sqrt(x); };
    case UNARY_RECIPROCAL:
      return [](double x) { return 1.0 / x; };
    case UNARY_SIGMOID:
      return sigmoid_of;
    case UNARY_TANH:
      return tanh_of;
    case UNARY_FLOOR:
      return [](double x) { return floor(x); };
    case UNARY_CEIL:
      return [](double x) { return ceil(x); };
    case UNARY_ROUND:
      return [](double x) { return nearbyint(x); };
    default:
      return nullptr;
  }
}

UnaryOp op_of(const Node& node) {
  struct Row {
    const char* op;
    UnaryCode code;
    const char* a;
    float a_default;
    const char* b;
    float b_default;
  };
  static const Row rows[] = {
      {"Relu", UNARY_RELU, nullptr, 0, nullptr, 0},
      {"LeakyRelu", UNARY_LEAKY_RELU, "alpha", 0.01f, nullptr, 0},
      {"Sigmoid", UNARY_SIGMOID, nullptr, 0, nullptr, 0},
      {"HardSigmoid", UNARY_HARD_SIGMOID, "alpha", 0.2f, "beta", 0.5f},
      {"HardSwish", UNARY_HARD_SWISH, nullptr, 0, nullptr, 0},
      {"Tanh", UNARY_TANH, nullptr, 0, nullptr, 0},
      {"Exp", UNARY_EXP, nullptr, 0, nullptr, 0},
      {"Log", UNARY_LOG, nullptr, 0, nullptr, 0},
      {"Sqrt", UNARY_SQRT, nullptr, 0, nullptr, 0},
      {"Reciprocal", UNARY_RECIPROCAL, nullptr, 0, nullptr, 0},
      {"Neg", UNARY_NEG, nullptr, 0, nullptr, 0},
      {"Abs", UNARY_ABS, nullptr, 0, nullptr, 0},
      {"Erf", UNARY_ERF, nullptr, 0, nullptr, 0},
      {"Softplus", UNARY_SOFTPLUS, nullptr, 0, nullptr, 0},
      {"Elu", UNARY_ELU, "alpha", 1.0f, nullptr, 0},
      {"Selu", UNARY_SELU, "alpha", 1.67326319217681884765625f, "gamma",
       1.05070102214813232421875f},
      {"Softsign", UNARY_SOFTSIGN, nullptr, 0, nullptr, 0},
      {"Mish", UNARY_MISH, nullptr, 0, nullptr, 0},
      {"Floor", UNARY_FLOOR, nullptr, 0, nullptr, 0},
      {"Ceil", UNARY_CEIL, nullptr, 0, nullptr, 0},
      {"Round", UNARY_ROUND, nullptr, 0, nullptr, 0},
      {"Sign", UNARY_SIGN, nullptr, 0, nullptr, 0},
  };
  if (node.op == "Gelu") {
    return {node.text("approximate", "none") == "tanh" ? UNARY_GELU_TANH : UNARY_GELU, 0, 0};
  }
  for (const Row& row : rows) {
    if (node.op != row.op) continue;
    return {row.code, row.a ? node.real(row.a, row.a_default) : 0.0f,
            row.b ? node.real(row.b, row.b_default) : 0.0f};
  }
  throw Error("no unary operator " + node.op);
}

void build_unary(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  if (dtype == DType::F32) return add_unary(planner, node, {op_of(node)});
  const UnaryOp op = op_of(node);
  if (double (*function)(double) = double_function(op.code)) {
    if (dtype == DType::F64) return add_map<double>(planner, node, dtype, function);
  }
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    // Unsigned arithmetic: the most negative integer wraps, as in NumPy.
    using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
    switch (op.code) {
      case UNARY_NEG:
        return add_map<T>(planner, node, dtype,
                          [](T x) { return static_cast<T>(U(0) - static_cast<U>(x)); });
      case UNARY_ABS:
        return add_map<T>(planner, node, dtype, [](T x) {
          return x < T(0) ? static_cast<T>(U(0) - static_cast<U>(x)) : x;
        });
      case UNARY_RELU:
        return add_map<T>(planner, node, dtype, [](T x) { return x < T(0) ? T(0) : x; });
      case UNARY_SIGN:
        return add_map<T>(planner, node, dtype, [](T x) {
          return static_cast<T>(x > T(0) ? T(1) : x < T(0) ? static_cast<T>(-1) : x);
        });
      default:
        throw Unsupported(node.op + ": no arithmetic in " + dtype_name(dtype));
    }
  });
}

// ai.lowprec UnaryChain: several unary operators in one walk over the data.
void build_chain(Planner& planner, const Node& node) { add_unary(planner, node, chain_of(node)); }

void build_clip(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  const float infinity = std::numeric_limits<float>::infinity();
  const bool low_known = !node.has_input(1) || planner.is_known(node, 1);
  const bool high_known = !node.has_input(2) || planner.is_known(node, 2);
  if (dtype == DType::F32 && low_known && high_known) {
    const float low =
        node.has_input(1) ? planner.known_reals(node, 1).at(0) : node.real("min", -infinity);
    const float high =
        node.has_input(2) ? planner.known_reals(node, 2).at(0) : node.real("max", infinity);
    return add_unary(planner, node, {{UNARY_CLIP, low, high}});
  }
  const int x = planner.operand_as_is(node, 0);
  const int low = node.has_input(1) ? planner.operand(node, 1) : -1;
  const int high = node.has_input(2) ? planner.operand(node, 2) : -1;
  const Tensor tensor = planner.tensor(x);
  const int y = planner.output(node, 0, dtype, tensor.shape, tensor.layout);
  const int64_t n = tensor.elements();
  std::vector<int> in = {x};
  for (const int id : {low, high}) {
    if (id >= 0) in.push_back(id);
  }
  const auto kernel = planner.kernels().unary;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add(in, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      T* dst = reinterpret_cast<T*>(t[y]);
      using Limits = std::numeric_limits<T>;
      T least = Limits::has_infinity ? static_cast<T>(-Limits::infinity()) : Limits::lowest();
      T most = Limits::has_infinity ? Limits::infinity() : Limits::max();
      if (low >= 0) memcpy(&least, t[low], sizeof(T));
      if (high >= 0) memcpy(&most, t[high], sizeof(T));
      if constexpr (std::is_same_v<T, float>) {
        const UnaryOp op = {UNARY_CLIP, least, most};
        parallel_rows(n, VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
          kernel(&op, 1, src + begin, dst + begin, end - begin);
        });
      } else {
        for (int64_t i = 0; i < n; ++i) {
          const T raised = src[i] < least ? least : src[i];
          dst[i] = raised > most ? most : raised;
        }
      }
    });
  });
}

void build_not(Planner& planner, const Node& node) {
  add_map<uint8_t>(planner, node, DType::BOOL,
                   [](uint8_t x) { return static_cast<uint8_t>(x == 0); });
}

void build_is_nan(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    add_map<T>(planner, node, DType::BOOL, [](T x) { return static_cast<uint8_t>(x != x); });
  });
}

void build_is_inf(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  const bool negative = node.integer("detect_negative", 1) != 0;
  const bool positive = node.integer("detect_positive", 1) != 0;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    const auto most = static_cast<double>(std::numeric_limits<T>::max());
    add_map<T>(planner, node, DType::BOOL, [=](T x) {
      const auto real = static_cast<double>(x);
      return static_cast<uint8_t>((positive && real > most) || (negative && real < -most));
    });
  });
}

void build_identity(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  planner.alias(node, 0, x, tensor.shape, tensor.layout);
}

// Inference only: the data pass, the mask is all true.
void build_dropout(Planner& planner, const Node& node) {
  if (node.has_input(2)) {
    for (const int64_t training : planner.known_integers(node, 2)) {
      if (training != 0) throw Unsupported("Dropout: training mode");
    }
  }
  build_identity(planner, node);
  if (node.outputs.size() > 1 && node.outputs[1] >= 0) {
    const int mask = planner.output(node, 1, DType::BOOL, planner.shape_of(node, 0));
    const int64_t n = planner.tensor(mask).elements();
    planner.add({}, {mask},
                [=](Pointers t, uint8_t*) { memset(t[mask], 1, static_cast<size_t>(n)); });
  }
}

// ------------------------------------------------------------------------------------- binary

void run_float_part(void (*kernel)(int32_t, const BinaryArgs*), int32_t code, const Nest& nest,
                    const float* a, const float* b, float* y) {
  const bool dense = rows_are_dense(nest);
  BinaryArgs args = {a,
                     b,
                     y,
                     dense ? nest.size(1) : 1,
                     nest.size(0),
                     nest.stride(1, 1),
                     nest.stride(1, 0),
                     nest.stride(2, 1),
                     nest.stride(2, 0)};
  for_each_outer<3>(nest, dense ? 2 : 1, [&](const int64_t* at) {
    args.y = y + at[0];
    args.a = a + at[1];
    args.b = b + at[2];
    kernel(code, &args);
  });
}

void run_float(void (*kernel)(int32_t, const BinaryArgs*), int32_t code, const Nest& nest,
               const float* a, const float* b, float* y) {
  parallel_parts<3>(nest, VECTOR_GRAIN, [&](const Nest& part, const int64_t* at) {
    run_float_part(kernel, code, part, a + at[1], b + at[2], y + at[0]);
  });
}

// The nest of the result and two of its operands.
Nest pair_of(const Nest& nest, size_t a, size_t b) {
  Nest pair = nest;
  pair.strides = {nest.strides[0], nest.strides[a], nest.strides[b]};
  return pair;
}

void add_float_binary(Planner& planner, const Node& node, int32_t code) {
  const Broadcast operands = broadcast_operands(planner, node, 0, 2);
  const int y = planner.output(node, 0, DType::F32, operands.shape, operands.layout);
  const int a = operands.ids[0], b = operands.ids[1];
  const auto kernel = planner.kernels().binary_rows;
  const Nest nest = operands.nest;
  planner
      .add({a, b}, {y},
           [=](Pointers t, uint8_t*) {
             run_float(kernel, code, nest, reinterpret_cast<const float*>(t[a]),
                       reinterpret_cast<const float*>(t[b]), reinterpret_cast<float*>(t[y]));
           })
      .inplace = operands.full;
}

// Integers wrap (through unsigned arithmetic); a division by zero gives 0 rather than a trap.
template <class T>
T whole_power(T base, T exponent) {
  if (exponent < 0) return base == 1 ? T(1) : T(0);
  uint64_t result = 1, factor = static_cast<uint64_t>(base);
  for (auto left = static_cast<uint64_t>(exponent); left != 0; left >>= 1) {
    if (left & 1) result *= factor;
    factor *= factor;
  }
  return static_cast<T>(result);
}

template <class T>
T arithmetic(int32_t code, T a, T b) {
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  switch (code) {
    case BINARY_ADD:
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    case BINARY_SUB:
      return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    case BINARY_MUL:
      return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    case BINARY_DIV:
      if constexpr (std::is_integral_v<T>) {
        if (b == 0) return 0;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) {
          return static_cast<T>(U(0) - static_cast<U>(a));
        }
      }
      return static_cast<T>(a / b);
    case BINARY_MIN:
      return a != a || a < b ? a : b;
    case BINARY_MAX:
      return a != a || a > b ? a : b;
    case BINARY_PRELU:
      return a < T(0) ? arithmetic<T>(BINARY_MUL, a, b) : a;
    case BINARY_POW:
      if constexpr (std::is_integral_v<T>) return whole_power<T>(a, b);
      return a;
    default:
      return a;
  }
}

// Calls f with the operator's code as a constant, so that loops hold no switch.
template <class F>
void with_code(int32_t code, F f) {
  switch (code) {
    case BINARY_ADD:
      return f(std::integral_constant<int32_t, BINARY_ADD>());
    case BINARY_SUB:
      return f(std::integral_constant<int32_t, BINARY_SUB>());
    case BINARY_MUL:
      return f(std::integral_constant<int32_t, BINARY_MUL>());
    case BINARY_DIV:
      return f(std::integral_constant<int32_t, BINARY_DIV>());
    case BINARY_MIN:
      return f(std::integral_constant<int32_t, BINARY_MIN>());
    case BINARY_MAX:
      return f(std::integral_constant<int32_t, BINARY_MAX>());
    case BINARY_PRELU:
      return f(std::integral_constant<int32_t, BINARY_PRELU>());
    default:
      return f(std::integral_constant<int32_t, BINARY_POW>());
  }
}

int32_t code_of(const std::string& op) {
  static const std::map<std::string, int32_t> codes = {
      {"Add", BINARY_ADD}, {"Sub", BINARY_SUB}, {"Mul", BINARY_MUL},     {"Div", BINARY_DIV},
      {"Min", BINARY_MIN}, {"Max", BINARY_MAX}, {"PRelu", BINARY_PRELU}, {"Pow", BINARY_POW},
      {"Sum", BINARY_ADD}, {"Mean", BINARY_ADD}};
  return codes.at(op);
}

void build_binary(Planner& planner, const Node& node) {
  const int32_t code = code_of(node.op);
  const DType dtype = planner.dtype_of(node, 0), other = planner.dtype_of(node, 1);
  if (dtype != other || (code == BINARY_POW && dtype == DType::F64)) {
    throw Unsupported(node.op + ": no arithmetic in " + dtype_name(dtype) + " and " +
                      dtype_name(other));
  }
  if (dtype == DType::F32) return add_float_binary(planner, node, code);
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    with_code(code, [&](auto constant) {
      add_typed_binary<T>(planner, node, dtype,
                          [](T a, T b) { return arithmetic<T>(decltype(constant)::value, a, b); });
    });
  });
}

// Min, Max, Sum, Mean of any number of operands, from left to right.
void build_variadic(Planner& planner, const Node& node) {
  const size_t n = node.inputs.size();
  if (n == 1) return build_identity(planner, node);
  if (n == 2 && node.op != "Mean") return build_binary(planner, node);
  require_f32(planner, node);
  const int32_t code = code_of(node.op);
  const Broadcast operands = broadcast_operands(planner, node, 0, n);
  const int y = planner.output(node, 0, DType::F32, operands.shape, operands.layout);
  const int64_t elements = planner.tensor(y).elements();
  const auto kernel = planner.kernels().binary_rows;
  const auto unary = planner.kernels().unary;
  const std::vector<int> ids = operands.ids;
  std::vector<Nest> nests = {pair_of(operands.nest, 1, 2)};
  for (size_t i = 2; i < n; ++i) nests.push_back(pair_of(operands.nest, 0, i + 1));
  const bool mean = node.op == "Mean";
  planner.add(ids, {y}, [=](Pointers t, uint8_t*) {
    float* dst = reinterpret_cast<float*>(t[y]);
    const float* left = reinterpret_cast<const float*>(t[ids[0]]);
    for (size_t i = 1; i < n; ++i) {
      run_float(kernel, code, nests[i - 1], left, reinterpret_cast<const float*>(t[ids[i]]), dst);
      left = dst;
    }
    if (mean) {
      const UnaryOp op = {UNARY_DIV, static_cast<float>(n), 0.0f};
      parallel_rows(elements, VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
        unary(&op, 1, dst + begin, dst + begin, end - begin);
      });
    }
  });
}

template <class T>
T remainder(T a, T b, bool c_style) {
  if constexpr (std::is_floating_point_v<T>) {
    const T r = static_cast<T>(fmod(a, b));  // exact, whatever the C library
    return !c_style && r != 0 && (r < 0) != (b < 0) ? r + b : r;
  } else {
    if (b == 0) return 0;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    const T r = static_cast<T>(a % b);
    // Python's sign is the divisor's, C's the dividend's.
    return !c_style && r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
  }
}

void build_mod(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  const bool c_style = node.integer("fmod", 0) != 0;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    add_typed_binary<T>(planner, node, dtype,
                        [=](T a, T b) { return remainder<T>(a, b, c_style); });
  });
}

template <class Compare>
void add_comparison(Planner& planner, const Node& node, Compare compare) {
  DType dtype = planner.dtype_of(node, 0);
  if (dtype == DType::BOOL) dtype = DType::U8;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    add_typed_binary<T>(planner, node, DType::BOOL,
                        [=](T a, T b) { return static_cast<uint8_t>(compare(a, b)); });
  });
}

void build_comparison(Planner& planner, const Node& node) {
  if (planner.dtype_of(node, 0) != planner.dtype_of(node, 1)) {
    throw Error("both operands must have one element type");
  }
  const auto with = [&](auto compare) { add_comparison(planner, node, compare); };
  if (node.op == "Equal") return with([](auto a, auto b) { return a == b; });
  if (node.op == "Greater") return with([](auto a, auto b) { return a > b; });
  if (node.op == "Less") return with([](auto a, auto b) { return a < b; });
  if (node.op == "GreaterOrEqual") return with([](auto a, auto b) { return a >= b; });
  return with([](auto a, auto b) { return a <= b; });
}

void build_logic(Planner& planner, const Node& node) {
  const auto with = [&](auto f) {
    add_typed_binary<uint8_t>(planner, node, DType::BOOL, [=](uint8_t a, uint8_t b) {
      return static_cast<uint8_t>(f(a != 0, b != 0));
    });
  };
  if (node.op == "And") return with([](bool a, bool b) { return a && b; });
  if (node.op == "Or") return with([](bool a, bool b) { return a || b; });
  return with([](bool a, bool b) { return a != b; });
}

void build_where(Planner& planner, const Node& node) {
  const Broadcast operands = broadcast_operands(planner, node, 0, 3);
  const DType dtype = planner.tensor(operands.ids[1]).dtype;
  const int y = planner.output(node, 0, dtype, operands.shape, operands.layout);
  const int mask = operands.ids[0], yes = operands.ids[1], no = operands.ids[2];
  const Nest nest = operands.nest;
  with_item(dtype_size(dtype), [&](auto zero) {
    using T = decltype(zero);
    planner.add({mask, yes, no}, {y}, [=](Pointers t, uint8_t*) {
      parallel_parts<4>(nest, PLAIN_GRAIN, [&](const Nest& part, const int64_t* from) {
        for_each_outer<4>(part, 1, [&](const int64_t* at) {
          const int64_t n = part.size(0), m_step = part.stride(1, 0), a_step = part.stride(2, 0);
          const int64_t b_step = part.stride(3, 0);
          T* dst = reinterpret_cast<T*>(t[y]) + from[0] + at[0];
          const uint8_t* m = t[mask] + from[1] + at[1];
          const T* a = reinterpret_cast<const T*>(t[yes]) + from[2] + at[2];
          const T* b = reinterpret_cast<const T*>(t[no]) + from[3] + at[3];
          for (int64_t i = 0; i < n; ++i) {
            dst[i] = m[i * m_step] != 0 ? a[i * a_step] : b[i * b_step];
          }
        });
      });
    });
  });
}

}  // namespace

const std::vector<Operator>& elementwise_operators() {
  static const std::vector<Operator> table = [] {
    std::vector<Operator> all;
    const auto add = [&](const char* name, void (*build)(Planner&, const Node&)) {
      all.push_back({name, {{name, nullptr, build}}});
    };
    for (const char* name : {"Relu",  "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh",
                             "Exp",   "Log",       "Sqrt",    "Reciprocal",  "Neg",       "Abs",
                             "Erf",   "Softplus",  "Elu",     "Selu",        "Softsign",  "Mish",
                             "Floor", "Ceil",      "Round",   "Sign",        "Gelu"}) {
      add(name, build_unary);
    }
    for (const char* name : {"Add", "Sub", "Mul", "Div", "PRelu", "Pow"}) add(name, build_binary);
    for (const char* name : {"Min", "Max", "Sum", "Mean"}) add(name, build_variadic);
    for (const char* name : {"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"}) {
      add(name, build_comparison);
    }
    for (const char* name : {"And", "Or", "Xor"}) add(name, build_logic);
    add("UnaryChain", build_chain);
    add("Clip", build_clip);
    add("Not", build_not);
    add("IsNaN", build_is_nan);
    add("IsInf", build_is_inf);
    add("Identity", build_identity);
    add("Dropout", build_dropout);
    add("Mod", build_mod);
    add("Where", build_where);
    return all;
  }();
  return table;
}

}  // namespace lp
