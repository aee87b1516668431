// ops_reduce.cpp: reductions, softmax, normalisation, arg max, running sums.
//
// Float sums take their elements in logical order, sixteen partial sums (impl/rows.inl), so that
// the layout of an image does not change a bit. Integers reduce in plain loops.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "engine/mathematics.h"
#include "engine/views.h"

namespace lp {
namespace {

// x seen as [outer][depth][inner]: depth are the reduced axes, in logical order.
struct Blocks {
  int64_t outer = 1, depth = 1, inner = 1;
};

// Where the reduced axes lie side by side in memory, in logical order; false otherwise.
bool find_blocks(const Shape& shape, Layout layout, const std::vector<bool>& reduced,
                 Blocks* blocks) {
  std::vector<size_t> order;  // logical axes in memory order
  for (size_t axis = 0; axis < shape.size(); ++axis) order.push_back(axis);
  if (layout == Layout::CHANNELS_LAST) {
    order.erase(order.begin() + 1);
    order.push_back(1);
  }
  *blocks = Blocks();
  int stage = 0;  // before, inside, after the reduced axes
  size_t previous = 0;
  for (const size_t axis : order) {
    if (shape[axis] == 1) continue;
    if (reduced[axis]) {
      if (stage == 2 || (stage == 1 && axis < previous)) return false;
      stage = 1;
      previous = axis;
      blocks->depth *= shape[axis];
    } else if (stage == 0) {
      blocks->outer *= shape[axis];
    } else {
      stage = 2;
      blocks->inner *= shape[axis];
    }
  }
  if (stage == 0) {  // only axes of one element are reduced
    blocks->inner = 1;
  }
  return true;
}

Shape reduced_shape(const Shape& shape, const std::vector<bool>& reduced, bool keep) {
  Shape result;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (!reduced[axis]) {
      result.push_back(shape[axis]);
    } else if (keep) {
      result.push_back(1);
    }
  }
  return result;
}

// An operand arranged for a reduction, and the layout that the result then has.
struct Arranged {
  int x;
  Blocks blocks;
  Layout layout = Layout::PLAIN;
  StridedCopy gather;  // into scratch first, where `gathers`
  bool gathers = false;
};

Arranged arrange(Planner& planner, const Node& node, const std::vector<bool>& reduced, bool keep) {
  Arranged result;
  result.x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(result.x);
  const Shape kept = reduced_shape(tensor.shape, reduced, keep);
  if (tensor.layout == Layout::CHANNELS_LAST &&
      find_blocks(tensor.shape, tensor.layout, reduced, &result.blocks)) {
    // The result lies in memory as the kept axes did: is that a layout of its shape?
    Shape as_if = tensor.shape;
    for (size_t axis = 0; axis < as_if.size(); ++axis) {
      if (reduced[axis]) as_if[axis] = 1;
    }
    const Strides all = strides_of(as_if, Layout::CHANNELS_LAST);
    Strides strides;
    for (size_t axis = 0; axis < as_if.size(); ++axis) {
      if (keep || !reduced[axis]) strides.push_back(all[axis]);
    }
    if (find_layout(kept, strides, &result.layout)) return result;
  }
  result.layout = Layout::PLAIN;
  result.x = planner.operand(node, 0);
  const Shape shape = planner.tensor(result.x).shape;
  if (find_blocks(shape, Layout::PLAIN, reduced, &result.blocks)) return result;
  // Scattered axes: bring them together as rows.
  Shape loops;
  Strides src;
  const Strides own = strides_of(shape, Layout::PLAIN);
  result.blocks = Blocks();
  for (const bool wanted : {false, true}) {
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (reduced[axis] != wanted) continue;
      loops.push_back(shape[axis]);
      src.push_back(own[axis]);
      (wanted ? result.blocks.depth : result.blocks.outer) *= shape[axis];
    }
  }
  result.gathers = true;
  result.gather =
      StridedCopy(dtype_size(tensor.dtype), loops, strides_of(loops, Layout::PLAIN), src);
  return result;
}

// Calls body(begin, end) for ranges of the outer positions, shared out.
template <class Body>
void parallel_outer(const Blocks& b, int64_t grain, const Body& body) {
  parallel_rows(b.outer, grain_of_rows(grain, b.depth * b.inner), body);
}

// ---------------------------------------------------------------------------------- reductions

