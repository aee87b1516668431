// amx_tiles.h: the AMX instructions that kernels use, as a class.
//
//   Tiles tiles;                     ldtilecfg: eight tiles of 16 rows x 64 bytes
//   tiles.zero<C>()                  tilezero
//   tiles.load<T>(base, stride)      tileloadd: row i from base + i * stride bytes
//   tiles.store<T>(base, stride)     tilestored
//   tiles.dot_u8s8<C, A, B>()        tdpbusd    C[m][n] += sum over k < 64 of A[m][k] * B[k /
//   4][n][k % 4] tiles.dot_s8s8<C, A, B>()        tdpbssd tiles.dot_bf16<C, A, B>() tdpbf16ps  k <
//   32, B[k / 2][n][k % 2]; its rounding: below ~Tiles                           tilerelease: a
//   context switch need not save tiles any more
//
// Two implementations: the instructions, and with LP_MODEL what Intel's Software Developer's Manual
// (volume 2, "Operation" of each instruction) says that they do, in plain C++, so that kernels are
// tested on machines without AMX. The model knows one configuration, the one above.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

constexpr int TILE_ROWS = 16;
constexpr int TILE_BYTES = 64;  // of a row

#if !defined(LP_MODEL)

// As ldtilecfg reads it.
struct TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64, "what ldtilecfg reads");

// Asm, as the compiler's own macros are, which only take literal numbers of tiles and do not say
// that they read and write memory.
class Tiles {
 public:
  Tiles() {
    TileConfiguration configuration;
    for (int i = 0; i < 8; ++i) {
      configuration.row_bytes[i] = TILE_BYTES;
      configuration.rows[i] = TILE_ROWS;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
  }
  ~Tiles() { __asm__ volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int T>
  LP_MEMBER void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  LP_MEMBER void load(const void* base, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  LP_MEMBER void store(void* base, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(base), "r"(stride), "i"(T)
                     : "memory");
  }
  template <int C, int A, int B>
  LP_MEMBER void dot_u8s8() {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  LP_MEMBER void dot_s8s8() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  LP_MEMBER void dot_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

#else

class Tiles {
 public:
  Tiles() { memset(tile_, 0, sizeof(tile_)); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int T>
  void zero() {
    memset(tile_[T], 0, sizeof(tile_[T]));
  }
  template <int T>
  void load(const void* base, int64_t stride) {
    const char* row = static_cast<const char*>(base);
    for (int i = 0; i < TILE_ROWS; ++i) memcpy(tile_[T][i], row + i * stride, TILE_BYTES);
  }
  template <int T>
  void store(void* base, int64_t stride) {
    char* row = static_cast<char*>(base);
    for (int i = 0; i < TILE_ROWS; ++i) memcpy(row + i * stride, tile_[T][i], TILE_BYTES);
  }
  template <int C, int A, int B>
  void dot_u8s8() {
    dot_bytes<uint8_t, C, A, B>();
  }
  template <int C, int A, int B>
  void dot_s8s8() {
    dot_bytes<int8_t, C, A, B>();
  }

  // Every product is exact in f32. For one element of C, in this order, each step a fused
  // multiply-add or an addition rounded to nearest even, denormals read and written as zero:
  //   even, odd = +0
  //   for each pair k: even += A[2k] * B[2k], odd += A[2k + 1] * B[2k + 1]
  //   C += even + odd
  // So one chain of FMAs becomes two per instruction (that is, per 32 values of k), and vdpbf16ps,
  // which carries one chain on (odd element first), rounds differently.
  template <int C, int A, int B>
  void dot_bf16() {
    static_assert(C != A && C != B && A != B, "#UD: tiles must differ");
    for (int m = 0; m < TILE_ROWS; ++m) {
      float even[16] = {}, odd[16] = {}, sum[16];
      for (int k = 0; k < 16; ++k) {
        uint16_t a[2], b[16][2];
        memcpy(a, tile_[A][m] + 4 * k, sizeof(a));
        memcpy(b, tile_[B][k], sizeof(b));
        for (int n = 0; n < 16; ++n) {
          even[n] = flushed_fma(widened(a[0]), widened(b[n][0]), even[n]);
          odd[n] = flushed_fma(widened(a[1]), widened(b[n][1]), odd[n]);
        }
      }
      memcpy(sum, tile_[C][m], sizeof(sum));
      for (int n = 0; n < 16; ++n) {
        sum[n] = flushed_fma(1.0f, flushed_fma(1.0f, even[n], odd[n]), sum[n]);
      }
      memcpy(tile_[C][m], sum, sizeof(sum));
    }
  }

 private:
  template <class Code, int C, int A, int B>
  void dot_bytes() {
    static_assert(C != A && C != B && A != B, "#UD: tiles must differ");
    for (int m = 0; m < TILE_ROWS; ++m) {
      uint32_t sum[16];  // wraps
      memcpy(sum, tile_[C][m], sizeof(sum));
      for (int k = 0; k < 16; ++k) {
        Code a[4];
        int8_t b[16][4];
        memcpy(a, tile_[A][m] + 4 * k, sizeof(a));
        memcpy(b, tile_[B][k], sizeof(b));
        for (int n = 0; n < 16; ++n) {
          for (int i = 0; i < 4; ++i) sum[n] += static_cast<uint32_t>(a[i] * b[n][i]);
        }
      }
      memcpy(tile_[C][m], sum, sizeof(sum));
    }
  }

  static float widened(uint16_t bf16) {
    const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
  }

  // a * b + c with denormals read and written as zero. Not by fmaf and a look at the result: what
  // is tiny before it is rounded to the few bits of a denormal may have become 2^-126 after.
  static float flushed_fma(float a, float b, float c) {
    const unsigned state = _mm_getcsr();
    __m128 x = _mm_set_ss(a), y = _mm_set_ss(b), z = _mm_set_ss(c);
    __asm__ volatile(
        "ldmxcsr %4\n\t"
        "vfmadd213ss %3, %2, %0\n\t"
        "ldmxcsr %1"
        : "+x"(x)
        : "m"(state), "x"(y), "x"(z), "m"(FLUSHING));
    return _mm_cvtss_f32(x);
  }
  static constexpr unsigned FLUSHING = 0x9FC0;  // round to nearest even, FTZ, DAZ, all masked

  alignas(64) uint8_t tile_[8][TILE_ROWS][TILE_BYTES];
};

#endif

}  // namespace
