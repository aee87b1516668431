// channel_observer.cpp: see channel_observer.h.
#include "channel_observer.h"

#include <algorithm>
#include <limits>

#include "float_state.h"
#include "threads.h"

namespace lp {
namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr Extremes NOTHING = {INF, -INF};
constexpr int64_t BLOCK_ROWS = 256;    // of a block, where channels lie side by side
constexpr int64_t CHANNEL_RUN = 4096;  // of a block within one channel

void widen(Extremes* mine, Extremes seen) {
  mine->minimum = std::min(mine->minimum, seen.minimum);
  mine->maximum = std::max(mine->maximum, seen.maximum);
}

// Of the finite ones among n values: sums in eight lanes that are added in a fixed order.
void add_run(const float* x, int64_t n, double* sum, double* squares) {
  double sums[8] = {0}, of_squares[8] = {0};
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t lanes = std::min<int64_t>(8, n - i);
    for (int64_t k = 0; k < lanes; ++k) {
      const double value = x[i + k] - x[i + k] == 0 ? static_cast<double>(x[i + k]) : 0.0;
      sums[k] += value;
      of_squares[k] += value * value;
    }
  }
  for (int k = 0; k < 8; ++k) *sum += sums[k], *squares += of_squares[k];
}

// What a block of rows adds to each channel.
struct Block {
  explicit Block(size_t channels)
      : low(channels, INF), high(channels, -INF), sum(channels), squares(channels) {}

  void add(const float* row, size_t channels) {
    for (size_t c = 0; c < channels; ++c) {
      const float x = row[c];
      const bool finite = x - x == 0;
      const double value = finite ? static_cast<double>(x) : 0.0;
      low[c] = finite && x < low[c] ? x : low[c];
      high[c] = finite && x > high[c] ? x : high[c];
      sum[c] += value;
      squares[c] += value * value;
      nonfinite += !finite;
    }
  }
  std::vector<float> low, high;
  std::vector<double> sum, squares;
  int64_t nonfinite = 0;
};

}  // namespace

ChannelObserver::ChannelObserver(int64_t axis, int64_t bins, const Kernels* kernels)
    : axis_(axis), bins_(bins), kernels_(kernels) {}

bool ChannelObserver::begin(int64_t channels) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!states_.empty()) return this->channels() == channels;
  if (channels == 0) return true;
  if (bins_ > 0) {
    for (int64_t c = 0; c < channels; ++c) {
      histograms_.push_back(std::make_unique<TensorObserver>(bins_, kernels_));
    }
  }
  states_.assign(static_cast<size_t>(channels), State{NOTHING, {}, {}});
  return true;
}

bool ChannelObserver::observe(const float* x, int64_t outer, int64_t channels, int64_t inner) {
  const FloatingPointState state;
  if (outer == 0 || channels == 0 || inner == 0) return true;
  if (!begin(channels)) return false;
  if (inner == 1) {
    count_rows(x, outer);
  } else {
    count_runs(x, outer, inner);
  }
  if (bins_ > 0) {
    std::vector<TensorObserver*> histograms;
    for (const auto& histogram : histograms_) histograms.push_back(histogram.get());
    constexpr int64_t SIZE = sizeof(float);
    const int64_t shape[] = {outer, inner}, strides[] = {channels * inner * SIZE, SIZE};
    observe_channels(histograms, FLOAT_F32, const_cast<float*>(x), inner * SIZE, SIZE, 2, shape,
                     strides);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  count_ += outer * inner;
  return true;
}

void ChannelObserver::count_rows(const float* x, int64_t rows) {
  const size_t channels = states_.size();
  const int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  parallel_rows(blocks, 1, [&](int64_t begin, int64_t end) {
    const FloatingPointState state;
    for (int64_t i = begin; i < end; ++i) {
      Block block(channels);
      for (int64_t row = i * BLOCK_ROWS; row < std::min(rows, (i + 1) * BLOCK_ROWS); ++row) {
        block.add(x + row * static_cast<int64_t>(channels), channels);
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      nonfinite_ += block.nonfinite;
      for (size_t c = 0; c < channels; ++c) {
        widen(&states_[c].extremes, {block.low[c] + 0.0f, block.high[c] + 0.0f});
        states_[c].sum.add(block.sum[c]);
        states_[c].squares.add(block.squares[c]);
      }
    }
  });
}

void ChannelObserver::count_runs(const float* x, int64_t outer, int64_t inner) {
  const int64_t channels = this->channels();
  // Each channel belongs to one thread.
  parallel_rows(channels, std::max<int64_t>(1, 2 * CHANNEL_RUN / (outer * inner)),
                [&](int64_t begin, int64_t end) {
                  const FloatingPointState state;
                  int64_t nonfinite = 0;
                  for (int64_t c = begin; c < end; ++c) {
                    State& mine = states_[static_cast<size_t>(c)];
                    for (int64_t o = 0; o < outer; ++o) {
                      const float* run = x + (o * channels + c) * inner;
                      kernels_->range(run, inner, &mine.extremes.minimum, &mine.extremes.maximum,
                                      &nonfinite);
                      for (int64_t i = 0; i < inner; i += CHANNEL_RUN) {
                        double sum = 0, squares = 0;
                        add_run(run + i, std::min(CHANNEL_RUN, inner - i), &sum, &squares);
                        mine.sum.add(sum);
                        mine.squares.add(squares);
                      }
                    }
                  }
                  const std::lock_guard<std::mutex> lock(mutex_);
                  nonfinite_ += nonfinite;
                });
}

bool ChannelObserver::merge(const ChannelObserver& other) {
  if (other.states_.empty()) return true;
  if (!begin(other.channels())) return false;
  const std::scoped_lock lock(mutex_, other.mutex_);
  for (size_t c = 0; c < states_.size(); ++c) {
    widen(&states_[c].extremes, other.states_[c].extremes);
    states_[c].sum.merge(other.states_[c].sum);
    states_[c].squares.merge(other.states_[c].squares);
    if (bins_ > 0) histograms_[c]->merge(*other.histograms_[c]);
  }
  count_ += other.count_;
  nonfinite_ += other.nonfinite_;
  return true;
}

void ChannelObserver::reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  states_.clear();
  histograms_.clear();
  count_ = nonfinite_ = 0;
}

void ChannelObserver::extremes(float* minimum, float* maximum) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t c = 0; c < states_.size(); ++c) {
    minimum[c] = states_[c].extremes.minimum;
    maximum[c] = states_[c].extremes.maximum;
  }
}

void ChannelObserver::sums(int64_t channel, int64_t* of_values, int64_t* of_squares) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  states_[static_cast<size_t>(channel)].sum.limbs(of_values);
  states_[static_cast<size_t>(channel)].squares.limbs(of_squares);
}

const TensorObserver* ChannelObserver::histogram(int64_t channel) const {
  return bins_ > 0 ? histograms_[static_cast<size_t>(channel)].get() : nullptr;
}

}  // namespace lp
