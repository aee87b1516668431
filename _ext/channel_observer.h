// channel_observer.h: what calibration learns of each channel of a float tensor.
//
// Extremes, sums, and on demand a histogram per channel; memory depends on the channels and bins
// alone. Sums are taken in double within blocks that the shape decides, and exactly (exact_sum.h)
// between blocks: nothing depends on the order of arrays or on threads, and observers of parts
// merge into the observer of all of them, bit for bit.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <mutex>
#include <vector>

#include "exact_sum.h"
#include "kernels/kernels.h"
#include "observer.h"

namespace lp {

class ChannelObserver {
 public:
  // `bins` per channel: 0 (no histograms), or as TensorObserver takes them.
  ChannelObserver(int64_t axis, int64_t bins, const Kernels* kernels);

  // x has channels() x inner values, `outer` times. The first array decides how many channels there
  // are; returns false, and counts nothing, for one with others. May be called from several
  // threads.
  bool observe(const float* x, int64_t outer, int64_t channels, int64_t inner);
  bool merge(const ChannelObserver& other);  // of the same axis and bins; false: other channels
  void reset();

  int64_t axis() const { return axis_; }
  int64_t bins() const { return bins_; }
  int64_t channels() const { return static_cast<int64_t>(states_.size()); }  // 0: none seen yet
  int64_t count() const { return count_; }          // values per channel, NaN and infinity too
  int64_t nonfinite() const { return nonfinite_; }  // in all channels
  // channels() numbers each; a mean is that of the finite values.
  void extremes(float* minimum, float* maximum) const;
  void sums(int64_t channel, int64_t* of_values, int64_t* of_squares) const;
  // Null without bins.
  const TensorObserver* histogram(int64_t channel) const;

 private:
  struct State {
    Extremes extremes;
    ExactSum sum, squares;
  };
  bool begin(int64_t channels);
  void count_rows(const float* x, int64_t rows);  // inner is 1
  void count_runs(const float* x, int64_t outer, int64_t inner);

  const int64_t axis_, bins_;
  const Kernels* kernels_;
  std::vector<State> states_;
  std::vector<std::unique_ptr<TensorObserver>> histograms_;
  int64_t count_ = 0, nonfinite_ = 0;
  mutable std::mutex mutex_;
};

}  // namespace lp
