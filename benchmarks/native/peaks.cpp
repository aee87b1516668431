// peaks.cpp: what one core can do at most, by loops of independent instructions; compiled by
// peaks.py with the flags of each set. Every function runs `rounds` times 16 instructions on 16
// accumulators, so that neither latency nor memory limits it.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIXTEEN(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) \
  one(8) one(9) one(10) one(11) one(12) one(13) one(14) one(15)
#define LOOP(body, ...) \
  __asm__ volatile("1:\n" body "dec %0\njnz 1b" : "+r"(rounds) : : "cc", __VA_ARGS__)
#define ZMM "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
  "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17"
#define YMM "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
  "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

extern "C" {

#if defined(__AVX512VNNI__)
#define DOT(i) "vpdpbusd %%zmm16, %%zmm17, %%zmm" #i "\n"
void peak_u8s8(uint64_t rounds) {
  __asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\nvpxorq %%zmm17, %%zmm17, %%zmm17" : : : ZMM);
  LOOP(SIXTEEN(DOT), ZMM);
}
extern const int64_t macs_u8s8 = 16 * 64;
#endif

#if defined(__AVX512BF16__)
#define DOT16(i) "vdpbf16ps %%zmm16, %%zmm17, %%zmm" #i "\n"
void peak_bf16(uint64_t rounds) {
  __asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\nvpxorq %%zmm17, %%zmm17, %%zmm17" : : : ZMM);
  LOOP(SIXTEEN(DOT16), ZMM);
}
extern const int64_t macs_bf16 = 16 * 32;
#endif

#if defined(__AVX512F__)
#define FMA512(i) "vfmadd231ps %%zmm16, %%zmm17, %%zmm" #i "\n"
void peak_f32(uint64_t rounds) {
  __asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\nvpxorq %%zmm17, %%zmm17, %%zmm17" : : : ZMM);
  LOOP(SIXTEEN(FMA512), ZMM);
}
extern const int64_t macs_f32 = 16 * 16;
#elif defined(__FMA__)
#define FMA256(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n"
void peak_f32(uint64_t rounds) {
  __asm__ volatile("vpxor %%ymm14, %%ymm14, %%ymm14\nvpxor %%ymm15, %%ymm15, %%ymm15" : : : YMM);
  LOOP(FMA256(0) FMA256(1) FMA256(2) FMA256(3) FMA256(4) FMA256(5) FMA256(6) FMA256(7) FMA256(8)
       FMA256(9) FMA256(10) FMA256(11) FMA256(12) FMA256(13), YMM);
}
extern const int64_t macs_f32 = 14 * 8;
#endif

// Bytes read a second: the sum of all words of a buffer larger than the caches.
uint64_t read_all(const uint64_t* words, uint64_t count) {
  uint64_t sum[8] = {0};
  for (uint64_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += words[i + j];
  }
  for (int j = 1; j < 8; ++j) sum[0] += sum[j];
  return sum[0];
}

}  // extern "C"
