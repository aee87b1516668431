// epilogues.h: draws what happens to an accumulator: every output kind, chain and clamp.
#pragma once
#include <memory>
#include <vector>

#include "shapes.h"

namespace lp::check {

UnaryOp draw_unary(Random& random);  // an operator that has no need of a row or a column

class EpilogueDraw {
 public:
  // For accumulators of about `reach`, s32 where `integer`.
  EpilogueDraw(Case& c, bool integer, const Shape& s, float reach);

  // The accumulators are not larger than this: whether clamping can be left out is known now.
  void settle_fast(Case& c, double largest_acc);
  const Epilogue& get() const { return epilogue_; }

 private:
  void draw_sum(Random& random);
  UnaryOp draw_operator(Random& random);
  void draw_residual(Random& random, const Shape& s);
  void draw_scales(Random& random, bool integer, float reach);

  Epilogue epilogue_{};
  std::vector<UnaryOp> ops_;
  Guarded<float> multiplier_, addend_, row_multiplier_;
  Guarded<float> channel_values_;  // CHANNEL_LISTS lists
  std::vector<const float*> channel_lists_;
  Guarded<uint8_t> table_;
  std::unique_ptr<Guarded<uint8_t>> residual_;
  bool integer_;
};

}  // namespace lp::check
