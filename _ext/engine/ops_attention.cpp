// ops_attention.cpp: the operator Attention; attention.h has how it runs.
//
// Attributes: ONNX's; those of ai.lowprec (passes/fuse_attention.py): y_perm (order of the axes of
// the result), column_factors (one per head and column: the result is multiplied), y_dtype,
// y_scale, y_zero_point (codes); int8 = 1: both products of codes; joined = 1: made of MatMul and
// Softmax (passes/join_attention.py), so that in f32 a row that may see no key is NaN, what needs
// broadcasting is refused, and chain_* is what happens to scores, `scale` in all, before the mask.
#include <math.h>

#include <algorithm>

#include "engine/attention.h"
#include "engine/views.h"

namespace lp {

namespace {

const char* refuse_attention(Planner& p, const Node& node) {
  for (size_t i = 0; i < 3; ++i) {
    if (!node.has_input(i)) return "an operand is missing";
    if (p.dtype_of(node, i) != DType::F32) return "operands are not f32";
    const size_t rank = p.shape_of(node, i).size();
    if (rank != p.shape_of(node, 0).size() || (rank != 3 && rank != 4)) {
      return "operands are not all of rank 3, or of rank 4";
    }
  }
  for (size_t i = 4; i < node.inputs.size(); ++i) {
    if (node.has_input(i)) return "past keys and values";
  }
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] >= 0) return "more than one result is read";
  }
  if (node.real("softcap", 0.0f) != 0.0f) return "softcap";
  for (const char* side : {"left_window_size", "right_window_size"}) {
    if (node.integer(side, -1) >= 0) return "a window";
  }
  const auto f32 = static_cast<int64_t>(DType::F32);
  if (node.integer("softmax_precision", f32) != f32) return "softmax not in f32";
  if (node.has_input(3)) {
    const DType mask = p.dtype_of(node, 3);
    if (mask != DType::BOOL && mask != DType::F32) return "the mask is neither bool nor f32";
  }
  return nullptr;
}

// An operand [B, H, S, D], or [B, S, H * D], where it lies; `sizes` become B, H, S, D.
Place place_of(Planner& p, const Node& node, size_t i, const char* heads, int* tensor,
               Shape* sizes) {
  const int id = p.operand_as_is(node, i);
  const View view = p.view_of(id);
  const Shape shape = p.tensor(id).shape;
  *tensor = view.tensor;
  if (shape.size() == 4) {
    *sizes = shape;
    return {view.offset, view.strides[0], view.strides[1], view.strides[2], view.strides[3]};
  }
  const int64_t parts = node.integer(heads, 0);
  if (parts < 1 || shape[2] % parts != 0) {
    throw Error(std::string(heads) + " is " + std::to_string(parts) + ", which does not divide " +
                to_string(shape));
  }
  const int64_t each = shape[2] / parts;
  *sizes = {shape[0], parts, shape[1], each};
  return {view.offset, view.strides[0], view.strides[2] * each, view.strides[1], view.strides[2]};
}

void place_mask(Planner& p, const Node& node, AttentionStep& step, int* tensor) {
  *tensor = p.operand(node, 3);
  const Tensor mask = p.tensor(*tensor);
  const Shape full = {step.batches, step.heads, step.rows, step.keys};
  const bool fits = mask.rank() <= 4 && mask.rank() > 0;
  if (!fits || broadcast(full, mask.shape, "mask") != full) {
    throw Unsupported("Attention: mask " + to_string(mask.shape) + " for scores " +
                      to_string(full));
  }
  const Shape own = row_major_strides(mask.shape);
  int64_t strides[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < mask.rank(); ++i) {
    if (mask.shape[i] != 1) strides[4 - mask.rank() + i] = own[i];
  }
  step.has_mask = true;
  step.mask_is_bool = mask.dtype == DType::BOOL;
  step.mask = {0, strides[0], strides[1], strides[2], strides[3]};
}

