// conversions.cpp: see conversions.h. Codes of 32 bits and s64 accumulators are rare: one loop
// each.
#include "conversions.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "float_state.h"
#include "sources.h"
#include "threads.h"

namespace lp {
namespace {

// What one thread should at least have to do.
constexpr int64_t GRAIN = 16384;

// Streaming stores pay where source and result together leave the last-level cache no room.
int64_t streaming_bytes() {
  static const int64_t bytes = [] {
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return (cache > 0 ? int64_t{cache} : int64_t{32} << 20) / 2;
  }();
  return bytes;
}

int code_item(CodeType type) {
  return type == CODE_S32 ? 4 : type == CODE_U16 || type == CODE_S16 ? 2 : 1;
}

// The conversion of `first`'s family (its u8 member) for `type`, which is not s32.
ConversionCode of_type(ConversionCode first, CodeType type) {
  return static_cast<ConversionCode>(first + (type - CODE_U8));
}

// Calls step(source, target, begin, n) for runs of [begin, end), through buffers where needed.
template <class Source, class Step>
void run_range(Source& source, const Strided& y, int64_t begin, int64_t end, const Step& step) {
  if (source.direct() && y.is_plain()) {
    step(source.run(begin, end - begin), y.at(begin), begin, end - begin);
    return;
  }
  alignas(64) uint8_t buffer[RUN * 4];
  for (; begin < end; begin += RUN) {
    const int64_t n = std::min(RUN, end - begin);
    uint8_t* target = y.is_plain() ? y.at(begin) : buffer;
    step(source.run(begin, n), target, begin, n);
    if (!y.is_plain()) y.write(begin, n, buffer);
  }
}

template <class MakeSource, class Step>
void run_all(const MakeSource& make_source, const Strided& y, const Step& step) {
  parallel_rows(y.size(), GRAIN, [&](int64_t begin, int64_t end) {
    const FloatingPointState state;
    auto source = make_source();
    run_range(source, y, begin, end, step);
  });
}

bool streams(const Strided& x, const Strided& y) {
  return y.is_plain() && x.size() * x.item() + y.size() * y.item() > streaming_bytes();
}

// Each piece of one scale ends with a fence, and begins where it may: only long ones stream.
bool streams(const Strided& x, const Strided& y, const Granularity& granularity) {
  const bool is_long = granularity.kind == Granularity::PER_TENSOR ||
                       (granularity.kind == Granularity::PER_CHANNEL && granularity.inner >= 4096);
  return is_long && streams(x, y);
}

// ---- scales ----

// Cuts a run into pieces that have one scale, or one scale per element.
class Scales {
 public:
  explicit Scales(const Granularity& g) : g_(g), period_(0) {
    const bool narrow = g.kind == Granularity::PER_CHANNEL && g.inner < MIN_ROW && g.outer > 1;
    if (!narrow) return;
    // Channels last, or nearly so: written out once, for enough elements to be worth a call.
    const int64_t once = g.depth * g.inner;
    if (once == 0) return;
    period_ = once * std::min((MIN_PERIOD + once - 1) / once, g.outer);
    scales_.resize(static_cast<size_t>(period_));
    zero_points_.resize(static_cast<size_t>(period_));
    for (int64_t i = 0; i < period_; ++i) {
      scales_[static_cast<size_t>(i)] = g.scale[i / g.inner % g.depth];
      zero_points_[static_cast<size_t>(i)] = g.zero_point[i / g.inner % g.depth];
    }
  }

