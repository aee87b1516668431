// observer.h: what calibration learns from one float tensor: extremes, counts, a histogram,
// moments.
//
// Memory is constant, and nothing depends on the order or the cutting of the data, on threads or on
// the instruction set: two observers that saw halves of the data merge into the observer that saw
// all of it, bit for bit.
// - Bins are anchored at 0 (value x is in bin floor(x / width)), the width is the smallest power of
//   two for which all values and 0 fit into `bins` bins, and a wider bin is exactly two narrower
//   ones. Or they lie between given edges, for good.
// - Sums of values and of squares are exact (exact_sum.h).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <mutex>
#include <vector>

#include "exact_sum.h"
#include "kernels/kernels.h"
#include "sources.h"

namespace lp {

struct Extremes {
  float minimum, maximum;  // +inf and -inf before the first finite value
};

class TensorObserver {
 public:
  static constexpr int MIN_BINS = 16, MAX_BINS = 65536;
  // A finer width than this would need the reciprocal of a denormal.
  static constexpr int MIN_EXPONENT = -126;

  // 1 <= bins <= MAX_BINS; bins that grow: MIN_BINS at least. `edges`, if not null, are bins + 1
  // borders of bins of equal width, rounded to f32, strictly increasing. `moments`: sums too.
  TensorObserver(int64_t bins, const Kernels* kernels, bool moments = false,
                 const float* edges = nullptr);

  void observe(const float* x, int64_t n);  // may be called from several threads
  void observe(FloatType type, const Strided& x);
  void observe_part(FloatType type, const Strided& x, int64_t begin, int64_t n);  // serially
  void begin_batch();
  void end_batch();
  void merge(const TensorObserver& other);  // of the same bins and moments
  // Forget everything.
  void reset();

  int64_t bins() const { return bins_; }
  bool moments() const { return moments_; }
  const std::vector<float>& edges() const { return edges_; }  // empty where bins grow
  Extremes total() const { return total_; }
  // Of the batch that is open, or was closed last.
  Extremes batch() const { return batch_; }
  int64_t batches() const { return batches_; }      // closed ones
  int64_t count() const { return count_; }          // finite values
  int64_t nonfinite() const { return nonfinite_; }  // NaN and infinity
  int64_t nan() const { return nan_; }
  int exponent() const { return exponent_; }  // the width is 2 to this power
  // Finite values below the first and above the last edge.
  int64_t below() const { return outside_[0]; }
  int64_t above() const { return outside_[1]; }
  // Bin index of counts()[0]: 0, or less where there were negative values.
  int64_t origin() const;
  // `bins` counts, from origin() upwards.
  void counts(int64_t* out) const;
  // ExactSum::LIMBS numbers each.
  void sums(int64_t* of_values, int64_t* of_squares) const;

  // Everything that was seen, for an observer of the same kind in another process.
  int64_t state_size() const { return STATE_NUMBERS + static_cast<int64_t>(counts_.size()); }
  void state(int64_t* out) const;
  void set_state(const int64_t* state);

 private:
  static constexpr int64_t STATE_NUMBERS = 16 + 2 * ExactSum::LIMBS;

  void count(const float* x, int64_t n);
  void add_moments(const float* x, int64_t n, Extremes seen);
  void merge_counts(const TensorObserver& other);
  void widen(Extremes seen);   // until all of it fits
  void coarsen(int exponent);  // merges neighbouring bins
  int64_t index(float x) const;

  const Kernels* kernels_;
  const int64_t bins_;
  const bool moments_;
  const std::vector<float> edges_;
  BinEdges fixed_;
  // counts_[bin + bins_]: any window that holds bin 0 fits without ever being moved. With edges:
  // counts_[bin].
  std::vector<int64_t> counts_;
  int exponent_;
  Extremes total_, batch_;
  int64_t count_, nonfinite_, nan_, batches_;
  int64_t outside_[2];
  ExactSum sum_, squares_;
  bool open_;
  mutable std::mutex mutex_;
};

// Observer c sees x.take(c, axis): `first` is that array for c = 0, the others lie `step` bytes
// further on each.
void observe_channels(const std::vector<TensorObserver*>& observers, FloatType type, void* first,
                      int64_t step, int item, int ndim, const int64_t* shape,
                      const int64_t* strides);

}  // namespace lp