void build_attention(Planner& p, const Node& node) {
  const bool wants_codes = node.integer("int8", 0) != 0;
  int ids[4] = {-1, -1, -1, -1};
  Shape q, k, v;
  const Place of_q = place_of(p, node, 0, "q_num_heads", &ids[0], &q);
  const Place of_k = place_of(p, node, 1, "kv_num_heads", &ids[1], &k);
  const Place of_v = place_of(p, node, 2, "kv_num_heads", &ids[2], &v);
  const bool dense = of_q.column == 1 && of_k.column == 1 && of_v.column == 1;
  // Sums of codes stay within s32.
  const bool short_sums = std::max(q[3], k[2]) <= INT32_MAX / (255 * 128);
  const bool joined = node.integer("joined", 0) != 0;
  const bool codes = wants_codes && dense && short_sums && (joined || !node.has("chain_codes"));
  std::unique_ptr<AttentionStep> step =
      codes ? attention_of_codes() : std::make_unique<AttentionStep>();
  step->q = of_q;
  step->k = of_k;
  step->v = of_v;
  step->batches = q[0];
  step->heads = q[1];
  step->rows = q[2];
  step->depth = q[3];
  step->kv_heads = k[1];
  step->keys = k[2];
  step->width = v[3];
  const bool shares_keys = k[1] >= 1 && (joined ? k[1] == q[1] : q[1] % k[1] == 0);
  if (k[0] != q[0] || v[0] != q[0] || v[1] != k[1] || v[2] != k[2] || k[3] != q[3] ||
      !shares_keys) {
    const std::string what = "queries " + to_string(q) + ", keys " + to_string(k) + " and values " +
                             to_string(v) +
                             " (batch, heads, positions, size) do not belong together";
    if (joined) throw Unsupported("Attention: " + what);
    throw Error(what);
  }
  if (count(q) == 0 || count(k) == 0 || count(v) == 0) throw Unsupported("Attention over nothing");
  if (node.has_input(3)) place_mask(p, node, *step, &ids[3]);
  step->causal = node.integer("is_causal", 0) != 0;
  step->guarded = !joined;
  const float usual = joined ? 1.0f : 1.0f / sqrtf(static_cast<float>(step->depth));
  step->scale = node.real("scale", usual);
  step->factor = joined ? 1.0f : sqrtf(step->scale);
  step->score_ops = chain_of(node, "chain_");
  step->output = output_of(node);
  step->output.ops.clear();  // the chain is the scores'
  step->kernels = &p.kernels();
  const std::vector<float> factors = node.reals("column_factors");
  if (!factors.empty()) {
    if (static_cast<int64_t>(factors.size()) != step->heads * step->width) {
      throw Unsupported("Attention: " + std::to_string(factors.size()) + " factors for " +
                        std::to_string(step->heads * step->width) + " columns");
    }
    const int64_t wide = padded_channels(step->width);
    step->column_factors.assign(static_cast<size_t>(step->heads * wide), 0.0f);
    for (int64_t i = 0; i < step->heads * step->width; ++i) {
      step->column_factors[static_cast<size_t>(i / step->width * wide + i % step->width)] =
          factors[static_cast<size_t>(i)];
    }
  }
  Shape result = {q[0], q[1], q[2], v[3]};
  Strides strides = row_major_strides(result);
  if (p.shape_of(node, 0).size() == 3) {
    result = {q[0], q[2], q[1] * v[3]};
    strides = {count(result, 1, 3), v[3], result[2], 1};
  } else if (node.has("y_perm")) {
    const std::vector<int64_t> order = node.integers("y_perm");
    std::vector<int64_t> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    if (sorted != std::vector<int64_t>{0, 1, 2, 3} || order[3] != 3) {
      throw Error("y_perm must order four axes and leave the last one");
    }
    Shape moved;
    for (const int64_t axis : order) {
      moved.push_back(result[static_cast<size_t>(axis)]);
    }
    const Strides dense = row_major_strides(moved);
    for (size_t i = 0; i < 4; ++i) strides[static_cast<size_t>(order[i])] = dense[i];
    result = moved;
  }
  step->y = {0, strides[0], strides[1], strides[2], strides[3]};
  step->finish_setup();
  step->in = {ids[0], ids[1], ids[2]};
  if (ids[3] >= 0) step->in.push_back(ids[3]);
  step->out = {p.output(node, 0, step->output.dtype, result)};
  step->kernel = codes ? "attention int8" : "attention f32";
  p.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& attention_operators() {
  static const std::vector<Operator> table = {
      {"Attention", {{"attention", refuse_attention, build_attention}}},
  };
  return table;
}

}  // namespace lp
