// epilogues.h: draws what happens to an accumulator: every output kind, chain and clamp.
#pragma once
#include <vector>

#include "case.h"

namespace lp::check {

UnaryOp draw_unary(Random& random);  // an operator that has no need of a row or a column

class EpilogueDraw {
 public:
  // For accumulators of about `reach`; `channels` output channels.
  EpilogueDraw(Case& c, bool integer, int64_t channels, float reach);

  // The accumulators are not larger than this: whether clamping can be left out is known now.
  void settle_fast(Case& c, double largest_acc);
  const Epilogue& get() const { return epilogue_; }

 private:
  Epilogue epilogue_{};
  std::vector<UnaryOp> ops_;
  Guarded<float> multiplier_, addend_;
  bool integer_;
};

}  // namespace lp::check
