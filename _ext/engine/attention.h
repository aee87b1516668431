// attention.h: scaled dot-product attention, one head at a time in the caches.
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
// In codes (attention_codes.cpp) both products are of s8 and u8, with scales of each run.
#pragma once
#include "engine/product.h"

namespace lp {

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
  float scale = 1.0f, factor = 1.0f;  // factor: sqrt(scale), or 1 (joined)
  bool has_mask = false, mask_is_bool = false;
  std::vector<UnaryOp> score_ops;
  Output output;
  std::vector<float> column_factors;  // [heads][width padded], or none
  const Kernels* kernels = nullptr;

  void finish_setup();
  void run(Pointers t, uint8_t* scratch) const override;

 protected:
  // The memory of one thread.
  struct Work {
    float *keys, *values, *queries, *scores, *bias;
    uint8_t* codes;                    // extra_bytes()
    int64_t packed = -1;               // whose keys and values these are
    int64_t packed_codes = -1;         // and those in `codes`
    const uint8_t* bias_of = nullptr;  // which row of a bool mask `bias` is
  };
  virtual int64_t extra_bytes() const { return 0; }
  virtual void run_head(Pointers t, Work& work, int64_t b, int64_t h, int64_t first,
                        int64_t last) const;

  int64_t keys_seen(int64_t r, int64_t count) const {
    return causal ? std::min(keys, r + count) : keys;
  }
  const float* floats(Pointers t, size_t operand) const {
    return reinterpret_cast<const float*>(t[in[operand]]);
  }
  // Adds mask and causality to the scores of queries [r, r + count), `seen` apart.
  void hide(Pointers t, Work& work, int64_t b, int64_t h, int64_t r, int64_t count,
            int64_t seen) const;
  // The result of those queries, as a product makes it; the operators behind it.
  ProductArgs result_args(Pointers t, int64_t b, int64_t h, int64_t r, int64_t count,
                          const float** factors) const;

  int64_t block_ = 0;         // queries at a time
  std::vector<float> zeros_;  // no bias
  std::vector<UnaryOp> value_ops_;

 private:
  Work work_of_this_thread() const;
  int64_t packed_keys() const { return padded_channels(keys) * depth; }
  int64_t packed_values() const { return padded_channels(width) * keys; }
  void pack_keys(const float* x, float* packed) const;
  void pack_values(const float* x, float* packed) const;
  void run_block(Pointers t, Work& work, int64_t b, int64_t h, int64_t r, int64_t count) const;
  void score(const float* x, Work& work, int64_t count, int64_t seen) const;
  const uint8_t* mask_row(Pointers t, int64_t b, int64_t h, int64_t r) const;
  void add_mask(const uint8_t* first, Work& work, int64_t count, int64_t seen) const;
  bool hides_a_key(const uint8_t* row, Work& work) const;
  void clear_hidden_rows(const uint8_t* hidden, float* weights, int64_t r, int64_t count,
                         int64_t seen) const;
};

// Both products of codes, where Q, K and V are finite (attention_codes.cpp).
std::unique_ptr<AttentionStep> attention_of_codes();

}  // namespace lp
