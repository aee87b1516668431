// ops_bf16.cpp: operators that compute in f32 on tensors stored as bf16 (or as f32).
//
// A few thousand elements at a time are widened into a buffer in the first-level cache, the f32
// kernels run there, and the result is rounded on its way out: the bits of Cast, operator, Cast, at
// the memory traffic of bf16. `y_dtype` says what is written. Made by passes/fuse_bf16_storage.py.
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/views.h"

namespace lp {

namespace {

constexpr int64_t CHUNK = 2048;  // floats

bool is_real(DType dtype) { return dtype == DType::F32 || dtype == DType::BF16; }

DType result_dtype(const Node& node) {
  const auto dtype = static_cast<DType>(node.integer("y_dtype", 1));
  if (!is_real(dtype)) throw Unsupported(node.op + " to " + dtype_name(dtype));
  return dtype;
}

void require_reals(Planner& p, const Node& node, size_t operands) {
  for (size_t i = 0; i < operands; ++i) {
    if (!is_real(p.dtype_of(node, i))) {
      throw Unsupported(node.op + ": operand is " + dtype_name(p.dtype_of(node, i)));
    }
  }
}

// n elements of `src` from element `at` on, as f32: where they are, or in `buffer`.
const float* reals(const Kernels& kernels, DType dtype, const uint8_t* src, int64_t at, int64_t n,
                   float* buffer) {
  if (dtype == DType::F32) return reinterpret_cast<const float*>(src) + at;
  kernels.bf16_to_f32(reinterpret_cast<const uint16_t*>(src) + at, buffer, n);
  return buffer;
}

// Where n results are to be computed: in their place, or in `buffer`; `put` stores them.
float* place_for(DType dtype, uint8_t* dst, int64_t at, float* buffer) {
  return dtype == DType::F32 ? reinterpret_cast<float*>(dst) + at : buffer;
}
void put(const Kernels& kernels, DType dtype, uint8_t* dst, int64_t at, int64_t n,
         const float* computed) {
  if (dtype == DType::F32) return;
  kernels.f32_to_bf16(computed, reinterpret_cast<uint16_t*>(dst) + at, n);
}

// ------------------------------------------------------------------------------------- chains

void build_chain(Planner& p, const Node& node) {
  require_reals(p, node, 1);
  const int x = p.operand_as_is(node, 0);
  const Tensor tensor = p.tensor(x);
  const DType from = tensor.dtype, to = result_dtype(node);
  const int y = p.output(node, 0, to, tensor.shape, tensor.layout);
  const std::vector<UnaryOp> ops = chain_of(node);
  const Kernels& kernels = p.kernels();
  const int64_t n = tensor.elements();
  Step& step = p.add({x}, {y}, [=, &kernels](Pointers t, uint8_t*) {
    parallel_rows(n, VECTOR_GRAIN / 2, [&](int64_t begin, int64_t end) {
      alignas(64) float wide[CHUNK], made[CHUNK];
      for (int64_t at = begin; at < end; at += CHUNK) {
        const int64_t some = std::min(CHUNK, end - at);
        const float* src = reals(kernels, from, t[x], at, some, wide);
        float* dst = place_for(to, t[y], at, made);
        kernels.unary(ops.data(), static_cast<int32_t>(ops.size()), src, dst, some);
        put(kernels, to, t[y], at, some, dst);
      }
    });
  });
  if (from == to) step.inplace = 0;
}

// ------------------------------------------------------------------------------------- binary

struct Binary {
  int32_t code = 0;
  DType a = DType::F32, b = DType::F32, y = DType::F32;
  std::vector<UnaryOp> ops;  // after it
};

int32_t binary_code(const std::string& op) {
  static const std::map<std::string, int32_t> codes = {
      {"BAdd", BINARY_ADD}, {"BSub", BINARY_SUB}, {"BMul", BINARY_MUL}, {"BDiv", BINARY_DIV}};
  return codes.at(op);
}

// A block of an operand, as f32 with strides of its own.
struct Block {
  const float* first;
  int64_t row, step;
};
Block block_of(const Kernels& kernels, DType dtype, const uint8_t* src, int64_t at, int64_t rows,
               int64_t n, int64_t row, int64_t step, float* buffer) {
  if (dtype == DType::F32) return {reinterpret_cast<const float*>(src) + at, row, step};
  const int64_t width = step == 0 ? 1 : n;
  if (row == 0 || rows == 1) rows = 1, row = 0;
  if (row == width || rows == 1) {
    return {reals(kernels, dtype, src, at, rows * width, buffer), row, step};
  }
  for (int64_t i = 0; i < rows; ++i) {
    reals(kernels, dtype, src, at + i * row, width, buffer + i * width);
  }
  return {buffer, width, step};
}

void run_binary(const Kernels& kernels, const Binary& todo, const Nest& part, const uint8_t* a,
                const uint8_t* b, uint8_t* y, const int64_t* start) {
  alignas(64) float wide_a[CHUNK], wide_b[CHUNK], made[CHUNK];
  const int64_t cols = part.size(0), rows = part.size(1);
  const int64_t some_cols = std::min(cols, CHUNK), some_rows = CHUNK / some_cols;
  for_each_outer<3>(part, 2, [&](const int64_t* at) {
    for (int64_t r = 0; r < rows; r += some_rows) {
      for (int64_t c = 0; c < cols; c += some_cols) {
        const int64_t height = std::min(some_rows, rows - r), n = std::min(some_cols, cols - c);
        const auto place = [&](size_t k) {
          return start[k] + at[k] + r * part.stride(k, 1) + c * part.stride(k, 0);
        };
        const Block left = block_of(kernels, todo.a, a, place(1), height, n, part.stride(1, 1),
                                    part.stride(1, 0), wide_a);
        const Block right = block_of(kernels, todo.b, b, place(2), height, n, part.stride(2, 1),
                                     part.stride(2, 0), wide_b);
        const int64_t y_row = part.stride(0, 1), first = place(0);
        const bool dense = height == 1 || y_row == n;
        float* dst = dense ? place_for(todo.y, y, first, made) : made;
        const BinaryArgs args = {left.first, right.first, dst,       height,    n,
                                 left.row,   left.step,   right.row, right.step};
        kernels.binary_rows(todo.code, &args);
        if (!todo.ops.empty()) {
          kernels.unary(todo.ops.data(), static_cast<int32_t>(todo.ops.size()), dst, dst,
                        height * n);
        }
        if (dense) {
          put(kernels, todo.y, y, first, height * n, dst);
          continue;
        }
        for (int64_t i = 0; i < height; ++i) {
          if (todo.y == DType::F32) {
            memcpy(reinterpret_cast<float*>(y) + first + i * y_row, made + i * n,
                   static_cast<size_t>(n) * 4);
          }
          put(kernels, todo.y, y, first + i * y_row, n, made + i * n);
        }
      }
    }
  });
}

void build_binary(Planner& p, const Node& node) {
  require_reals(p, node, 2);
  const Broadcast operands = broadcast_operands(p, node, 0, 2);
  const int a = operands.ids[0], b = operands.ids[1];
  Binary todo;
  todo.code = binary_code(node.op);
  todo.a = p.tensor(a).dtype;
  todo.b = p.tensor(b).dtype;
  todo.y = result_dtype(node);
  todo.ops = chain_of(node, "chain_");
  const int y = p.output(node, 0, todo.y, operands.shape, operands.layout);
  const Nest nest = operands.nest;
  const Kernels& kernels = p.kernels();
  p.add({a, b}, {y}, [=, &kernels](Pointers t, uint8_t*) {
    parallel_parts<3>(nest, VECTOR_GRAIN, [&](const Nest& part, const int64_t* from) {
      run_binary(kernels, todo, part, t[a], t[b], t[y], from);
    });
  });
}

// --------------------------------------------------------------------------------------- rows

// Calls compute(src, dst, rows) for rows of n elements, a few at a time, in f32.
template <class Compute>
void for_row_blocks(const Kernels& kernels, DType from, DType to, const uint8_t* x, uint8_t* y,
                    int64_t rows, int64_t n, const Compute& compute) {
  const int64_t some = std::max<int64_t>(1, 2 * CHUNK / std::max<int64_t>(1, n));
  parallel_rows(rows, grain_of_rows(PLAIN_GRAIN, n), [&](int64_t begin, int64_t end) {
    float* buffer = reinterpret_cast<float*>(thread_scratch(2 * some * n * 4));
    for (int64_t r = begin; r < end; r += some) {
      const int64_t height = std::min(some, end - r), at = r * n, size = height * n;
      const float* src = reals(kernels, from, x, at, size, buffer);
      float* dst = place_for(to, y, at, buffer + some * n);
      compute(src, dst, height);
      put(kernels, to, y, at, size, dst);
    }
  });
}

void build_softmax(Planner& p, const Node& node) {
  require_reals(p, node, 1);
  const int x = p.operand(node, 0);
  const Tensor tensor = p.tensor(x);
  if (tensor.rank() == 0) throw Unsupported(node.op + " of a scalar");
  const DType from = tensor.dtype, to = result_dtype(node);
  const int y = p.output(node, 0, to, tensor.shape);
  const int64_t n = tensor.shape.back(), rows = count(tensor.shape, 0, tensor.rank() - 1);
  const Kernels& kernels = p.kernels();
  p.add({x}, {y}, [=, &kernels](Pointers t, uint8_t*) {
    for_row_blocks(kernels, from, to, t[x], t[y], rows, n,
                   [&](const float* src, float* dst, int64_t height) {
                     kernels.softmax(0, src, dst, height, n, 1);
                   });
  });
}

void build_layer_norm(Planner& p, const Node& node) {
  require_reals(p, node, 1);
  const int x = p.operand(node, 0), gamma = p.operand(node, 1);
  const int beta = node.has_input(2) ? p.operand(node, 2) : -1;
  const Tensor tensor = p.tensor(x);
  if (tensor.rank() == 0) throw Unsupported(node.op + " of a scalar");
  const int64_t n = tensor.shape.back(), rows = count(tensor.shape, 0, tensor.rank() - 1);
  for (const int id : {gamma, beta}) {
    if (id >= 0 && (p.tensor(id).elements() != n || p.tensor(id).dtype != DType::F32)) {
      throw Unsupported(node.op + ": scale or bias is not one f32 an element");
    }
  }
  const float epsilon = node.real("epsilon", 1e-5f);
  const DType from = tensor.dtype, to = result_dtype(node);
  const int y = p.output(node, 0, to, tensor.shape);
  std::vector<int> in = {x, gamma};
  if (beta >= 0) in.push_back(beta);
  const Kernels& kernels = p.kernels();
  p.add(in, {y}, [=, &kernels](Pointers t, uint8_t*) {
    const auto values = [&](int id) {
      return id < 0 ? nullptr : reinterpret_cast<const float*>(t[id]);
    };
    for_row_blocks(kernels, from, to, t[x], t[y], rows, n,
                   [&](const float* src, float* dst, int64_t height) {
                     const NormArgs args = {src,          dst,     height,  n,       values(gamma),
                                            values(beta), nullptr, nullptr, epsilon, 0};
                     kernels.normalize_rows(&args);
                   });
  });
}

// y = chain((x - mean) * (scale / sqrt(variance + epsilon)) + bias), channels-last.
void build_batch_norm(Planner& p, const Node& node) {
  require_reals(p, node, 1);
  const int x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Tensor tensor = p.tensor(x);
  if (tensor.rank() < 3) throw Unsupported(node.op + ": not an image");
  const int64_t channels = tensor.shape[1],
                rows = tensor.elements() / std::max<int64_t>(1, channels);
  int parameters[4];  // scale, bias, mean, variance
  for (size_t i = 0; i < 4; ++i) {
    parameters[i] = p.operand(node, i + 1);
    const Tensor& values = p.tensor(parameters[i]);
    if (values.elements() != channels || values.dtype != DType::F32) {
      throw Unsupported(node.op + ": parameters that are not f32 per channel");
    }
  }
  const int gamma = parameters[0], beta = parameters[1], mean = parameters[2];
  const int variance = parameters[3];
  const float epsilon = node.real("epsilon", 1e-5f);
  const std::vector<UnaryOp> ops = chain_of(node, "chain_");
  const DType from = tensor.dtype, to = result_dtype(node);
  const int y = p.output(node, 0, to, tensor.shape, Layout::CHANNELS_LAST);
  const Kernels& kernels = p.kernels();
  Step& step =
      p.add({x, gamma, beta, mean, variance}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
        float* scale = reinterpret_cast<float*>(scratch);
        const UnaryOp deviation[2] = {{UNARY_ADD, epsilon, 0.0f}, {UNARY_SQRT, 0.0f, 0.0f}};
        kernels.unary(deviation, 2, reinterpret_cast<const float*>(t[variance]), scale, channels);
        kernels.binary(BINARY_DIV, reinterpret_cast<const float*>(t[gamma]), 1, scale, 1, scale,
                       channels);
        for_row_blocks(kernels, from, to, t[x], t[y], rows, channels,
                       [&](const float* src, float* dst, int64_t height) {
                         const ScaleShiftArgs args = {
                             src,      dst,
                             height,   channels,
                             channels, reinterpret_cast<const float*>(t[mean]),
                             scale,    reinterpret_cast<const float*>(t[beta]),
                             1};
                         kernels.scale_shift(&args);
                         if (ops.empty()) return;
                         kernels.unary(ops.data(), static_cast<int32_t>(ops.size()), dst, dst,
                                       height * channels);
                       });
      });
  step.scratch_bytes = channels * 4;
}

// ---------------------------------------------------------------------------- global averages

// The sums of `width` neighbouring channels over all pixels, as the reduction adds them: pixel i to
// partial sum i % 16, then a tree. 16 pixels at a time are widened. `memory`: 32 * width floats.
const float* sum_pixels(const Kernels& kernels, DType from, const uint8_t* x, int64_t first,
                        int64_t space, int64_t channels, int64_t width, float* memory) {
  constexpr int64_t PARTS = 16;
  float *partial = memory, *wide = memory + PARTS * width;
  memset(partial, 0, static_cast<size_t>(PARTS * width) * 4);
  for (int64_t pixel = 0; pixel < space; pixel += PARTS) {
    const int64_t some = std::min(PARTS, space - pixel), at = first + pixel * channels;
    const float* read = wide;
    if (width == channels) {
      read = reals(kernels, from, x, at, some * width, wide);
    } else {
      for (int64_t i = 0; i < some; ++i) {
        float* row = wide + i * width;
        const float* source = reals(kernels, from, x, at + i * channels, width, row);
        if (source != row) memcpy(row, source, static_cast<size_t>(width) * 4);
      }
    }
    kernels.binary(BINARY_ADD, partial, 1, read, 1, partial, some * width);
  }
  for (int64_t half = PARTS / 2; half > 0; half /= 2) {
    kernels.binary(BINARY_ADD, partial, 1, partial + half * width, 1, partial, half * width);
  }
  return partial;
}

void build_global_average(Planner& p, const Node& node) {
  require_reals(p, node, 1);
  const int x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Tensor tensor = p.tensor(x);
  if (tensor.rank() < 3) throw Unsupported(node.op + ": not an image");
  const int64_t images = tensor.shape[0], channels = tensor.shape[1];
  const int64_t space = count(tensor.shape, 2, tensor.rank());
  Shape shape = tensor.shape;
  std::fill(shape.begin() + 2, shape.end(), 1);
  const DType from = tensor.dtype, to = result_dtype(node);
  const int y = p.output(node, 0, to, shape, Layout::CHANNELS_LAST);
  const Kernels& kernels = p.kernels();
  p.add({x}, {y}, [=, &kernels](Pointers t, uint8_t*) {
    // Strips of channels for several threads, each small enough for the first-level cache.
    const int64_t shared = (channels + usable_threads() - 1) / usable_threads();
    const int64_t strip = std::max<int64_t>(64, std::min<int64_t>(256, (shared + 63) / 64 * 64));
    const int64_t strips = (channels + strip - 1) / strip;
    const int64_t grain = grain_of_rows(VECTOR_GRAIN, space * strip);
    parallel_rows(images * strips, grain, [&](int64_t begin, int64_t end) {
      float* memory = reinterpret_cast<float*>(thread_scratch(32 * strip * 4));
      const UnaryOp mean = {UNARY_DIV, static_cast<float>(space), 0.0f};
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / strips, first = i % strips * strip;
        const int64_t width = std::min(strip, channels - first), at = image * channels + first;
        const float* sums = sum_pixels(kernels, from, t[x], image * space * channels + first, space,
                                       channels, width, memory);
        float* dst = place_for(to, t[y], at, memory + 16 * strip);
        kernels.unary(&mean, 1, sums, dst, width);
        put(kernels, to, t[y], at, width, dst);
      }
    });
  });
}

}  // namespace

const std::vector<Operator>& bf16_operators() {
  static const std::vector<Operator> table = {
      {"BUnaryChain", {{"UnaryChain bf16", nullptr, build_chain}}},
      {"BAdd", {{"Add bf16", nullptr, build_binary}}},
      {"BSub", {{"Sub bf16", nullptr, build_binary}}},
      {"BMul", {{"Mul bf16", nullptr, build_binary}}},
      {"BDiv", {{"Div bf16", nullptr, build_binary}}},
      {"BSoftmax", {{"Softmax bf16", nullptr, build_softmax}}},
      {"BLayerNormalization", {{"LayerNormalization bf16", nullptr, build_layer_norm}}},
      {"BBatchNormalization", {{"BatchNormalization bf16", nullptr, build_batch_norm}}},
      {"BGlobalAveragePool", {{"GlobalAveragePool bf16", nullptr, build_global_average}}},
  };
  return table;
}

}  // namespace lp