  // Calls piece(offset in the run, n, scale, zero point, whether they are one per element).
  template <class Piece>
  void cut(int64_t begin, int64_t n, const Piece& piece) const {
    if (g_.kind == Granularity::PER_BLOCK && g_.inner == 1 && g_.block < MIN_BLOCK) {
      return cut_small_blocks(begin, n, piece);
    }
    for (int64_t done = 0; done < n;) {
      const int64_t at = begin + done, left = n - done;
      int64_t length = left, index = 0;
      const float* scale = g_.scale;
      const int32_t* zero_point = g_.zero_point;
      bool each = false;
      if (period_ > 0) {
        each = true;
        index = at % period_;
        length = period_ - index;
        scale = scales_.data();
        zero_point = zero_points_.data();
      } else if (g_.kind == Granularity::PER_CHANNEL) {
        index = at / g_.inner % g_.depth;
        length = g_.inner - at % g_.inner;
        if (g_.inner == 1) {  // one outer index only
          each = true;
          length = g_.depth - index;
        }
      } else if (g_.kind == Granularity::PER_BLOCK) {
        const int64_t blocks = (g_.depth + g_.block - 1) / g_.block;
        const int64_t place = at / g_.inner % g_.depth, inside = at % g_.inner;
        index = (at / (g_.depth * g_.inner) * blocks + place / g_.block) * g_.inner + inside;
        each = g_.inner > 1;
        length = each ? g_.inner - inside : std::min(g_.block - place % g_.block, g_.depth - place);
      }
      length = std::min(length, left);
      piece(done, length, scale + index, zero_point + index, each);
      done += length;
    }
  }

 private:
  // Rows of a channel shorter than this are handled channels last; so many elements at least.
  static constexpr int64_t MIN_ROW = 32, MIN_PERIOD = 1024;
  // Blocks shorter than this are not worth a call each: their scales are written out.
  static constexpr int64_t MIN_BLOCK = 16;

  template <class Piece>
  void cut_small_blocks(int64_t begin, int64_t n, const Piece& piece) const {
    alignas(64) float scales[RUN];
    alignas(64) int32_t zero_points[RUN];
    const int64_t blocks = (g_.depth + g_.block - 1) / g_.block;
    for (int64_t done = 0; done < n; done += RUN) {
      const int64_t at = begin + done, run = std::min(RUN, n - done);
      int64_t place = at % g_.depth, index = at / g_.depth * blocks + place / g_.block;
      int64_t left = g_.block - place % g_.block;
      for (int64_t i = 0; i < run; ++index, left = g_.block) {
        const int64_t length = std::min({left, g_.depth - place, run - i});
        std::fill_n(scales + i, length, g_.scale[index]);
        std::fill_n(zero_points + i, length, g_.zero_point[index]);
        i += length;
        place += length;
        if (place == g_.depth) place = 0;
      }
      piece(done, run, scales, zero_points, true);
    }
  }

  const Granularity& g_;
  int64_t period_;
  std::vector<float> scales_;
  std::vector<int32_t> zero_points_;
};

// ---- what has no kernel ----

// Exact for every code type: a double holds rint(f32) + s32 wherever the sum does not saturate.
template <class T>
T saturated(float steps, int32_t zero_point) {
  constexpr double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  const double code = std::nearbyint(static_cast<double>(steps)) + zero_point;
  if (!(code > low)) return std::numeric_limits<T>::min();  // NaN too
  return code < high ? static_cast<T>(code) : std::numeric_limits<T>::max();
}

void quantize_s32(const float* x, int32_t* q, int64_t n, const float* scale,
                  const int32_t* zero_point, bool each) {
  for (int64_t i = 0; i < n; ++i) {
    q[i] = saturated<int32_t>(x[i] / scale[each ? i : 0], zero_point[each ? i : 0]);
  }
}

void dequantize_s32(const int32_t* q, float* x, int64_t n, const float* scale,
                    const int32_t* zero_point, bool each) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t steps = int64_t{q[i]} - zero_point[each ? i : 0];
    x[i] = static_cast<float>(steps) * scale[each ? i : 0];
  }
}

template <class Acc, class T>
void requantize_any(const void* acc, void* q, int64_t n, const float* multiplier,
                    const int32_t* zero_point, bool each) {
  const Acc* sums = static_cast<const Acc*>(acc);
  T* codes = static_cast<T*>(q);
  for (int64_t i = 0; i < n; ++i) {
    const float product = static_cast<float>(sums[i]) * multiplier[each ? i : 0];
    codes[i] = saturated<T>(product, zero_point[each ? i : 0]);
  }
}

