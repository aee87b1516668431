// elementwise.cpp: one and two operands, in f32 and on codes.
#include "case.h"
#include "epilogues.h"
#include "plain.h"

namespace lp::check {
namespace {

// Against the scalar table, which the Python tests compare with exact functions.
void unary(Case& c) {
  Random& random = c.random;
  const int64_t n = random.chance(10) ? random.between(1000, 2100) : random.size(70);
  std::vector<UnaryOp> ops;
  for (int64_t i = random.chance(3) ? random.between(0, 4) : 1; i > 0; --i) {
    ops.push_back(draw_unary(random));
  }
  // Every code in turn.
  if (!ops.empty()) {
    const UnaryOp drawn = ops[0];
    ops[0].code = static_cast<int32_t>(UNARY_RELU + c.index() % UNARY_MISH);
    if (ops[0].code == UNARY_CLIP && !(drawn.a <= drawn.b)) ops[0] = {UNARY_CLIP, -1.0f, 1.5f};
  }
  const Guarded<float> x(n, random.side());
  random.fill(x, random.one_of<float>({0.5f, 1.0f, 5.0f, 100.0f, 1e30f}), 6);
  const int32_t count = static_cast<int32_t>(ops.size());
  const Guarded<float> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) {
    float y = x[i];
    for (const UnaryOp& op : ops) y = plain_unary(c.scalar(), op, y);
    expected[i] = y;
  }
  c.describe("n %d operators", static_cast<int>(n));
  for (const UnaryOp& op : ops) {
    c.describe(" %d(%a, %a)", op.code, static_cast<double>(op.a), static_cast<double>(op.b));
  }
  const Against side = random.side();
  const bool in_place = random.chance(3);
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(n, side);
    if (in_place) y.copy_from(x.data());
    table.unary(ops.data(), count, in_place ? y.data() : x.data(), y.data(), n);
    c.same("y", expected, y);
  });
}

float plain_binary(Case& c, int32_t code, float a, float b) {
  switch (code) {
    case BINARY_ADD:
      return a + b;
    case BINARY_SUB:
      return a - b;
    case BINARY_MUL:
      return a * b;
    case BINARY_DIV:
      return a / b;
    case BINARY_MIN:
      return isnan(a) || a < b ? a : b;
    case BINARY_MAX:
      return isnan(a) || a > b ? a : b;
    case BINARY_PRELU:
      return a < 0.0f ? a * b : a;
    default: {
      float y;
      c.scalar().binary(code, &a, 1, &b, 1, &y, 1);
      return y;
    }
  }
}

struct Operand {
  Operand(Random& random, int64_t rows, int64_t n)
      : stride(random.chance(4) ? 0 : 1),
        row(random.chance(4) ? 0 : (stride == 0 ? 1 : n) + random.between(0, 2)),
        values((rows - 1) * row + (stride == 0 ? 1 : n), random.side()) {
    random.fill(values, 3.0f, 5);
  }
  float at(int64_t r, int64_t i) const { return values[r * row + i * stride]; }

  int64_t stride, row;
  Guarded<float> values;
};

void binary_rows(Case& c) {
  Random& random = c.random;
  const int32_t code = static_cast<int32_t>(BINARY_ADD + c.index() % BINARY_PRELU);
  const int64_t rows = random.between(1, 5), n = random.size(70);
  const Operand a(random, rows, n), b(random, rows, n);
  const Guarded<float> expected(rows * n, Against::END);
  for (int64_t i = 0; i < rows * n; ++i) {
    expected[i] = plain_binary(c, code, a.at(i / n, i % n), b.at(i / n, i % n));
  }
  c.describe("code %d rows %d n %d strides %d %d rows %d %d", code, static_cast<int>(rows),
             static_cast<int>(n), static_cast<int>(a.stride), static_cast<int>(b.stride),
             static_cast<int>(a.row), static_cast<int>(b.row));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> y(rows * n, side);
    const BinaryArgs args = {a.values.data(), b.values.data(), y.data(), rows,    n,
                             a.row,           a.stride,        b.row,    b.stride};
    table.binary_rows(code, &args);
    c.same("y", expected, y);
    for (int64_t r = 0; r < rows; ++r) {
      table.binary(code, a.values.data() + r * a.row, a.stride, b.values.data() + r * b.row,
                   b.stride, y.data() + r * n, n);
    }
    c.same("y of binary", expected, y);
  });
}

