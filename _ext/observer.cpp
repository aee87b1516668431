// observer.cpp: see observer.h. The hot loops are Kernels::range, histogram, edge_histogram and
// moments.
#include "observer.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "float_state.h"
#include "threads.h"

namespace lp {
namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr Extremes NOTHING = {INF, -INF};
// Small enough that the later passes find the values in the cache.
constexpr int64_t BLOCK = 65536;
// What is worth an observer of its own, which has to be made and merged.
constexpr int64_t SHARE = 4 * BLOCK;

bool is_empty(Extremes extremes) { return extremes.minimum > extremes.maximum; }

Extremes joined(Extremes a, Extremes b) {
  return {std::min(a.minimum, b.minimum), std::max(a.maximum, b.maximum)};
}

// floor(bin / 2^shift), also of negative bins.
int64_t halved(int64_t bin, int shift) { return shift > 62 ? (bin < 0 ? -1 : 0) : bin >> shift; }

// The smallest power of two above |x|.
double power_above(float x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, exponent);
}

int64_t nan_among(const float* x, int64_t n) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) found += x[i] != x[i];
  return found;
}

BinEdges fixed_bins(const std::vector<float>& edges) {
  if (edges.empty()) return {nullptr, 0, 0, 0};
  const int64_t bins = static_cast<int64_t>(edges.size()) - 1;
  const double low = edges.front(), high = edges.back();
  const double inverse_width = static_cast<double>(bins) / (high - low);
  // Rounding of x - low, of the inverse and of the product; then of the edges themselves.
  const double doubt = static_cast<double>(bins) * 0x1p-21 +
                       std::max(std::abs(low), std::abs(high)) * inverse_width * 0x1p-22;
  return {edges.data(), bins, static_cast<float>(inverse_width), static_cast<float>(doubt)};
}

}  // namespace

TensorObserver::TensorObserver(int64_t bins, const Kernels* kernels, bool moments,
                               const float* edges)
    : kernels_(kernels),
      bins_(bins),
      moments_(moments),
      edges_(edges, edges == nullptr ? edges : edges + bins + 1),
      fixed_(fixed_bins(edges_)),
      counts_(static_cast<size_t>(edges == nullptr ? 2 * bins : bins)) {
  reset();
}

void TensorObserver::reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::fill(counts_.begin(), counts_.end(), 0);
  exponent_ = MIN_EXPONENT;
  total_ = batch_ = NOTHING;
  count_ = nonfinite_ = nan_ = batches_ = outside_[0] = outside_[1] = 0;
  sum_ = squares_ = ExactSum();
  open_ = false;
}

void TensorObserver::begin_batch() {
  const std::lock_guard<std::mutex> lock(mutex_);
  batch_ = NOTHING;
  open_ = true;
}

void TensorObserver::end_batch() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (open_) ++batches_;
  open_ = false;
}

// A double holds x / width exactly.
int64_t TensorObserver::index(float x) const {
  return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -exponent_)));
}

void TensorObserver::coarsen(int exponent) {
  const int shift = exponent - exponent_;
  if (shift <= 0) return;
  // Neighbours move towards bin 0, so from there outwards each target has been emptied before.
  for (int64_t bin = 0; bin < bins_; ++bin) {
    const int64_t moved = std::exchange(counts_[static_cast<size_t>(bins_ + bin)], 0);
    counts_[static_cast<size_t>(bins_ + halved(bin, shift))] += moved;
  }
  for (int64_t bin = -1; bin >= -bins_; --bin) {
    const int64_t moved = std::exchange(counts_[static_cast<size_t>(bins_ + bin)], 0);
    counts_[static_cast<size_t>(bins_ + halved(bin, shift))] += moved;
  }
  exponent_ = exponent;
}