enum Finish : int32_t { NOTHING, MEAN, ROOT, LOGARITHM };

struct Reduction {
  int32_t code;
  Finish finish;
};

Reduction reduction_of(const std::string& op) {
  static const std::map<std::string, Reduction> all = {
      {"ReduceSum", {REDUCE_SUM, NOTHING}},      {"ReduceMean", {REDUCE_SUM, MEAN}},
      {"ReduceMax", {REDUCE_MAX, NOTHING}},      {"ReduceMin", {REDUCE_MIN, NOTHING}},
      {"ReduceProd", {REDUCE_PROD, NOTHING}},    {"ReduceL1", {REDUCE_SUM_ABS, NOTHING}},
      {"ReduceL2", {REDUCE_SUM_SQUARE, ROOT}},   {"ReduceSumSquare", {REDUCE_SUM_SQUARE, NOTHING}},
      {"ReduceLogSum", {REDUCE_SUM, LOGARITHM}}, {"ReduceLogSumExp", {REDUCE_SUM_EXP, LOGARITHM}},
      {"GlobalAveragePool", {REDUCE_SUM, MEAN}}, {"GlobalMaxPool", {REDUCE_MAX, NOTHING}},
  };
  return all.at(op);
}

// log(sum(exp(x))) = max + log(sum(exp(x - max))), so that exp cannot overflow.
void log_sum_exp(const Kernels& kernels, const float* x, float* y, const Blocks& b) {
  float* shifted = reinterpret_cast<float*>(thread_scratch((b.depth + 1) * b.inner * 4));
  kernels.reduce(REDUCE_MAX, x, y, b.outer, b.depth, b.inner);
  const UnaryOp log_op = {UNARY_LOG, 0.0f, 0.0f};
  for (int64_t o = 0; o < b.outer; ++o) {
    float* most = y + o * b.inner;
    for (int64_t i = 0; i < b.inner; ++i) {
      if (fabsf(most[i]) == std::numeric_limits<float>::infinity()) most[i] = 0.0f;
    }
    const int64_t inner = b.inner;
    BinaryArgs args = {x + o * b.depth * inner, most, shifted, b.depth, inner, inner, 1, 0, 1};
    if (inner == 1) args = {x + o * b.depth, most, shifted, 1, b.depth, 0, 1, 0, 0};
    kernels.binary_rows(BINARY_SUB, &args);
    float* total = shifted + b.depth * inner;
    kernels.reduce(REDUCE_SUM_EXP, shifted, total, 1, b.depth, inner);
    kernels.unary(&log_op, 1, total, total, inner);
    kernels.binary(BINARY_ADD, total, 1, most, 1, most, inner);
  }
}

void add_float_reduction(Planner& planner, const Node& node, const std::vector<bool>& reduced,
                         bool keep) {
  const Reduction reduction = reduction_of(node.op);
  const Shape shape = planner.shape_of(node, 0);
  const Arranged arranged = arrange(planner, node, reduced, keep);
  const int x = arranged.x;
  const int y =
      planner.output(node, 0, DType::F32, reduced_shape(shape, reduced, keep), arranged.layout);
  const Kernels& kernels = planner.kernels();
  const Blocks b = arranged.blocks;
  const bool exponents = reduction.code == REDUCE_SUM_EXP;
  const int64_t gathered = arranged.gathers ? count(shape) : 0;
  Step& step = planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    const float* src = reinterpret_cast<const float*>(t[x]);
    float* dst = reinterpret_cast<float*>(t[y]);
    float* buffer = reinterpret_cast<float*>(scratch);
    if (arranged.gathers) {
      arranged.gather.run(buffer, src);
      src = buffer;
    }
    UnaryOp last = {UNARY_LOG, 0.0f, 0.0f};
    if (reduction.finish == MEAN) last = {UNARY_DIV, static_cast<float>(b.depth), 0.0f};
    if (reduction.finish == ROOT) last = {UNARY_SQRT, 0.0f, 0.0f};
    parallel_outer(b, exponents ? PLAIN_GRAIN : VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
      const float* from = src + begin * b.depth * b.inner;
      float* to = dst + begin * b.inner;
      const int64_t made = (end - begin) * b.inner;
      if (exponents) return log_sum_exp(kernels, from, to, {end - begin, b.depth, b.inner});
      kernels.reduce(reduction.code, from, to, end - begin, b.depth, b.inner);
      if (reduction.finish != NOTHING) kernels.unary(&last, 1, to, to, made);
    });
  });
  step.scratch_bytes = 4 * gathered;
}

