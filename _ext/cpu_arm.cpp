// cpu_arm.cpp: what the kernel says about an aarch64 processor, and its instruction sets.
#if defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#include <stdio.h>

#include "cpu.h"

namespace lp {

// Advanced SIMD is part of every aarch64 machine. Linux lists in the auxiliary vector what the
// processor has and the kernel supports (arch/arm64 ELF hwcaps); elsewhere only the base is used.
Machine detect_machine() {
  Machine machine;
  machine.vendor = "Arm";
  bool dotprod = false, i8mm = false, bf16 = false;
#if defined(__linux__)
  constexpr unsigned long CPUID = 1ul << 11, ASIMDDP = 1ul << 20;
  constexpr unsigned long I8MM = 1ul << 13, BF16 = 1ul << 14;
  const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
  dotprod = (hwcap & ASIMDDP) != 0;
  i8mm = (hwcap2 & I8MM) != 0;
  bf16 = (hwcap2 & BF16) != 0;
  if ((hwcap & CPUID) != 0) {
    unsigned long id;  // the kernel answers in the processor's place
    __asm__("mrs %0, midr_el1" : "=r"(id));
    char text[48];
    snprintf(text, sizeof(text), "implementer 0x%02lx, part 0x%03lx", id >> 24 & 0xFF,
             id >> 4 & 0xFFF);
    machine.brand = text;
  }
#endif
  machine.features = {{"neon", true, true},
                      {"dotprod", dotprod, dotprod},
                      {"i8mm", i8mm, i8mm},
                      {"bf16", bf16, bf16}};
  return machine;
}

std::vector<IsaTable> isa_tables() {
  return {
      {"scalar", {}, kernels_scalar, nullptr, nullptr, false},
      {"neon", {"neon"}, kernels_neon, nullptr, nullptr, false},
      {"dotprod", {"neon", "dotprod"}, nullptr, "neon", add_dotprod, false},
      {"i8mm", {"neon", "dotprod", "i8mm"}, nullptr, "dotprod", add_i8mm, false},
  };
}

}  // namespace lp
#endif
