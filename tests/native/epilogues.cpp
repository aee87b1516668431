// epilogues.cpp: see epilogues.h.
#include "epilogues.h"

#include "pack.h"
#include "plain.h"

namespace lp::check {

UnaryOp draw_unary(Random& random) {
  UnaryOp op;
  op.code = static_cast<int32_t>(random.between(UNARY_RELU, UNARY_MISH));
  op.a = random.value(2.0f, 20);
  op.b = random.value(2.0f, 20);
  if (op.code == UNARY_CLIP && !(op.a <= op.b)) op = {UNARY_CLIP, -1.0f, 1.5f};
  return op;
}

EpilogueDraw::EpilogueDraw(Case& c, bool integer, int64_t channels, float reach)
    : multiplier_(padded_channels(channels), c.random.side()),
      addend_(padded_channels(channels), c.random.side()),
      integer_(integer) {
  Random& random = c.random;
  Epilogue& e = epilogue_;
  e.kind = integer ? random.one_of<int32_t>({OUT_S32, OUT_F32, OUT_U8, OUT_S8})
                   : random.one_of<int32_t>({OUT_F32, OUT_U8, OUT_S8});
  const int32_t low = code_min(e.kind), high = code_max(e.kind);
  e.zero_point = static_cast<int32_t>(random.between(low, high));
  e.qmin = low;
  e.qmax = high;
  if (random.chance(3)) e.qmin = static_cast<int32_t>(random.between(low, high));
  if (random.chance(3)) e.qmax = static_cast<int32_t>(random.between(e.qmin, high));
  if (!random.chance(3)) {
    const int64_t count = random.between(1, 3);
    for (int64_t i = 0; i < count; ++i) ops_.push_back(draw_unary(random));
  }
  e.ops = ops_.data();
  e.n_ops = static_cast<int32_t>(ops_.size());

  // Codes spread over their range, or (seldom) everything saturates.
  const float size = random.chance(10) ? 1e30f : random.uniform(20.0f, 400.0f) / reach;
  e.scale = random.chance(4) ? 0x1p-3f : random.uniform(0.001f, 1.0f);
  for (int64_t i = 0; i < multiplier_.size(); ++i) {
    multiplier_[i] = random.chance(6) ? 0x1p-4f : random.uniform(0.0f, size);
    addend_[i] = random.value(30.0f, 30);
  }
  e.multiplier = multiplier_.data();
  e.addend = integer && random.chance(3) ? addend_.data() : nullptr;
  c.describe(" -> kind %d zero point %d clamp %d..%d scale %a%s, operators", e.kind, e.zero_point,
             e.qmin, e.qmax, static_cast<double>(e.scale), e.addend ? " with addend" : "");
  for (const UnaryOp& op : ops_) {
    c.describe(" %d(%a, %a)", op.code, static_cast<double>(op.a), static_cast<double>(op.b));
  }
}

void EpilogueDraw::settle_fast(Case& c, double largest_acc) {
  float largest = 0.0f;
  for (int64_t i = 0; i < multiplier_.size(); ++i) largest = fmaxf(largest, multiplier_[i]);
  const bool proven = integer_ && largest_acc * static_cast<double>(largest) < 2147483520.0;
  epilogue_.fast = proven && c.random.chance(2) ? 1 : 0;
  if (epilogue_.fast != 0) c.describe(" fast");
}

}  // namespace lp::check
