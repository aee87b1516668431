// c_api_guard.h: what every function of lowprec.h does first and last: look at a stranger's
// arguments, and let nothing be thrown across the border.
#pragma once
#include <stdint.h>

#include <exception>
#include <new>
#include <stdexcept>

#include "include/lowprec.h"
#include "kernels/kernels.h"
#include "threads.h"

namespace lp {

// The text of last_error() of this thread.
__attribute__((format(printf, 1, 2))) void say(const char* format, ...);
// What use_parallel_for() has set for this thread, or null.
const ParallelFor* embedders_loop();

struct Refusal {
  lowprec_status status;
};

[[noreturn]] __attribute__((format(printf, 2, 3))) void refuse(lowprec_status status,
                                                               const char* format, ...);

// Runs the body of a function of the table; whatever it throws becomes a status.
template <class Body>
lowprec_status guarded(const Body& body) noexcept {
  try {
    const UseParallelFor use(embedders_loop());
    body();
    return LOWPREC_OK;
  } catch (const Refusal& refusal) {
    return refusal.status;
  } catch (const std::bad_alloc&) {
    say("not enough memory");
    return LOWPREC_OUT_OF_MEMORY;
  } catch (const std::length_error&) {
    say("not enough memory");
    return LOWPREC_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    say("a defect of lowprec: %s", error.what());
    return LOWPREC_INTERNAL;
  } catch (...) {
    say("a defect of lowprec");
    return LOWPREC_INTERNAL;
  }
}

// The table in use, or the refusal that says why there is none.
const Kernels* kernels_or_refuse();

void require(const void* pointer, const char* name);
void require_size(int64_t size, const char* name);  // 0 to 2^56
// a * b, both sizes.
int64_t product_of(int64_t a, int64_t b, const char* what);
void require_scale(float scale, const char* name);
void require_scales(const float* scales, int64_t count, const char* name);
void require_code_type(int32_t dtype, const char* name);
void require_zero_point(int32_t zero_point, int32_t dtype, const char* name);
void require_zero_points(const int32_t* zero_points, int64_t count, int32_t dtype,
                         const char* name);

// A copy of a caller's description. When a later version adds members, this is where the smaller
// size of an older caller is accepted, too, and what it lacks is zero.
template <class T>
T described(const T* description, const char* name) {
  require(description, name);
  const size_t size = description->struct_size;
  if (size != sizeof(T)) {
    refuse(LOWPREC_INVALID, "%s has struct_size %zu; expected %zu: fill it by LOWPREC_INIT", name,
           size, sizeof(T));
  }
  return *description;
}

// What is filled: only as much as the caller knows.
template <class T>
void fill(T* target, T value, const char* name) {
  described(target, name);
  value.struct_size = target->struct_size;
  *target = value;
}

}  // namespace lp
