// conversions.cpp: codes, bf16, f16, tf32, ranges and histograms.
#include "case.h"
#include "plain.h"

namespace lp::check {
namespace {

// Long enough for whole vectors, short enough for tails; sometimes empty.
int64_t draw_count(Random& random) {
  if (random.chance(20)) return 0;
  return random.chance(10) ? random.between(200, 3000) : random.size(70);
}

template <class T>
using Quantize = void (*)(const float*, T*, int64_t, float, int32_t);
template <class T>
using Dequantize = void (*)(const T*, float*, int64_t, float, int32_t);
template <class T>
using Requantize = void (*)(const int32_t*, T*, int64_t, float, int32_t);

template <class T>
constexpr int32_t LOW = T(-1) < 0 ? -128 : 0;
template <class T>
constexpr int32_t HIGH = T(-1) < 0 ? 127 : 255;

// Half of the scales are powers of two: then x / scale can be made a tie exactly.
float draw_scale(Random& random) {
  if (random.chance(12)) return random.one_of<float>({0x1p-149f, 0x1p-126f, 3.4e38f, 1e-30f});
  return random.chance(2) ? ldexpf(1.0f, static_cast<int>(random.between(-12, 4)))
                          : random.uniform(1e-4f, 2.0f);
}

template <class T, Quantize<T> Kernels::* entry>
void quantize(Case& c) {
  Random& random = c.random;
  const int64_t n = draw_count(random);
  const float scale = draw_scale(random);
  const int32_t zero_point = static_cast<int32_t>(random.between(LOW<T>, HIGH<T>));
  const Guarded<float> x(n, random.side());
  for (int64_t i = 0; i < n; ++i) {
    const float steps = static_cast<float>(random.between(-300, 300));
    x[i] = random.chance(3) ? (steps + 0.5f) * scale : random.value(200.0f * scale, 8);
    if (random.chance(8)) x[i] = nextafterf(x[i], random.chance(2) ? INFINITY : -INFINITY);
  }
  const Guarded<T> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) {
    expected[i] = static_cast<T>(plain_code(x[i] / scale, zero_point, LOW<T>, HIGH<T>));
  }
  c.describe("n %d scale %a zero point %d", static_cast<int>(n), static_cast<double>(scale),
             zero_point);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<T> q(n, side);
    (table.*entry)(x.data(), q.data(), n, scale, zero_point);
    c.same("q", expected, q);
  });
}

template <class T, Dequantize<T> Kernels::* entry>
void dequantize(Case& c) {
  Random& random = c.random;
  const int64_t n = draw_count(random);
  const float scale = draw_scale(random);
  const int32_t zero_point = static_cast<int32_t>(random.between(LOW<T>, HIGH<T>));
  const Guarded<T> q(n, random.side());
  random.fill_codes(q);
  const Guarded<float> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) expected[i] = static_cast<float>(q[i] - zero_point) * scale;
  c.describe("n %d scale %a zero point %d", static_cast<int>(n), static_cast<double>(scale),
             zero_point);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<float> x(n, side);
    (table.*entry)(q.data(), x.data(), n, scale, zero_point);
    c.same("x", expected, x);
  });
}

template <class T, Requantize<T> Kernels::* entry>
void requantize(Case& c) {
  Random& random = c.random;
  const int64_t n = draw_count(random);
  const float multiplier = random.chance(3) ? ldexpf(1.0f, -static_cast<int>(random.between(1, 24)))
                           : random.chance(12) ? random.one_of<float>({1e30f, 0.0f, 1e-40f, 3e38f})
                                               : random.uniform(0.0f, 0.01f);
  const int32_t zero_point = static_cast<int32_t>(random.between(LOW<T>, HIGH<T>));
  const Guarded<int32_t> acc(n, random.side());
  for (int64_t i = 0; i < n; ++i) {
    acc[i] = random.chance(6)   ? random.one_of<int32_t>({INT32_MIN, INT32_MAX, 0, -1, 16777217})
             : random.chance(3) ? static_cast<int32_t>(random.bits())
                                : static_cast<int32_t>(random.between(-70000, 70000));
  }
  const Guarded<T> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) {
    const float steps = static_cast<float>(acc[i]) * multiplier;
    expected[i] = static_cast<T>(plain_code(steps, zero_point, LOW<T>, HIGH<T>));
  }
  c.describe("n %d multiplier %a zero point %d", static_cast<int>(n),
             static_cast<double>(multiplier), zero_point);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<T> q(n, side);
    (table.*entry)(acc.data(), q.data(), n, multiplier, zero_point);
    c.same("q", expected, q);
  });
}

