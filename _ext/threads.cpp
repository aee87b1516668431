// threads.cpp: see threads.h.
//
// A job is a number (so many tasks), cut into chunks; each participant has a contiguous share of
// the chunks in its own slot, and takes over chunks of others when it has done its own. A slot is
// one word {job, next chunk, end}, so that a thread that comes late, when the job is over and the
// next one has begun, cannot claim anything: it compares the job too. Only a claim makes a thread
// look at the job itself, which stays in place until every chunk is done.
//
// A scheduler that wakes a worker on the processor of the caller leaves it there for milliseconds,
// and two threads are then as fast as one. So a worker that shares a processor with the caller, or
// with a worker before it, is sent to another one of those that the process may use.
//
// Threads wait for the next job by spinning for a moment, then asleep in a futex. So does the
// caller for the last chunks. Nothing here takes a lock that a fork could leave locked: a caller
// that finds the pool in use runs its tasks itself.
#include "threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <new>

#include "float_state.h"
#include "thread_count.h"

namespace lp {
namespace {

constexpr int64_t SPIN_NANOSECONDS = 30000;  // short: machines of two processors are shared
constexpr int64_t SPIN_IN_RUN = 200000;      // while somebody has said that more work comes
constexpr int64_t YIELD_NANOSECONDS = 3000;
// Calls so close to each other find the threads that the first of them has woken still spinning.
constexpr int64_t FREQUENT_NANOSECONDS = 60000;
constexpr int64_t CHUNKS_PER_THREAD = 8;
constexpr size_t STACK_BYTES = 2 << 20;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

std::atomic<int> runs{0};  // KeepAwake objects

int64_t spin_time() {
  return runs.load(std::memory_order_relaxed) > 0 ? SPIN_IN_RUN : SPIN_NANOSECONDS;
}

// Whether done() became true within the time that is worth spinning. Where processors are short,
// the thread that is waited for may need this one's: after a moment, it is offered in every turn.
template <class Done>
bool spin_until(Done done) {
  const int64_t start = now();
  for (int64_t spent = 0; spent < spin_time(); spent = now() - start) {
    for (int i = 0; i < 32; ++i, pause()) {
      if (done()) return true;
    }
    if (spent > YIELD_NANOSECONDS) sched_yield();
  }
  return done();
}

using Word = std::atomic<uint32_t>;
static_assert(sizeof(Word) == 4, "a futex is 32 bits");

// Each thread has a bit (threads 31 apart share one), so that only those that are needed wake up.
uint32_t bit_of(int thread) { return uint32_t{1} << (thread % 31); }

void futex_wait(Word* word, uint32_t value, uint32_t bits) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_BITSET_PRIVATE, value, nullptr,
          nullptr, bits);
}
void futex_wake(Word* word, uint32_t bits) {
  const int saved = errno;
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_BITSET_PRIVATE, MAX_THREADS,
          nullptr, nullptr, bits);
  errno = saved;
}

thread_local bool inside_task = false;
thread_local const ParallelFor* others = nullptr;

// What a task needs around it on any thread, ours or not.
struct Guarded {
  Task task;
  void* context;

  static void run(void* self, int64_t task) {
    const Guarded& guarded = *static_cast<Guarded*>(self);
    const FloatingPointState state;
    const bool outer = inside_task;
    inside_task = true;
    guarded.task(guarded.context, task);
    inside_task = outer;
  }
};

// Bars thread `tid` (0: this one) from the processors in `taken`, unless no other is left.
void send_away(pid_t tid, const cpu_set_t& taken) {
  const int saved = errno;
  cpu_set_t allowed;
  if (sched_getaffinity(getpid(), sizeof(allowed), &allowed) == 0) {  // the main thread's
    cpu_set_t both;
    CPU_AND(&both, &allowed, &taken);
    CPU_XOR(&allowed, &allowed, &both);
    if (CPU_COUNT(&allowed) > 0) sched_setaffinity(tid, sizeof(allowed), &allowed);
  }
  errno = saved;
}

class Pool {
 public:
  // False: nothing was run, because the pool is in use or there is nobody to share with.
  bool run(int threads, int64_t tasks, Task task, void* context) {
    if (busy_.load(std::memory_order_relaxed) != 0 ||
        busy_.exchange(1, std::memory_order_acquire) != 0) {
      return false;
    }
    threads = static_cast<int>(std::min<int64_t>(threads, tasks));
    grow(threads - 1);
    threads = std::min(threads, workers_ + 1);
    if (threads > 1) share_out(static_cast<uint32_t>(threads), tasks, {task, context});
    busy_.store(0, std::memory_order_release);
    return threads > 1;
  }

