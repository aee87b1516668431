// plan_arena.h: the memory of one run in progress.
#pragma once
#include "engine/program.h"

namespace lp {

struct Plan::Arena {
  Arena(int64_t bytes, size_t tensors);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* memory;
  std::vector<uint8_t*> pointers;  // by plan tensor
};

}  // namespace lp
