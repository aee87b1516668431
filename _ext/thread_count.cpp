// thread_count.cpp: see thread_count.h. Sources: cpuset(7), cgroups(7), and the kernel's
// admin-guide: cgroup-v1/cpu (cfs_quota_us) and cgroup-v2 (cpu.max).
#include "thread_count.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

#include "threads.h"

namespace lp {
namespace {

// Processors that the scheduler may put this process on; 0 where it does not say.
int affinity() {
  // A set that is too small for the machine is refused with EINVAL.
  for (int processors = 1024; processors <= (1 << 20); processors *= 2) {
    cpu_set_t* set = CPU_ALLOC(processors);
    if (set == nullptr) return 0;
    const size_t size = CPU_ALLOC_SIZE(processors);
    const int status = sched_getaffinity(0, size, set);
    const int count = status == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (status == 0 || errno != EINVAL) return count;
  }
  return 0;
}

// The positive number that `text` begins with, at most MAX_THREADS; 0 where it is none. `whole`:
// nothing but spaces may follow.
int positive(const char* text, bool whole) {
  char* end = nullptr;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (end == text || errno != 0 || value < 1) return 0;
  while (*end == ' ') ++end;
  if (*end != '\0' && (whole || *end != ',')) return 0;
  if (value > MAX_THREADS) return whole ? 0 : MAX_THREADS;
  return static_cast<int>(value);
}

// ---- control groups ----

struct Mount {
  std::string root, point;  // the group that is mounted, and where
};

bool has_word(const std::string& list, const std::string& word) {
  std::istringstream words(list);
  for (std::string one; std::getline(words, one, ',');) {
    if (one == word) return true;
  }
  return false;
}

// Mounts of one kind: "cgroup2", or "cgroup" with the cpu controller. Fields (proc(5)): id, parent,
// device, root, mount point, options, any number of optional ones, "-", type, source, options.
std::vector<Mount> mounts_of(const std::string& root, const std::string& type) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string skip, kind, source, options;
    Mount mount;
    fields >> skip >> skip >> skip >> mount.root >> mount.point;
    while (fields >> skip && skip != "-") {
    }
    fields >> kind >> source >> options;
    if (kind == type && (type == "cgroup2" || has_word(options, "cpu"))) mounts.push_back(mount);
  }
  return mounts;
}

// Quota divided by period, of one directory; 0 where there is none.
double limit_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  std::string quota;
  double period = 0.0;
  if (!(file >> quota >> period) || quota == "max" || !(period > 0.0)) return 0.0;
  return std::max(0.0, strtod(quota.c_str(), nullptr)) / period;
}

double limit_v1(const std::string& directory) {
  std::ifstream quota_file(directory + "/cpu.cfs_quota_us");
  std::ifstream period_file(directory + "/cpu.cfs_period_us");
  double quota = 0.0, period = 0.0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0.0 || !(period > 0.0)) {
    return 0.0;
  }
  return quota / period;
}

// The tightest limit of `group` and the groups that it is in, as far as they can be seen.
double tightest(const std::string& root, const Mount& mount, const std::string& group,
                double (*limit)(const std::string&)) {
  // Inside a container the mount shows a part of the tree: paths begin where it begins.
  std::string path = group;
  if (mount.root != "/" && path.compare(0, mount.root.size(), mount.root) == 0) {
    path.erase(0, mount.root.size());
  }
  double least = 0.0;
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    const double own = limit(root + mount.point + path);
    if (own > 0.0 && (least == 0.0 || own < least)) least = own;
    if (path.empty()) return least;
    path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

double cgroup_cpus(const std::string& root) {
  double least = 0.0;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // id:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && !has_word(controllers, "cpu")) continue;
    for (const Mount& mount : mounts_of(root, v2 ? "cgroup2" : "cgroup")) {
      const double own = tightest(root, mount, group, v2 ? limit_v2 : limit_v1);
      if (own > 0.0 && (least == 0.0 || own < least)) least = own;
    }
  }
  return least;
}

int default_num_threads(std::string* problem) {
  const char* own = getenv("LOWPREC_NUM_THREADS");
  if (own != nullptr && *own != '\0') {
    const int threads = positive(own, true);
    if (threads > 0) return threads;
    *problem = "LOWPREC_NUM_THREADS=" + std::string(own) +
               " is not a number of threads from 1 to " + std::to_string(MAX_THREADS) +
               "; unset it or correct it";
  }
  const char* openmp = getenv("OMP_NUM_THREADS");
  if (openmp != nullptr) {
    const int threads = positive(openmp, false);
    if (threads > 0) return threads;
  }
  int threads = std::max(1, affinity());
  const double quota = cgroup_cpus("");
  if (quota > 0.0) threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(quota))));
  return std::min(threads, MAX_THREADS);
}

}  // namespace lp
