// library.cpp: what stands between the kernels and lowprec.numerics: packing on the spot, codes of
// 16 and 32 bits, the observer. Nothing may be read past the end of a caller's array here.
#include <limits>

#include "case.h"
#include "conversions.h"
#include "matrix_product.h"
#include "observer.h"
#include "plain.h"

namespace lp::check {
namespace {

template <class A, class B>
void matmul_codes(Case& c) {
  Random& random = c.random;
  constexpr bool a_signed = static_cast<A>(-1) < 0, b_signed = static_cast<B>(-1) < 0;
  const int64_t m = random.size(40), k = random.between(0, 70), n = random.size(100);
  const int64_t stride = k + (random.chance(2) ? 0 : random.between(1, 5));
  const Guarded<A> a((m - 1) * stride + k, random.side());
  const Guarded<B> b(k * n, random.side());
  random.fill_codes(a);
  random.fill_codes(b);
  const Guarded<int32_t> bias(n, random.side()), rows(m, random.side()), columns(n, random.side());
  const auto fill = [&](const Guarded<int32_t>& values, int64_t low, int64_t high) {
    for (int64_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<int32_t>(random.between(low, high));
    }
  };
  const int32_t zero_point = static_cast<int32_t>(random.between(0, 100));
  const bool by_row = random.chance(3), by_column = random.chance(2);
  fill(bias, -9999, 9999);
  fill(rows, a_signed ? -128 : 0, a_signed ? 127 : 255);
  fill(columns, b_signed ? -128 : 0, b_signed ? 127 : 255);
  const Guarded<int32_t> expected(m * n, Against::END);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      int32_t acc = bias[j];
      for (int64_t d = 0; d < k; ++d) {
        acc += (a[i * stride + d] - (by_row ? rows[i] : zero_point)) *
               (b[d * n + j] - (by_column ? columns[j] : 0));
      }
      expected[i * n + j] = acc;
    }
  }
  CodeOperands operands{};
  operands.a = a.data(), operands.b = b.data();
  operands.a_signed = a_signed, operands.b_signed = b_signed;
  operands.m = m, operands.k = k, operands.n = n, operands.a_stride = stride;
  operands.a_zero_point = zero_point;
  operands.row_zero_points = by_row ? rows.data() : nullptr;
  operands.column_zero_points = by_column ? columns.data() : nullptr;
  c.describe("m %d k %d n %d stride %d zero points %d rows %d columns %d", static_cast<int>(m),
             static_cast<int>(k), static_cast<int>(n), static_cast<int>(stride), zero_point, by_row,
             by_column);
  Epilogue epilogue{};
  epilogue.kind = OUT_S32;
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<int32_t> out(m * n, side);
    matmul_int8(&table, operands, bias.data(), nullptr, nullptr, epilogue, out.data());
    c.same("out", expected, out);
  });
}

void matmul_f32(Case& c) {
  Random& random = c.random;
  const int64_t m = random.size(40), k = random.between(0, 70), n = random.size(100);
  const Guarded<float> a(m * k, random.side()), b(k * n, random.side());
  random.fill(a, 2.0f, 0);
  random.fill(b, 2.0f, 0);
  Epilogue epilogue{};
  epilogue.kind = OUT_F32;
  const Guarded<float> expected(m * n, Against::END);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float acc = 0.0f;
      for (int64_t d = 0; d < k; ++d) acc = fmaf(a[i * k + d], b[d * n + j], acc);
      expected[i * n + j] = acc + 0.0f;
    }
  }
  c.describe("m %d k %d n %d", static_cast<int>(m), static_cast<int>(k), static_cast<int>(n));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> out(m * n, side);
    lp::matmul_f32(&table, a.data(), b.data(), m, k, n, nullptr, epilogue, out.data());
    c.same("out", expected, out);
  });
}

