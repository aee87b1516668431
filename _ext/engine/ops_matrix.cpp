// ops_matrix.cpp: matrix products, f32, bf16 and int8; constant weights are packed once.
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/views.h"
#include "matrix_args.h"

namespace lp {

namespace {

class MatrixStep : public Step {
 public:
  int64_t rows = 0, depth = 0, columns = 0;
  bool codes = false;
  std::shared_ptr<Packed> packed;
  RunTimeScale run_time;
  Output output;
  Product product = nullptr;
  int residual = -1;  // where it is in `in`

  void run(Pointers t, uint8_t* scratch) const override {
    ProductArgs args = matrix_args(t[in[0]], depth, t[out[0]], columns, rows, depth, columns);
    set_weights(args, *packed, output, codes, 0);
    if (run_time.any()) {
      const RunTimeScale::Values now = run_time.values(*packed, t, in, scratch);
      args.zero_point = now.zero_point;
      args.epilogue.multiplier = now.multiplier;
      args.epilogue.fast = 0;
    }
    if (residual >= 0) {
      args.epilogue.residual = t[in[static_cast<size_t>(residual)]];
      args.epilogue.residual_col = columns;
    }
    run_product(product, args);
  }
};

// Gemm's weights may be transposed; MatMul's are [K, N].
bool transposed_b(const Node& node) { return node.integer("transB", 0) != 0; }

enum class Kind { F32, BF16, CODES };

void build_matrix(Planner& p, const Node& node, Kind kind) {
  const bool codes = kind == Kind::CODES;
  const int a = p.operand(node, 0);
  const Tensor weights = p.tensor(p.operand(node, 1));
  const Shape shape = p.tensor(a).shape;
  const bool flip = transposed_b(node);
  const int64_t depth = weights.shape[flip ? 1 : 0], n = weights.shape[flip ? 0 : 1];
  if (shape.empty() || shape.back() != depth) {
    throw Error("input of shape " + to_string(shape) + " times weights of depth " +
                std::to_string(depth));
  }
  Shape result = shape;
  result.back() = n;
  if (has_residual(node) && !residual_fits(p, node, result)) return build_apart(p, node);
  Geometry layout;
  layout.channels = depth;
  layout.out_channels = n;
  auto step = std::make_unique<MatrixStep>();
  step->depth = depth;
  step->columns = n;
  step->rows = count(shape, 0, shape.size() - 1);
  step->codes = codes;
  step->output = output_of(node, kind == Kind::BF16 ? DType::BF16 : DType::F32);
  check_channel_values(step->output, 1, n);
  const DType x_dtype = p.tensor(a).dtype;
  step->product = kind == Kind::BF16     ? p.kernels().product_bf16
                  : !codes               ? p.kernels().product_f32
                  : x_dtype == DType::S8 ? p.kernels().product_s8s8
                                         : p.kernels().product_u8s8;
  step->packed = std::static_pointer_cast<Packed>(
      p.prepared(node, "matrix", [&]() -> std::shared_ptr<Prepared> {
        auto packed = std::make_shared<Packed>();
        const WeightStrides strides = flip ? WeightStrides{depth, 0, 1} : WeightStrides{1, 0, n};
        if (codes) {
          const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
          packed->weights_s8.resize(static_cast<size_t>(packed_s8_bytes(n, 1, depth)));
          packed->sums.resize(static_cast<size_t>(padded_channels(n)));
          pack_s8(w, strides, n, 1, depth, packed->weights_s8.data(), packed->sums.data());
          std::vector<Bounds> bounds(static_cast<size_t>(n));
          for (int64_t o = 0; o < n; ++o) {
            const int64_t zero_point = weight_zero_point(node, o);
            for (int64_t k = 0; k < depth; ++k) {
              bounds[static_cast<size_t>(o)].add(w[o * strides.n + k * strides.k] - zero_point);
            }
          }
          pack_channels(*packed, layout, bounds, integer_bias(p, node, n), x_dtype, false, node,
                        step->output);
          if (node.has_input(3)) {
            const auto addend = real_bias(p, node, 3, n);
            packed->addend =
                by_group<float>(layout, [&](int64_t o) { return addend[static_cast<size_t>(o)]; });
          }
        } else {
          if (kind == Kind::BF16) {
            const auto* w = reinterpret_cast<const uint16_t*>(weights.constant);
            packed->weights_bf16.resize(
                static_cast<size_t>(padded_channels(n) * packed_depth(1, depth, 2)));
            pack_bf16(w, strides, n, 1, depth, packed->weights_bf16.data());
          } else {
            const auto* w = reinterpret_cast<const float*>(weights.constant);
            packed->weights_f32.resize(static_cast<size_t>(padded_channels(n) * depth));
            pack_f32(w, strides, n, 1, depth, packed->weights_f32.data());
          }
          const float alpha = node.real("alpha", 1.0f), beta = node.real("beta", 1.0f);
          if (alpha != 1.0f) {
            for (float& x : packed->weights_f32) x *= alpha;
          }
          std::vector<float> bias(static_cast<size_t>(n), 0.0f);
          if (node.has_input(2)) {
            const auto known = p.known_reals(node, 2);
            for (size_t i = 0; i < bias.size(); ++i) {
              bias[i] = known[known.size() == 1 ? 0 : i] * beta;
            }
          }
          packed->bias_f32 =
              by_group<float>(layout, [&](int64_t o) { return bias[static_cast<size_t>(o)]; });
        }
        return packed;
      }));
  if (!step->packed->exact) {
    if (has_residual(node)) return build_apart(p, node);
    if (node.has_input(4)) throw Unsupported(node.op + ": its sums could pass 2^31");
    // A matrix is an image of one row; its weights are [K][N], or [N][K] as a convolution's.
    Geometry as_image = layout;
    as_image.w.in = as_image.w.out = step->rows;
    const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
    build_wide(p, node, a, as_image, w, !flip, result, Layout::PLAIN);
    return;
  }
  step->in = {a};
  step->run_time = run_time_scale(p, node, step->in);
  if (step->run_time.any()) step->scratch_bytes = RunTimeScale::scratch_bytes(*step->packed);
  if (has_residual(node)) {
    step->residual = static_cast<int>(step->in.size());
    step->in.push_back(residual_operand(p, node, Layout::PLAIN, step->output));
    step->output.bounded = is_bounded(node, *step->packed, step->output);
  }
  step->out = {p.output(node, 0, step->output.dtype, result)};
  step->macs =
      static_cast<double>(step->rows) * static_cast<double>(n) * static_cast<double>(depth);
  p.add(std::move(step));
}

const char* refuse_matrix(Planner& p, const Node& node) {
  if (const char* why = not_constant(p, node)) return why;
  if (p.shape_of(node, 1).size() != 2) return "weights are not a matrix";
  if (p.shape_of(node, 0).empty()) return "input is a scalar";
  if (node.integer("transA", 0) != 0) return "transA";
  return nullptr;
}
const char* refuse_bias(Planner& p, const Node& node) {
  if (!node.has_input(2)) return nullptr;
  const int64_t n = p.shape_of(node, 1)[transposed_b(node) ? 0 : 1];
  const Shape& c = p.shape_of(node, 2);
  const int64_t size = count(c);
  const bool fits = p.is_known(node, 2) && (size == 1 || (size == n && c.back() == n));
  return fits ? nullptr : "bias is not one constant a column";
}
const char* refuse_matrix_f32(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  if (p.dtype_of(node, 1) != DType::F32) return "weights are not f32";
  if (const char* why = refuse_matrix(p, node)) return why;
  return refuse_bias(p, node);
}

const char* refuse_matrix_bf16(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::BF16) return "input is not bf16";
  if (p.dtype_of(node, 1) != DType::BF16) return "weights are not bf16";
  if (node.real("alpha", 1.0f) != 1.0f) return "alpha is not 1";
  if (const char* why = refuse_matrix(p, node)) return why;
  return refuse_bias(p, node);
}

const char* refuse_matrix_u8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::U8) return "input is not u8";
  return refuse_matrix(p, node);
}
const char* refuse_matrix_s8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::S8) return "input is not s8";
  return refuse_matrix(p, node);
}