template <class T>
void reduce_numbers(int32_t code, const T* x, T* y, const Blocks& b) {
  // Integer sums wrap, as NumPy's; doubles add in order.
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  for (int64_t o = 0; o < b.outer; ++o) {
    for (int64_t i = 0; i < b.inner; ++i) {
      const T* column = x + o * b.depth * b.inner + i;
      U sum = code == REDUCE_PROD ? U(1) : U(0);
      T extreme = b.depth > 0 ? *column : T(0);
      for (int64_t d = 0; d < b.depth; ++d) {
        const T value = column[d * b.inner];
        const U wide = static_cast<U>(value);
        switch (code) {
          case REDUCE_PROD:
            sum *= wide;
            break;
          case REDUCE_SUM_SQUARE:
            sum += wide * wide;
            break;
          case REDUCE_SUM_ABS:
            sum += value < T(0) ? U(0) - wide : wide;
            break;
          case REDUCE_MAX:
            extreme = value > extreme || value != value ? value : extreme;
            break;
          case REDUCE_MIN:
            extreme = value < extreme || value != value ? value : extreme;
            break;
          default:
            sum += wide;
            break;
        }
      }
      const bool orders = code == REDUCE_MAX || code == REDUCE_MIN;
      y[o * b.inner + i] = orders ? extreme : static_cast<T>(sum);
    }
  }
}

// Doubles: the same formulas as in f32, sums in order.
void log_sum_exp(const double* x, double* y, const Blocks& b) {
  for (int64_t o = 0; o < b.outer; ++o) {
    for (int64_t i = 0; i < b.inner; ++i) {
      const double* column = x + o * b.depth * b.inner + i;
      double most = -std::numeric_limits<double>::infinity(), sum = 0.0;
      for (int64_t d = 0; d < b.depth; ++d) {
        const double value = column[d * b.inner];
        most = value > most || value != value ? value : most;
      }
      if (fabs(most) == std::numeric_limits<double>::infinity()) most = 0.0;
      for (int64_t d = 0; d < b.depth; ++d) sum += exp_of(column[d * b.inner] - most);
      y[o * b.inner + i] = most + log_of(sum);
    }
  }
}

void finish_doubles(Finish finish, double* y, int64_t n, int64_t depth) {
  for (int64_t i = 0; i < n; ++i) {
    if (finish == MEAN) y[i] /= static_cast<double>(depth);
    if (finish == ROOT) y[i] = sqrt(y[i]);
    if (finish == LOGARITHM) y[i] = log_of(y[i]);
  }
}

void add_number_reduction(Planner& planner, const Node& node, const std::vector<bool>& reduced,
                          bool keep) {
  const Reduction reduction = reduction_of(node.op);
  DType dtype = planner.dtype_of(node, 0);
  const DType number = dtype == DType::BOOL ? DType::U8 : dtype;
  const bool orders = reduction.code == REDUCE_MAX || reduction.code == REDUCE_MIN;
  const bool whole = dtype != DType::F64;
  if ((whole && (reduction.finish != NOTHING || reduction.code == REDUCE_SUM_EXP)) ||
      (dtype == DType::BOOL && !orders)) {
    throw Unsupported(node.op + ": no arithmetic in " + dtype_name(dtype));
  }
  const Shape shape = planner.shape_of(node, 0);
  const Arranged arranged = arrange(planner, node, reduced, keep);
  const int x = arranged.x;
  const int y =
      planner.output(node, 0, dtype, reduced_shape(shape, reduced, keep), arranged.layout);
  with_number(number, node, [&](auto zero) {
    using T = decltype(zero);
    Step& step = planner.add({x}, {y}, [=](Pointers t, uint8_t* scratch) {
      const uint8_t* src = t[x];
      if (arranged.gathers) {
        arranged.gather.run(scratch, src);
        src = scratch;
      }
      const Blocks& b = arranged.blocks;
      parallel_outer(b, PLAIN_GRAIN, [&](int64_t begin, int64_t end) {
        const T* from = reinterpret_cast<const T*>(src) + begin * b.depth * b.inner;
        T* to = reinterpret_cast<T*>(t[y]) + begin * b.inner;
        const Blocks part{end - begin, b.depth, b.inner};
        if constexpr (std::is_same_v<T, double>) {
          if (reduction.code == REDUCE_SUM_EXP) return log_sum_exp(from, to, part);
        }
        reduce_numbers(reduction.code, from, to, part);
        if constexpr (std::is_same_v<T, double>) {
          finish_doubles(reduction.finish, to, part.outer * part.inner, part.depth);
        }
      });
    });
    if (arranged.gathers) step.scratch_bytes = count(shape) * dtype_size(dtype);
  });
}

