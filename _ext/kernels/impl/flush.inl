// flush.inl: denormals read as zero and flushed to zero, for the bf16 products that imitate
// vdpbf16ps.
//
// Whatever computes in that mode must be a call that the compiler cannot look into (LP_OPAQUE),
// with its results in memory: float operations are otherwise free to move across the mode's
// setting. Two functions rather than a destructor: unwinding would need a weak symbol.
#pragma once

#if defined(__clang__)
#define LP_OPAQUE __attribute__((noinline))
#else
#define LP_OPAQUE __attribute__((noipa))
#endif

namespace {

#if defined(__x86_64__) || defined(__i386__)
using FloatMode = unsigned;
LP_INLINE FloatMode start_flushing() {
  FloatMode saved;
  __asm__ volatile("stmxcsr %0" : "=m"(saved) : : "memory");
  const FloatMode flushing = saved | 0x8040u;  // FTZ, DAZ
  __asm__ volatile("ldmxcsr %0" : : "m"(flushing) : "memory");
  return saved;
}
LP_INLINE void restore_mode(FloatMode saved) {
  __asm__ volatile("ldmxcsr %0" : : "m"(saved) : "memory");
}
#elif defined(__aarch64__)
// FPCR.FZ decides before rounding what is too small, x86 after it: a result that would round up to
// 2^-126 is 0 here.
using FloatMode = unsigned long;
LP_INLINE FloatMode start_flushing() {
  FloatMode saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved) : : "memory");
  __asm__ volatile("msr fpcr, %0" : : "r"(saved | (1ul << 24)) : "memory");
  return saved;
}
LP_INLINE void restore_mode(FloatMode saved) {
  __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}
#else
#error "flush.inl: how does this architecture flush denormals?"
#endif

}  // namespace