  // For work that is about to come; costs a system call where threads are asleep.
  void wake(int threads) {
    if (sleeping_.load(std::memory_order_relaxed) == 0) return;
    uint32_t bits = 0;
    for (int i = 1; i < threads; ++i) bits |= bit_of(i);
    futex_wake(&job_, bits);
  }

  uint32_t jobs() const { return job_.load(std::memory_order_relaxed); }
  bool awake() const { return sleeping_.load(std::memory_order_relaxed) == 0; }

 private:
  struct Worker {
    Pool* pool;
    int index;
    uint32_t seen;
  };

  void share_out(uint32_t threads, int64_t tasks, Guarded guarded) {
    const uint32_t chunks =
        static_cast<uint32_t>(std::min<int64_t>(tasks, CHUNKS_PER_THREAD * threads));
    guarded_ = guarded;
    tasks_ = tasks;
    chunks_ = chunks;
    left_.store(chunks, std::memory_order_relaxed);
    participants_.store(threads, std::memory_order_relaxed);
    const uint32_t job = job_.load(std::memory_order_relaxed) + 1;
    spread(threads);
    for (uint32_t i = 0; i < threads; ++i) {
      const uint64_t share = uint64_t{i * chunks / threads} << 16 | (i + 1) * chunks / threads;
      slots_[i].word.store(uint64_t{job} << 32 | share, std::memory_order_release);
    }
    // Sequentially consistent with the sleeper's count and look: one of the two sees the other.
    job_.store(job, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) != 0) {
      uint32_t bits = 0;
      for (uint32_t i = 1; i < threads; ++i) bits |= bit_of(static_cast<int>(i));
      futex_wake(&job_, bits);
    }
    help(job, 0);
    const auto done = [this] { return left_.load(std::memory_order_acquire) == 0; };
    if (spin_until(done)) return;
    caller_sleeps_.store(1, std::memory_order_seq_cst);
    for (uint32_t left; (left = left_.load(std::memory_order_seq_cst)) != 0;) {
      futex_wait(&left_, left, 1);
    }
    caller_sleeps_.store(0, std::memory_order_relaxed);
  }

  // No two participants on one processor, as far as is known here.
  void spread(uint32_t threads) {
    const int here = sched_getcpu();
    caller_processor_.store(here, std::memory_order_relaxed);
    if (here < 0 || here >= CPU_SETSIZE) return;
    cpu_set_t taken;
    CPU_ZERO(&taken);
    CPU_SET(here, &taken);
    for (uint32_t i = 1; i < threads; ++i) {
      const int processor = slots_[i].processor.load(std::memory_order_relaxed);
      if (processor < 0 || processor >= CPU_SETSIZE) continue;
      if (CPU_ISSET(processor, &taken)) {
        slots_[i].processor.store(-1, std::memory_order_relaxed);  // until it says where it is
        send_away(slots_[i].thread.load(std::memory_order_relaxed), taken);
      } else {
        CPU_SET(processor, &taken);
      }
    }
  }

  // A worker says where it is, and leaves the caller's processor.
  void settle(uint32_t self) {
    int here = sched_getcpu();
    if (here >= 0 && here < CPU_SETSIZE &&
        here == caller_processor_.load(std::memory_order_relaxed)) {
      cpu_set_t taken;
      CPU_ZERO(&taken);
      CPU_SET(here, &taken);
      send_away(0, taken);
      here = sched_getcpu();
    }
    slots_[self].processor.store(here, std::memory_order_relaxed);
  }

  bool claim(uint32_t slot, uint32_t job, uint32_t* chunk) {
    std::atomic<uint64_t>& word = slots_[slot].word;
    uint64_t seen = word.load(std::memory_order_acquire);
    for (;;) {
      const uint32_t next = seen >> 16 & 0xffff, end = seen & 0xffff;
      if (static_cast<uint32_t>(seen >> 32) != job || next == end) return false;
      if (word.compare_exchange_weak(seen, seen + 0x10000, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
        *chunk = next;
        return true;
      }
    }
  }

  // Claims chunks of `job` until none is left; nothing where that job is over.
  void help(uint32_t job, uint32_t self) {
    const uint32_t threads = participants_.load(std::memory_order_relaxed);
    if (self >= threads) return;
    if (self > 0) settle(self);
    for (uint32_t i = 0; i < threads; ++i) {
      uint32_t chunk;
      while (claim((self + i) % threads, job, &chunk)) {
        const int64_t begin = chunk * tasks_ / chunks_, end = (chunk + 1) * tasks_ / chunks_;
        for (int64_t task = begin; task < end; ++task) Guarded::run(&guarded_, task);
        if (left_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
            caller_sleeps_.load(std::memory_order_seq_cst) != 0) {
          futex_wake(&left_, 1);
        }
      }
    }
  }

  uint32_t next_job(uint32_t seen, int self) {
    const auto changed = [&] { return job_.load(std::memory_order_acquire) != seen; };
    while (!spin_until(changed)) {  // woken without a job: one will come soon
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      if (job_.load(std::memory_order_seq_cst) == seen) futex_wait(&job_, seen, bit_of(self));
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
    return job_.load(std::memory_order_acquire);
  }

  static void* work(void* argument) {
    const Worker worker = *static_cast<Worker*>(argument);
    delete static_cast<Worker*>(argument);
    worker.pool->slots_[worker.index].thread.store(static_cast<pid_t>(syscall(SYS_gettid)),
                                                   std::memory_order_relaxed);
    for (uint32_t job = worker.seen;;) {
      job = worker.pool->next_job(job, worker.index);
      worker.pool->help(job, static_cast<uint32_t>(worker.index));
    }
    return nullptr;
  }

  // Threads are never ended: those that a smaller number does without stay asleep. They are
  // detached and own nothing, so that a process can exit at any time.
  void grow(int wanted) {
    if (workers_ >= wanted) return;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    // New threads inherit the mask: signals are for the application's own threads.
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    while (workers_ < wanted) {
      const int index = workers_ + 1;
      Worker* worker = new (std::nothrow) Worker{this, index, job_.load(std::memory_order_relaxed)};
      pthread_t thread;
      if (worker == nullptr || pthread_create(&thread, &attributes, work, worker) != 0) {
        delete worker;  // a limit of the system: fewer threads do the work
        break;
      }
#if defined(__linux__)
      pthread_setname_np(thread, "lowprec");
#endif
      workers_ = index;
    }
    pthread_sigmask(SIG_SETMASK, &saved, nullptr);
    pthread_attr_destroy(&attributes);
  }

  struct alignas(64) Slot {
    std::atomic<uint64_t> word{0};
    std::atomic<int> processor{-1};  // where its worker last was; -1: not known
    std::atomic<pid_t> thread{0};
  };

  alignas(64) Word busy_{0};  // a caller has the pool
  int workers_ = 0;           // of the caller that has it

  alignas(64) Word job_{0};  // number of the current job; the workers' futex
  Word participants_{0};
  std::atomic<int> caller_processor_{-1};
  // The job; read only by who has claimed a chunk of it.
  uint32_t chunks_ = 0;
  int64_t tasks_ = 0;
  Guarded guarded_{};

  alignas(64) Word left_{0};  // chunks of the job that are not done; the caller's futex
  Word caller_sleeps_{0};
  alignas(64) Word sleeping_{0};  // workers asleep, or about to be
  Slot slots_[MAX_THREADS];
};

// A child has the memory of its parent's pool but none of its threads: it leaves that pool alone
// (whatever state it was in) and makes its own when it first needs one.
std::atomic<Pool*> current_pool{nullptr};
std::atomic<bool> making_pool{false};
std::atomic<int> wanted_threads{0};         // 0: the default
std::atomic<int> default_threads{0};        // 0: not asked for yet
std::atomic<int64_t> last_asked_asleep{0};  // threads_are_awake(), last time that they were not
std::atomic<bool> bad_default{false};       // LOWPREC_NUM_THREADS is no number of threads

std::atomic<uint32_t> forks{0};  // between the first process and this one

void forget_pool() {
  forks.fetch_add(1, std::memory_order_relaxed);
  runs.store(0, std::memory_order_relaxed);
  current_pool.store(nullptr, std::memory_order_relaxed);
  making_pool.store(false, std::memory_order_relaxed);
  default_threads.store(0, std::memory_order_relaxed);
  inside_task = false;
}

void watch_forks() {
  static std::atomic<bool> watched{false};
  if (!watched.load(std::memory_order_acquire) && !watched.exchange(true)) {
    pthread_atfork(nullptr, nullptr, forget_pool);
  }
}

// Null where another thread is just making it: that call runs serially.
Pool* the_pool() {
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr || making_pool.exchange(true, std::memory_order_acquire)) return pool;
  pool = current_pool.load(std::memory_order_acquire);
  if (pool == nullptr) {
    watch_forks();
    pool = new (std::nothrow) Pool;
    current_pool.store(pool, std::memory_order_release);
  }
  making_pool.store(false, std::memory_order_release);
  return pool;
}

}  // namespace