template <class T>
void quantize_as(Case& c, CodeType type) {
  Random& random = c.random;
  const int64_t rows = random.between(1, 4), n = random.size(40);
  const Guarded<float> x(rows * n, random.side()), scales(rows, random.side());
  const Guarded<int32_t> zero_points(rows, random.side());
  random.fill(x, 300.0f, 8);
  const double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  const Guarded<T> expected(rows * n, Against::END);
  for (int64_t r = 0; r < rows; ++r) {
    scales[r] = random.chance(2) ? 0.5f : random.uniform(0.01f, 2.0f);
    zero_points[r] = sizeof(T) == 4 ? 0
                                    : static_cast<int32_t>(random.between(
                                          static_cast<int64_t>(low), static_cast<int64_t>(high)));
    for (int64_t i = r * n; i < (r + 1) * n; ++i) {
      const double code = nearbyint(static_cast<double>(x[i] / scales[r])) + zero_points[r];
      expected[i] = !(code > low)  ? std::numeric_limits<T>::min()
                    : code >= high ? std::numeric_limits<T>::max()
                                   : static_cast<T>(code);
    }
  }
  c.describe("code type %d rows %d n %d", type, static_cast<int>(rows), static_cast<int>(n));
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<T> q(rows * n, side);
    constexpr int64_t item = sizeof(T);
    const int64_t shape[] = {rows, n}, wide[] = {4 * n, 4}, narrow[] = {item * n, item};
    quantize(&table, FLOAT_F32, {x.data(), 4, 2, shape, wide}, type,
             {q.data(), static_cast<int>(item), 2, shape, narrow},
             {Granularity::PER_CHANNEL, scales.data(), zero_points.data(), 1, rows, n, 1});
    c.same("q", expected, q);
  });
}

void quantize_codes(Case& c) {
  switch (c.index() % 5) {
    case 0:
      return quantize_as<uint8_t>(c, CODE_U8);
    case 1:
      return quantize_as<int8_t>(c, CODE_S8);
    case 2:
      return quantize_as<uint16_t>(c, CODE_U16);
    case 3:
      return quantize_as<int16_t>(c, CODE_S16);
    default:
      return quantize_as<int32_t>(c, CODE_S32);
  }
}

// Halves seen by two observers and merged give the counts of one that saw everything.
void observer(Case& c) {
  Random& random = c.random;
  const int64_t bins = random.between(16, 300), n = random.size(600);
  const Guarded<float> x(n, random.side());
  random.fill(x, random.one_of<float>({1e-3f, 1.0f, 1e6f}), 12);
  const int64_t cut = random.between(0, n);
  TensorObserver whole(bins, &c.scalar());
  whole.observe(x.data(), n);
  std::vector<int64_t> expected(static_cast<size_t>(bins)), actual(expected);
  whole.counts(expected.data());
  c.describe("bins %d n %d cut %d", static_cast<int>(bins), static_cast<int>(n),
             static_cast<int>(cut));
  c.each_table([&](const Kernels& table) {
    TensorObserver first(bins, &table), second(bins, &table);
    first.observe(x.data(), cut);
    second.observe(x.data() + cut, n - cut);
    first.merge(second);
    first.counts(actual.data());
    c.same_bytes("counts", expected.data(), actual.data(), bins, 8);
    const int64_t numbers[] = {whole.origin(), whole.exponent(), whole.count(), whole.nonfinite()};
    const int64_t found[] = {first.origin(), first.exponent(), first.count(), first.nonfinite()};
    c.same_bytes("origin, exponent, count, nonfinite", numbers, found, 4, 8);
  });
}

}  // namespace

std::vector<Check> library_checks() {
  return {{"matmul_u8s8", matmul_codes<uint8_t, int8_t>, 60, {}},
          {"matmul_u8u8", matmul_codes<uint8_t, uint8_t>, 40, {}},
          {"matmul_s8s8", matmul_codes<int8_t, int8_t>, 40, {}},
          {"matmul_s8u8", matmul_codes<int8_t, uint8_t>, 40, {}},
          {"matmul_f32", matmul_f32, 60, {}},
          {"quantize", quantize_codes, 100, {}},
          {"observer", observer, 100, {}}};
}

}  // namespace lp::check
