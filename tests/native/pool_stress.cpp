// pool_stress.cpp: the thread pool under load, on its own, for the thread sanitizer.
//
//   make -C tests/native OUT=folder SANITIZE=thread pool_stress
//   TSAN_OPTIONS=die_after_fork=0 folder/pool_stress
//
// Prints one line per check and exits with 1 at the first that fails.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "float_state.h"
#include "threads.h"

namespace {

#define REQUIRE(condition)                                  \
  do {                                                      \
    if (!(condition)) {                                     \
      printf("FAILED line %d: %s\n", __LINE__, #condition); \
      fflush(stdout);                                       \
      _exit(1);                                             \
    }                                                       \
  } while (0)

// Every row exactly once, each written without synchronisation: overlapping ranges are a race, and
// a wrong count.
void cover(int64_t rows, int64_t grain, int64_t align = 1) {
  std::vector<int> visits(static_cast<size_t>(rows), 0);
  lp::parallel_rows(
      rows, grain,
      [&](int64_t begin, int64_t end) {
        REQUIRE(0 <= begin && begin < end && end <= rows && begin % align == 0);
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      },
      align);
  for (const int count : visits) REQUIRE(count == 1);
}

void ranges_cover_all_rows() {
  for (int threads = 1; threads <= 5; ++threads) {
    lp::set_num_threads(threads);
    for (const int64_t rows : {0, 1, 2, 3, 7, 64, 65, 1000, 4097}) {
      for (const int64_t grain : {1, 2, 3, 64, 100}) {
        cover(rows, grain);
        cover(rows, grain, 4);
      }
    }
  }
}

void many_callers_at_once() {
  lp::set_num_threads(4);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([] {
      for (int round = 0; round < 300; ++round) cover(200 + round, 1);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void count_changes_while_running() {
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    for (int n = 1; !stop.load(); n = n % 6 + 1) lp::set_num_threads(n);
  });
  std::thread other([] {
    for (int round = 0; round < 300; ++round) cover(300, 1);
  });
  for (int round = 0; round < 300; ++round) cover(300, 1);
  other.join();
  stop.store(true);
  changer.join();
}

void nested_calls_are_serial() {
  lp::set_num_threads(4);
  std::atomic<int> inner{0};
  lp::parallel_tasks(16, [&](int64_t) {
    REQUIRE(lp::usable_threads() == 1);
    const pthread_t self = pthread_self();
    lp::parallel_rows(8, 1, [&](int64_t begin, int64_t end) {
      REQUIRE(pthread_equal(self, pthread_self()));
      inner.fetch_add(static_cast<int>(end - begin));
    });
  });
  REQUIRE(inner.load() == 16 * 8);
  REQUIRE(lp::usable_threads() == 4);
}

void the_first_failure_is_thrown() {
  lp::set_num_threads(4);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> done{0};
    std::string what;
    try {
      lp::parallel_tasks(40, [&](int64_t task) {
        done.fetch_add(1);
        if (task % 10 == 7) throw std::runtime_error("task " + std::to_string(task));
      });
    } catch (const std::runtime_error& error) {
      what = error.what();
    }
    REQUIRE(what == "task 7");
    REQUIRE(done.load() == 40);
  }
}

// How many threads take part in tasks that leave time for it; all must have ended on return.
size_t participants_once() {
  constexpr int64_t TASKS = 16;
  std::vector<pthread_t> seen(TASKS);
  std::vector<int> done(TASKS, 0);
  lp::parallel_tasks(TASKS, [&](int64_t task) {
    usleep(2000);
    seen[static_cast<size_t>(task)] = pthread_self();
    done[static_cast<size_t>(task)] = 1;
  });
  for (const int one : done) REQUIRE(one == 1);
  std::vector<pthread_t> different;
  for (const pthread_t thread : seen) {
    bool is_new = true;
    for (const pthread_t other : different) is_new = is_new && !pthread_equal(thread, other);
    if (is_new) different.push_back(thread);
  }
  return different.size();
}

// On a busy machine a thread may come too late.
bool all_take_part(size_t threads) {
  for (int tries = 0; tries < 10; ++tries) {
    if (participants_once() == threads) return true;
    usleep(1000);  // asleep again
  }
  return false;
}

void sleeping_threads_wake_up() {
  for (int threads = 1; threads <= 4; ++threads) {
    lp::set_num_threads(threads);
    usleep(1000);  // asleep
    REQUIRE(all_take_part(static_cast<size_t>(threads)));
    const lp::KeepAwake awake(true);
    REQUIRE(all_take_part(static_cast<size_t>(threads)));
  }
  for (int round = 0; round < 40; ++round) {
    cover(64, 1);
    usleep(round % 4 * 60);  // before, at and after the moment when threads fall asleep
  }
}

// A signal sent to the process runs on a thread of the application, never on one of the pool.
std::atomic<int> on_main{0}, elsewhere{0};
pthread_t main_thread;
void on_signal(int) {
  (pthread_equal(pthread_self(), main_thread) ? on_main : elsewhere).fetch_add(1);
}
void signals_stay_with_the_application() {
  lp::set_num_threads(4);
  main_thread = pthread_self();
  cover(64, 1);
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  // Blocked here, a signal goes to any thread that does not block it, or waits.
  sigset_t one, saved;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  for (int i = 0; i < 20; ++i) {
    pthread_sigmask(SIG_BLOCK, &one, &saved);
    kill(getpid(), SIGUSR1);
    cover(64, 1);
    usleep(200);
    pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  }
  signal(SIGUSR1, SIG_DFL);
  REQUIRE(elsewhere.load() == 0);
  REQUIRE(on_main.load() > 0);
}

// Half of the smallest normal number: zero where denormals are flushed.
bool flushes() {
  volatile float small = 1.17549435e-38f;
  return small * 0.5f == 0.0f;
}

void set_flushing(bool on) {
#if defined(__x86_64__)
  _mm_setcsr(on ? 0x1F80 | 0x8040 : 0x1F80);
#elif defined(__aarch64__)
  const unsigned long state = on ? 1ul << 24 : 0;
  __asm__ volatile("msr fpcr, %0" : : "r"(state));
#endif
}

// Threads that flush denormals, as those of another library may: two per call.
void run_on_flushing_threads(void*, lp::Task task, void* context, int64_t tasks) {
  std::vector<std::thread> threads;
  for (int64_t first = 0; first < 2; ++first) {
    threads.emplace_back([=] {
      set_flushing(true);
      REQUIRE(flushes());
      for (int64_t i = first; i < tasks; i += 2) task(context, i);
      REQUIRE(flushes());  // and theirs is left as it was
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void float_state_holds_in_every_task() {
  lp::set_num_threads(4);
  const lp::ParallelFor other = {run_on_flushing_threads, nullptr, 2};
  std::atomic<int> flushed{0}, tasks{0};
  const auto body = [&](int64_t) {
    tasks.fetch_add(1);
    if (flushes()) flushed.fetch_add(1);
    cover(8, 1);  // serial: not one of the other threads again
  };
  {
    const lp::UseParallelFor use(&other);
    REQUIRE(lp::usable_threads() == 2);
    lp::parallel_tasks(10, body);
  }
  REQUIRE(tasks.load() == 10 && flushed.load() == 0);
  // Ours, made by a thread that flushes: a new thread inherits its maker's state.
  const pid_t child = fork();
  if (child == 0) {
    set_flushing(true);
    lp::parallel_tasks(64, [&](int64_t) {
      if (flushes()) flushed.fetch_add(1);
      usleep(100);  // long enough for every thread to take part
    });
    _exit(flushed.load() == 0 && flushes() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void children_compute(bool busy) {
  lp::set_num_threads(3);
  cover(100, 1);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (busy && !stop.load()) cover(100, 1);
  });
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a child that hangs ends
      for (int round = 0; round < 10; ++round) cover(100 + round, 1);
      _exit(all_take_part(3) ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop.store(true);
  other.join();
}

void scratch_is_each_threads_own() {
  lp::set_num_threads(4);
  std::atomic<int> wrong{0};
  lp::parallel_tasks(64, [&](int64_t task) {
    const int64_t bytes = 100 + 1000 * (task % 5);
    uint8_t* memory = lp::thread_scratch(bytes);
    if (reinterpret_cast<uintptr_t>(memory) % 64 != 0) wrong.fetch_add(1);
    memset(memory, static_cast<int>(task), static_cast<size_t>(bytes));
    usleep(300);  // others have theirs meanwhile
    for (int64_t i = 0; i < bytes; ++i) {
      if (memory[i] != static_cast<uint8_t>(task)) wrong.fetch_add(1);
    }
  });
  REQUIRE(wrong.load() == 0);
}

void step(const char* name, void (*check)()) {
  check();
  printf("ok  %s\n", name);
  fflush(stdout);
}

}  // namespace

int main() {
  // Forking with threads under way confuses the thread sanitizer's runtime in the child.
  const bool forks = getenv("POOL_STRESS_NO_FORK") == nullptr;
  step("ranges cover all rows", ranges_cover_all_rows);
  step("many callers at once", many_callers_at_once);
  step("the number of threads changes while they run", count_changes_while_running);
  step("nested calls are serial", nested_calls_are_serial);
  step("the first failure is thrown", the_first_failure_is_thrown);
  step("sleeping threads wake up", sleeping_threads_wake_up);
  step("signals stay with the application", signals_stay_with_the_application);
  step("scratch memory is each thread's own", scratch_is_each_threads_own);
  if (forks) {
    step("the float state holds in every task", float_state_holds_in_every_task);
    step("a forked child computes", [] { children_compute(false); });
    step("a child forked while the pool is busy computes", [] { children_compute(true); });
  }
  return 0;
}