template <class Acc>
void requantize_any(CodeType type, const void* acc, void* q, int64_t n, const float* multiplier,
                    const int32_t* zero_point, bool each) {
  switch (type) {
    case CODE_U8:
      return requantize_any<Acc, uint8_t>(acc, q, n, multiplier, zero_point, each);
    case CODE_S8:
      return requantize_any<Acc, int8_t>(acc, q, n, multiplier, zero_point, each);
    case CODE_U16:
      return requantize_any<Acc, uint16_t>(acc, q, n, multiplier, zero_point, each);
    case CODE_S16:
      return requantize_any<Acc, int16_t>(acc, q, n, multiplier, zero_point, each);
    case CODE_S32:
      return requantize_any<Acc, int32_t>(acc, q, n, multiplier, zero_point, each);
  }
}

}  // namespace

void cast(const Kernels* kernels, ConversionCode code, FloatType from, const Strided& x,
          const Strided& y, bool saturate) {
  const bool streaming = streams(x, y);
  const auto step = [&](const void* source, void* target, int64_t, int64_t n) {
    const ConvertArgs args = {source, target, n, nullptr, nullptr, 0, saturate, streaming};
    kernels->convert[code](&args);
  };
  if (code == F32_TO_BF16 || code == F32_TO_F16 || code == F32_TO_TF32 || code == F32_TO_E4M3 ||
      code == F32_TO_E5M2) {
    run_all([&] { return FloatSource(kernels, from, x); }, y, step);
  } else {
    run_all([&] { return PlainSource(x); }, y, step);
  }
}

void quantize(const Kernels* kernels, FloatType from, const Strided& x, CodeType type,
              const Strided& y, const Granularity& granularity) {
  const bool streaming = streams(x, y, granularity);
  const Scales scales(granularity);
  const int item = code_item(type);
  const auto step = [&](const float* source, uint8_t* target, int64_t begin, int64_t n) {
    scales.cut(
        begin, n,
        [&](int64_t at, int64_t length, const float* scale, const int32_t* zero_point, bool each) {
          uint8_t* codes = target + at * item;
          if (type == CODE_S32) {
            return quantize_s32(source + at, reinterpret_cast<int32_t*>(codes), length, scale,
                                zero_point, each);
          }
          const ConvertArgs args = {source + at, codes, length, scale,
                                    zero_point,  each,  0,      streaming};
          kernels->convert[of_type(QUANTIZE_U8, type)](&args);
        });
  };
  run_all([&] { return FloatSource(kernels, from, x); }, y, step);
}

void dequantize(const Kernels* kernels, CodeType type, const Strided& x, const Strided& y,
                const Granularity& granularity) {
  const bool streaming = streams(x, y, granularity);
  const Scales scales(granularity);
  const int item = code_item(type);
  const auto step = [&](const void* source, void* target, int64_t begin, int64_t n) {
    scales.cut(
        begin, n,
        [&](int64_t at, int64_t length, const float* scale, const int32_t* zero_point, bool each) {
          const uint8_t* codes = static_cast<const uint8_t*>(source) + at * item;
          float* reals = static_cast<float*>(target) + at;
          if (type == CODE_S32) {
            return dequantize_s32(reinterpret_cast<const int32_t*>(codes), reals, length, scale,
                                  zero_point, each);
          }
          const ConvertArgs args = {codes, reals, length, scale, zero_point, each, 0, streaming};
          kernels->convert[of_type(DEQUANTIZE_U8, type)](&args);
        });
  };
  run_all([&] { return PlainSource(x); }, y, step);
}

void requantize(const Kernels* kernels, const Strided& x, CodeType type, const Strided& y,
                const Granularity& granularity) {
  const bool streaming = streams(x, y, granularity), wide = x.item() == 8;
  const Scales scales(granularity);
  const int item = code_item(type);
  const auto step = [&](const void* source, uint8_t* target, int64_t begin, int64_t n) {
    scales.cut(
        begin, n,
        [&](int64_t at, int64_t length, const float* scale, const int32_t* zero_point, bool each) {
          const uint8_t* sums = static_cast<const uint8_t*>(source) + at * x.item();
          uint8_t* codes = target + at * item;
          if (wide)
            return requantize_any<int64_t>(type, sums, codes, length, scale, zero_point, each);
          if (type == CODE_S32) {
            return requantize_any<int32_t>(type, sums, codes, length, scale, zero_point, each);
          }
          const ConvertArgs args = {sums, codes, length, scale, zero_point, each, 0, streaming};
          kernels->convert[of_type(REQUANTIZE_U8, type)](&args);
        });
  };
  run_all([&] { return PlainSource(x); }, y, step);
}