UseParallelFor::UseParallelFor(const ParallelFor* other) : saved_(others) {
  if (other != nullptr) others = other;
}
UseParallelFor::~UseParallelFor() { others = saved_; }

int num_threads() {
  int threads = wanted_threads.load(std::memory_order_relaxed);
  if (threads == 0) threads = default_threads.load(std::memory_order_relaxed);
  if (threads == 0) {
    std::string problem;
    threads = default_num_threads(&problem);
    bad_default.store(!problem.empty(), std::memory_order_relaxed);
    default_threads.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

void set_num_threads(int threads) {
  wanted_threads.store(std::max(1, std::min(threads, MAX_THREADS)), std::memory_order_relaxed);
}

std::string thread_count_problem() {
  std::string problem;
  if (wanted_threads.load(std::memory_order_relaxed) != 0) return problem;
  num_threads();
  if (bad_default.load(std::memory_order_relaxed)) default_num_threads(&problem);
  return problem;
}

int usable_threads() {
  if (inside_task) return 1;
  if (others != nullptr && others->threads > 0) return others->threads;
  return num_threads();
}

bool threads_are_awake() {
  if (others != nullptr) return true;
  const Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr && pool->awake()) return true;
  const int64_t time = now();
  return time - last_asked_asleep.exchange(time, std::memory_order_relaxed) < FREQUENT_NANOSECONDS;
}

bool ForkSafeLock::lock() {
  watch_forks();
  const uint32_t self = forks.load(std::memory_order_relaxed) + 1;
  for (int tries = 0;; ++tries) {
    uint32_t holder = 0;
    if (holder_.compare_exchange_weak(holder, self, std::memory_order_acquire)) return false;
    if (holder != 0 && holder != self &&
        holder_.compare_exchange_strong(holder, self, std::memory_order_acquire)) {
      return true;
    }
    tries < 100 ? pause() : static_cast<void>(sched_yield());
  }
}

int64_t shared_calls() {
  const Pool* pool = current_pool.load(std::memory_order_acquire);
  return pool == nullptr ? 0 : pool->jobs();
}

KeepAwake::KeepAwake(bool wanted)
    : kept_(wanted && others == nullptr && !inside_task && num_threads() > 1) {
  if (!kept_) return;
  runs.fetch_add(1, std::memory_order_relaxed);
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr) pool->wake(num_threads());
}
KeepAwake::~KeepAwake() {
  if (kept_) runs.fetch_sub(1, std::memory_order_relaxed);
}

