// cpu.cpp: the tables of kernels that this machine can run, composed once; and the choice.
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

#include "threads.h"

namespace lp {

namespace {

struct Entry {
  CpuInfo::Isa isa;
  bool model;
  Kernels kernels;
};

struct Known {
  CpuInfo info;
  std::vector<Entry> entries;
};

std::string first_missing(const IsaTable& table, const Machine& machine) {
  for (const std::string need : table.needs) {
    const Feature* found = nullptr;
    for (const Feature& feature : machine.features) {
      if (feature.name == need) found = &feature;
    }
    if (found == nullptr || !found->present) return "the processor has no " + need;
    if (!found->granted) return "the operating system does not grant " + need;
  }
  return "";
}

const Entry* find(const std::vector<Entry>& entries, const std::string& name) {
  for (const Entry& entry : entries) {
    if (entry.isa.name == name) return &entry;
  }
  return nullptr;
}

Known look() {
  Known known;
  const Machine machine = detect_machine();
  known.info.vendor = machine.vendor;
  known.info.brand = machine.brand;
  for (const Feature& feature : machine.features) {
    if (feature.present && feature.granted) known.info.features.push_back(feature.name);
  }
  for (const IsaTable& table : isa_tables()) {
    Entry entry{{table.name, true, first_missing(table, machine)}, table.model, {}};
    entry.isa.available = entry.isa.missing.empty();
    // Functions of a table are compiled for its instruction set: never run elsewhere.
    if (!entry.isa.available) {
      entry.kernels.name = table.name;
    } else if (table.all != nullptr) {
      entry.kernels = *table.all();
    } else {
      entry.kernels = find(known.entries, table.base)->kernels;
      table.replace(&entry.kernels);
      entry.kernels.name = table.name;
    }
    (table.model ? known.info.models : known.info.isas).push_back(entry.isa);
    known.entries.push_back(entry);
  }
  return known;
}

const Known& known() {
  static const Known once = look();
  return once;
}

}  // namespace

const CpuInfo& cpu_info() { return known().info; }

const Kernels* kernels_named(const std::string& isa) {
  const Entry* entry = find(known().entries, isa);
  return entry != nullptr && entry->isa.available ? &entry->kernels : nullptr;
}

const Kernels* chosen_kernels(std::string* problem) {
  const char* limit = getenv("LOWPREC_ISA");
  const bool limited = limit != nullptr && *limit != '\0';
  std::string names;
  const Kernels* best = nullptr;
  for (const Entry& entry : known().entries) {
    if (entry.model) continue;
    names += (names.empty() ? "" : ", ") + entry.isa.name;
    if (entry.isa.available) best = &entry.kernels;
    if (!limited || entry.isa.name != limit) continue;
    if (entry.isa.available) return best;
    *problem = "LOWPREC_ISA=" + entry.isa.name + ": " + entry.isa.missing +
               "; unset it or name a smaller set";
    return nullptr;
  }
  if (limited) {
    *problem = "LOWPREC_ISA=" + std::string(limit) + " is not one of: " + names;
    return nullptr;
  }
  return best;
}

const Kernels* usual_kernels() {
  // By the value of LOWPREC_ISA when the table was chosen last.
  thread_local char chosen_by[32] = {0};
  thread_local const Kernels* chosen = nullptr;
  const char* limit = getenv("LOWPREC_ISA");
  if (limit == nullptr) limit = "";
  if (chosen != nullptr && strcmp(limit, chosen_by) == 0) return chosen;
  std::string problem;
  chosen = thread_count_problem().empty() ? chosen_kernels(&problem) : nullptr;
  if (strlen(limit) >= sizeof(chosen_by)) return chosen = nullptr;
  strcpy(chosen_by, limit);
  return chosen;
}

}  // namespace lp
