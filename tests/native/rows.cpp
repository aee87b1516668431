// rows.cpp: reductions, softmax, norms.
#include "case.h"
#include "plain.h"

namespace lp::check {
namespace {

struct Block {
  int64_t outer, depth, inner;
};

Block draw_block(Case& c) {
  Random& random = c.random;
  Block b = {random.between(1, 4), random.size(70), 1};
  if (random.chance(2)) b.inner = random.size(40);
  if (b.inner == 1 && random.chance(4)) b = {random.size(140), random.between(1, 17), 1};
  c.describe("[%d][%d][%d]", static_cast<int>(b.outer), static_cast<int>(b.depth),
             static_cast<int>(b.inner));
  return b;
}

float add(float a, float b) { return a + b; }
float larger(float a, float b) { return isnan(a) || a > b ? a : b; }
float smaller(float a, float b) { return isnan(a) || a < b ? a : b; }

template <class Get>
float plain_reduce(Case& c, int32_t code, int64_t depth, Get get) {
  const UnaryOp exp_op = {UNARY_EXP, 0.0f, 0.0f};
  switch (code) {
    case REDUCE_SUM_SQUARE:
      return plain_reduction(depth, 0.0f, [&](int64_t i) { return get(i) * get(i); }, add);
    case REDUCE_SUM_ABS:
      return plain_reduction(depth, 0.0f, [&](int64_t i) { return fabsf(get(i)); }, add);
    case REDUCE_SUM_EXP:
      return plain_reduction(
          depth, 0.0f, [&](int64_t i) { return plain_unary(c.scalar(), exp_op, get(i)); }, add);
    case REDUCE_PROD:
      return plain_reduction(depth, 1.0f, get, [](float a, float b) { return a * b; });
    case REDUCE_MAX:
      return plain_reduction(depth, -INFINITY, get, larger);
    case REDUCE_MIN:
      return plain_reduction(depth, INFINITY, get, smaller);
    default:
      return plain_reduction(depth, 0.0f, get, add);
  }
}

void reduce(Case& c) {
  Random& random = c.random;
  const int32_t code = static_cast<int32_t>(REDUCE_SUM + c.index() % REDUCE_MIN);
  const Block b = draw_block(c);
  c.describe(" code %d", code);
  const Guarded<float> x(b.outer * b.depth * b.inner, random.side());
  random.fill(x, 2.0f, random.chance(3) ? 30 : 0);
  const Guarded<float> expected(b.outer * b.inner, Against::END);
  for (int64_t o = 0; o < b.outer; ++o) {
    for (int64_t i = 0; i < b.inner; ++i) {
      const float* first = x.data() + o * b.depth * b.inner + i;
      expected[o * b.inner + i] =
          plain_reduce(c, code, b.depth, [&](int64_t d) { return first[d * b.inner]; });
    }
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(expected.size(), side);
    table.reduce(code, x.data(), y.data(), b.outer, b.depth, b.inner);
    c.same("y", expected, y);
  });
}

void sum_codes(Case& c) {
  Random& random = c.random;
  const Block b = draw_block(c);
  SumCodesArgs args{};
  args.depth = b.depth, args.n = b.inner, args.stride = b.inner + random.between(0, 3);
  args.is_signed = random.chance(2) ? 1 : 0;
  args.zero_point = static_cast<int32_t>(random.between(args.is_signed ? -128 : 0, 127));
  args.scale = random.one_of<float>({0.02f, 1.0f, 3e-5f});
  const Guarded<uint8_t> x((args.depth - 1) * args.stride + args.n, random.side());
  random.fill_codes(x);
  const Guarded<float> expected(args.n, Against::END);
  for (int64_t i = 0; i < args.n; ++i) {
    expected[i] = plain_reduction(
        args.depth, 0.0f,
        [&](int64_t d) {
          const uint8_t code = x[d * args.stride + i];
          const int32_t q = args.is_signed ? static_cast<int8_t>(code) : code;
          return static_cast<float>(q - args.zero_point) * args.scale;
        },
        add);
  }
  args.x = x.data();
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(args.n, side);
    args.y = y.data();
    table.sum_codes(&args);
    c.same("y", expected, y);
  });
}

