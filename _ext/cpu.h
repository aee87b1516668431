// cpu.h: what this machine can run, and which table of kernels is used.
//
// cpu.cpp asks once and composes the tables; how to ask and which instruction sets there are is in
// cpu_x86.cpp and cpu_arm.cpp, behind the declarations at the end.
#pragma once
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace lp {

struct CpuInfo {
  std::string vendor, brand;
  // By instruction set, least first. Those only for tests are apart: they are never chosen.
  struct Isa {
    std::string name;
    bool available;
    std::string missing;  // why not: "the processor has no avx512bw"
  };
  std::vector<Isa> isas, models;
  std::vector<std::string> features;  // everything found, also what no kernel uses yet
};

const CpuInfo& cpu_info();

// The table of an instruction set, or of a model of one, that this machine can run; else nullptr.
const Kernels* kernels_named(const std::string& isa);
// The best table; LOWPREC_ISA limits it. An unknown or missing name is an error: `problem` says it.
const Kernels* chosen_kernels(std::string* problem);
// The same without a word: nullptr for an error. Cheap enough to ask at every call.
const Kernels* usual_kernels();

// ---- per architecture ----
struct Feature {
  const char* name;
  bool present;  // in the processor
  bool granted;  // by the operating system, which must save the registers
};
struct Machine {
  std::string vendor, brand;
  std::vector<Feature> features;
};
// A table has all kernels of its own (`all`), or is a copy of the table `base` in which `replace`
// puts its own where they are better.
struct IsaTable {
  const char* name;
  std::vector<const char*> needs;  // names of features
  const Kernels* (*all)();
  const char* base;
  void (*replace)(Kernels*);
  bool model;  // for tests: never chosen, not listed among the instruction sets
};
Machine detect_machine();
std::vector<IsaTable> isa_tables();  // least first; a base before what is based on it

}  // namespace lp