void run_tasks(int64_t tasks, Task task, void* context) {
  const int threads = tasks > 1 ? usable_threads() : 1;
  if (threads > 1 && others != nullptr) {
    Guarded guarded{task, context};
    others->run(others->self, Guarded::run, &guarded, tasks);
    return;
  }
  Pool* pool = threads > 1 ? the_pool() : nullptr;
  if (pool != nullptr && pool->run(threads, tasks, task, context)) return;
  for (int64_t i = 0; i < tasks; ++i) task(context, i);
}

namespace {
struct Scratch {
  ~Scratch() { free(memory); }
  uint8_t* memory = nullptr;
  int64_t bytes = 0;
};
thread_local Scratch scratch;
}  // namespace

uint8_t* thread_scratch(int64_t bytes) {
  if (bytes > scratch.bytes || scratch.memory == nullptr) {
    free(scratch.memory);
    scratch.bytes = 0;
    const size_t rounded = (static_cast<size_t>(bytes) + 127) / 64 * 64;
    scratch.memory = static_cast<uint8_t*>(aligned_alloc(64, rounded));
    if (scratch.memory == nullptr) throw std::bad_alloc();
    scratch.bytes = static_cast<int64_t>(rounded);
  }
  return scratch.memory;
}

void threads_detail::Failure::keep(int64_t task, std::exception_ptr exception) noexcept {
  while (lock_.test_and_set(std::memory_order_acquire)) pause();
  if (!exception_ || task < task_) {
    task_ = task;
    exception_ = exception;
  }
  lock_.clear(std::memory_order_release);
}

}  // namespace lp

// What threadpoolctl's controller (lowprec/threads.py) finds in the loaded module.
extern "C" {
__attribute__((visibility("default"))) int lowprec_get_num_threads(void);
__attribute__((visibility("default"))) void lowprec_set_num_threads(int threads);

int lowprec_get_num_threads(void) { return lp::num_threads(); }
void lowprec_set_num_threads(int threads) { lp::set_num_threads(threads); }
}
