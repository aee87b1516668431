// observer.h: what calibration learns from one float tensor: extremes, counts, a histogram.
//
// Memory is constant, and the result does not depend on the order or the cutting of the data: bins
// are anchored at 0 (value x is in bin floor(x / width)), the width is the smallest power of two
// for which all values and 0 fit into `bins` bins, and a wider bin is exactly two narrower ones. So
// two observers that saw halves of the data merge into the observer that saw all of it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <mutex>
#include <vector>

#include "kernels/kernels.h"

namespace lp {

struct Extremes {
  float minimum, maximum;  // +inf and -inf before the first finite value
};

class TensorObserver {
 public:
  static constexpr int MIN_BINS = 16, MAX_BINS = 65536;
  // A finer width than this would need the reciprocal of a denormal.
  static constexpr int MIN_EXPONENT = -126;

  // MIN_BINS <= bins <= MAX_BINS.
  TensorObserver(int64_t bins, const Kernels* kernels);

  void observe(const float* x, int64_t n);  // may be called from several threads
  void begin_batch();
  void end_batch();
  void merge(const TensorObserver& other);  // of as many bins
  // Forget everything.
  void reset();

  int64_t bins() const { return bins_; }
  Extremes total() const { return total_; }
  // Of the batch that is open, or was closed last.
  Extremes batch() const { return batch_; }
  int64_t batches() const { return batches_; }      // closed ones
  int64_t count() const { return count_; }          // finite values
  int64_t nonfinite() const { return nonfinite_; }  // NaN and infinity; in no other number
  int exponent() const { return exponent_; }        // the width is 2 to this power
  // Bin index of counts()[0]: 0, or less where there were negative values.
  int64_t origin() const;
  // `bins` counts, from origin() upwards.
  void counts(int64_t* out) const;

 private:
  void widen(Extremes seen);   // until all of it fits
  void coarsen(int exponent);  // merges neighbouring bins
  int64_t index(float x) const;

  const Kernels* kernels_;
  const int64_t bins_;
  // counts_[bin + bins_]: any window that holds bin 0 fits without ever being moved.
  std::vector<int64_t> counts_;
  int exponent_;
  Extremes total_, batch_;
  int64_t count_, nonfinite_, batches_;
  bool open_;
  mutable std::mutex mutex_;
};

}  // namespace lp