// ------------------------------------------------------------------------------------- formats

// Any float; half of them a tie, or next to one, of a format that keeps 23 - `dropped` bits.
void fill_near_ties(Random& random, const Guarded<float>& x, int dropped) {
  for (int64_t i = 0; i < x.size(); ++i) {
    uint32_t bits = bits_of(random.chance(4) ? random.special() : random.any_bits());
    if (random.chance(3)) bits = bits_of(random.value(70000.0f, 0));
    if (random.chance(5)) bits = bits_of(random.value(1e-4f, 0));
    if (random.chance(2)) {
      const uint32_t mask = (1u << dropped) - 1u;
      bits = (bits & ~mask) | (1u << (dropped - 1));
      bits += static_cast<uint32_t>(random.between(-1, 1));
    }
    x[i] = float_of(bits);
  }
}

template <class From, class To>
using Convert = void (*)(const From*, To*, int64_t);

// Compared bit for bit, NaN too.
template <class From, class To, Convert<From, To> Kernels::* entry, class One>
void convert(Case& c, const Guarded<From>& x, One one) {
  const int64_t n = x.size();
  const Guarded<To> expected(n, Against::END);
  for (int64_t i = 0; i < n; ++i) {
    const To y = one(x[i]);
    memcpy(&expected[i], &y, sizeof(To));
  }
  c.describe("n %d", static_cast<int>(n));
  const Against side = c.random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<To> y(n, side);
    (table.*entry)(x.data(), y.data(), n);
    c.same_bytes("y", expected.data(), y.data(), n, sizeof(To));
  });
}

void f32_to_bf16(Case& c) {
  const Guarded<float> x(draw_count(c.random), c.random.side());
  fill_near_ties(c.random, x, 16);
  convert<float, uint16_t, &Kernels::f32_to_bf16>(c, x, plain_bf16);
}
void f32_to_f16(Case& c) {
  const Guarded<float> x(draw_count(c.random), c.random.side());
  fill_near_ties(c.random, x, static_cast<int>(c.random.between(13, 23)));
  convert<float, uint16_t, &Kernels::f32_to_f16>(c, x, plain_f16);
}
void f32_to_tf32(Case& c) {
  const Guarded<float> x(draw_count(c.random), c.random.side());
  fill_near_ties(c.random, x, 13);
  convert<float, float, &Kernels::f32_to_tf32>(c, x, plain_tf32);
}
// All 2^16, once; then short arrays.
Guarded<uint16_t> draw_halves(Case& c) {
  return Guarded<uint16_t>(c.index() == 0 ? 65536 : draw_count(c.random), c.random.side());
}
void bf16_to_f32(Case& c) {
  const Guarded<uint16_t> x = draw_halves(c);
  for (int64_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<uint16_t>(c.index() == 0 ? static_cast<uint64_t>(i) : c.random.bits());
  }
  convert<uint16_t, float, &Kernels::bf16_to_f32>(c, x, plain_from_bf16);
}
void f16_to_f32(Case& c) {
  const Guarded<uint16_t> x = draw_halves(c);
  for (int64_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<uint16_t>(c.index() == 0 ? static_cast<uint64_t>(i) : c.random.bits());
  }
  convert<uint16_t, float, &Kernels::f16_to_f32>(c, x, plain_from_f16);
}

// ---------------------------------------------------------------------------------- statistics

