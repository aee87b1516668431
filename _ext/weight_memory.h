// weight_memory.h: memory for packed weights: aligned to vectors, large ones on huge pages.
//
// A product with few rows reads its weights once from one end to the other, and then the pages of
// 4 KB are what it waits for: 1 x 4096 x 4096 int8 took 541 us from them and 275 us from pages of
// 2 MB (Zen 4). Below a few MB nothing was gained.
#pragma once
#include <stddef.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>
#include <vector>

namespace lp {

constexpr size_t WEIGHT_ALIGNMENT = 64;  // whole cache lines: a vector across two is slower
constexpr size_t HUGE_PAGE = size_t{2} << 20;

// Free with free(); throws std::bad_alloc.
inline void* allocate_weights(size_t bytes) {
  const bool large = bytes >= 2 * HUGE_PAGE;
  void* memory = nullptr;
  if (posix_memalign(&memory, large ? HUGE_PAGE : WEIGHT_ALIGNMENT, bytes) != 0) {
    throw std::bad_alloc();
  }
#if defined(MADV_HUGEPAGE)
  // A request: where the system refuses, everything works with small pages.
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

template <class T>
struct WeightAllocator {
  using value_type = T;
  WeightAllocator() = default;
  template <class U>
  WeightAllocator(const WeightAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(allocate_weights(n * sizeof(T))); }
  void deallocate(T* memory, size_t) { free(memory); }
  bool operator==(const WeightAllocator&) const { return true; }
  bool operator!=(const WeightAllocator&) const { return false; }
};

template <class T>
using WeightVector = std::vector<T, WeightAllocator<T>>;

}  // namespace lp