void build_reduction(Planner& planner, const Node& node) {
  const size_t rank = planner.shape_of(node, 0).size();
  const std::vector<int64_t> axes = axes_of(planner, node, 1, rank);
  const bool nothing = axes.empty() && node.integer("noop_with_empty_axes", 0) != 0;
  std::vector<bool> reduced(rank, axes.empty() && !nothing);
  for (const int64_t axis : axes) reduced[static_cast<size_t>(axis)] = true;
  const bool keep = node.integer("keepdims", 1) != 0;
  if (planner.dtype_of(node, 0) == DType::F32) {
    add_float_reduction(planner, node, reduced, keep);
  } else {
    add_number_reduction(planner, node, reduced, keep);
  }
}

void build_global_pool(Planner& planner, const Node& node) {
  const size_t rank = planner.shape_of(node, 0).size();
  if (rank < 2) throw Error("needs an image");
  require_f32(planner, node);
  std::vector<bool> reduced(rank, true);
  reduced[0] = reduced[1] = false;
  add_float_reduction(planner, node, reduced, true);
}

// ------------------------------------------------------------------------------------- softmax

void softmax_of_doubles(bool logarithm, const double* x, double* y, const Blocks& b) {
  for (int64_t row = 0; row < b.outer * b.inner; ++row) {
    const int64_t start = row / b.inner * b.depth * b.inner + row % b.inner;
    double most = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (int64_t d = 0; d < b.depth; ++d) {
      const double value = x[start + d * b.inner];
      most = value > most || value != value ? value : most;
    }
    for (int64_t d = 0; d < b.depth; ++d) {
      const int64_t at = start + d * b.inner;
      const double shifted = x[at] - most, e = exp_of(shifted);
      sum += e;
      y[at] = logarithm ? shifted : e;
    }
    const double log_sum = log_of(sum);
    for (int64_t d = 0; d < b.depth; ++d) {
      double& value = y[start + d * b.inner];
      value = logarithm ? value - log_sum : value / sum;
    }
  }
}

// Few channels, the last axis in memory: rows of a few elements leave most lanes idle, so the image
// is turned round first. The sums are the same.
int softmax_operand(Planner& planner, const Node& node) {
  constexpr int64_t FEW = 16;
  const int x = planner.operand_as_is(node, 0);
  const Tensor& tensor = planner.tensor(x);
  if (tensor.layout != Layout::CHANNELS_LAST || tensor.shape[1] > FEW) return x;
  const int64_t axis = normalise_axis(node.integer("axis", -1), tensor.rank(), "axis");
  const bool many = count(tensor.shape, 2, tensor.rank()) >= FEW;
  return axis == 1 && many ? planner.operand(node, 0, Layout::PLAIN) : x;
}

void build_softmax(Planner& planner, const Node& node) {
  const int x = softmax_operand(planner, node);
  const Tensor tensor = planner.tensor(x);
  const bool doubles = tensor.dtype == DType::F64;
  if (!doubles) require_f32(planner, node);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), tensor.rank(), "axis"));
  const int32_t logarithm = node.op == "LogSoftmax" ? 1 : 0;
  std::vector<bool> reduced(tensor.rank(), false);
  if (!reduced.empty()) reduced[axis] = true;
  Blocks b;
  find_blocks(tensor.shape, tensor.layout, reduced, &b);  // one axis: always possible
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape, tensor.layout);
  if (doubles) {
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      parallel_outer(b, PLAIN_GRAIN / 16, [&](int64_t begin, int64_t end) {
        const int64_t at = begin * b.depth * b.inner;
        softmax_of_doubles(logarithm != 0, reinterpret_cast<const double*>(t[x]) + at,
                           reinterpret_cast<double*>(t[y]) + at,
                           Blocks{end - begin, b.depth, b.inner});
      });
    });
    return;
  }
  const auto kernel = planner.kernels().softmax;
  planner
      .add({x}, {y},
           [=](Pointers t, uint8_t*) {
             parallel_outer(b, PLAIN_GRAIN, [&](int64_t begin, int64_t end) {
               const int64_t at = begin * b.depth * b.inner;
               kernel(logarithm, reinterpret_cast<const float*>(t[x]) + at,
                      reinterpret_cast<float*>(t[y]) + at, end - begin, b.depth, b.inner);
             });
           })
      .inplace = 0;
}

