// ops_attention.cpp: scaled dot-product attention, one head at a time in the caches.
//
//   Q * f ──┐
//   K * f ──┴► product ──► chain ──► + mask ──► softmax ──┐
//   V ────────────────────────────────────────────────────┴► product ──► (codes) ──► Y
//
// f = sqrt(scale), as ONNX defines the operator; every step is the kernel that the operators of
// that definition would call, so the bits are theirs. Scores never reach memory: a block of query
// rows is scored, weighted and summed up while it is in the caches. Keys that causality hides from
// a whole block are not read. Operands are read where they lie, through transposes, reshapes and
// parts of a larger product (Planner::view_of), and the result is written in any order of its axes.
//
// Attributes: ONNX's; those of ai.lowprec (passes/fuse_attention.py): y_perm (order of the axes of
// the result), column_factors (one per head and column: the result is multiplied), y_dtype,
// y_scale, y_zero_point (codes); without a mask row that hides every key being zeros: plain = 1;
// chain_* on scores.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/views.h"
#include "matrix_args.h"

namespace lp {

namespace {

constexpr float MINUS_INFINITY = -INFINITY;
constexpr int64_t BLOCK_SCORES = 6144;  // floats: 24 KB
constexpr int64_t TILE_ROWS = 12;       // a multiple of the f32 tiles' heights

// Element (b, h, i, j) of an operand lies at offset + b * batch + h * head + i * row + j * column.
struct Place {
  int64_t offset = 0, batch = 0, head = 0, row = 0, column = 0;
  int64_t at(int64_t b, int64_t h) const { return offset + b * batch + h * head; }
};

class AttentionStep : public Step {
 public:
  int64_t batches = 0, heads = 0, kv_heads = 0, rows = 0, keys = 0, depth = 0, width = 0;
  Place q, k, v, mask, y;
  bool causal = false, guarded = true;
  float factor = 1.0f;
  bool has_mask = false, mask_is_bool = false;
  std::vector<UnaryOp> score_ops;
  Output output;
  std::vector<float> column_factors;  // [heads][width padded], or none
  const Kernels* kernels = nullptr;

  void finish_setup() {
    block_ = std::min(rows, std::max(TILE_ROWS, BLOCK_SCORES / keys / TILE_ROWS * TILE_ROWS));
    zeros_.assign(static_cast<size_t>(std::max(padded_channels(keys), padded_channels(width))),
                  0.0f);
    value_ops_ = output.ops;
    if (!column_factors.empty()) value_ops_.push_back({UNARY_MUL_CHANNEL, 0.0f, 0.0f});
  }

  void run(Pointers t, uint8_t*) const override {
    const int64_t entries = batches * heads;
    const double macs_each =
        static_cast<double>(rows) * static_cast<double>(keys) * static_cast<double>(depth + width);
    // Few heads: their rows are shared out, too, though keys are then packed more than once.
    const int64_t wanted = 2 * usable_threads();
    const int64_t blocks = (rows + block_ - 1) / block_;
    const int64_t parts = entries >= wanted || usable_threads() == 1
                              ? 1
                              : std::min(blocks, (wanted + entries - 1) / entries);
    const int64_t part_rows = (blocks + parts - 1) / parts * block_;
    parallel_rows(entries * parts, products_per_range(macs_each / static_cast<double>(parts)),
                  [&](int64_t begin, int64_t end) {
                    Work work(*this);
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t first = i % parts * part_rows;
                      run_head(t, work, i / parts, first, std::min(rows, first + part_rows));
                    }
                  });
  }

 private:
  int64_t block_ = 0;
  std::vector<float> zeros_;
  std::vector<UnaryOp> value_ops_;

  int64_t packed_keys() const { return padded_channels(keys) * depth; }
  int64_t packed_values() const { return padded_channels(width) * keys; }

  // The memory of one thread.
  struct Work {
    explicit Work(const AttentionStep& s) {
      const int64_t floats = s.packed_keys() + s.packed_values() + s.block_ * s.depth +
                             s.block_ * s.keys + s.keys + 64;
      float* memory = reinterpret_cast<float*>(thread_scratch(floats * 4));
      keys = memory;
      values = keys + s.packed_keys();
      queries = values + s.packed_values();
      scores = queries + s.block_ * s.depth;
      bias = scores + s.block_ * s.keys;
      if (s.width % PACK_PANEL != 0) {
        memset(values, 0, static_cast<size_t>(s.packed_values()) * 4);
      }
    }
    float *keys, *values, *queries, *scores, *bias;
    int64_t packed = -1;               // whose keys and values these are
    const uint8_t* bias_of = nullptr;  // which row of a bool mask `bias` is
  };

