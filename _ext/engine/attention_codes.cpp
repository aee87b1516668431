// attention_codes.cpp: attention whose two products are of codes (lowprec/numerics/reference.py,
// attention_of_codes).
//
//   Q / s_q, K / s_k, V / s_v ──► s8, one scale for a head in a run: its largest magnitude / 127
//   scores = f32(Q_q * K_q) * (s_q * s_k * scale), + mask
//   P_q = 255 * exp(scores - largest), u8;   Y = f32(P_q * V_q) * ((1 / sum of P_q) * s_v)
//
// A head with something that is not finite takes the products in f32.
#include <string.h>

#include <algorithm>
#include <type_traits>

#include "engine/attention.h"
#include "matrix_args.h"

namespace lp {

namespace {

constexpr int64_t OVER_READ = 64;  // products read a little past their codes

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// What a head looks like in codes, in the extra memory of a thread.
struct Codes {
  int8_t *queries, *keys, *values, *packed_keys, *packed_values;
  int32_t *key_sums, *value_sums;
  uint8_t* weights;
  float *inverse_sums, *of_scores, *of_values;  // the last two: multipliers
  float *key_scale, *value_scale;               // of what is packed
};

class AttentionOfCodes : public AttentionStep {
 protected:
  int64_t extra_bytes() const override {
    Codes codes{};
    return lay_out(nullptr, codes);
  }

  void run_head(Pointers t, Work& work, int64_t b, int64_t h, int64_t first,
                int64_t last) const override {
    Codes codes{};
    lay_out(work.codes, codes);
    const int64_t kv = h / (heads / kv_heads);
    if (work.packed_codes != b * kv_heads + kv) {
      work.packed_codes = b * kv_heads + kv;
      pack(floats(t, 1) + k.at(b, kv), floats(t, 2) + v.at(b, kv), codes);
    }
    const float* x = floats(t, 0) + q.at(b, h);
    const float q_scale = scale_of(x, q.row, rows, depth);
    if (!(q_scale > 0.0f && *codes.key_scale > 0.0f && *codes.value_scale > 0.0f)) {
      return AttentionStep::run_head(t, work, b, h, first, last);
    }
    std::fill_n(codes.of_scores, padded_channels(keys), q_scale * *codes.key_scale * scale);
    std::fill_n(codes.of_values, padded_channels(width), *codes.value_scale);
    for (int64_t r = first; r < last; r += block_) {
      const int64_t count = std::min(block_, last - r), seen = keys_seen(r, count);
      const CodeRowsArgs rows_args = {x + r * q.row, q.row,         count,      depth,
                                      q_scale,       codes.queries, code_row(), nullptr};
      kernels->quantize_code_rows(&rows_args);
      score(work, codes, count, seen);
      hide(t, work, b, h, r, count, seen);
      make_weights(t, work, codes, b, h, r, count, seen);
      weigh(t, codes, b, h, r, count, seen);
    }
  }

 private:
  int64_t code_row() const { return (depth + 3) / 4 * 4; }
  int64_t weight_row() const { return aligned(keys); }

  // Bytes in all; `codes` points into `memory`.
  int64_t lay_out(uint8_t* memory, Codes& codes) const {
    int64_t at = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      using T = std::remove_reference_t<decltype(*pointer)>;
      pointer =
          reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(at));
      at = aligned(at + count * static_cast<int64_t>(sizeof(T)));
    };
    take(codes.queries, block_ * code_row() + OVER_READ);
    take(codes.keys, keys * code_row());
    take(codes.values, keys * width + OVER_READ);
    take(codes.packed_keys, packed_s8_bytes(keys, 1, depth));
    take(codes.packed_values, packed_s8_bytes(width, 1, keys));
    take(codes.key_sums, padded_channels(keys));
    take(codes.value_sums, padded_channels(width));
    take(codes.weights, block_ * weight_row() + OVER_READ);
    take(codes.inverse_sums, block_);
    take(codes.of_scores, padded_channels(keys));
    take(codes.of_values, padded_channels(width));
    take(codes.key_scale, 1);
    take(codes.value_scale, 1);
    return at;
  }

  // 0 where something is not finite.
  float scale_of(const float* x, int64_t row_stride, int64_t count, int64_t n) const {
    const float largest = kernels->largest_of_rows(x, row_stride, count, n);
    if (!(largest - largest == 0.0f)) return 0.0f;
    constexpr float TINY = 1e-30f;  // divides without overflow, and products of scales stay normal
    return largest > TINY ? largest / 127.0f : 1.0f;
  }