void softmax(Case& c) {
  Random& random = c.random;
  const bool logarithm = random.chance(2);
  const Block b = draw_block(c);
  c.describe(" %s", logarithm ? "logarithm" : "");
  const Guarded<float> x(b.outer * b.depth * b.inner, random.side());
  random.fill(x, random.one_of<float>({1.0f, 20.0f, 200.0f}), random.chance(4) ? 30 : 0);
  const Guarded<float> expected(x.size(), Against::END);
  const UnaryOp exp_op = {UNARY_EXP, 0.0f, 0.0f}, log_op = {UNARY_LOG, 0.0f, 0.0f};
  for (int64_t o = 0; o < b.outer; ++o) {
    for (int64_t i = 0; i < b.inner; ++i) {
      const int64_t first = o * b.depth * b.inner + i;
      const auto get = [&](int64_t d) { return x[first + d * b.inner]; };
      const float most = plain_reduction(b.depth, -INFINITY, get, larger);
      const auto grown = [&](int64_t d) { return plain_unary(c.scalar(), exp_op, get(d) - most); };
      const float total = plain_reduction(b.depth, 0.0f, grown, add);
      const float log_total = plain_unary(c.scalar(), log_op, total);
      for (int64_t d = 0; d < b.depth; ++d) {
        expected[first + d * b.inner] = logarithm ? (get(d) - most) - log_total : grown(d) / total;
      }
    }
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(x.size(), side);
    table.softmax(logarithm, x.data(), y.data(), b.outer, b.depth, b.inner);
    c.same("y", expected, y);
  });
}

void normalize_rows(Case& c) {
  Random& random = c.random;
  NormArgs args{};
  args.rows = random.between(1, 5), args.n = random.size(140);
  args.epsilon = random.one_of<float>({1e-5f, 0.0f, 1e-12f});
  args.root_mean_square = random.chance(3);
  const Guarded<float> x(args.rows * args.n, random.side()), gamma(args.n, random.side());
  const Guarded<float> beta(args.n, random.side());
  random.fill(x, 3.0f, random.chance(5) ? 50 : 0);
  random.fill(gamma, 2.0f, 0);
  random.fill(beta, 2.0f, 0);
  args.x = x.data();
  args.gamma = random.chance(3) ? nullptr : gamma.data();
  args.beta = random.chance(3) ? nullptr : beta.data();
  const bool statistics = random.chance(2);
  c.describe("rows %d n %d epsilon %g root mean square %d gamma %d beta %d",
             static_cast<int>(args.rows), static_cast<int>(args.n),
             static_cast<double>(args.epsilon), args.root_mean_square, args.gamma != nullptr,
             args.beta != nullptr);
  const Guarded<float> expected(x.size(), Against::END), means(args.rows, Against::END);
  const Guarded<float> inverses(args.rows, Against::END);
  const float size = static_cast<float>(args.n);
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* row = x.data() + r * args.n;
    float mean = 0.0f;
    if (!args.root_mean_square) {
      mean = plain_reduction(args.n, 0.0f, [&](int64_t i) { return row[i]; }, add) / size;
    }
    const float squares = plain_reduction(
        args.n, 0.0f, [&](int64_t i) { return (row[i] - mean) * (row[i] - mean); }, add);
    const float deviation = sqrtf(squares / size + args.epsilon);
    means[r] = mean;
    inverses[r] = 1.0f / deviation;
    for (int64_t i = 0; i < args.n; ++i) {
      float y = args.root_mean_square ? row[i] / deviation : (row[i] - mean) * inverses[r];
      if (args.gamma != nullptr) y = y * gamma[i];
      if (args.beta != nullptr) y = y + beta[i];
      expected[r * args.n + i] = y;
    }
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(x.size(), side), mean(args.rows, side), inverse(args.rows, side);
    args.y = y.data();
    args.mean = statistics ? mean.data() : nullptr;
    args.inverse_deviation = statistics ? inverse.data() : nullptr;
    table.normalize_rows(&args);
    c.same("y", expected, y);
    if (!statistics) return;
    c.same("mean", means, mean);
    c.same("inverse deviation", inverses, inverse);
  });
}

