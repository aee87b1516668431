// float_state.h: round to nearest, nothing flushed to zero, while an object of this class lives.
//
// Another library's flush-to-zero mode (any .so linked with -ffast-math sets it for the process)
// must not change our results; ours must not leak out. Every entry from outside holds one.
#pragma once
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

namespace lp {

#if defined(__x86_64__) || defined(__i386__)
class FloatingPointState {
 public:
  FloatingPointState() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~FloatingPointState() { _mm_setcsr(saved_); }
  FloatingPointState(const FloatingPointState&) = delete;
  FloatingPointState& operator=(const FloatingPointState&) = delete;

 private:
  unsigned saved_;
};
#elif defined(__aarch64__)
class FloatingPointState {
 public:
  FloatingPointState() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(0ul));
  }
  ~FloatingPointState() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }
  FloatingPointState(const FloatingPointState&) = delete;
  FloatingPointState& operator=(const FloatingPointState&) = delete;

 private:
  unsigned long saved_;
};
#else
#error "float_state.h: how does this architecture flush denormals?"
#endif

}  // namespace lp