  // Rows of a head lie far apart, where no prefetcher of the processor finds them, and a core waits
  // for few lines at once: a few of the next head's are asked for between a few rows of softmax.
  void make_weights(Pointers t, const Work& work, const Codes& codes, int64_t b, int64_t h,
                    int64_t r, int64_t count, int64_t seen) const {
    constexpr int64_t GROUP = 4;
    for (int64_t i = 0; i < count; i += GROUP) {
      const int64_t group = std::min(GROUP, count - i);
      fetch_next_head(t, b, h, r + i, r + i + group);
      kernels->softmax_codes(work.scores + i * seen, group, seen, codes.weights + i * weight_row(),
                             weight_row(), codes.inverse_sums + i);
    }
  }
  // What rows [from, to) of this head are to its queries, of all that the next head reads. Inline:
  // a function that does nothing but prefetch has no effect for GCC 12, which drops calls of it.
  __attribute__((always_inline)) void fetch_next_head(Pointers t, int64_t b, int64_t h,
                                                      int64_t from, int64_t to) const {
    const int64_t next = b * heads + h + 1;
    if (next == batches * heads) return;
    b = next / heads;
    h = next % heads;
    fetch(floats(t, 0) + q.at(b, h), q.row, from, to, depth);
    if (h % (heads / kv_heads) != 0) return;  // its keys and values are packed already
    const int64_t kv = h / (heads / kv_heads);
    from = from * keys / rows;
    to = to * keys / rows;
    fetch(floats(t, 1) + k.at(b, kv), k.row, from, to, depth);
    fetch(floats(t, 2) + v.at(b, kv), v.row, from, to, width);
  }
  static __attribute__((always_inline)) void fetch(const float* x, int64_t stride, int64_t from,
                                                   int64_t to, int64_t n) {
    constexpr int64_t LINE = 16;  // floats
    for (int64_t i = from; i < to; ++i) {
      for (int64_t j = 0; j < n; j += LINE) __builtin_prefetch(x + i * stride + j, 0, 2);
    }
  }

  void pack(const float* key, const float* value, Codes& codes) const {
    *codes.key_scale = scale_of(key, k.row, keys, depth);
    *codes.value_scale = scale_of(value, v.row, keys, width);
    if (!(*codes.key_scale > 0.0f && *codes.value_scale > 0.0f)) return;
    const int64_t row = code_row(), words = row / 4, padded = padded_channels(keys);
    memset(codes.key_sums, 0, static_cast<size_t>(padded) * sizeof(int32_t));
    if (row != depth) memset(codes.keys, 0, static_cast<size_t>(keys * row));
    const CodeRowsArgs key_rows = {key,        k.row, keys,          depth, *codes.key_scale,
                                   codes.keys, row,   codes.key_sums};
    kernels->quantize_code_rows(&key_rows);
    // Four codes of a key lie side by side: words are turned.
    if (padded != keys) {
      memset(codes.packed_keys + (padded / PACK_PANEL - 1) * words * PACK_PANEL * 4, 0,
             static_cast<size_t>(words * PACK_PANEL * 4));
    }
    for (int64_t j = 0; j < keys; ++j) {
      const int8_t* from = codes.keys + j * row;
      int8_t* to = codes.packed_keys + (j / PACK_PANEL * words * PACK_PANEL + j % PACK_PANEL) * 4;
      for (int64_t i = 0; i < words; ++i) memcpy(to + i * PACK_PANEL * 4, from + 4 * i, 4);
    }
    const CodeRowsArgs value_rows = {value,        v.row, keys,   width, *codes.value_scale,
                                     codes.values, width, nullptr};
    kernels->quantize_code_rows(&value_rows);
    kernels->pack_rows_s8(codes.values, width, keys, width, 0, codes.packed_values,
                          codes.value_sums);
  }

  void score(Work& work, const Codes& codes, int64_t count, int64_t seen) const {
    ProductArgs args =
        matrix_args(codes.queries, code_row(), work.scores, seen, count, depth, seen);
    args.packed = codes.packed_keys;
    args.sums = codes.key_sums;
    args.bias = zeros_.data();  // of all bits 0
    args.epilogue.kind = OUT_F32;
    args.epilogue.multiplier = codes.of_scores;
    const Piece piece = whole(args);
    kernels->product_s8s8(&args, &piece);
  }

  void weigh(Pointers t, const Codes& codes, int64_t b, int64_t h, int64_t r, int64_t count,
             int64_t seen) const {
    const float* factors;
    ProductArgs args = result_args(t, b, h, r, count, &factors);
    args.src = codes.weights;
    args.src_col = weight_row();
    args.run_length = seen;
    args.sums = codes.value_sums;
    args.bias = zeros_.data();
    args.epilogue.row_multiplier = codes.inverse_sums;
    args.epilogue.multiplier = codes.of_values;
    UnaryOp once = {UNARY_MUL, 1.0f, 0.0f};
    if (output.dtype != DType::F32 && args.epilogue.n_ops == 0) {  // real numbers, then Quantize
      args.epilogue.ops = &once;
      args.epilogue.n_ops = 1;
    }
    const int64_t depth_of_packed = (keys + 3) / 4 * 4, depth_seen = (seen + 3) / 4 * 4;
    for (int64_t n0 = 0; n0 < width; n0 += PACK_PANEL) {
      // The kernel counts panels of `seen` rows from the first one on; these have `keys`.
      args.packed = codes.packed_values + n0 * (depth_of_packed - depth_seen);
      const Piece piece = {0, count, n0, std::min(width, n0 + PACK_PANEL)};
      kernels->product_u8s8(&args, &piece);
    }
  }
};

}  // namespace

std::unique_ptr<AttentionStep> attention_of_codes() { return std::make_unique<AttentionOfCodes>(); }

}  // namespace lp
