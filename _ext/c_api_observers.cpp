// c_api_observers.cpp: observers and the number of threads of lowprec.h.
#include <math.h>

#include <string>

#include "c_api.h"
#include "c_api_guard.h"
#include "observer.h"

struct lowprec_observer {
  lp::TensorObserver statistics;
};

namespace lp {

lowprec_status api_new_observer(int64_t bins, lowprec_observer** observer) {
  return guarded([&] {
    require(observer, "observer");
    *observer = nullptr;
    if (bins < TensorObserver::MIN_BINS || bins > TensorObserver::MAX_BINS) {
      refuse(LOWPREC_INVALID, "bins is %lld; expected 16 to 65536", static_cast<long long>(bins));
    }
    *observer = new lowprec_observer{{bins, kernels_or_refuse()}};
  });
}

void api_free_observer(lowprec_observer* observer) { delete observer; }

lowprec_status api_observe(lowprec_observer* observer, const float* x, int64_t n) {
  return guarded([&] {
    require(observer, "observer");
    require_size(n, "n");
    if (n == 0) return;
    require(x, "x");
    observer->statistics.observe(x, n);
  });
}

lowprec_status api_merge_observer(lowprec_observer* observer, const lowprec_observer* other) {
  return guarded([&] {
    require(observer, "observer");
    require(other, "other");
    if (observer == other) refuse(LOWPREC_INVALID, "other is the observer itself");
    if (observer->statistics.bins() != other->statistics.bins()) {
      refuse(LOWPREC_INVALID, "other has %lld bins; expected %lld",
             static_cast<long long>(other->statistics.bins()),
             static_cast<long long>(observer->statistics.bins()));
    }
    observer->statistics.merge(other->statistics);
  });
}

lowprec_status api_read_statistics(const lowprec_observer* observer,
                                   lowprec_statistics* statistics) {
  return guarded([&] {
    require(observer, "observer");
    const TensorObserver& seen = observer->statistics;
    lowprec_statistics result{};
    result.bins = seen.bins();
    result.count = seen.count();
    result.nonfinite = seen.nonfinite();
    result.minimum = seen.total().minimum;
    result.maximum = seen.total().maximum;
    result.origin = seen.origin();
    result.width = ldexp(1.0, seen.exponent());
    fill(statistics, result, "statistics");
  });
}

lowprec_status api_read_histogram(const lowprec_observer* observer, int64_t* counts, int64_t bins) {
  return guarded([&] {
    require(observer, "observer");
    require(counts, "counts");
    if (bins != observer->statistics.bins()) {
      refuse(LOWPREC_INVALID, "room for %lld bins; expected %lld", static_cast<long long>(bins),
             static_cast<long long>(observer->statistics.bins()));
    }
    observer->statistics.counts(counts);
  });
}

lowprec_status api_get_num_threads(int32_t* threads) {
  return guarded([&] {
    require(threads, "threads");
    const std::string problem = thread_count_problem();
    if (!problem.empty()) refuse(LOWPREC_UNAVAILABLE, "%s", problem.c_str());
    *threads = num_threads();
  });
}

lowprec_status api_set_num_threads(int32_t threads) {
  return guarded([&] {
    if (threads < 1 || threads > MAX_THREADS) {
      refuse(LOWPREC_INVALID, "threads is %d; expected 1 to %d", threads, MAX_THREADS);
    }
    set_num_threads(threads);
  });
}

}  // namespace lp
