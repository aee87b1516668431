// memory.h: how much room a tensor gets, and the memory of runs in progress.
#pragma once
#include "engine/program.h"
#include "threads.h"

namespace lp {

constexpr int64_t ALIGNMENT = 64;
// Products read up to 3 bytes, vector loads up to 64, past a tensor's end.
constexpr int64_t SLACK = 128;

inline int64_t rounded(int64_t bytes) {
  return (bytes + SLACK + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}
inline std::unique_ptr<uint8_t[]> zeroed(int64_t bytes) {
  return std::unique_ptr<uint8_t[]>(new uint8_t[static_cast<size_t>(bytes)]());
}

// What one run needs. Contents are undefined at its start.
struct Arena {
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  // Make room; what was in it is lost where it has to grow.
  void fit(int64_t bytes_needed, size_t tensors);

  uint8_t* memory = nullptr;
  int64_t bytes = 0;
  std::vector<uint8_t*> pointers;  // by plan tensor
};

// Arenas between runs, one for every run that was ever concurrent: all plans of a program take from
// it, so that memory grows with the largest input and not with the number of different ones.
struct ArenaPool {
  std::unique_ptr<Arena> take();
  void give_back(std::unique_ptr<Arena> arena);

  using Idle = std::vector<std::unique_ptr<Arena>>;
  Idle& locked();

  ForkSafeLock lock;
  // On the heap: a forked child leaves one that was being changed where it is.
  std::unique_ptr<Idle> idle = std::make_unique<Idle>();
};

}  // namespace lp
