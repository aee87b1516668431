// cpu.cpp: CPUID and XCR0, asked once.
#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdlib.h>
#include <string.h>

namespace lp {

namespace {

#if defined(__x86_64__)
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

struct Feature {
  const char* name;
  bool present;
};

CpuInfo detect() {
  CpuInfo info;
  const Registers l0 = cpuid(0, 0), l1 = cpuid(1, 0), l7 = cpuid(7, 0), l71 = cpuid(7, 1);
  char text[49] = {0};
  memcpy(text, &l0.ebx, 4);
  memcpy(text + 4, &l0.edx, 4);
  memcpy(text + 8, &l0.ecx, 4);
  info.vendor = text;
  for (unsigned i = 0; i < 3; ++i) {
    const Registers brand = cpuid(0x80000002u + i, 0);
    memcpy(text + 16 * i, &brand, 16);
  }
  info.brand = text;
  while (!info.brand.empty() && info.brand.back() == ' ') info.brand.pop_back();

  const uint64_t state = saved_state(l1);
  const bool os_avx = (state & 0x6) == 0x6;
  const bool os_avx512 = os_avx && (state & 0xE0) == 0xE0;
  const bool os_amx = os_avx512 && (state & 0x60000) == 0x60000;
  const auto bit = [](unsigned word, int n) { return ((word >> n) & 1) != 0; };
  const Feature avx2 = {"avx2", os_avx && bit(l7.ebx, 5)};
  const Feature fma = {"fma", os_avx && bit(l1.ecx, 12)};
  const Feature f16c = {"f16c", os_avx && bit(l1.ecx, 29)};
  const Feature f = {"avx512f", os_avx512 && bit(l7.ebx, 16)};
  const Feature dq = {"avx512dq", os_avx512 && bit(l7.ebx, 17)};
  const Feature bw = {"avx512bw", os_avx512 && bit(l7.ebx, 30)};
  const Feature vl = {"avx512vl", os_avx512 && bit(l7.ebx, 31)};
  const Feature vnni = {"avx512vnni", os_avx512 && bit(l7.ecx, 11)};
  const Feature others[] = {{"avxvnni", os_avx && bit(l71.eax, 4)},
                            {"avx512bf16", os_avx512 && bit(l71.eax, 5)},
                            {"amx-bf16", os_amx && bit(l7.edx, 22)},
                            {"amx-tile", os_amx && bit(l7.edx, 24)},
                            {"amx-int8", os_amx && bit(l7.edx, 25)}};
  for (const Feature& feature : {avx2, fma, f16c, f, dq, bw, vl, vnni}) {
    if (feature.present) info.features.push_back(feature.name);
  }
  for (const Feature& feature : others) {
    if (feature.present) info.features.push_back(feature.name);
  }
  const auto isa = [&](const char* name, std::vector<Feature> needs) {
    CpuInfo::Isa entry{name, true, ""};
    for (const Feature& need : needs) {
      if (!need.present && entry.available) {
        entry.available = false;
        entry.missing = need.name;
      }
    }
    info.isas.push_back(entry);
  };
  isa("scalar", {});
  isa("avx2", {avx2, fma, f16c});
  isa("avx512vnni", {avx2, fma, f16c, f, dq, bw, vl, vnni});
  return info;
}
#else
CpuInfo detect() {
  CpuInfo info;
  info.isas.push_back({"scalar", true, ""});
  return info;
}
#endif

}  // namespace

const CpuInfo& cpu_info() {
  static const CpuInfo info = detect();
  return info;
}

const Kernels* kernels_named(const std::string& isa) {
  for (const CpuInfo::Isa& entry : cpu_info().isas) {
    if (entry.name != isa || !entry.available) continue;
#if defined(__x86_64__)
    if (isa == "avx2") return kernels_avx2();
    if (isa == "avx512vnni") return kernels_avx512vnni();
#endif
    return kernels_scalar();
  }
  return nullptr;
}

const Kernels* chosen_kernels(std::string* problem) {
  const char* limit = getenv("LOWPREC_ISA");
  std::string known;
  const Kernels* best = nullptr;
  for (const CpuInfo::Isa& entry : cpu_info().isas) {
    known += (known.empty() ? "" : ", ") + entry.name;
    if (entry.available) best = kernels_named(entry.name);
    if (limit == nullptr || entry.name != limit) continue;
    if (!entry.available) {
      *problem = "LOWPREC_ISA=" + entry.name + ": this machine has no " + entry.missing +
                 "; unset it or name a smaller set";
      return nullptr;
    }
    return best;
  }
  if (limit != nullptr && *limit != '\0') {
    *problem = "LOWPREC_ISA=" + std::string(limit) + " is not one of: " + known;
    return nullptr;
  }
  return best;
}

}  // namespace lp