void build_lp_normalization(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  const int64_t p = node.integer("p", 2);
  if (p != 1 && p != 2) throw Error("p must be 1 or 2");
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), tensor.rank(), "axis"));
  std::vector<bool> reduced(tensor.rank(), false);
  reduced[axis] = true;
  Blocks b;
  find_blocks(tensor.shape, Layout::PLAIN, reduced, &b);
  const int y = planner.output(node, 0, DType::F32, tensor.shape);
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    const float* src = reinterpret_cast<const float*>(t[x]);
    float* dst = reinterpret_cast<float*>(t[y]);
    float* norm = reinterpret_cast<float*>(scratch);
    parallel_outer(b, PLAIN_GRAIN, [&](int64_t begin, int64_t end) {
      float* own = norm + begin * b.inner;
      const int64_t norms = (end - begin) * b.inner;
      kernels.reduce(p == 1 ? REDUCE_SUM_ABS : REDUCE_SUM_SQUARE, src + begin * b.depth * b.inner,
                     own, end - begin, b.depth, b.inner);
      const UnaryOp root = {UNARY_SQRT, 0.0f, 0.0f};
      if (p == 2) kernels.unary(&root, 1, own, own, norms);
      // A row of zeros stays zeros.
      for (int64_t i = 0; i < norms; ++i) own[i] = own[i] == 0.0f ? 1.0f : own[i];
      for (int64_t o = begin; o < end; ++o) {
        BinaryArgs args = {src + o * b.depth * b.inner,
                           norm + o * b.inner,
                           dst + o * b.depth * b.inner,
                           b.depth,
                           b.inner,
                           b.inner,
                           1,
                           0,
                           1};
        if (b.inner == 1) args = {args.a, args.b, args.y, 1, b.depth, 0, 1, 0, 0};
        kernels.binary_rows(BINARY_DIV, &args);
      }
    });
  });
  step.scratch_bytes = b.outer * b.inner * 4;
}

// --------------------------------------------------------------------------------------- norms

// The whole of it, its rows shared out.
void run_scale_shift(const Kernels& kernels, const ScaleShiftArgs& args) {
  parallel_rows(args.rows, grain_of_rows(VECTOR_GRAIN, args.n), [&](int64_t begin, int64_t end) {
    for (int64_t rows; begin < end; begin += rows) {
      ScaleShiftArgs part = args;
      rows = end - begin;
      if (args.channels_last == 0) {  // rows of one image: their channels are neighbours
        const int64_t first = begin % args.channels;
        rows = std::min(rows, args.channels - first);
        part.channels = rows;
        part.shift += first;
        part.scale += first;
        part.offset += first;
      }
      part.x += begin * args.n;
      part.y += begin * args.n;
      part.rows = rows;
      kernels.scale_shift(&part);
    }
  });
}

