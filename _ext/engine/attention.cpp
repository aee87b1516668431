// attention.cpp: see attention.h. The products in f32.
#include "engine/attention.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "matrix_args.h"

namespace lp {

namespace {
constexpr float MINUS_INFINITY = -INFINITY;
constexpr int64_t BLOCK_SCORES = 6144;  // floats: 24 KB
constexpr int64_t TILE_ROWS = 12;       // a multiple of the tiles' heights
}  // namespace

void AttentionStep::finish_setup() {
  block_ = std::min(rows, std::max(TILE_ROWS, BLOCK_SCORES / keys / TILE_ROWS * TILE_ROWS));
  zeros_.assign(static_cast<size_t>(std::max(padded_channels(keys), padded_channels(width))), 0.0f);
  value_ops_ = output.ops;
  if (!column_factors.empty()) value_ops_.push_back({UNARY_MUL_CHANNEL, 0.0f, 0.0f});
  macs = static_cast<double>(batches * heads) * static_cast<double>(rows) *
         static_cast<double>(keys) * static_cast<double>(depth + width);
}

void AttentionStep::run(Pointers t, uint8_t*) const {
  const int64_t entries = batches * heads;
  // Few heads: their rows are shared out, too, though keys are then packed more than once.
  const int64_t wanted = 2 * usable_threads(), blocks = (rows + block_ - 1) / block_;
  const int64_t parts = entries >= wanted || usable_threads() == 1
                            ? 1
                            : std::min(blocks, (wanted + entries - 1) / entries);
  const int64_t part_rows = (blocks + parts - 1) / parts * block_;
  const double each = macs / static_cast<double>(entries * parts);
  parallel_rows(entries * parts, products_per_range(each), [&](int64_t begin, int64_t end) {
    Work work = work_of_this_thread();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % parts * part_rows, head = i / parts;
      run_head(t, work, head / heads, head % heads, first, std::min(rows, first + part_rows));
    }
  });
}

AttentionStep::Work AttentionStep::work_of_this_thread() const {
  const int64_t floats = packed_keys() + packed_values() + block_ * depth + block_ * keys + keys;
  const int64_t own = (floats * 4 + 63) / 64 * 64;
  uint8_t* memory = thread_scratch(own + extra_bytes());
  Work work{};
  work.keys = reinterpret_cast<float*>(memory);
  work.values = work.keys + packed_keys();
  work.queries = work.values + packed_values();
  work.scores = work.queries + block_ * depth;
  work.bias = work.scores + block_ * keys;
  work.codes = memory + own;
  if (width % PACK_PANEL != 0) memset(work.values, 0, static_cast<size_t>(packed_values()) * 4);
  return work;
}

void AttentionStep::run_head(Pointers t, Work& work, int64_t b, int64_t h, int64_t first,
                             int64_t last) const {
  const int64_t kv = h / (heads / kv_heads);
  if (work.packed != b * kv_heads + kv) {
    work.packed = b * kv_heads + kv;
    pack_keys(floats(t, 1) + k.at(b, kv), work.keys);
    pack_values(floats(t, 2) + v.at(b, kv), work.values);
  }
  for (int64_t r = first; r < last; r += block_) {
    run_block(t, work, b, h, r, std::min(block_, last - r));
  }
}

void AttentionStep::pack_keys(const float* x, float* packed) const {
  if (k.column == 1) return kernels->pack_turned_f32(x, k.row, keys, depth, factor, packed);
  pack_f32(x, {k.row, 0, k.column}, keys, 1, depth, packed);
  if (factor != 1.0f) {
    for (int64_t i = 0; i < packed_keys(); ++i) packed[i] *= factor;
  }
}

void AttentionStep::pack_values(const float* x, float* packed) const {
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

void AttentionStep::run_block(Pointers t, Work& work, int64_t b, int64_t h, int64_t r,
                              int64_t count) const {
  const int64_t seen = keys_seen(r, count);
  score(floats(t, 0) + q.at(b, h) + r * q.row, work, count, seen);
  hide(t, work, b, h, r, count, seen);
  kernels->softmax(0, work.scores, work.scores, count, seen, 1);
  if (guarded && (has_mask || causal)) {
    clear_hidden_rows(has_mask ? mask_row(t, b, h, r) : nullptr, work.scores, r, count, seen);
  }
  const float* factors;
  ProductArgs args = result_args(t, b, h, r, count, &factors);
  args.src = work.scores;
  args.src_col = args.run_length = seen;
  args.bias = zeros_.data();
  for (int64_t n0 = 0; n0 < width; n0 += PACK_PANEL) {
    // The kernel counts panels of `seen` rows from the first one on; these have `keys`.
    args.packed = work.values + n0 * (keys - seen);
    const Piece piece = {0, count, n0, std::min(width, n0 + PACK_PANEL)};
    kernels->product_f32(&args, &piece);
  }
}

void AttentionStep::score(const float* x, Work& work, int64_t count, int64_t seen) const {
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

void AttentionStep::hide(Pointers t, Work& work, int64_t b, int64_t h, int64_t r, int64_t count,
                         int64_t seen) const {
  if (has_mask) add_mask(mask_row(t, b, h, r), work, count, seen);
  if (!causal) return;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = r + i + 1; j < seen; ++j) work.scores[i * seen + j] += MINUS_INFINITY;
  }
}

// Of query r; as bytes, because the mask is bools or floats.
const uint8_t* AttentionStep::mask_row(Pointers t, int64_t b, int64_t h, int64_t r) const {
  return t[in[3]] + (mask.at(b, h) + r * mask.row) * (mask_is_bool ? 1 : 4);
}

void AttentionStep::add_mask(const uint8_t* first, Work& work, int64_t count, int64_t seen) const {
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

// Whether a row of a bool mask hides a key: what is added to scores is in work.bias then. Where it
// hides none there is nothing to add: x + 0 is x but for the sign of a zero, which exp forgets.
bool AttentionStep::hides_a_key(const uint8_t* row, Work& work) const {
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
void AttentionStep::clear_hidden_rows(const uint8_t* hidden, float* weights, int64_t r,
                                      int64_t count, int64_t seen) const {
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

ProductArgs AttentionStep::result_args(Pointers t, int64_t b, int64_t h, int64_t r, int64_t count,
                                       const float** factors) const {
  uint8_t* to = t[out[0]] + (y.at(b, h) + r * y.row) * dtype_size(output.dtype);
  ProductArgs args = matrix_args(nullptr, 0, to, y.row, count, 0, width);
  args.epilogue = output.epilogue;
  args.epilogue.ops = value_ops_.data();
  args.epilogue.n_ops = static_cast<int32_t>(value_ops_.size());
  *factors = column_factors.data() + h * padded_channels(width);
  args.epilogue.channel_values = column_factors.empty() ? nullptr : factors;
  return args;
}

}  // namespace lp
