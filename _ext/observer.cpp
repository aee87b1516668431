// observer.cpp: see observer.h. The hot loops are Kernels::range and Kernels::histogram.
#include "observer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "float_state.h"

namespace lp {
namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr Extremes NOTHING = {INF, -INF};

bool is_empty(Extremes extremes) { return extremes.minimum > extremes.maximum; }

Extremes joined(Extremes a, Extremes b) {
  return {std::min(a.minimum, b.minimum), std::max(a.maximum, b.maximum)};
}

// floor(bin / 2^shift), also of negative bins.
int64_t halved(int64_t bin, int shift) { return shift > 62 ? (bin < 0 ? -1 : 0) : bin >> shift; }

}  // namespace

TensorObserver::TensorObserver(int64_t bins, const Kernels* kernels)
    : kernels_(kernels), bins_(bins), counts_(static_cast<size_t>(2 * bins)) {
  reset();
}

void TensorObserver::reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::fill(counts_.begin(), counts_.end(), 0);
  exponent_ = MIN_EXPONENT;
  total_ = batch_ = NOTHING;
  count_ = nonfinite_ = batches_ = 0;
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
  total_ = joined(total_, seen);
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

void TensorObserver::observe(const float* x, int64_t n) {
  // Small enough that the second pass finds the values in the cache.
  constexpr int64_t BLOCK = 65536;
  const FloatingPointState state;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (; n > 0; x += BLOCK, n -= BLOCK) {
    const int64_t size = std::min(n, BLOCK);
    Extremes seen = NOTHING;
    int64_t nonfinite = 0;
    kernels_->range(x, size, &seen.minimum, &seen.maximum, &nonfinite);
    nonfinite_ += nonfinite;
    if (is_empty(seen)) continue;
    batch_ = joined(batch_, seen);
    widen(seen);
    const int64_t first = index(std::min(seen.minimum, 0.0f));
    const int64_t last = index(std::max(seen.maximum, 0.0f));
    kernels_->histogram(x, size, std::ldexp(1.0f, -exponent_), first, last - first + 1,
                        counts_.data() + bins_ + first);
    count_ += size - nonfinite;
  }
}

void TensorObserver::merge(const TensorObserver& other) {
  if (this == &other) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t& count : counts_) count *= 2;
    nonfinite_ *= 2;
    batches_ *= 2;
    count_ *= 2;
    return;
  }
  const FloatingPointState state;
  const std::scoped_lock lock(mutex_, other.mutex_);
  nonfinite_ += other.nonfinite_;
  batches_ += other.batches_;
  count_ += other.count_;
  if (is_empty(other.total_)) return;
  batch_ = joined(batch_, other.batch_);
  widen(other.total_);
  // The other one's width is never larger: this one now holds all that it saw.
  const int shift = exponent_ - other.exponent_;
  for (int64_t bin = -bins_; bin < bins_; ++bin) {
    counts_[static_cast<size_t>(bins_ + halved(bin, shift))] +=
        other.counts_[static_cast<size_t>(bins_ + bin)];
  }
}

int64_t TensorObserver::origin() const {
  return is_empty(total_) ? 0 : index(std::min(total_.minimum, 0.0f));
}

void TensorObserver::counts(int64_t* out) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t first = origin();
  for (int64_t i = 0; i < bins_; ++i) {
    out[i] = counts_[static_cast<size_t>(bins_ + first + i)];
  }
}

}  // namespace lp