  void run_head(Pointers t, Work& work, int64_t entry, int64_t first, int64_t last) const {
    const int64_t b = entry / heads, h = entry % heads, kv = h / (heads / kv_heads);
    if (work.packed != b * kv_heads + kv) {
      work.packed = b * kv_heads + kv;
      pack_keys(floats(t, 1) + k.at(b, kv), work.keys);
      pack_values(floats(t, 2) + v.at(b, kv), work.values);
    }
    for (int64_t r = first; r < last; r += block_) {
      run_block(t, work, b, h, r, std::min(block_, last - r));
    }
  }

  const float* floats(Pointers t, size_t operand) const {
    return reinterpret_cast<const float*>(t[in[operand]]);
  }

  void pack_keys(const float* x, float* packed) const {
    if (k.column == 1) {
      kernels->pack_turned_f32(x, k.row, keys, depth, factor, packed);
      return;
    }
    pack_f32(x, {k.row, 0, k.column}, keys, 1, depth, packed);
    if (factor != 1.0f) {
      for (int64_t i = 0; i < packed_keys(); ++i) packed[i] *= factor;
    }
  }

  void pack_values(const float* x, float* packed) const {
    for (int64_t n0 = 0; n0 < width; n0 += PACK_PANEL) {
      const int64_t columns = std::min(PACK_PANEL, width - n0);
      for (int64_t j = 0; j < keys; ++j, packed += PACK_PANEL) {
        const float* row = x + j * v.row + n0 * v.column;
        if (v.column == 1) {
          memcpy(packed, row, static_cast<size_t>(columns) * 4);
        } else {
          for (int64_t c = 0; c < columns; ++c) packed[c] = row[c * v.column];
        }
      }
    }
  }

