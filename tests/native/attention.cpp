// attention.cpp: the kernels of attention in codes.
#include <math.h>

#include "case.h"
#include "plain.h"

namespace lp::check {
namespace {

struct FloatRows {
  FloatRows(Case& c, int odd)
      : rows(c.random.size(20)),
        n(c.random.size(150)),
        stride(n + c.random.between(0, 5)),
        x((rows - 1) * stride + n, c.random.side()) {
    c.random.fill(x, 3.0f, odd);
    c.describe("rows %d n %d stride %d", static_cast<int>(rows), static_cast<int>(n),
               static_cast<int>(stride));
  }
  int64_t rows, n, stride;
  Guarded<float> x;
};

void largest(Case& c) {
  const FloatRows drawn(c, c.random.chance(3) ? 40 : 0);
  uint32_t most = 0;
  for (int64_t row = 0; row < drawn.rows; ++row) {
    for (int64_t i = 0; i < drawn.n; ++i) {
      uint32_t bits;
      memcpy(&bits, &drawn.x[row * drawn.stride + i], sizeof(bits));
      bits &= 0x7FFFFFFFu;
      most = bits > most ? bits : most;
    }
  }
  const Guarded<float> expected(1, Against::END), found(1, Against::END);
  memcpy(expected.data(), &most, sizeof(most));
  c.each_table([&](const Kernels& table) {
    found[0] = table.largest_of_rows(drawn.x.data(), drawn.stride, drawn.rows, drawn.n);
    c.same("largest", expected, found);
  });
}

void quantize_rows(Case& c) {
  Random& random = c.random;
  const FloatRows drawn(c, 0);
  const int64_t q_stride = drawn.n + random.between(0, 9);
  const float scale = random.one_of<float>({3.0f / 127.0f, 0.01f, 1.0f, 0.02343f});
  const int64_t bytes = (drawn.rows - 1) * q_stride + drawn.n;
  const Guarded<int8_t> expected(bytes, Against::END);
  const Guarded<int32_t> expected_sums(drawn.rows, Against::END);
  memset(expected.data(), 0, static_cast<size_t>(bytes));
  for (int64_t row = 0; row < drawn.rows; ++row) {
    expected_sums[row] = 0;
    for (int64_t i = 0; i < drawn.n; ++i) {
      const float steps = rintf(drawn.x[row * drawn.stride + i] / scale);
      const float kept = steps < -127.0f ? -127.0f : steps > 127.0f ? 127.0f : steps;
      expected[row * q_stride + i] = static_cast<int8_t>(kept);
      expected_sums[row] += static_cast<int32_t>(kept);
    }
  }
  const bool wants_sums = random.chance(2);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<int8_t> q(bytes, side);
    const Guarded<int32_t> sums(drawn.rows, side);
    memset(q.data(), 0, static_cast<size_t>(bytes));
    const CodeRowsArgs args = {
        drawn.x.data(), drawn.stride, drawn.rows, drawn.n,
        scale,          q.data(),     q_stride,   wants_sums ? sums.data() : nullptr};
    table.quantize_code_rows(&args);
    c.same("q", expected, q);
    if (wants_sums) c.same("sums", expected_sums, sums);
  });
}

// 255 * exp(d): numerics/reference.py, weight_codes.
uint8_t weight_code(float d) {
  const float near = d > -8.0f ? d : -8.0f, magic = 12582912.0f;
  const float n = fmaf(near, 1.44269504f, magic) - magic, f = fmaf(near, 1.44269504f, -n);
  float p = 0x1.c23368p+3f;
  for (const float coefficient : {0x1.eeed3ep+5f, 0x1.619028p+7f, 0x1.fdf69cp+7f}) {
    p = fmaf(p, f, coefficient);
  }
  return static_cast<uint8_t>(rintf(ldexpf(p, static_cast<int>(n))));
}

void softmax(Case& c) {
  Random& random = c.random;
  const int64_t rows = random.size(9), n = random.size(150);
  const int64_t wide = (n + 3) / 4 * 4, q_stride = wide + random.between(0, 9);
  const Guarded<float> x(rows * n, random.side());
  random.fill(x, 20.0f, 0);
  for (int64_t i = 0; i < x.size(); ++i) {
    if (random.chance(9)) x[i] = -INFINITY;
  }
  const int64_t hidden = random.between(0, 2 * rows);  // a row without a score, now and then
  for (int64_t i = 0; hidden < rows && i < n; ++i) {
    x[hidden * n + i] = random.chance(n > 1 ? 2 : 1) ? -INFINITY : x[hidden * n + i];
  }
  if (hidden < rows && random.chance(3)) x[hidden * n] = NAN;
  c.describe("rows %d n %d hidden %d", static_cast<int>(rows), static_cast<int>(n),
             static_cast<int>(hidden));
  const int64_t bytes = (rows - 1) * q_stride + wide;
  const Guarded<uint8_t> expected(bytes, Against::END);
  const Guarded<float> expected_inverse(rows, Against::END);
  memset(expected.data(), 0, static_cast<size_t>(bytes));
  for (int64_t row = 0; row < rows; ++row) {
    float most = -INFINITY;
    for (int64_t i = 0; i < n; ++i) {
      const float score = x[row * n + i];
      most = isnan(most) || most > score ? most : score;
    }
    expected_inverse[row] = most == -INFINITY ? 0.0f : NAN;
    if (!isfinite(most)) continue;
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      expected[row * q_stride + i] = weight_code(x[row * n + i] - most);
      sum += expected[row * q_stride + i];
    }
    expected_inverse[row] = 1.0f / static_cast<float>(sum);
  }
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> q(bytes, side);
    const Guarded<float> inverse(rows, side);
    memset(q.data(), 0, static_cast<size_t>(bytes));
    table.softmax_codes(x.data(), rows, n, q.data(), q_stride, inverse.data());
    c.same("q", expected, q);
    c.same("inverse", expected_inverse, inverse);
  });
}

}  // namespace

std::vector<Check> attention_checks() {
  return {{"largest_of_rows", largest, 80, {LP_ENTRY(largest_of_rows)}},
          {"quantize_code_rows", quantize_rows, 120, {LP_ENTRY(quantize_code_rows)}},
          {"softmax_codes", softmax, 120, {LP_ENTRY(softmax_codes)}}};
}

}  // namespace lp::check
