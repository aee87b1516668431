// case.cpp: see case.h.
#include "case.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "plain.h"

namespace lp::check {
namespace {

// What is running now, ready to be written by a signal handler.
char current[256];
char details[1024];

uint64_t mixed(uint64_t seed, const char* entry, int64_t index) {
  uint64_t hash = 1469598103934665603u ^ seed;
  for (const char* c = entry; *c != '\0'; ++c)
    hash = (hash ^ static_cast<uint8_t>(*c)) * 0x100000001B3u;
  return hash ^ (static_cast<uint64_t>(index) << 20);
}

void write_text(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(3);
}

void on_signal(int number) {
  write_text(number == SIGILL   ? "\nFAILED: an instruction this machine lacks: "
             : number == SIGFPE ? "\nFAILED: arithmetic exception: "
                                : "\nFAILED: memory touched outside of the buffers: ");
  write_text(current);
  write_text("\n  ");
  write_text(details);
  write_text("\n");
  _exit(1);
}

std::string hexadecimal(const void* p, int64_t item) {
  char text[64];
  uint64_t word = 0;
  memcpy(&word, p, static_cast<size_t>(item));
  snprintf(text, sizeof(text), "0x%0*llx", static_cast<int>(2 * item),
           static_cast<unsigned long long>(word));
  return text;
}

std::string with_value(float x) {
  char text[64];
  snprintf(text, sizeof(text), " (%.9g)", static_cast<double>(x));
  return hexadecimal(&x, 4) + text;
}

}  // namespace

Case::Case(Run& run, const char* entry, int64_t index)
    : random(mixed(run.seed, entry, index)), run_(run), entry_(entry), index_(index) {
  details[0] = '\0';
}

void Case::describe(const char* format, ...) {
  const size_t used = strlen(details);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(details + used, sizeof(details) - used, format, arguments);
  va_end(arguments);
}

void Case::begin(Tally& tally) {
  tally_ = &tally;
  ++tally.cases;
  snprintf(current, sizeof(current), "%s on %s; repeat with --seed %llu --only %s --case %lld",
           entry_, tally.kernels->name, static_cast<unsigned long long>(run_.seed), entry_,
           static_cast<long long>(index_));
}

void Case::fail(const char* what, int64_t at, const std::string& expected,
                const std::string& actual) {
  fprintf(stderr, "\nFAILED: %s\n  %s\n  %s[%lld]: expected %s, got %s\n", current, details, what,
          static_cast<long long>(at), expected.c_str(), actual.c_str());
  exit(1);
}

void Case::same_bytes(const char* what, const void* expected, const void* actual, int64_t count,
                      int64_t item) {
  tally_->elements += count;
  if (count == 0 || memcmp(expected, actual, static_cast<size_t>(count * item)) == 0) return;
  const uint8_t* a = static_cast<const uint8_t*>(expected);
  const uint8_t* b = static_cast<const uint8_t*>(actual);
  int64_t at = 0;
  while (memcmp(a + at * item, b + at * item, static_cast<size_t>(item)) == 0) ++at;
  fail(what, at, hexadecimal(a + at * item, item), hexadecimal(b + at * item, item));
}

void Case::same_floats(const char* what, const float* expected, const float* actual,
                       int64_t count) {
  tally_->elements += count;
  for (int64_t i = 0; i < count; ++i) {
    if (memcmp(expected + i, actual + i, 4) == 0) continue;
    if (isnan(expected[i]) && isnan(actual[i])) continue;
    fail(what, i, with_value(expected[i]), with_value(actual[i]));
  }
}

void Case::same_outputs(const char* what, int32_t kind, const Guarded<uint8_t>& expected,
                        const Guarded<uint8_t>& actual) {
  const int64_t item = bytes_of(kind), count = expected.size() / item;
  if (kind == OUT_F32) {
    return same_floats(what, reinterpret_cast<const float*>(expected.data()),
                       reinterpret_cast<const float*>(actual.data()), count);
  }
  if (kind != OUT_BF16) return same_bytes(what, expected.data(), actual.data(), count, item);
  tally_->elements += count;
  for (int64_t i = 0; i < count; ++i) {
    uint16_t a, b;
    memcpy(&a, expected.data() + 2 * i, 2);
    memcpy(&b, actual.data() + 2 * i, 2);
    if (a == b || (isnan(plain_from_bf16(a)) && isnan(plain_from_bf16(b)))) continue;
    fail(what, i, with_value(plain_from_bf16(a)), with_value(plain_from_bf16(b)));
  }
}

void name_the_case_on_signals() {
  for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(number, on_signal);
}

}  // namespace lp::check
