// convert_table.cpp: Kernels::convert, every entry: codes against plain loops, casts against the
// scalar table (which Python compares with the reference for every pattern), one scale or one per
// element, stored through the caches or past them.
#include <vector>

#include "case.h"
#include "plain.h"

namespace lp::check {
namespace {

struct Form {
  int source, target;  // bytes of an element
};
constexpr Form FORMS[CONVERSION_COUNT] = {
    {4, 2}, {2, 4}, {4, 2}, {2, 4}, {4, 4}, {4, 1}, {1, 4}, {4, 1}, {1, 4},  // casts
    {4, 1}, {4, 1}, {4, 2}, {4, 2}, {1, 4}, {1, 4}, {2, 4}, {2, 4},          // (de)quantise
    {4, 1}, {4, 1}, {4, 2}, {4, 2},                                          // requantise
};
constexpr int32_t LOWEST[] = {0, -128, 0, -32768};
constexpr int32_t HIGHEST[] = {255, 127, 65535, 32767};

template <class T>
T element(const void* p, int64_t i) {
  T value;
  memcpy(&value, static_cast<const uint8_t*>(p) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

int32_t code_at(const void* p, int64_t i, int type) {
  return type == 0   ? element<uint8_t>(p, i)
         : type == 1 ? element<int8_t>(p, i)
         : type == 2 ? element<uint16_t>(p, i)
                     : element<int16_t>(p, i);
}

void plain(int code, const ConvertArgs& args, const Kernels& scalar) {
  if (code < QUANTIZE_U8) return scalar.convert[code](&args);
  const int type = (code - QUANTIZE_U8) % 4;
  for (int64_t i = 0; i < args.n; ++i) {
    const float scale = args.scale[args.each ? i : 0];
    const int32_t zero_point = args.zero_point[args.each ? i : 0];
    if (code >= DEQUANTIZE_U8 && code < REQUANTIZE_U8) {
      const float real = static_cast<float>(code_at(args.x, i, type) - zero_point) * scale;
      memcpy(static_cast<float*>(args.y) + i, &real, sizeof real);
      continue;
    }
    const float steps = code < DEQUANTIZE_U8
                            ? element<float>(args.x, i) / scale
                            : static_cast<float>(element<int32_t>(args.x, i)) * scale;
    const int32_t q = plain_code(steps, zero_point, LOWEST[type], HIGHEST[type]);
    if (type < 2) {
      static_cast<uint8_t*>(args.y)[i] = static_cast<uint8_t>(q);
    } else {
      const uint16_t word = static_cast<uint16_t>(q);
      memcpy(static_cast<uint16_t*>(args.y) + i, &word, sizeof word);
    }
  }
}

void convert(Case& c) {
  Random& random = c.random;
  const int code = static_cast<int>(c.index() % CONVERSION_COUNT);
  const Form form = FORMS[code];
  const int64_t n = random.chance(8) ? random.between(200, 2000) : random.size(300);
  const bool each = code >= QUANTIZE_U8 && random.chance(2);
  const int type = code < QUANTIZE_U8 ? 0 : (code - QUANTIZE_U8) % 4;
  const Guarded<float> scale(each ? n : 1, random.side());
  const Guarded<int32_t> zero_point(each ? n : 1, random.side());
  for (int64_t i = 0; i < scale.size(); ++i) {
    scale[i] = random.chance(3) ? ldexpf(1.0f, static_cast<int>(random.between(-120, 120)))
                                : random.uniform(1e-3f, 2.0f);
    zero_point[i] = static_cast<int32_t>(random.between(LOWEST[type], HIGHEST[type]));
  }
  const Guarded<uint8_t> x(n * form.source, random.side());
  const bool floats = form.source == 4 && code < REQUANTIZE_U8;
  for (int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(random.bits());
  for (int64_t i = 0; floats && i < n; ++i) {
    const float s = scale[each ? i : 0];
    const float ties = (static_cast<float>(random.between(-300, 300)) + 0.5f) * s;
    const float value = random.chance(2)   ? random.any_bits()
                        : random.chance(3) ? random.special()
                                           : ties;
    memcpy(x.data() + 4 * i, &value, sizeof value);
  }
  const int32_t saturate = random.chance(2);
  const Guarded<uint8_t> expected(n * form.target, Against::END);
  ConvertArgs args = {x.data(), expected.data(), n, scale.data(), zero_point.data(),
                      each,     saturate,        0};
  plain(code, args, c.scalar());
  args.streaming = random.chance(2);
  c.describe("conversion %d n %d each %d saturate %d streaming %d", code, static_cast<int>(n), each,
             saturate, args.streaming);
  const Against side = random.side();
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> y(n * form.target, side);
    args.y = y.data();
    table.convert[code](&args);
    if (form.target == 4) {
      c.same_floats("y", reinterpret_cast<const float*>(expected.data()),
                    reinterpret_cast<const float*>(y.data()), n);
    } else {
      c.same("y", expected, y);
    }
  });
}

}  // namespace

std::vector<Check> convert_table_checks() {
  std::vector<size_t> entries;
  for (size_t i = 0; i < CONVERSION_COUNT; ++i) {
    entries.push_back(LP_ENTRY(convert) + i * sizeof(Convert));
  }
  return {{"convert", convert, CONVERSION_COUNT * 100, entries}};
}

}  // namespace lp::check