// LayerNormalization and RMSNormalization over the trailing axes.
void build_layer_norm(Planner& planner, const Node& node) {
  const bool root_mean_square = node.op == "RMSNormalization";
  const int x = planner.operand(node, 0), gamma = planner.operand(node, 1);
  const int beta = node.has_input(2) ? planner.operand(node, 2) : -1;
  const Tensor tensor = planner.tensor(x);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), tensor.rank(), "axis"));
  const int64_t rows = count(tensor.shape, 0, axis);
  const int64_t n = count(tensor.shape, axis, tensor.rank());
  for (const int id : {gamma, beta}) {
    if (id >= 0 && planner.tensor(id).elements() != n) {
      throw Unsupported(node.op + ": scale or bias that is broadcast");
    }
  }
  if (tensor.dtype != DType::F32 || planner.tensor(gamma).dtype != DType::F32) {
    throw Unsupported(node.op + ": only f32");
  }
  const float epsilon = node.real("epsilon", 1e-5f);
  const int y = planner.output(node, 0, DType::F32, tensor.shape);
  std::vector<int> in = {x, gamma}, out = {y};
  if (beta >= 0) in.push_back(beta);
  Shape summary = tensor.shape;
  for (size_t i = axis; i < summary.size(); ++i) summary[i] = 1;
  int extra[2] = {-1, -1};  // mean, 1 / deviation
  for (size_t i = 1; i < node.outputs.size() && i < 3; ++i) {
    if (node.outputs[i] < 0) continue;
    extra[i - 1] = planner.output(node, i, DType::F32, summary);
    out.push_back(extra[i - 1]);
  }
  const int mean = extra[0], inverse = extra[1];
  const auto kernel = planner.kernels().normalize_rows;
  planner
      .add(in, out,
           [=](Pointers t, uint8_t*) {
             const auto reals = [&](int id, int64_t at) {
               return id < 0 ? nullptr : reinterpret_cast<float*>(t[id]) + at;
             };
             parallel_rows(rows, grain_of_rows(PLAIN_GRAIN, n), [&](int64_t begin, int64_t end) {
               const NormArgs args = {reals(x, begin * n),
                                      reals(y, begin * n),
                                      end - begin,
                                      n,
                                      reals(gamma, 0),
                                      reals(beta, 0),
                                      reals(mean, begin),
                                      reals(inverse, begin),
                                      epsilon,
                                      root_mean_square ? 1 : 0};
               kernel(&args);
             });
           })
      .inplace = 0;
}

// InstanceNormalization (a group per channel) and GroupNormalization: rows, then a scale and a
// shift per channel.
void build_group_norm(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), gamma = planner.operand(node, 1);
  const int beta = planner.operand(node, 2);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  if (tensor.rank() < 2) throw Error("needs an image");
  const int64_t channels = tensor.shape[1], space = count(tensor.shape, 2, tensor.rank());
  const int64_t groups =
      node.op == "InstanceNormalization" ? channels : node.integer("num_groups", 0);
  if (groups < 1 || channels % groups != 0) throw Error("groups do not divide the channels");
  if (planner.tensor(gamma).elements() != channels || planner.tensor(beta).elements() != channels) {
    throw Unsupported(node.op + ": scale or bias that is not per channel");
  }
  const int64_t rows = tensor.shape[0] * channels;
  const int64_t per_group = channels / groups * space;
  const float epsilon = node.real("epsilon", 1e-5f);
  const int y = planner.output(node, 0, DType::F32, tensor.shape);
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add({x, gamma, beta}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    const float* src = reinterpret_cast<const float*>(t[x]);
    float* dst = reinterpret_cast<float*>(t[y]);
    const int64_t all = tensor.shape[0] * groups;
    parallel_rows(all, grain_of_rows(PLAIN_GRAIN, per_group), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * per_group;
      const NormArgs norm = {src + at, dst + at, end - begin, per_group, nullptr,
                             nullptr,  nullptr,  nullptr,     epsilon,   0};
      kernels.normalize_rows(&norm);
    });
    float* zeros = reinterpret_cast<float*>(scratch);
    std::fill_n(zeros, channels, 0.0f);
    const ScaleShiftArgs scale = {dst,
                                  dst,
                                  rows,
                                  space,
                                  channels,
                                  zeros,
                                  reinterpret_cast<const float*>(t[gamma]),
                                  reinterpret_cast<const float*>(t[beta]),
                                  0};
    run_scale_shift(kernels, scale);
  });
  step.scratch_bytes = channels * 4;
}