void range(Case& c) {
  Random& random = c.random;
  const Guarded<float> x(draw_count(random), random.side());
  random.fill(x, random.chance(3) ? 0x1p-140f : 10.0f, random.chance(2) ? 3 : 40);
  const float start_low = random.chance(2) ? INFINITY : random.value(5.0f, 0);
  const float start_high = random.chance(2) ? -INFINITY : random.value(5.0f, 0);
  float low = start_low, high = start_high;
  int64_t nonfinite = 7;
  for (int64_t i = 0; i < x.size(); ++i) {
    if (!isfinite(x[i])) {
      ++nonfinite;
    } else {
      if (x[i] < low) low = x[i];
      if (x[i] > high) high = x[i];
    }
  }
  const float expected[2] = {low + 0.0f, high + 0.0f};
  c.describe("n %d", static_cast<int>(x.size()));
  c.each_table([&](const Kernels& table) {
    float actual[2] = {start_low, start_high};
    int64_t count = 7;
    table.range(x.data(), x.size(), &actual[0], &actual[1], &count);
    c.same_floats("range", expected, actual, 2);
    c.same_bytes("nonfinite", &nonfinite, &count, 1, 8);
  });
}

void histogram(Case& c) {
  Random& random = c.random;
  const int64_t bins = random.chance(3) ? random.between(2049, 5000) : random.between(1, 2048);
  const int exponent = static_cast<int>(random.between(-8, 8));
  const int64_t origin = random.chance(2) ? 0 : -random.between(1, bins);
  const float inverse_width = ldexpf(1.0f, exponent);
  const Guarded<float> x(random.chance(4) ? random.between(4096, 9000) : draw_count(random),
                         random.side());
  const bool zeros = random.chance(3);
  for (int64_t i = 0; i < x.size(); ++i) {
    const float steps =
        random.uniform(static_cast<float>(origin) - 2.0f, static_cast<float>(origin + bins) + 2.0f);
    x[i] = zeros && random.chance(2) ? 0.0f
           : random.chance(10)       ? random.special()
                                     : (random.chance(4) ? floorf(steps) : steps) / inverse_width;
  }
  const Guarded<int64_t> expected(bins, Against::END);
  for (int64_t i = 0; i < bins; ++i) expected[i] = i;
  for (int64_t i = 0; i < x.size(); ++i) {
    if (!isfinite(x[i])) continue;
    double bin = floor(static_cast<double>(x[i]) * static_cast<double>(inverse_width));
    bin -= static_cast<double>(origin);
    bin = bin < 0.0                             ? 0.0
          : bin > static_cast<double>(bins - 1) ? static_cast<double>(bins - 1)
                                                : bin;
    ++expected[static_cast<int64_t>(bin)];
  }
  c.describe("n %d bins %d origin %d inverse width 2^%d", static_cast<int>(x.size()),
             static_cast<int>(bins), static_cast<int>(origin), exponent);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<int64_t> counts(bins, side);
    for (int64_t i = 0; i < bins; ++i) counts[i] = i;
    table.histogram(x.data(), x.size(), inverse_width, origin, bins, counts.data());
    c.same("counts", expected, counts);
  });
}

}  // namespace

std::vector<Check> conversion_checks() {
  using K = Kernels;
  return {
      {"quantize_u8", quantize<uint8_t, &K::quantize_u8>, 300, {LP_ENTRY(quantize_u8)}},
      {"quantize_s8", quantize<int8_t, &K::quantize_s8>, 300, {LP_ENTRY(quantize_s8)}},
      {"dequantize_u8", dequantize<uint8_t, &K::dequantize_u8>, 150, {LP_ENTRY(dequantize_u8)}},
      {"dequantize_s8", dequantize<int8_t, &K::dequantize_s8>, 150, {LP_ENTRY(dequantize_s8)}},
      {"requantize_u8", requantize<uint8_t, &K::requantize_u8>, 300, {LP_ENTRY(requantize_u8)}},
      {"requantize_s8", requantize<int8_t, &K::requantize_s8>, 300, {LP_ENTRY(requantize_s8)}},
      {"f32_to_bf16", f32_to_bf16, 300, {LP_ENTRY(f32_to_bf16)}},
      {"bf16_to_f32", bf16_to_f32, 50, {LP_ENTRY(bf16_to_f32)}},
      {"f32_to_f16", f32_to_f16, 300, {LP_ENTRY(f32_to_f16)}},
      {"f16_to_f32", f16_to_f32, 50, {LP_ENTRY(f16_to_f32)}},
      {"f32_to_tf32", f32_to_tf32, 200, {LP_ENTRY(f32_to_tf32)}},
      {"range", range, 200, {LP_ENTRY(range)}},
      {"histogram", histogram, 200, {LP_ENTRY(histogram)}},
  };
}

}  // namespace lp::check
