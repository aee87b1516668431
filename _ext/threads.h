// threads.h: share work out among the threads of one small pool. docs/architecture.md, "Threads".
//
// The one helper that most code needs:
//
//   parallel_rows(rows, grain, [&](int64_t begin, int64_t end) { ... });
//
// calls the body for ranges that cover [0, rows) once, on several threads, and returns when all are
// done. Which thread runs which range is not fixed, so a body writes only what belongs to its range
// and never adds up across ranges: then the result has the same bits with any number of threads.
//
// - Results must not depend on where the cuts are. No sum is ever cut.
// - A call from inside a body runs serially. So does one while another thread uses the pool: calls
//   never wait for each other, and the machine is not oversubscribed.
// - Bodies run with the floating point state of float_state.h. They may throw: the exception of the
//   first range that failed comes out of the call, after all ranges have ended.
// - A forked child starts with a new pool.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>

namespace lp {

using Task = void (*)(void* context, int64_t task);

// An embedder's own way to run things in parallel: run() calls task(context, i) once for each i in
// [0, tasks), on any threads, and returns when all calls have returned.
struct ParallelFor {
  void (*run)(void* self, Task task, void* context, int64_t tasks);
  void* self;
  int32_t threads;  // how many of those calls can be under way at once; 0: as num_threads()
};

// While an object of this class lives, the calling thread's work goes to `other`, not to our pool;
// null changes nothing. `other` must outlive it.
class UseParallelFor {
 public:
  explicit UseParallelFor(const ParallelFor* other);
  ~UseParallelFor();
  UseParallelFor(const UseParallelFor&) = delete;
  UseParallelFor& operator=(const UseParallelFor&) = delete;

 private:
  const ParallelFor* saved_;
};

constexpr int MAX_THREADS = 1024;

// The number of threads that work at once, the caller included; process wide (thread_count.h says
// what it is at first).
int num_threads();
void set_num_threads(int threads);  // 1 to MAX_THREADS; counts from the next call on
// What is wrong with LOWPREC_NUM_THREADS: empty where nothing is, or where set_num_threads()
// has made it irrelevant.
std::string thread_count_problem();

// How many threads a call from here may use: 1 inside a body, num_threads() elsewhere.
int usable_threads();

// Whether sharing is worth while even for a little work: the pool's threads are spinning and take
// it at once (0.2 us) rather than asleep (5 to 20 us), or this is asked again and again in a short
// time, so that threads that are woken now will be awake for the next call.
bool threads_are_awake();

// How many calls the pool has shared out so far.
int64_t shared_calls();

// A lock for moments, which a forked child can take although a thread of the parent held it.
class ForkSafeLock {
 public:
  // True: it was left behind so, and what it guards may be half changed.
  bool lock();
  void unlock() { holder_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> holder_{0};  // 1 + how many forks lie between its process and the first
};

// A run of many steps, some of them shared out: wakes the threads, and as long as it lasts they do
// not fall asleep at once. Nothing where not `wanted`: waking takes 5 to 20 us of the caller's
// time.
class KeepAwake {
 public:
  explicit KeepAwake(bool wanted);
  ~KeepAwake();
  KeepAwake(const KeepAwake&) = delete;
  KeepAwake& operator=(const KeepAwake&) = delete;

 private:
  bool kept_;
};

// task(context, i) for each i in [0, tasks), once, on several threads where that is possible. Tasks
// must not throw. Neighbouring tasks run on the same thread where the machine is not disturbed.
void run_tasks(int64_t tasks, Task task, void* context);

// Memory of the calling thread, at least `bytes`, 64-byte aligned, contents undefined. The next
// call on the same thread may take it away. Throws std::bad_alloc.
uint8_t* thread_scratch(int64_t bytes);

// What one thread does in about 2 us: elements of a vectorised loop, elements of a plain one. Bytes
// copied: more, since less than a cache holds is copied faster than it moves between processors.
// Grains for parallel_rows.
constexpr int64_t VECTOR_GRAIN = 16384, PLAIN_GRAIN = 2048, COPY_GRAIN = 262144;

// The grain of rows that hold so many of those each.
inline int64_t grain_of_rows(int64_t grain, int64_t row) {
  return 1 + grain / std::max<int64_t>(row, 1);
}

namespace threads_detail {

// The exception of the lowest-numbered task that failed.
class Failure {
 public:
  void keep(int64_t task, std::exception_ptr exception) noexcept;
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic_flag lock_ = ATOMIC_FLAG_INIT;
  int64_t task_ = 0;
  std::exception_ptr exception_;
};

template <class Body>
struct Call {
  const Body& body;
  Failure failure;

  static void one(void* context, int64_t task) noexcept {
    Call& call = *static_cast<Call*>(context);
    try {
      call.body(task);
    } catch (...) {
      call.failure.keep(task, std::current_exception());
    }
  }
};

}  // namespace threads_detail

// body(task) for each task in [0, tasks).
template <class Body>
void parallel_tasks(int64_t tasks, const Body& body) {
  if (tasks <= 1 || usable_threads() == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  threads_detail::Call<Body> call{body, {}};
  run_tasks(tasks, threads_detail::Call<Body>::one, &call);
  call.failure.rethrow();
}

// body(begin, end) for ranges that cover [0, rows) once. `grain`: so many rows that they take about
// 2 us, the least that is worth handing over; ranges begin at multiples of 64 where it is 64 or
// more (elements: no two threads write one cache line), at multiples of `align` in any case.
template <class Body>
void parallel_rows(int64_t rows, int64_t grain, const Body& body, int64_t align = 1) {
  // Several ranges a thread: one that is held up leaves the rest of its share to the others.
  constexpr int64_t RANGES_PER_THREAD = 4;
  grain = std::max<int64_t>(grain, 1);
  if (grain >= 64) align = (align + 63) / 64 * 64;
  const int threads = rows < 2 * grain ? 1 : usable_threads();
  if (threads == 1 || (rows < 8 * grain && !threads_are_awake())) {
    if (rows > 0) body(int64_t{0}, rows);
    return;
  }
  const int64_t ranges = std::min(rows / grain, RANGES_PER_THREAD * threads);
  const int64_t step = ((rows + ranges - 1) / ranges + align - 1) / align * align;
  parallel_tasks((rows + step - 1) / step,
                 [&](int64_t range) { body(range * step, std::min(rows, (range + 1) * step)); });
}

}  // namespace lp
