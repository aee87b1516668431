// thread_count.h: how many threads this process should use when nobody has said it.
#pragma once
#include <string>

namespace lp {

// LOWPREC_NUM_THREADS, else OMP_NUM_THREADS (its first number; ignored where it is none), else the
// processors that this process may run on, and no more than the control group's quota pays for.
// A LOWPREC_NUM_THREADS that is not a number of threads is an error: `problem` says it, and the
// result is as if it were not set.
int default_num_threads(std::string* problem);

// The processors' worth of time that the control groups (v1 or v2) of this process grant, the
// tightest on the way to the root; 0 where there is no limit. `root` is put before every path that
// is read ("" for this machine's own): /proc/self/cgroup, /proc/self/mountinfo and the mounts.
double cgroup_cpus(const std::string& root);

}  // namespace lp