void TensorObserver::widen(Extremes seen) {
  if (seen.minimum >= total_.minimum && seen.maximum <= total_.maximum) return;
  total_ = joined(total_, seen);
  if (!edges_.empty()) return;
  const float low = std::min(total_.minimum, 0.0f), high = std::max(total_.maximum, 0.0f);
  if (low == high) return;  // zeros fit any width
  // 2^magnitude exceeds both ends, so this width is at most the right one: a bit less than `bins`
  // bins.
  int magnitude = 0;
  std::frexp(std::max(-low, high), &magnitude);
  int levels = 0;
  while ((int64_t{2} << levels) <= bins_) ++levels;
  int exponent = std::max(exponent_, magnitude - levels - 1);
  const auto bin = [&](float x) {
    return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -exponent)));
  };
  while (bin(high) - bin(low) >= bins_) ++exponent;
  coarsen(exponent);
}

void TensorObserver::count(const float* x, int64_t n) {
  const FloatingPointState state;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (; n > 0; x += BLOCK, n -= BLOCK) {
    const int64_t size = std::min(n, BLOCK);
    Extremes seen = NOTHING;
    int64_t nonfinite = 0;
    kernels_->range(x, size, &seen.minimum, &seen.maximum, &nonfinite);
    if (nonfinite > 0) {
      nonfinite_ += nonfinite;
      nan_ += nan_among(x, size);
    }
    if (!edges_.empty()) {
      kernels_->edge_histogram(x, size, &fixed_, counts_.data(), outside_);
    }
    if (is_empty(seen)) continue;
    batch_ = joined(batch_, seen);
    widen(seen);
    if (edges_.empty()) {
      const int64_t first = index(std::min(seen.minimum, 0.0f));
      const int64_t last = index(std::max(seen.maximum, 0.0f));
      kernels_->histogram(x, size, std::ldexp(1.0f, -exponent_), first, last - first + 1,
                          counts_.data() + bins_ + first);
    }
    if (moments_) add_moments(x, size, seen);
    count_ += size - nonfinite;
  }
}

void TensorObserver::add_moments(const float* x, int64_t n, Extremes seen) {
  const float largest = std::max(-seen.minimum, seen.maximum);
  if (largest == 0) return;
  float rest[MOMENT_BLOCK];
  for (int64_t i = 0; i < n; i += MOMENT_BLOCK) {
    const float* values = x + i;
    int64_t left = std::min(n - i, MOMENT_BLOCK);
    for (double upper = power_above(largest); left > 0; values = rest) {
      double sums[3];
      left = kernels_->moments(values, left, upper, sums, rest);
      sum_.add(sums[0]);
      squares_.add(sums[1]);
      squares_.add(sums[2]);
      float below = 0;
      for (int64_t k = 0; k < left; ++k) below = std::max(below, std::abs(rest[k]));
      upper = power_above(below);
    }
  }
}

void TensorObserver::observe(const float* x, int64_t n) {
  if (n < 2 * SHARE || usable_threads() == 1) return count(x, n);
  // All parts are exact, so it does not matter which comes first.
  parallel_rows(n, SHARE, [&](int64_t begin, int64_t end) {
    TensorObserver part(bins_, kernels_, moments_, edges_.empty() ? nullptr : edges_.data());
    part.count(x + begin, end - begin);
    merge(part);
  });
}

void TensorObserver::observe(FloatType type, const Strided& x) {
  if (type == FLOAT_F32 && x.is_plain()) {
    return observe(reinterpret_cast<const float*>(x.at(0)), x.size());
  }
  observe_part(type, x, 0, x.size());
}

void TensorObserver::observe_part(FloatType type, const Strided& x, int64_t begin, int64_t n) {
  const FloatingPointState state;
  FloatSource source(kernels_, type, x);
  if (source.direct()) return count(source.run(begin, n), n);
  for (const int64_t end = begin + n; begin < end; begin += RUN) {
    const int64_t size = std::min(RUN, end - begin);
    count(source.run(begin, size), size);
  }
}

void TensorObserver::merge_counts(const TensorObserver& other) {
  if (!edges_.empty()) {
    for (size_t bin = 0; bin < counts_.size(); ++bin) counts_[bin] += other.counts_[bin];
    return;
  }
  // The other one's width is never larger: this one now holds all that it saw.
  const int shift = exponent_ - other.exponent_;
  const int64_t first = other.origin(), last = std::min(first + bins_, bins_);
  for (int64_t bin = first; bin < last; ++bin) {
    counts_[static_cast<size_t>(bins_ + halved(bin, shift))] +=
        other.counts_[static_cast<size_t>(bins_ + bin)];
  }
}

