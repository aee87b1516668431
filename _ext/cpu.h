// cpu.h: what this machine can run, and which table of kernels is used.
#pragma once
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace lp {

struct CpuInfo {
  std::string vendor, brand;
  // By instruction set, least first: "scalar", "avx2", "avx512vnni".
  struct Isa {
    std::string name;
    bool available;
    std::string missing;  // why not: the first missing feature
  };
  std::vector<Isa> isas;
  std::vector<std::string> features;  // everything found, also what no kernel uses yet
};

const CpuInfo& cpu_info();

// The table of an instruction set that this machine has; nullptr otherwise.
const Kernels* kernels_named(const std::string& isa);
// The best table; LOWPREC_ISA limits it. An unknown or missing name is an error: `problem` says it.
const Kernels* chosen_kernels(std::string* problem);

}  // namespace lp
