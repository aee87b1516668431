// c_api_guard.cpp: see c_api_guard.h.
#include "c_api_guard.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include <string>

#include "c_api.h"
#include "cpu.h"

namespace lp {
namespace {

// Beyond this no size is one, and no product of two with a stride of 8 overflows.
constexpr int64_t LARGEST = int64_t{1} << 56;

thread_local char message[512] = "";
thread_local ParallelFor chosen_loop = {nullptr, nullptr, 0};

struct CodeLimits {
  int32_t low, high;
};

CodeLimits limits_of(int32_t dtype, const char* name) {
  switch (dtype) {
    case LOWPREC_U8:
      return {0, 255};
    case LOWPREC_S8:
      return {-128, 127};
    case LOWPREC_U16:
      return {0, 65535};
    case LOWPREC_S16:
      return {-32768, 32767};
    case LOWPREC_S32:
      return {INT32_MIN, INT32_MAX};
    default:
      refuse(LOWPREC_INVALID, "%s is %d; expected the number of a type of codes", name, dtype);
  }
}

}  // namespace

void say(const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof(message), format, values);
  va_end(values);
}

const char* api_last_error() { return message; }

const ParallelFor* embedders_loop() { return chosen_loop.run == nullptr ? nullptr : &chosen_loop; }

lowprec_status api_use_parallel_for(const lowprec_parallel_for* other) {
  return guarded([&] {
    if (other == nullptr) {
      chosen_loop = {nullptr, nullptr, 0};
      return;
    }
    const lowprec_parallel_for d = described(other, "other");
    if (d.run == nullptr) refuse(LOWPREC_INVALID, "run is null");
    if (d.threads < 1 || d.threads > MAX_THREADS) {
      refuse(LOWPREC_INVALID, "threads is %d; expected 1 to %d", d.threads, MAX_THREADS);
    }
    chosen_loop = {d.run, d.self, d.threads};
  });
}

void refuse(lowprec_status status, const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof(message), format, values);
  va_end(values);
  throw Refusal{status};
}

const Kernels* kernels_or_refuse() {
  if (const Kernels* kernels = usual_kernels()) return kernels;
  std::string problem = thread_count_problem();
  const Kernels* kernels = problem.empty() ? chosen_kernels(&problem) : nullptr;
  if (kernels == nullptr) refuse(LOWPREC_UNAVAILABLE, "%s", problem.c_str());
  return kernels;
}

void require(const void* pointer, const char* name) {
  if (pointer == nullptr) refuse(LOWPREC_INVALID, "%s is null", name);
}

void require_size(int64_t size, const char* name) {
  if (size < 0 || size > LARGEST) {
    refuse(LOWPREC_INVALID, "%s is %lld; expected 0 to 2^56", name, static_cast<long long>(size));
  }
}

int64_t product_of(int64_t a, int64_t b, const char* what) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result) || result > LARGEST) {
    refuse(LOWPREC_INVALID, "%s: %lld times %lld is too large", what, static_cast<long long>(a),
           static_cast<long long>(b));
  }
  return result;
}

void require_scale(float scale, const char* name) {
  if (!(scale > 0.0f && scale < INFINITY)) {
    refuse(LOWPREC_INVALID, "%s holds %g; a scale is finite and above 0", name, scale);
  }
}

void require_scales(const float* scales, int64_t count, const char* name) {
  require(scales, name);
  for (int64_t i = 0; i < count; ++i) require_scale(scales[i], name);
}

void require_zero_point(int32_t zero_point, int32_t dtype, const char* name) {
  const CodeLimits limits = limits_of(dtype, name);
  if (zero_point < limits.low || zero_point > limits.high) {
    refuse(LOWPREC_INVALID, "%s holds %d; expected %d to %d", name, zero_point, limits.low,
           limits.high);
  }
}

void require_zero_points(const int32_t* zero_points, int64_t count, int32_t dtype,
                         const char* name) {
  for (int64_t i = 0; i < count; ++i) require_zero_point(zero_points[i], dtype, name);
}

void require_code_type(int32_t dtype, const char* name) { limits_of(dtype, name); }

}  // namespace lp