// ---- dynamic quantisation ----

namespace {

struct Range {
  float minimum = std::numeric_limits<float>::infinity();
  float maximum = -std::numeric_limits<float>::infinity();
  int64_t nonfinite = 0;

  void join(const Range& other) {
    minimum = std::min(minimum, other.minimum);
    maximum = std::max(maximum, other.maximum);
    nonfinite += other.nonfinite;
  }
};

Range range_of(const Kernels* kernels, FloatSource& source, int64_t begin, int64_t end) {
  Range range;
  const int64_t most = source.direct() ? end - begin : RUN;
  for (; begin < end; begin += most) {
    const int64_t n = std::min(most, end - begin);
    kernels->range(source.run(begin, n), n, &range.minimum, &range.maximum, &range.nonfinite);
  }
  return range;
}

// reference.choose_qparams for u8, asymmetric.
void choose_u8(const Range& range, float* scale, uint8_t* zero_point) {
  const float low = std::min(range.minimum, 0.0f), high = std::max(range.maximum, 0.0f);
  const float width = high - low;
  if (width == 0) {
    *scale = 1;
  } else {
    const float wide = std::isfinite(width) ? width / 255.0f : high / 255.0f - low / 255.0f;
    *scale = std::max(wide, std::numeric_limits<float>::min());
  }
  const float zero = std::min(std::max(0.0f - low / *scale, 0.0f), 255.0f);
  *zero_point = static_cast<uint8_t>(std::nearbyint(zero));
}

}  // namespace

int64_t dynamic_quantize(const Kernels* kernels, FloatType from, const Strided& x, const Strided& y,
                         int64_t rows, float* scale, uint8_t* zero_point) {
  if (rows == 0) return 0;
  const int64_t row = x.size() / rows;
  std::vector<int32_t> zero_points(static_cast<size_t>(rows));
  std::atomic<int64_t> nonfinite{0};
  if (rows == 1) {
    // Extremes do not depend on the order in which threads find them.
    const int64_t cut = std::max<int64_t>(GRAIN, (row + MAX_THREADS - 1) / MAX_THREADS);
    std::vector<Range> ranges(static_cast<size_t>((row + cut - 1) / cut));
    parallel_rows(static_cast<int64_t>(ranges.size()), 1, [&](int64_t begin, int64_t end) {
      const FloatingPointState state;
      FloatSource source(kernels, from, x);
      for (int64_t i = begin; i < end; ++i) {
        ranges[static_cast<size_t>(i)] =
            range_of(kernels, source, i * cut, std::min(row, (i + 1) * cut));
      }
    });
    const FloatingPointState state;
    Range whole;
    for (const Range& range : ranges) whole.join(range);
    nonfinite = whole.nonfinite;
    choose_u8(whole, scale, zero_point);
    zero_points[0] = *zero_point;
  } else {
    parallel_rows(rows, std::max<int64_t>(1, GRAIN / std::max<int64_t>(row, 1)),
                  [&](int64_t begin, int64_t end) {
                    const FloatingPointState state;
                    FloatSource source(kernels, from, x);
                    for (int64_t r = begin; r < end; ++r) {
                      const Range range = range_of(kernels, source, r * row, (r + 1) * row);
                      nonfinite += range.nonfinite;
                      choose_u8(range, scale + r, zero_point + r);
                      zero_points[static_cast<size_t>(r)] = zero_point[r];
                    }
                  });
  }
  if (nonfinite > 0) return nonfinite;
  const auto kind = rows == 1 ? Granularity::PER_TENSOR : Granularity::PER_CHANNEL;
  quantize(kernels, from, x, CODE_U8, y, {kind, scale, zero_points.data(), 1, rows, row, 1});
  return 0;
}

void count_bins(const Kernels* kernels, const float* x, int64_t n, float inverse_width,
                int64_t origin, int64_t bins, int64_t* counts) {
  const FloatingPointState state;
  kernels->histogram(x, n, inverse_width, origin, bins, counts);
}

}  // namespace lp
