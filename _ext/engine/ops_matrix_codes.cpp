// ops_matrix_codes.cpp: products of two matrices of codes that are both made in the same run.
//
//   acc = sum over k of (a - x_zero_point) * (b - w_zero_point),  scaled by x_scale * w_scale
//
// as in attention. B is packed on the way, one matrix of the batch at a time; u8 codes of B become
// s8 by their top bit, with a zero point 128 lower.
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/views.h"
#include "matrix_args.h"

namespace lp {

namespace {

class MatrixCodesStep : public Step {
 public:
  int64_t m = 0, k = 0, n = 0;
  std::vector<int64_t> a_at, b_at;  // start of each batch entry
  int32_t flip = 0;                 // of the codes of B
  int32_t zero_point = 0;
  std::vector<float> multiplier;            // padded to whole panels, like the next
  std::vector<int32_t> weight_zero_points;  // none: all are 0
  std::vector<int32_t> no_bias;
  Output output;
  Product product = nullptr;
  const Kernels* kernels = nullptr;

  int64_t packed_bytes() const { return packed_s8_bytes(n, 1, k); }
  int64_t entry_bytes() const { return packed_bytes() + padded_channels(n) * 4; }

  void run(Pointers t, uint8_t* scratch) const override {
    const int64_t entries = static_cast<int64_t>(a_at.size());
    const double each = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    if (entries < 2 * usable_threads()) {
      run_entries(t, scratch, 0, entries);
      return;
    }
    parallel_rows(entries, products_per_range(each), [&](int64_t begin, int64_t end) {
      run_entries(t, thread_scratch(entry_bytes()), begin, end);
    });
  }

 private:
  void run_entries(Pointers t, uint8_t* own, int64_t begin, int64_t end) const {
    int8_t* packed = reinterpret_cast<int8_t*>(own);
    int32_t* sums = reinterpret_cast<int32_t*>(own + packed_bytes());
    for (int64_t i = begin; i < end; ++i) {
      const size_t entry = static_cast<size_t>(i);
      const uint8_t* b = t[in[1]] + b_at[entry];
      if (i == begin || b_at[entry] != b_at[entry - 1]) pack(b, packed, sums);
      uint8_t* target = t[out[0]] + i * m * n * dtype_size(output.dtype);
      ProductArgs args = matrix_args(t[in[0]] + a_at[entry], k, target, n, m, k, n);
      args.packed = packed;
      args.sums = sums;
      args.bias = no_bias.data();
      args.zero_point = zero_point;
      args.weight_zero_points = weight_zero_points.empty() ? nullptr : weight_zero_points.data();
      args.epilogue = output.epilogue;
      args.epilogue.ops = output.ops.data();
      args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
      args.epilogue.multiplier = multiplier.data();
      run_product(product, args);
    }
  }

  void pack(const uint8_t* b, int8_t* packed, int32_t* sums) const {
    const int64_t panel_bytes = packed_s8_bytes(PACK_PANEL, 1, k);
    parallel_panels(n, k, [&](int64_t first, int64_t columns) {
      kernels->pack_rows_s8(b + first, n, k, columns, flip,
                            packed + first / PACK_PANEL * panel_bytes, sums + first);
    });
  }
};

bool is_code(DType dtype) { return dtype == DType::U8 || dtype == DType::S8; }

}  // namespace

const char* refuse_matrix_codes(Planner& p, const Node& node) {
  if (!is_code(p.dtype_of(node, 0)) || !is_code(p.dtype_of(node, 1))) {
    return "operands are not codes";
  }
  if (p.shape_of(node, 0).size() < 2 || p.shape_of(node, 1).size() < 2) {
    return "an operand is not a matrix";
  }
  for (size_t i = 2; i < node.inputs.size(); ++i) {
    if (node.has_input(i)) return "bias or run-time scale";
  }
  if (node.reals("w_scale").size() != 1) return "a scale per column";
  return nullptr;
}

void matrix_codes(Planner& p, const Node& node) {
  const int a_id = p.operand(node, 0), b_id = p.operand(node, 1);
  const Shape a = p.tensor(a_id).shape, b = p.tensor(b_id).shape;
  const bool is_signed = p.tensor(a_id).dtype == DType::S8;
  auto step = std::make_unique<MatrixCodesStep>();
  step->m = a[a.size() - 2];
  step->k = a.back();
  step->n = b.back();
  if (b[b.size() - 2] != step->k) {
    throw Error("cannot multiply " + to_string(a) + " by " + to_string(b));
  }
  // |a - za| and |b - zb| are at most 255.
  if (step->k > INT32_MAX / (255 * 255)) throw Unsupported("MatMul: its sums could pass 2^31");
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  const Shape batch = broadcast(a_batch, b_batch, "MatMul");
  step->a_at = batch_starts(batch, a_batch, step->m * step->k);
  step->b_at = batch_starts(batch, b_batch, step->k * step->n);
  if (count(b_batch) == 1 && count(a_batch) == count(batch)) {  // all rows meet the same matrix
    step->m *= count(batch);
    step->a_at.assign(1, 0);
    step->b_at.assign(1, 0);
  }
  step->flip = p.tensor(b_id).dtype == DType::U8 ? 0x80 : 0;
  step->zero_point = static_cast<int32_t>(node.integer("x_zero_point", 0));
  const size_t wide = static_cast<size_t>(padded_channels(step->n));
  const int32_t zero = static_cast<int32_t>(node.integer("w_zero_point", 0)) - step->flip;
  if (zero != 0) step->weight_zero_points.assign(wide, zero);
  step->no_bias.assign(wide, 0);
  step->output = output_of(node);
  step->multiplier = multipliers(node, step->output, step->n);
  step->multiplier.resize(wide, 0.0f);
  step->kernels = &p.kernels();
  step->product = is_signed ? p.kernels().product_s8s8 : p.kernels().product_u8s8;
  step->scratch_bytes = step->entry_bytes();
  step->in = {a_id, b_id};
  Shape result = batch;
  result.push_back(a[a.size() - 2]);
  result.push_back(step->n);
  step->out = {p.output(node, 0, step->output.dtype, result)};
  step->macs = static_cast<double>(count(batch)) * static_cast<double>(a[a.size() - 2]) *
               static_cast<double>(step->n) * static_cast<double>(step->k);
  step->kernel = is_signed ? "matrix s8 dynamic" : "matrix u8 dynamic";
  p.add(std::move(step));
}

}  // namespace lp
