// cpu_other.cpp: the machine of an architecture that has no file of its own.
#if !defined(__x86_64__) && !defined(__aarch64__)
#include "cpu.h"

namespace lp {

Machine detect_machine() { return {}; }

std::vector<IsaTable> isa_tables() {
  return {{"scalar", {}, kernels_scalar, nullptr, nullptr, false}};
}

}  // namespace lp
#endif
