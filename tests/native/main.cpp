// main.cpp: compares every entry of every kernel table of this machine with plain loops.
//
// Usage: check_kernels [--rounds N] [--seed S] [--isa NAME] [--only ENTRY] [--case INDEX] [--list]
//                      [--open-guards]
// LOWPREC_ISA limits the tables like --isa. Prints per table how many cases and elements were
// compared; the first difference ends it with exit status 1 and the options that repeat the case.
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>

#include "case.h"
#include "cpu.h"

namespace lp::check {
namespace {

struct Options {
  int64_t rounds = 1, index = -1;
  uint64_t seed = 1;
  std::string isa, only;
  bool list = false;
};

[[noreturn]] void refuse(const std::string& text) {
  fprintf(stderr, "check_kernels: %s\n", text.c_str());
  exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  if (const char* isa = getenv("LOWPREC_ISA")) options.isa = isa;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--list") {
      options.list = true;
      continue;
    }
    if (name == "--open-guards") {
      guards_are_closed = false;
      continue;
    }
    if (i + 1 == argc) refuse(name + " needs a value");
    const char* value = argv[++i];
    if (name == "--rounds") {
      options.rounds = atoll(value);
    } else if (name == "--seed") {
      options.seed = strtoull(value, nullptr, 0);
    } else if (name == "--isa") {
      options.isa = value;
    } else if (name == "--only") {
      options.only = value;
    } else if (name == "--case") {
      options.index = atoll(value);
    } else {
      refuse("unknown option " + name);
    }
  }
  return options;
}

std::vector<Check> all_checks() {
  std::vector<Check> all;
  for (const auto& part :
       {product_code_checks(), product_float_checks(), packing_checks(), attention_checks(),
        depthwise_checks(), conversion_checks(), convert_table_checks(), statistics_checks(),
        elementwise_checks(), row_checks(), pool_checks(), library_checks()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// Every pointer of the table belongs to some check: a new entry must not go unchecked.
bool covers_the_table(const std::vector<Check>& checks) {
  const size_t first = offsetof(Kernels, name) + sizeof(const char*);
  bool complete = true;
  for (size_t at = first; at < sizeof(Kernels); at += sizeof(void*)) {
    const bool covered = std::any_of(checks.begin(), checks.end(), [=](const Check& check) {
      return std::find(check.covers.begin(), check.covers.end(), at) != check.covers.end();
    });
    if (covered) continue;
    complete = false;
    fprintf(stderr, "FAILED: no check covers entry %zu of lp::Kernels (kernels.h)\n",
            (at - first) / sizeof(void*));
  }
  return complete;
}

int run(const Options& options) {
  Run run;
  run.seed = options.seed;
  run.scalar = kernels_scalar();
  std::vector<CpuInfo::Isa> isas = cpu_info().isas;
  for (const CpuInfo::Isa& model : cpu_info().models) {
    if (model.available) isas.push_back(model);
  }
  for (const CpuInfo::Isa& isa : isas) {
    if (!options.isa.empty() && options.isa != isa.name) continue;
    if (isa.available) {
      run.tables.push_back({kernels_named(isa.name)});
    } else if (!options.list) {
      printf("%-12s not on this machine: %s\n", isa.name.c_str(), isa.missing.c_str());
    }
  }
  if (options.list) {
    for (const Tally& tally : run.tables) puts(tally.kernels->name);
    return 0;
  }
  if (run.tables.empty()) refuse("this machine has no instruction set " + options.isa);

  const std::vector<Check> checks = all_checks();
  int64_t matched = 0;
  for (const Check& check : checks) {
    if (!options.only.empty() && options.only != check.entry) continue;
    ++matched;
    if (options.index >= 0) {
      Case one(run, check.entry, options.index);
      check.run(one);
      continue;
    }
    for (int64_t i = 0; i < check.cases * options.rounds; ++i) {
      Case one(run, check.entry, i);
      check.run(one);
    }
  }
  if (matched == 0) refuse("no check is called " + options.only);
  for (const Tally& tally : run.tables) {
    printf("%-12s %8lld cases %12lld elements: no difference\n", tally.kernels->name,
           static_cast<long long>(tally.cases), static_cast<long long>(tally.elements));
  }
  return covers_the_table(checks) ? 0 : 1;
}

}  // namespace
}  // namespace lp::check

int main(int argc, char** argv) {
  lp::check::name_the_case_on_signals();
  return lp::check::run(lp::check::parse(argc, argv));
}
