// ops_matrix_bf16.cpp: bf16 products of two operands that both change from run to run (attention).
//
// B is packed into pairs on the way, in scratch memory. Many small products are shared out whole, a
// few large ones one after the other in pieces, as the f32 ones are (ops_matrix.cpp).
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/views.h"
#include "matrix_args.h"

namespace lp {

namespace {

constexpr double LARGE = 4e6;  // multiply-adds of a product that is worth cutting

class DynamicBf16Step : public Step {
 public:
  int64_t m = 0, k = 0, n = 0;
  WeightStrides b{};                // of one matrix: n, unused, k
  std::vector<int64_t> a_at, b_at;  // start of each batch entry
  Output output;
  Product product = nullptr;

  int64_t packed_elements() const { return padded_channels(n) * packed_depth(1, k, 2); }
  void finish_setup() { scratch_bytes = padded_channels(n) * 4 + packed_elements() * 2; }

  void run(Pointers t, uint8_t* scratch) const override {
    float* bias = reinterpret_cast<float*>(scratch);
    memset(bias, 0, static_cast<size_t>(padded_channels(n)) * 4);
    const int64_t entries = static_cast<int64_t>(a_at.size());
    const double each = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    if (entries < 2 * usable_threads() && (entries == 1 || each >= LARGE)) {
      run_entries(t, bias, reinterpret_cast<uint16_t*>(bias + padded_channels(n)), 0, entries);
      return;
    }
    parallel_rows(entries, products_per_range(each), [&](int64_t begin, int64_t end) {
      uint8_t* own = thread_scratch(packed_elements() * 2);
      run_entries(t, bias, reinterpret_cast<uint16_t*>(own), begin, end);
    });
  }

 private:
  void run_entries(Pointers t, const float* bias, uint16_t* packed, int64_t begin,
                   int64_t end) const {
    const int64_t out_size = dtype_size(output.dtype);
    for (int64_t i = begin; i < end; ++i) {
      const size_t entry = static_cast<size_t>(i);
      const uint16_t* source = reinterpret_cast<const uint16_t*>(t[in[0]]) + a_at[entry];
      const uint16_t* weights = reinterpret_cast<const uint16_t*>(t[in[1]]) + b_at[entry];
      if (i == begin || b_at[entry] != b_at[entry - 1]) pack(weights, packed);
      ProductArgs args = matrix_args(source, k, t[out[0]] + i * m * n * out_size, n, m, k, n);
      args.packed = packed;
      args.bias = bias;
      args.epilogue = output.epilogue;
      args.epilogue.ops = output.ops.data();
      args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
      run_product(product, args);
    }
  }

  void pack(const uint16_t* w, uint16_t* packed) const {
    const int64_t panel = PACK_PANEL * packed_depth(1, k, 2);
    parallel_rows(panels(n), grain_of_rows(PLAIN_GRAIN, PACK_PANEL * k),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t at = begin; at < end; ++at) {
                      const int64_t first = at * PACK_PANEL;
                      const int64_t width = std::min(PACK_PANEL, n - first);
                      if (b.k == 1) {
                        pack_columns(w + first * b.n, width, packed + at * panel);
                      } else {
                        pack_bf16(w + first * b.n, b, width, 1, k, packed + at * panel);
                      }
                    }
                  });
  }

  // B is stored as [n][k]: a pair is one word of memory, and this a transposition of words.
  void pack_columns(const uint16_t* w, int64_t width, uint16_t* packed) const {
    const int64_t pairs = k / 2;
    if (width < PACK_PANEL) {
      memset(packed, 0, static_cast<size_t>(PACK_PANEL * packed_depth(1, k, 2)) * 2);
    }
    for (int64_t column = 0; column < width; ++column) {
      const uint16_t* from = w + column * b.n;
      uint16_t* to = packed + 2 * column;
      for (int64_t j = 0; j < pairs; ++j) memcpy(to + j * 2 * PACK_PANEL, from + 2 * j, 4);
      if (k % 2 != 0) {
        to[pairs * 2 * PACK_PANEL] = from[k - 1];
        to[pairs * 2 * PACK_PANEL + 1] = 0;
      }
    }
  }
};

}  // namespace

const char* refuse_dynamic_bf16(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::BF16 || p.dtype_of(node, 1) != DType::BF16) {
    return "operands are not bf16";
  }
  if (p.shape_of(node, 0).empty() || p.shape_of(node, 1).empty()) return "an operand is a scalar";
  if (node.has_input(2)) return "addend";
  if (node.integer("transA", 0) != 0) return "transA";
  if (node.real("alpha", 1.0f) != 1.0f) return "alpha is not 1";
  return nullptr;
}

void matrix_dynamic_bf16(Planner& p, const Node& node) {
  const int a_id = p.operand(node, 0), b_id = p.operand(node, 1);
  Shape a = p.tensor(a_id).shape, b = p.tensor(b_id).shape;
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), 1);
  if (column) b.push_back(1);
  const bool flip = node.integer("transB", 0) != 0;
  auto step = std::make_unique<DynamicBf16Step>();
  step->m = a[a.size() - 2];
  step->k = a.back();
  step->n = b[b.size() - (flip ? 2 : 1)];
  if (b[b.size() - (flip ? 1 : 2)] != step->k) {
    throw Error("cannot multiply " + to_string(p.tensor(a_id).shape) + " by " +
                to_string(p.tensor(b_id).shape));
  }
  step->b = flip ? WeightStrides{step->k, 0, 1} : WeightStrides{1, 0, step->n};
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  const Shape batch = broadcast(a_batch, b_batch, "MatMul");
  step->a_at = batch_starts(batch, a_batch, step->m * step->k);
  step->b_at = batch_starts(batch, b_batch, step->k * step->n);
  step->product = p.kernels().product_bf16;
  step->output = output_of(node, DType::BF16);
  step->in = {a_id, b_id};
  step->finish_setup();
  Shape result = batch;
  if (!row) result.push_back(step->m);
  if (!column) result.push_back(step->n);
  step->out = {p.output(node, 0, step->output.dtype, result)};
  step->macs = static_cast<double>(count(batch)) * static_cast<double>(step->m) *
               static_cast<double>(step->n) * static_cast<double>(step->k);
  p.add(std::move(step));
}

}  // namespace lp