  void run_block(Pointers t, Work& work, int64_t b, int64_t h, int64_t r, int64_t count) const {
    const int64_t seen = causal ? std::min(keys, r + count) : keys;
    score(floats(t, 0) + q.at(b, h) + r * q.row, work, count, seen);
    const uint8_t* hidden = has_mask ? mask_row(t, b, h, r) : nullptr;
    if (has_mask) add_mask(hidden, work, count, seen);
    if (causal) {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = r + i + 1; j < seen; ++j) work.scores[i * seen + j] += MINUS_INFINITY;
      }
    }
    kernels->softmax(0, work.scores, work.scores, count, seen, 1);
    if (guarded && (has_mask || causal)) clear_hidden_rows(hidden, work.scores, r, count, seen);
    weigh(t, work, b, h, r, count, seen);
  }

  void score(const float* x, Work& work, int64_t count, int64_t seen) const {
    int64_t stride = q.row;
    if (q.column != 1) {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; j < depth; ++j) {
          work.queries[i * depth + j] = x[i * q.row + j * q.column] * factor;
        }
      }
    } else if (factor != 1.0f) {
      const BinaryArgs args = {x, &factor, work.queries, count, depth, q.row, 1, 0, 0};
      kernels->binary_rows(BINARY_MUL, &args);
    }
    if (q.column != 1 || factor != 1.0f) {
      x = work.queries;
      stride = depth;
    }
    ProductArgs args = matrix_args(x, stride, work.scores, seen, count, depth, seen);
    args.packed = work.keys;
    args.bias = zeros_.data();
    args.epilogue.kind = OUT_F32;
    args.epilogue.ops = score_ops.data();
    args.epilogue.n_ops = static_cast<int32_t>(score_ops.size());
    const Piece piece = whole(args);
    kernels->product_f32(&args, &piece);
  }

  // Of query r: as bytes, because the mask is bools or floats.
  const uint8_t* mask_row(Pointers t, int64_t b, int64_t h, int64_t r) const {
    const int64_t size = mask_is_bool ? 1 : 4;
    return t[in[3]] + (mask.at(b, h) + r * mask.row) * size;
  }

  void add_mask(const uint8_t* first, Work& work, int64_t count, int64_t seen) const {
    if (!mask_is_bool) {
      const BinaryArgs args = {work.scores, reinterpret_cast<const float*>(first),
                               work.scores, count,
                               seen,        seen,
                               1,           mask.row,
                               mask.column};
      kernels->binary_rows(BINARY_ADD, &args);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (!hides_a_key(first + i * mask.row, work)) continue;
      float* scores = work.scores + i * seen;
      const BinaryArgs args = {scores, work.bias, scores, 1, seen, seen, 1, seen, 1};
      kernels->binary_rows(BINARY_ADD, &args);
    }
  }

  // Whether a row of a bool mask hides a key: what is added to scores is in work.bias then. Where
  // it hides none there is nothing to add: x + 0 is x but for the sign of a zero, which exp
  // forgets.
  bool hides_a_key(const uint8_t* row, Work& work) const {
    const auto bytes = static_cast<size_t>(keys);
    if (mask.column == 1 && memchr(row, 0, bytes) == nullptr) return false;
    // Rows of a mask that hides padding are all the same.
    const bool known = row == work.bias_of || (mask.column == 1 && work.bias_of != nullptr &&
                                               memcmp(row, work.bias_of, bytes) == 0);
    if (known) return true;
    work.bias_of = row;
    for (int64_t j = 0; j < keys; ++j) {
      work.bias[j] = row[j * mask.column] == 0 ? MINUS_INFINITY : 0.0f;
    }
    return true;
  }

  // A query that may see no key at all: weights of 0, not the NaN that softmax makes of it.
  void clear_hidden_rows(const uint8_t* hidden, float* weights, int64_t r, int64_t count,
                         int64_t seen) const {
    for (int64_t i = 0; i < count; ++i) {
      float* row = weights + i * seen;
      if (row[0] == row[0]) continue;
      const int64_t last = causal ? std::min(seen, r + i + 1) : seen;
      bool sees = hidden == nullptr && last > 0;
      for (int64_t j = 0; j < last && !sees; ++j) {
        const int64_t at = i * mask.row + j * mask.column;
        sees = mask_is_bool ? hidden[at] != 0
                            : !(reinterpret_cast<const float*>(hidden)[at] == MINUS_INFINITY);
      }
      if (!sees) memset(row, 0, static_cast<size_t>(seen) * 4);
    }
  }

  void weigh(Pointers t, const Work& work, int64_t b, int64_t h, int64_t r, int64_t count,
             int64_t seen) const {
    uint8_t* to = t[out[0]] + (y.at(b, h) + r * y.row) * dtype_size(output.dtype);
    ProductArgs args = matrix_args(work.scores, seen, to, y.row, count, seen, width);
    args.bias = zeros_.data();
    args.epilogue = output.epilogue;
    args.epilogue.ops = value_ops_.data();
    args.epilogue.n_ops = static_cast<int32_t>(value_ops_.size());
    const float* factors = column_factors.data() + h * padded_channels(width);
    args.epilogue.channel_values = column_factors.empty() ? nullptr : &factors;
    for (int64_t n0 = 0; n0 < width; n0 += PACK_PANEL) {
      // The kernel counts panels of `seen` rows from the first one on; these have `keys`.
      args.packed = work.values + n0 * (keys - seen);
      const Piece piece = {0, count, n0, std::min(width, n0 + PACK_PANEL)};
      kernels->product_f32(&args, &piece);
    }
  }
};

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
  auto step = std::make_unique<AttentionStep>();
  int ids[4] = {-1, -1, -1, -1};
  Shape q, k, v;
  step->q = place_of(p, node, 0, "q_num_heads", &ids[0], &q);
  step->k = place_of(p, node, 1, "kv_num_heads", &ids[1], &k);
  step->v = place_of(p, node, 2, "kv_num_heads", &ids[2], &v);
  step->batches = q[0];
  step->heads = q[1];
  step->rows = q[2];
  step->depth = q[3];
  step->kv_heads = k[1];
  step->keys = k[2];
  step->width = v[3];
  if (k[0] != q[0] || v[0] != q[0] || v[1] != k[1] || v[2] != k[2] || k[3] != q[3] || k[1] < 1 ||
      q[1] % k[1] != 0) {
    throw Error("queries " + to_string(q) + ", keys " + to_string(k) + " and values " +
                to_string(v) + " (batch, heads, positions, size) do not belong together");
  }
  if (count(q) == 0 || count(k) == 0 || count(v) == 0) throw Unsupported("Attention over nothing");
  if (node.has_input(3)) place_mask(p, node, *step, &ids[3]);
  step->causal = node.integer("is_causal", 0) != 0;
  step->guarded = node.integer("plain", 0) == 0;
  const float scale =
      node.has("scale") ? node.real("scale", 0.0f) : 1.0f / sqrtf(static_cast<float>(step->depth));
  step->factor = node.integer("plain", 0) != 0 ? 1.0f : sqrtf(scale);
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
  step->macs = static_cast<double>(step->batches * step->heads) * static_cast<double>(step->rows) *
               static_cast<double>(step->keys) * static_cast<double>(step->depth + step->width);
  p.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& attention_operators() {
  static const std::vector<Operator> table = {
      {"Attention", {{"attention f32", refuse_attention, build_attention}}},
  };
  return table;
}

}  // namespace lp