void TensorObserver::merge(const TensorObserver& other) {
  if (this == &other) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t& count : counts_) count *= 2;
    for (int64_t* number : {&nonfinite_, &nan_, &batches_, &count_, outside_, outside_ + 1}) {
      *number *= 2;
    }
    sum_.merge(sum_);
    squares_.merge(squares_);
    return;
  }
  const FloatingPointState state;
  const std::scoped_lock lock(mutex_, other.mutex_);
  nonfinite_ += other.nonfinite_;
  nan_ += other.nan_;
  batches_ += other.batches_;
  count_ += other.count_;
  outside_[0] += other.outside_[0];
  outside_[1] += other.outside_[1];
  if (is_empty(other.total_)) return;
  batch_ = joined(batch_, other.batch_);
  widen(other.total_);
  merge_counts(other);
  sum_.merge(other.sum_);
  squares_.merge(other.squares_);
}

int64_t TensorObserver::origin() const {
  return is_empty(total_) ? 0 : index(std::min(total_.minimum, 0.0f));
}

void TensorObserver::counts(int64_t* out) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t first = edges_.empty() ? bins_ + origin() : 0;
  std::copy_n(counts_.data() + first, bins_, out);
}

void TensorObserver::sums(int64_t* of_values, int64_t* of_squares) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  sum_.limbs(of_values);
  squares_.limbs(of_squares);
}

void TensorObserver::state(int64_t* out) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::fill_n(out, STATE_NUMBERS, 0);
  int64_t extremes[2];
  memcpy(extremes, &total_, sizeof total_);
  memcpy(extremes + 1, &batch_, sizeof batch_);
  const int64_t numbers[] = {exponent_, extremes[0], extremes[1], count_,      nonfinite_,
                             nan_,      batches_,    outside_[0], outside_[1], open_};
  std::copy(std::begin(numbers), std::end(numbers), out);
  sum_.limbs(out + 16);
  squares_.limbs(out + 16 + ExactSum::LIMBS);
  std::copy(counts_.begin(), counts_.end(), out + STATE_NUMBERS);
}

void TensorObserver::set_state(const int64_t* state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  exponent_ = static_cast<int>(state[0]);
  memcpy(&total_, state + 1, sizeof total_);
  memcpy(&batch_, state + 2, sizeof batch_);
  count_ = state[3];
  nonfinite_ = state[4];
  nan_ = state[5];
  batches_ = state[6];
  outside_[0] = state[7];
  outside_[1] = state[8];
  open_ = state[9] != 0;
  sum_.set_limbs(state + 16);
  squares_.set_limbs(state + 16 + ExactSum::LIMBS);
  std::copy_n(state + STATE_NUMBERS, counts_.size(), counts_.begin());
}

void observe_channels(const std::vector<TensorObserver*>& observers, FloatType type, void* first,
                      int64_t step, int item, int ndim, const int64_t* shape,
                      const int64_t* strides) {
  const int64_t channels = static_cast<int64_t>(observers.size());
  const Strided one(first, item, ndim, shape, strides);
  // Channels that lie side by side share cache lines: so many elements of each that all of them fit
  // into the second-level cache together.
  const int64_t together =
      std::clamp<int64_t>((int64_t{1} << 17) / std::max<int64_t>(channels, 1), 64, RUN);
  const bool whole = type == FLOAT_F32 && one.is_plain();
  parallel_rows(channels, std::max<int64_t>(1, SHARE / std::max<int64_t>(one.size(), 1)),
                [&](int64_t begin_channel, int64_t end_channel) {
                  const int64_t run = whole ? one.size() : together;
                  for (int64_t begin = 0; begin < one.size(); begin += run) {
                    const int64_t n = std::min(run, one.size() - begin);
                    for (int64_t c = begin_channel; c < end_channel; ++c) {
                      const Strided x(static_cast<uint8_t*>(first) + c * step, item, ndim, shape,
                                      strides);
                      observers[static_cast<size_t>(c)]->observe_part(type, x, begin, n);
                    }
                  }
                });
}

}  // namespace lp