void scale_shift(Case& c) {
  Random& random = c.random;
  ScaleShiftArgs args{};
  args.rows = random.between(1, 7), args.n = random.size(70);
  args.channels_last = random.chance(2);
  args.channels = args.channels_last ? args.n : random.between(1, args.rows);
  const Guarded<float> x(args.rows * args.n, random.side());
  const Guarded<float> shift(args.channels, random.side()), scale(args.channels, random.side());
  const Guarded<float> offset(args.channels, random.side());
  random.fill(x, 3.0f, 30);
  random.fill(shift, 3.0f, 0);
  random.fill(scale, 3.0f, 0);
  random.fill(offset, 3.0f, 0);
  args.x = x.data(), args.shift = shift.data(), args.scale = scale.data();
  args.offset = offset.data();
  c.describe("rows %d n %d channels %d last %d", static_cast<int>(args.rows),
             static_cast<int>(args.n), static_cast<int>(args.channels), args.channels_last);
  const Guarded<float> expected(x.size(), Against::END);
  for (int64_t i = 0; i < x.size(); ++i) {
    const int64_t channel = args.channels_last ? i % args.n : i / args.n % args.channels;
    expected[i] = (x[i] - shift[channel]) * scale[channel] + offset[channel];
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(x.size(), side);
    args.y = y.data();
    table.scale_shift(&args);
    c.same("y", expected, y);
  });
}

void scale_shift_u8(Case& c) {
  Random& random = c.random;
  ScaleShiftCodesArgs args{};
  args.rows = random.between(1, 5), args.n = random.size(150);
  args.x_row = args.n + (random.chance(2) ? random.between(0, 20) : 0);
  args.code_scale = random.chance(8) ? 1e-40f : 0.001f * static_cast<float>(random.between(1, 99));
  args.zero_point = random.between(0, 255);
  const Guarded<float> x((args.rows - 1) * args.x_row + args.n, random.side());
  const Guarded<float> shift(args.n, random.side()), scale(args.n, random.side());
  const Guarded<float> offset(args.n, random.side());
  random.fill(x, 3.0f, 30);
  random.fill(shift, 3.0f, 0);
  random.fill(scale, 3.0f, 0);
  random.fill(offset, 3.0f, 0);
  args.x = x.data(), args.shift = shift.data(), args.scale = scale.data();
  args.offset = offset.data();
  c.describe("rows %d n %d step %d zero point %d", static_cast<int>(args.rows),
             static_cast<int>(args.n), static_cast<int>(args.x_row), args.zero_point);
  const Guarded<uint8_t> expected(args.rows * args.n, Against::END);
  for (int64_t i = 0; i < expected.size(); ++i) {
    const int64_t channel = i % args.n;
    const float value = x[i / args.n * args.x_row + channel];
    const float moved = (value - shift[channel]) * scale[channel];
    expected[i] = static_cast<uint8_t>(
        plain_code((moved + offset[channel]) / args.code_scale, args.zero_point, 0, 255));
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> q(expected.size(), side);
    args.q = q.data();
    table.scale_shift_u8(&args);
    c.same("q", expected, q);
  });
}

}  // namespace

std::vector<Check> row_checks() {
  return {{"reduce", reduce, 7 * 40, {LP_ENTRY(reduce)}},
          {"sum_codes", sum_codes, 100, {LP_ENTRY(sum_codes)}},
          {"softmax", softmax, 150, {LP_ENTRY(softmax)}},
          {"normalize_rows", normalize_rows, 150, {LP_ENTRY(normalize_rows)}},
          {"scale_shift", scale_shift, 100, {LP_ENTRY(scale_shift)}},
          {"scale_shift_u8", scale_shift_u8, 150, {LP_ENTRY(scale_shift_u8)}}};
}

}  // namespace lp::check