struct CodeOperand {
  CodeOperand(Random& random, int64_t rows, int64_t n)
      : stride(random.chance(4) ? 0 : 1),
        row(random.chance(4) ? 0 : (stride == 0 ? 1 : n) + random.between(0, 2)),
        is_signed(random.chance(2)),
        zero_point(
            static_cast<int32_t>(is_signed ? random.between(-128, 127) : random.between(0, 255))),
        scale(random.chance(3) ? 0.0625f : random.uniform(0.001f, 0.5f)),
        codes((rows - 1) * row + (stride == 0 ? 1 : n), random.side()) {
    random.fill_codes(codes);
  }
  float at(int64_t r, int64_t i) const {
    const uint8_t code = codes[r * row + i * stride];
    const int32_t value = is_signed ? static_cast<int8_t>(code) : code;
    return static_cast<float>(value - zero_point) * scale;
  }

  int64_t stride, row;
  bool is_signed;
  int32_t zero_point;
  float scale;
  Guarded<uint8_t> codes;
};

void qbinary_rows(Case& c) {
  Random& random = c.random;
  const int32_t code = random.chance(2) ? BINARY_ADD : BINARY_MUL;
  const int64_t rows = random.between(1, 5), n = random.size(70);
  const CodeOperand a(random, rows, n), b(random, rows, n);
  QBinaryArgs args{};
  args.a = a.codes.data(), args.b = b.codes.data();
  args.rows = rows, args.n = n;
  args.a_row = a.row, args.a_stride = a.stride, args.b_row = b.row, args.b_stride = b.stride;
  args.a_signed = a.is_signed, args.b_signed = b.is_signed, args.y_signed = random.chance(2);
  const int32_t low = args.y_signed ? -128 : 0;
  args.a_zero_point = a.zero_point, args.b_zero_point = b.zero_point;
  args.y_zero_point = static_cast<int32_t>(random.between(low, low + 255));
  args.a_scale = a.scale, args.b_scale = b.scale;
  args.y_scale = random.chance(3) ? 0.125f : random.uniform(0.001f, 0.5f);
  const Guarded<uint8_t> expected(rows * n, Against::END);
  for (int64_t i = 0; i < rows * n; ++i) {
    const float p = a.at(i / n, i % n), q = b.at(i / n, i % n);
    const float result = code == BINARY_ADD ? p + q : p * q;
    expected[i] =
        static_cast<uint8_t>(plain_code(result / args.y_scale, args.y_zero_point, low, low + 255));
  }
  c.describe("code %d rows %d n %d", code, static_cast<int>(rows), static_cast<int>(n));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> y(rows * n, side);
    args.y = y.data();
    table.qbinary_rows(code, &args);
    c.same("y", expected, y);
  });
}

void look_up(Case& c) {
  Random& random = c.random;
  LookUpArgs args{};
  args.rows = random.between(1, 5), args.n = random.size(150);
  args.x_row = random.chance(4) ? 0 : args.n + random.between(0, 3);
  args.y_row = args.n + random.between(0, 3);
  const Guarded<uint8_t> x((args.rows - 1) * args.x_row + args.n, random.side());
  Guarded<uint8_t> table(256, random.side());
  random.fill_codes(x);
  random.fill_codes(table);
  args.x = x.data(), args.table = table.data();
  const int64_t size = (args.rows - 1) * args.y_row + args.n;
  const Guarded<uint8_t> expected(size, Against::END);
  for (int64_t i = 0; i < size; ++i) expected[i] = 99;
  for (int64_t i = 0; i < args.rows * args.n; ++i) {
    const int64_t row = i / args.n, at = i % args.n;
    expected[row * args.y_row + at] = table[x[row * args.x_row + at]];
  }
  c.describe("rows %d n %d apart %d and %d", static_cast<int>(args.rows), static_cast<int>(args.n),
             static_cast<int>(args.x_row), static_cast<int>(args.y_row));
  const Against side = random.side();
  c.each_table([&](const Kernels& kernels) {
    const Guarded<uint8_t> y(size, side);
    for (int64_t i = 0; i < size; ++i) y[i] = 99;
    args.y = y.data();
    kernels.look_up(&args);
    c.same("y", expected, y);
  });
}

}  // namespace

std::vector<Check> elementwise_checks() {
  return {{"unary", unary, 32 * 20, {LP_ENTRY(unary)}},
          {"binary_rows", binary_rows, 8 * 40, {LP_ENTRY(binary_rows), LP_ENTRY(binary)}},
          {"qbinary_rows", qbinary_rows, 200, {LP_ENTRY(qbinary_rows)}},
          {"look_up", look_up, 200, {LP_ENTRY(look_up)}}};
}

}  // namespace lp::check
