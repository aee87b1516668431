// epilogues.cpp: see epilogues.h.
#include "epilogues.h"

#include "pack.h"

namespace lp::check {
namespace {

constexpr int64_t CHANNEL_LISTS = 2;

}  // namespace

UnaryOp draw_unary(Random& random) {
  UnaryOp op;
  op.code = static_cast<int32_t>(random.between(UNARY_RELU, UNARY_MISH));
  op.a = random.value(2.0f, 20);
  op.b = random.value(2.0f, 20);
  if (op.code == UNARY_CLIP && !(op.a <= op.b)) op = {UNARY_CLIP, -1.0f, 1.5f};
  return op;
}

// product [, to codes and back] + residual [, Relu]: kernels have a path of its own for it.
void EpilogueDraw::draw_sum(Random& random) {
  if (random.chance(2)) {
    const bool u8 = random.chance(2);
    const int32_t low = u8 ? 0 : -128, zero = static_cast<int32_t>(random.between(low, low + 255));
    ops_.push_back({u8 ? UNARY_THROUGH_U8 : UNARY_THROUGH_S8, 1.0f, static_cast<float>(zero)});
    if (random.chance(2)) {
      const int64_t least = random.between(low, low + 255) - zero;
      const int64_t most = random.between(least, low + 255 - zero);
      ops_.push_back({UNARY_CLIP, static_cast<float>(least), static_cast<float>(most)});
    }
    ops_.push_back({UNARY_MUL, random.uniform(0.01f, 0.5f), 0.0f});
  }
  ops_.push_back({UNARY_ADD_RESIDUAL, 0.0f, 0.0f});
  if (random.chance(2)) ops_.push_back({UNARY_RELU, 0.0f, 0.0f});
}

UnaryOp EpilogueDraw::draw_operator(Random& random) {
  if (random.chance(2)) return draw_unary(random);
  UnaryOp op;
  op.code = static_cast<int32_t>(random.between(UNARY_ADD_RESIDUAL, UNARY_PRELU_CHANNEL));
  op.a = op.b = 0.0f;
  if (op.code == UNARY_ADD_CHANNEL || op.code == UNARY_MUL_CHANNEL ||
      op.code == UNARY_PRELU_CHANNEL) {
    op.a = static_cast<float>(random.between(0, CHANNEL_LISTS - 1));
  } else if (op.code != UNARY_ADD_RESIDUAL) {
    const int32_t low = op.code == UNARY_THROUGH_U8 ? 0 : -128;
    op.a = random.chance(2) ? 0.25f : random.uniform(0.01f, 1.0f);
    op.b = static_cast<float>(random.between(low, low + 255));
  }
  return op;
}

void EpilogueDraw::draw_residual(Random& random, const Shape& s) {
  Epilogue& e = epilogue_;
  e.residual_kind = random.one_of<int32_t>({OUT_F32, OUT_U8, OUT_S8, OUT_BF16});
  e.residual_col = s.n + random.between(0, 5);
  e.residual_row = s.cols * e.residual_col + random.between(0, 5);
  e.residual_image = random.chance(3) ? 0 : s.rows * e.residual_row;
  const int64_t count = (s.images - 1) * e.residual_image + (s.rows - 1) * e.residual_row +
                        (s.cols - 1) * e.residual_col + s.n;
  const int64_t item = bytes_of(e.residual_kind);
  residual_ = std::make_unique<Guarded<uint8_t>>(count * item, random.side());
  for (int64_t i = 0; i < count; ++i) {
    const float x = random.value(30.0f, 60);
    const uint16_t half = plain_bf16(x);
    const uint8_t code = static_cast<uint8_t>(random.bits());
    const void* value = is_codes(e.residual_kind)     ? static_cast<const void*>(&code)
                        : e.residual_kind == OUT_BF16 ? static_cast<const void*>(&half)
                                                      : &x;
    memcpy(residual_->data() + i * item, value, static_cast<size_t>(item));
  }
  e.residual = residual_->data();
  if (is_codes(e.residual_kind)) {
    e.residual_zero_point =
        static_cast<int32_t>(random.between(code_min(e.residual_kind), code_max(e.residual_kind)));
    e.residual_scale = random.uniform(0.01f, 0.5f);
  }
}

// Codes spread over their range, or (seldom) everything saturates.
void EpilogueDraw::draw_scales(Random& random, bool integer, float reach) {
  Epilogue& e = epilogue_;
  const float size = random.chance(10) ? 1e30f : random.uniform(20.0f, 400.0f) / reach;
  e.scale = random.chance(4) ? 0x1p-3f : random.uniform(0.001f, 1.0f);
  for (int64_t i = 0; i < multiplier_.size(); ++i) {
    multiplier_[i] = random.chance(6) ? 0x1p-4f : random.uniform(0.0f, size);
    addend_[i] = random.value(30.0f, 30);
  }
  e.multiplier = multiplier_.data();
  e.addend = integer && random.chance(3) ? addend_.data() : nullptr;
  for (int64_t i = 0; i < row_multiplier_.size(); ++i) {
    row_multiplier_[i] = random.uniform(0.01f, 2.0f);
  }
  const bool real = e.kind == OUT_F32 || e.kind == OUT_BF16;
  if (integer && real && random.chance(3)) e.row_multiplier = row_multiplier_.data();
  random.fill(channel_values_, 3.0f, 60);
  const int64_t wide = channel_values_.size() / CHANNEL_LISTS;
  for (int64_t i = 0; i < CHANNEL_LISTS; ++i) {
    channel_lists_.push_back(channel_values_.data() + i * wide);
  }
  e.channel_values = channel_lists_.data();
}

EpilogueDraw::EpilogueDraw(Case& c, bool integer, const Shape& s, float reach)
    : multiplier_(padded_channels(s.n), c.random.side()),
      addend_(padded_channels(s.n), c.random.side()),
      row_multiplier_(s.m(), c.random.side()),
      channel_values_(CHANNEL_LISTS * padded_channels(s.n), c.random.side()),
      table_(256, c.random.side()),
      integer_(integer) {
  Random& random = c.random;
  Epilogue& e = epilogue_;
  e.kind = static_cast<int32_t>(random.between(integer ? OUT_S32 : OUT_F32, OUT_BF16));
  const int32_t low = code_min(e.kind), high = code_max(e.kind);
  e.zero_point = static_cast<int32_t>(random.between(low, high));
  e.qmin = low;
  e.qmax = high;
  if (random.chance(3)) e.qmin = static_cast<int32_t>(random.between(low, high));
  if (random.chance(3)) e.qmax = static_cast<int32_t>(random.between(e.qmin, high));
  draw_scales(random, integer, reach);
  if (random.chance(4)) {
    draw_sum(random);
  } else if (random.chance(5)) {  // another path of its own
    const float list = static_cast<float>(random.between(0, CHANNEL_LISTS - 1));
    ops_.push_back({UNARY_PRELU_CHANNEL, list, 0.0f});
  } else if (!random.chance(3)) {
    const int64_t count = random.between(1, 3);
    for (int64_t i = 0; i < count; ++i) ops_.push_back(draw_operator(random));
  }
  e.ops = ops_.data();
  e.n_ops = static_cast<int32_t>(ops_.size());
  for (const UnaryOp& op : ops_) {
    if (op.code == UNARY_ADD_RESIDUAL && e.residual == nullptr) draw_residual(random, s);
  }
  random.fill_codes(table_);
  if (is_codes(e.kind) && random.chance(4)) e.table = table_.data();

  c.describe(" -> kind %d zero point %d clamp %d..%d scale %a%s%s%s, operators", e.kind,
             e.zero_point, e.qmin, e.qmax, static_cast<double>(e.scale),
             e.addend ? " with addend" : "", e.row_multiplier ? " with row multiplier" : "",
             e.table ? " with table" : "");
  for (const UnaryOp& op : ops_) {
    c.describe(" %d(%a, %a)", op.code, static_cast<double>(op.a), static_cast<double>(op.b));
  }
  if (e.residual) c.describe(", residual kind %d", e.residual_kind);
}

void EpilogueDraw::settle_fast(Case& c, double largest_acc) {
  float largest = 0.0f;
  for (int64_t i = 0; i < multiplier_.size(); ++i) largest = fmaxf(largest, multiplier_[i]);
  const Epilogue& e = epilogue_;
  const double product = largest_acc * static_cast<double>(largest);
  bool proven = integer_ && product < 2147483520.0;
  if (e.residual != nullptr) {
    // Whatever the operators between are, up to three of them: they grow a value by less than this.
    const double sum = 4096.0 * (product + 256.0 * static_cast<double>(e.residual_scale));
    proven &= is_codes(e.kind) && e.addend == nullptr &&
              sum < 1073741824.0 * static_cast<double>(e.scale);
  }
  epilogue_.fast = proven && c.random.chance(2) ? 1 : 0;
  if (epilogue_.fast != 0) c.describe(" fast");
}

}  // namespace lp::check