// Inference: (x - mean) * (scale / sqrt(variance + epsilon)) + bias, per channel.
void build_batch_norm(Planner& planner, const Node& node) {
  if (node.integer("training_mode", 0) != 0) throw Unsupported("BatchNormalization: training");
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  const int64_t channels = tensor.rank() > 1 ? tensor.shape[1] : 1;
  int parameters[4];  // scale, bias, mean, variance
  for (size_t i = 0; i < 4; ++i) {
    parameters[i] = planner.operand(node, i + 1);
    if (planner.tensor(parameters[i]).elements() != channels ||
        planner.tensor(parameters[i]).dtype != DType::F32) {
      throw Unsupported("BatchNormalization: parameters that are not f32 per channel");
    }
  }
  const int gamma = parameters[0], beta = parameters[1], mean = parameters[2];
  const int variance = parameters[3];
  const bool last = tensor.layout == Layout::CHANNELS_LAST || tensor.rank() == 2;
  const int64_t space = count(tensor.shape, 2, tensor.rank());
  const int64_t batch = tensor.rank() > 0 ? tensor.shape[0] : 1;
  const int64_t rows = last ? batch * space : batch * channels;
  const int64_t n = last ? channels : space;
  const float epsilon = node.real("epsilon", 1e-5f);
  const int y = planner.output(node, 0, DType::F32, tensor.shape, tensor.layout);
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add(
      {x, gamma, beta, mean, variance}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
        float* scale = reinterpret_cast<float*>(scratch);
        const UnaryOp deviation[2] = {{UNARY_ADD, epsilon, 0.0f}, {UNARY_SQRT, 0.0f, 0.0f}};
        kernels.unary(deviation, 2, reinterpret_cast<const float*>(t[variance]), scale, channels);
        kernels.binary(BINARY_DIV, reinterpret_cast<const float*>(t[gamma]), 1, scale, 1, scale,
                       channels);
        const ScaleShiftArgs args = {reinterpret_cast<const float*>(t[x]),
                                     reinterpret_cast<float*>(t[y]),
                                     rows,
                                     n,
                                     channels,
                                     reinterpret_cast<const float*>(t[mean]),
                                     scale,
                                     reinterpret_cast<const float*>(t[beta]),
                                     last ? 1 : 0};
        run_scale_shift(kernels, args);
      });
  step.scratch_bytes = channels * 4;
  step.inplace = 0;
}

// y = x / (bias + alpha / size * sum of squares over neighbouring channels) ^ beta.
void build_lrn(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  if (tensor.rank() < 3) throw Error("needs an image");
  const int64_t size = node.integer("size", 1);
  if (size < 1) throw Error("size must be at least 1");
  const float alpha = node.real("alpha", 1e-4f), beta = node.real("beta", 0.75f);
  const float bias = node.real("bias", 1.0f);
  const int64_t batch = tensor.shape[0], channels = tensor.shape[1];
  const int64_t space = count(tensor.shape, 2, tensor.rank()), image = channels * space;
  const int64_t before = (size - 1) / 2, after = size - 1 - before;
  const int y = planner.output(node, 0, DType::F32, tensor.shape);
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    float* square = reinterpret_cast<float*>(scratch);
    const UnaryOp square_op = {UNARY_SQUARE, 0.0f, 0.0f};
    const UnaryOp root = {UNARY_SQRT, 0.0f, 0.0f};
    const UnaryOp base[2] = {{UNARY_MUL, alpha / static_cast<float>(size), 0.0f},
                             {UNARY_ADD, bias, 0.0f}};
    for (int64_t b = 0; b < batch; ++b) {
      const float* src = reinterpret_cast<const float*>(t[x]) + b * image;
      float* dst = reinterpret_cast<float*>(t[y]) + b * image;
      parallel_rows(image, VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
        kernels.unary(&square_op, 1, src + begin, square + begin, end - begin);
      });
      const int64_t grain = grain_of_rows(VECTOR_GRAIN / 4, space * size);
      parallel_rows(channels, grain, [&](int64_t begin, int64_t end) {
        float* sum = reinterpret_cast<float*>(thread_scratch(2 * space * 4));
        for (int64_t c = begin; c < end; ++c) {
          const int64_t first = std::max<int64_t>(0, c - before);
          const int64_t last = std::min(channels - 1, c + after);
          memcpy(sum, square + first * space, static_cast<size_t>(space) * 4);
          for (int64_t k = first + 1; k <= last; ++k) {
            kernels.binary(BINARY_ADD, sum, 1, square + k * space, 1, sum, space);
          }
          kernels.unary(base, 2, sum, sum, space);
          if (beta == 0.75f) {  // the root times the root's root
            float* fourth = sum + space;
            kernels.unary(&root, 1, sum, sum, space);
            kernels.unary(&root, 1, sum, fourth, space);
            kernels.binary(BINARY_MUL, sum, 1, fourth, 1, sum, space);
          } else {
            kernels.binary(BINARY_POW, sum, 1, &beta, 0, sum, space);
          }
          kernels.binary(BINARY_DIV, src + c * space, 1, sum, 1, dst + c * space, space);
        }
      });
    }
  });
  step.scratch_bytes = image * 4;
}

