// case.h: one drawn case, run on every table and compared bit for bit.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "guarded.h"
#include "kernels/kernels.h"
#include "random.h"

namespace lp::check {

struct Tally {
  const Kernels* kernels;
  int64_t cases = 0, elements = 0;
};

// What the program was asked for, and what it has done so far.
struct Run {
  std::vector<Tally> tables;
  const Kernels* scalar;
  uint64_t seed = 1;
};

class Case {
 public:
  Case(Run& run, const char* entry, int64_t index);

  Random random;
  const Kernels& scalar() const { return *run_.scalar; }
  int64_t index() const { return index_; }

  // Says what is special about this case: printed when it fails.
  void describe(const char* format, ...) __attribute__((format(printf, 2, 3)));

  // Calls body(table) for every table under test.
  template <class Body>
  void each_table(Body body) {
    for (Tally& tally : run_.tables) {
      begin(tally);
      body(*tally.kernels);
    }
  }

  // Stop the program unless all bits agree.
  void same_bytes(const char* what, const void* expected, const void* actual, int64_t count,
                  int64_t item);
  // Any NaN equals any NaN: which one an operation makes differs between architectures.
  void same_floats(const char* what, const float* expected, const float* actual, int64_t count);
  // Outputs of a product, gaps between rows included; NaN in f32 and bf16 as above.
  void same_outputs(const char* what, int32_t kind, const Guarded<uint8_t>& expected,
                    const Guarded<uint8_t>& actual);
  template <class T>
  void same(const char* what, const Guarded<T>& expected, const Guarded<T>& actual) {
    same_bytes(what, expected.data(), actual.data(), expected.size(), sizeof(T));
  }
  void same(const char* what, const Guarded<float>& expected, const Guarded<float>& actual) {
    same_floats(what, expected.data(), actual.data(), expected.size());
  }

 private:
  void begin(Tally& tally);
  [[noreturn]] void fail(const char* what, int64_t at, const std::string& expected,
                         const std::string& actual);

  Run& run_;
  Tally* tally_ = nullptr;
  const char* entry_;
  int64_t index_;
};

// A check draws and runs one case. `covers` are the entries of the table it looks at.
struct Check {
  const char* entry;
  void (*run)(Case&);
  int64_t cases;  // in one round
  std::vector<size_t> covers;
};
#define LP_ENTRY(member) offsetof(lp::Kernels, member)

std::vector<Check> product_code_checks();
std::vector<Check> product_float_checks();
std::vector<Check> depthwise_checks();
std::vector<Check> packing_checks();
std::vector<Check> attention_checks();
std::vector<Check> conversion_checks();
std::vector<Check> convert_table_checks();
std::vector<Check> statistics_checks();
std::vector<Check> elementwise_checks();
std::vector<Check> row_checks();
std::vector<Check> pool_checks();
std::vector<Check> library_checks();

// A guard page was touched, an instruction was missing ...: name the case, then stop.
void name_the_case_on_signals();

}  // namespace lp::check