void matrix_f32(Planner& p, const Node& node) { build_matrix(p, node, Kind::F32); }
void matrix_bf16(Planner& p, const Node& node) { build_matrix(p, node, Kind::BF16); }
void matrix_int8(Planner& p, const Node& node) { build_matrix(p, node, Kind::CODES); }

// Both operands change from run to run: B is packed on the way. Many small products are shared out
// whole, a few large ones one after the other in pieces.
class DynamicMatrixStep : public Step {
 public:
  int64_t m = 0, k = 0, n = 0;
  WeightStrides a{}, b{};           // a.n: row stride, a.k: depth stride
  std::vector<int64_t> a_at, b_at;  // start of each batch entry
  float alpha = 1.0f, beta = 1.0f;
  int64_t c_elements = 0;  // 0: no addend; n or 1: a row
  std::vector<UnaryOp> ops;
  Product product = nullptr;

  // Floats: the bias, B packed, the rows of A where its depth is not dense.
  int64_t bias_floats() const { return padded_channels(n); }
  int64_t packed_floats() const { return padded_channels(n) * k; }
  int64_t entry_bytes() const { return (packed_floats() + (a.k != 1 ? m * k : 0)) * 4 + 256; }
  void finish_setup() { scratch_bytes = bias_floats() * 4 + entry_bytes(); }

