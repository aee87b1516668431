// cpu_x86.cpp: CPUID and XCR0, and the instruction sets of x86-64.
#if defined(__x86_64__)
#include <cpuid.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "cpu.h"

namespace lp {

namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_max(leaf & 0x80000000u, nullptr) < leaf) return r;
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

// Which register files the operating system saves: bit 1 SSE, 2 AVX, 5-7 AVX-512, 17-18 AMX.
uint64_t saved_state(const Registers& leaf1) {
  if (((leaf1.ecx >> 27) & 1) == 0) return 0;  // OSXSAVE
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Tiles are 8 KB more to save in every signal frame: Linux wants to be asked, once per process
// (Documentation/arch/x86/xstate.rst). Other systems grant them with XCR0.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return true;
#endif
}

}  // namespace

Machine detect_machine() {
  Machine machine;
  const Registers l0 = cpuid(0, 0), l1 = cpuid(1, 0), l7 = cpuid(7, 0), l71 = cpuid(7, 1);
  char text[49] = {0};
  memcpy(text, &l0.ebx, 4);
  memcpy(text + 4, &l0.edx, 4);
  memcpy(text + 8, &l0.ecx, 4);
  machine.vendor = text;
  for (unsigned i = 0; i < 3; ++i) {
    const Registers brand = cpuid(0x80000002u + i, 0);
    memcpy(text + 16 * i, &brand, 16);
  }
  machine.brand = text;
  while (!machine.brand.empty() && machine.brand.back() == ' ') machine.brand.pop_back();

  const uint64_t state = saved_state(l1);
  const bool avx = (state & 0x6) == 0x6;
  const bool avx512 = avx && (state & 0xE0) == 0xE0;
  const auto bit = [](unsigned word, int n) { return ((word >> n) & 1) != 0; };
  const bool tiles = avx512 && (state & 0x60000) == 0x60000;
  const bool amx = tiles && bit(l7.edx, 24) && may_use_tiles();
  machine.features = {
      {"avx2", bit(l7.ebx, 5), avx},           {"fma", bit(l1.ecx, 12), avx},
      {"f16c", bit(l1.ecx, 29), avx},          {"avxvnni", bit(l71.eax, 4), avx},
      {"avx512f", bit(l7.ebx, 16), avx512},    {"avx512bw", bit(l7.ebx, 30), avx512},
      {"avx512vl", bit(l7.ebx, 31), avx512},   {"avx512dq", bit(l7.ebx, 17), avx512},
      {"avx512vnni", bit(l7.ecx, 11), avx512}, {"avx512bf16", bit(l71.eax, 5), avx512},
      {"amx-tile", bit(l7.edx, 24), amx},      {"amx-int8", bit(l7.edx, 25), amx},
      {"amx-bf16", bit(l7.edx, 22), amx},
  };
  return machine;
}

std::vector<IsaTable> isa_tables() {
  using Names = std::vector<const char*>;
  const auto plus = [](Names names, const Names& more) {
    names.insert(names.end(), more.begin(), more.end());
    return names;
  };
  const Names avx2 = {"avx2", "fma", "f16c"};
  const Names avx512 = plus(avx2, {"avx512f", "avx512bw", "avx512vl", "avx512dq"});
  const Names vnni = plus(avx512, {"avx512vnni"});
  const Names bf16 = plus(vnni, {"avx512bf16"});
  const auto all = [](const char* name, const Names& needs, const Kernels* (*table)()) {
    return IsaTable{name, needs, table, nullptr, nullptr, false};
  };
  const auto over = [](const char* base, const char* name, const Names& needs,
                       void (*replace)(Kernels*)) {
    return IsaTable{name, needs, nullptr, base, replace, false};
  };
  const auto model = [](const char* base, const char* name, const Names& needs,
                        void (*replace)(Kernels*)) {
    return IsaTable{name, needs, nullptr, base, replace, true};
  };
  return {
      all("scalar", {}, kernels_scalar),
      all("avx2", avx2, kernels_avx2),
      over("avx2", "avxvnni", plus(avx2, {"avxvnni"}), add_avxvnni),
      all("avx512", avx512, kernels_avx512),
      over("avx512", "avx512vnni", vnni, add_avx512vnni),
      over("avx512vnni", "avx512bf16", bf16, add_avx512bf16),
      over("avx512bf16", "amx", plus(bf16, {"amx-tile", "amx-int8", "amx-bf16"}), add_amx),
      model("avx2", "avxvnni-evex", vnni, add_avxvnni_evex),
      model("avx512vnni", "amx-model", vnni, add_amx_model),
  };
}

}  // namespace lp
#endif