// ------------------------------------------------------------------------- positions, running sums

void build_arg(Planner& planner, const Node& node) {
  const bool most = node.op == "ArgMax";
  const bool keep = node.integer("keepdims", 1) != 0;
  const bool take_last = node.integer("select_last_index", 0) != 0;
  const size_t rank = planner.shape_of(node, 0).size();
  const size_t axis = static_cast<size_t>(normalise_axis(node.integer("axis", 0), rank, "axis"));
  std::vector<bool> reduced(rank, false);
  if (rank > 0) reduced[axis] = true;
  const Shape shape = planner.shape_of(node, 0);
  if (rank > 0 && shape[axis] == 0) throw Error("no elements to choose from");
  const Arranged arranged = arrange(planner, node, reduced, keep);
  const DType dtype = planner.dtype_of(node, 0);
  const int x = arranged.x;
  const int y =
      planner.output(node, 0, DType::S64, reduced_shape(shape, reduced, keep), arranged.layout);
  const Blocks b = arranged.blocks;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      int64_t* dst = reinterpret_cast<int64_t*>(t[y]);
      const int64_t grain = grain_of_rows(PLAIN_GRAIN, b.depth);
      parallel_rows(b.outer * b.inner, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const T* column = src + i / b.inner * b.depth * b.inner + i % b.inner;
          int64_t at = 0;
          T best = column[0];
          for (int64_t d = 1; d < b.depth; ++d) {
            const T value = column[d * b.inner];
            // NaN wins, as in NumPy.
            const bool better =
                best == best && (value != value || (most ? value > best : value < best));
            if (better || (take_last && value == best)) {
              best = value;
              at = d;
            }
          }
          dst[i] = at;
        }
      });
    });
  });
}

void build_cumulation(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const int64_t named = planner.known_integers(node, 1).at(0);
  const size_t axis = static_cast<size_t>(normalise_axis(named, tensor.rank(), "axis"));
  const bool exclusive = node.integer("exclusive", 0) != 0;
  const bool reverse = node.integer("reverse", 0) != 0;
  const bool product = node.op == "CumProd";
  const int64_t outer = count(tensor.shape, 0, axis), depth = tensor.shape[axis];
  const int64_t inner = count(tensor.shape, axis + 1, tensor.rank());
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  with_number(tensor.dtype, node, [&](auto zero) {
    using T = decltype(zero);
    using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      T* dst = reinterpret_cast<T*>(t[y]);
      const int64_t grain = grain_of_rows(PLAIN_GRAIN, depth);
      parallel_rows(outer * inner, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t column = i / inner * depth * inner + i % inner;
          U sum = product ? 1 : 0;
          for (int64_t d = 0; d < depth; ++d) {
            const int64_t at = column + (reverse ? depth - 1 - d : d) * inner;
            const U value = static_cast<U>(src[at]), next = product ? sum * value : sum + value;
            dst[at] = static_cast<T>(exclusive ? sum : next);
            sum = next;
          }
        }
      });
    });
  });
}

}  // namespace

const std::vector<Operator>& reduce_operators() {
  static const std::vector<Operator> table = [] {
    std::vector<Operator> all;
    const auto add = [&](const char* name, void (*build)(Planner&, const Node&)) {
      all.push_back({name, {{name, nullptr, build}}});
    };
    for (const char* name :
         {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
          "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}) {
      add(name, build_reduction);
    }
    add("GlobalAveragePool", build_global_pool);
    add("GlobalMaxPool", build_global_pool);
    add("Softmax", build_softmax);
    add("LogSoftmax", build_softmax);
    add("LpNormalization", build_lp_normalization);
    add("LayerNormalization", build_layer_norm);
    add("RMSNormalization", build_layer_norm);
    add("InstanceNormalization", build_group_norm);
    add("GroupNormalization", build_group_norm);
    add("BatchNormalization", build_batch_norm);
    add("LRN", build_lrn);
    add("ArgMax", build_arg);
    add("ArgMin", build_arg);
    add("CumSum", build_cumulation);
    add("CumProd", build_cumulation);
    return all;
  }();
  return table;
}

}  // namespace lp