  void run(Pointers t, uint8_t* scratch) const override {
    float* bias = reinterpret_cast<float*>(scratch);
    memset(bias, 0, static_cast<size_t>(bias_floats()) * 4);
    if (c_elements > 0) {
      const float* c = reinterpret_cast<const float*>(t[in[2]]);
      for (int64_t i = 0; i < n; ++i) bias[i] = c[c_elements == 1 ? 0 : i] * beta;
    }
    const int64_t entries = static_cast<int64_t>(a_at.size());
    const double each = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    constexpr double LARGE = 4e6;  // multiply-adds; B in pieces costs two more hand-overs
    if (entries < 2 * usable_threads() && (entries == 1 || each >= LARGE)) {
      run_entries(t, bias, bias + bias_floats(), 0, entries);
      return;
    }
    parallel_rows(entries, products_per_range(each), [&](int64_t begin, int64_t end) {
      uint8_t* own = thread_scratch(entry_bytes());
      run_entries(t, bias, reinterpret_cast<float*>(own), begin, end);
    });
  }

 private:
  void run_entries(Pointers t, const float* bias, float* packed, int64_t begin, int64_t end) const {
    float* rows = packed + packed_floats();
    for (int64_t i = begin; i < end; ++i) {
      const size_t entry = static_cast<size_t>(i);
      const float* source = reinterpret_cast<const float*>(t[in[0]]) + a_at[entry];
      const float* weights = reinterpret_cast<const float*>(t[in[1]]) + b_at[entry];
      if (i == begin || b_at[entry] != b_at[entry - 1]) pack(weights, packed);
      int64_t stride = a.n;
      if (a.k != 1) {
        gather(source, rows);
        source = rows;
        stride = k;
      }
      float* target = reinterpret_cast<float*>(t[out[0]]) + i * m * n;
      ProductArgs args = matrix_args(source, stride, target, n, m, k, n);
      args.packed = packed;
      args.bias = bias;
      args.epilogue.kind = OUT_F32;
      args.epilogue.ops = ops.data();
      args.epilogue.n_ops = static_cast<int32_t>(ops.size());
      run_product(product, args);
    }
  }

  void gather(const float* source, float* rows) const {
    parallel_rows(m, grain_of_rows(PLAIN_GRAIN, k), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < k; ++j) rows[i * k + j] = source[i * a.n + j * a.k];
      }
    });
  }

  void pack(const float* w, float* packed) const {
    parallel_rows(panels(n), grain_of_rows(PLAIN_GRAIN, PACK_PANEL * k),
                  [&](int64_t begin, int64_t end) {
                    float* to = packed + begin * PACK_PANEL * k;
                    const int64_t first = begin * PACK_PANEL, last = std::min(n, end * PACK_PANEL);
                    if (b.n == 1) {
                      pack_rows(w, first, last, to);
                    } else {
                      pack_f32(w + first * b.n, b, last - first, 1, k, to);
                    }
                    if (alpha != 1.0f) {
                      for (int64_t i = 0; i < (end - begin) * PACK_PANEL * k; ++i) to[i] *= alpha;
                    }
                  });
  }

  // B is row-major [k][n]: a panel row is 64 floats in a row.
  void pack_rows(const float* w, int64_t first, int64_t last, float* packed) const {
    for (int64_t n0 = first; n0 < last; n0 += PACK_PANEL) {
      const size_t width = static_cast<size_t>(std::min(PACK_PANEL, last - n0));
      for (int64_t j = 0; j < k; ++j, packed += PACK_PANEL) {
        memcpy(packed, w + j * b.k + n0, width * 4);
        memset(packed + width, 0, (static_cast<size_t>(PACK_PANEL) - width) * 4);
      }
    }
  }
};

