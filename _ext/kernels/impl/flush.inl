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
// Back to the mode before. True: something was flushed that might not have to be.
LP_INLINE bool stop_flushing(FloatMode saved) {
  __asm__ volatile("ldmxcsr %0" : : "m"(saved) : "memory");
  return false;
}
#elif defined(__aarch64__)
// FPCR.FZ decides before rounding what is too small, x86 after it: a result that rounds up to
// 2^-126 is 0 here. Whatever is flushed sets FPSR.UFC, so that the rare tile in which this could
// have happened is known, and computed again (flushing_fma<true>).
struct FloatMode {
  unsigned long control, status;
};
constexpr unsigned long UNDERFLOW_SEEN = 1ul << 3;
LP_INLINE FloatMode start_flushing() {
  FloatMode saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved.control) : : "memory");
  __asm__ volatile("mrs %0, fpsr" : "=r"(saved.status) : : "memory");
  __asm__ volatile("msr fpsr, %0" : : "r"(saved.status & ~UNDERFLOW_SEEN) : "memory");
  __asm__ volatile("msr fpcr, %0" : : "r"(saved.control | (1ul << 24)) : "memory");
  return saved;
}
LP_INLINE bool stop_flushing(const FloatMode& saved) {
  unsigned long status;
  __asm__ volatile("mrs %0, fpsr" : "=r"(status) : : "memory");
  __asm__ volatile("msr fpsr, %0" : : "r"(status | saved.status) : "memory");
  __asm__ volatile("msr fpcr, %0" : : "r"(saved.control) : "memory");
  return (status & UNDERFLOW_SEEN) != 0;
}
#else
#error "flush.inl: how does this architecture flush denormals?"
#endif

LP_INLINE VF size_of(VF x) { return as_f32(as_s32(x) & vset_s32(INT32_MAX)); }
LP_INLINE VF signed_zero(VF x) { return as_f32(as_s32(x) & vset_s32(INT32_MIN)); }
LP_INLINE VF without_denormal(VF x) {
  return select(size_of(x) < vset(0x1p-126f), signed_zero(x), x);
}

// a * b + c in the mode that start_flushing sets. EMULATED: the same bits as x86 gives in that
// mode, computed in the normal one; a and b are bf16.
template <bool EMULATED>
LP_INLINE VF flushing_fma(VF a, VF b, VF c) {
  if constexpr (!EMULATED) return fma(a, b, c);
  a = without_denormal(a), b = without_denormal(b), c = without_denormal(c);
  const VF sum = fma(a, b, c), up = vset(0x1p64f);
  // Rounded as if exponents had no limit: the same a factor of 2^64 up. Where the sum is so small
  // and not zero, c and a * b are, too, and the smaller of a and b can be multiplied.
  const VM first = size_of(a) < size_of(b);
  const VF above = fma(select(first, a * up, a), select(first, b, b * up), c * up);
  const VM tiny = (size_of(sum) <= vset(0x1p-126f)) & (size_of(above) < vset(0x1p-62f));
  return select(tiny, signed_zero(above), sum);
}

}  // namespace