const char* refuse_dynamic(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32 || p.dtype_of(node, 1) != DType::F32) {
    return "operands are not f32";
  }
  if (p.shape_of(node, 0).empty() || p.shape_of(node, 1).empty()) return "an operand is a scalar";
  if (has_residual(node)) return "adds a tensor";
  if (node.has_input(2)) {
    const Shape& c = p.shape_of(node, 2);
    const Shape& b = p.shape_of(node, 1);
    const int64_t n = b[b.size() == 1 ? 0 : b.size() - (transposed_b(node) ? 2 : 1)];
    if (count(c) != 1 && (count(c) != n || c.back() != n)) return "addend is not one row";
  }
  return nullptr;
}

void matrix_dynamic(Planner& p, const Node& node) {
  const int a_id = p.operand(node, 0), b_id = p.operand(node, 1);
  Shape a = p.tensor(a_id).shape, b = p.tensor(b_id).shape;
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), 1);
  if (column) b.push_back(1);
  const bool flip_a = node.integer("transA", 0) != 0, flip_b = transposed_b(node);
  auto step = std::make_unique<DynamicMatrixStep>();
  const size_t ar = a.size(), br = b.size();
  step->m = a[ar - (flip_a ? 1 : 2)];
  step->k = a[ar - (flip_a ? 2 : 1)];
  step->n = b[br - (flip_b ? 2 : 1)];
  if (b[br - (flip_b ? 1 : 2)] != step->k) {
    throw Error("cannot multiply " + to_string(p.tensor(a_id).shape) + " by " +
                to_string(p.tensor(b_id).shape));
  }
  step->a = flip_a ? WeightStrides{1, 0, step->m} : WeightStrides{step->k, 0, 1};
  step->b = flip_b ? WeightStrides{step->k, 0, 1} : WeightStrides{1, 0, step->n};
  step->alpha = node.real("alpha", 1.0f);
  step->beta = node.real("beta", 1.0f);
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  Shape batch = broadcast(a_batch, b_batch, "MatMul");
  step->a_at = batch_starts(batch, a_batch, step->m * step->k);
  step->b_at = batch_starts(batch, b_batch, step->k * step->n);
  step->product = p.kernels().product_f32;
  step->ops = chain_of(node, "chain_");
  step->in = {a_id, b_id};
  if (node.has_input(2)) {
    step->in.push_back(p.operand(node, 2));
    step->c_elements = p.tensor(step->in[2]).elements();
  }
  step->finish_setup();
  Shape result = batch;
  if (!row) result.push_back(step->m);
  if (!column) result.push_back(step->n);
  step->out = {p.output(node, 0, DType::F32, result)};
  step->macs = static_cast<double>(count(batch)) * static_cast<double>(step->m) *
               static_cast<double>(step->n) * static_cast<double>(step->k);
  p.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& matrix_operators() {
  static const std::vector<Operator> operators = {
      {"MatMul",
       {{"matrix f32", refuse_matrix_f32, matrix_f32},
        {"matrix f32 dynamic", refuse_dynamic, matrix_dynamic},
        {"matrix bf16", refuse_matrix_bf16, matrix_bf16},
        {"matrix bf16 dynamic", refuse_dynamic_bf16, matrix_dynamic_bf16},
        {"matrix any", nullptr, matrix_any}}},
      {"Gemm",
       {{"matrix f32", refuse_matrix_f32, matrix_f32},
        {"matrix f32 dynamic", refuse_dynamic, matrix_dynamic},
        {"matrix bf16", refuse_matrix_bf16, matrix_bf16},
        {"matrix bf16 dynamic", refuse_dynamic_bf16, matrix_dynamic_bf16},
        {"matrix any", nullptr, matrix_any}}},
      {"QMatMul",
       {{"matrix u8s8", refuse_matrix_u8s8, matrix_int8},
        {"matrix s8s8", refuse_matrix_s8s8, matrix_int8},
        {"matrix of codes dynamic", refuse_matrix_codes, matrix_codes}}},
      {"QGemm",
       {{"matrix u8s8", refuse_matrix_u8s8, matrix_int8},
        {"matrix s8s8", refuse_matrix_s8s8, matrix_int8}}},
  };
  return operators;
}

}  // namespace lp
