// pack.h: weights in the layout that the kernels read. Packed forms are never written to disk.
//
// Products: panels of 64 output channels. Codes: [N/64][runs * ceil(run/4)][64][4], the last group
// of every run filled up with zeros; bf16: [N/64][runs * ceil(run/2)][64][2], likewise; f32 and
// f16: [N/64][runs * run][64]. Columns past N are zero.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#include "kernels/kernels.h"

namespace lp {

constexpr int64_t PACK_PANEL = 64;

inline int64_t panels(int64_t n) { return (n + PACK_PANEL - 1) / PACK_PANEL; }
inline int64_t padded_channels(int64_t n) { return panels(n) * PACK_PANEL; }

// Weight of output channel n, run r, element k is w[n * stride_n + r * stride_r + k * stride_k].
struct WeightStrides {
  int64_t n, r, k;
};

// Fills `packed` and, for every output channel up to the next multiple of 64, `sums`: those of its
// packed weights, which products need to fold zero points (kernels.h). u8 codes are stored as the
// s8 code w ^ 0x80 = w - 128: the zero points that go with them are 128 less, too (u8_zero_point).
template <class Code>
void pack_codes(const Code* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                int8_t* packed, int32_t* sums) {
  constexpr int flip = static_cast<Code>(-1) < 0 ? 0 : 0x80;
  const int64_t wide = padded_channels(n), groups = (run + 3) / 4;
  memset(sums, 0, static_cast<size_t>(wide) * sizeof(int32_t));
  for (int64_t n0 = 0; n0 < wide; n0 += PACK_PANEL) {
    const int64_t width = n - n0 < PACK_PANEL ? n - n0 : PACK_PANEL;
    for (int64_t r = 0; r < runs; ++r) {
      const Code* source = w + n0 * strides.n + r * strides.r;
      for (int64_t g = 0; g < groups; ++g, packed += PACK_PANEL * 4) {
        const int64_t real = run - 4 * g < 4 ? run - 4 * g : 4;
        if (width < PACK_PANEL || real < 4) memset(packed, 0, static_cast<size_t>(PACK_PANEL) * 4);
        for (int64_t k = 0; k < real; ++k) {
          const Code* row = source + (4 * g + k) * strides.k;
          for (int64_t column = 0; column < width; ++column) {
            const int8_t x = static_cast<int8_t>(row[column * strides.n] ^ flip);
            packed[column * 4 + k] = x;
            sums[n0 + column] += x;
          }
        }
      }
    }
  }
}

inline void pack_s8(const int8_t* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                    int8_t* packed, int32_t* sums) {
  pack_codes(w, strides, n, runs, run, packed, sums);
}
inline void pack_u8(const uint8_t* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                    int8_t* packed, int32_t* sums) {
  pack_codes(w, strides, n, runs, run, packed, sums);
}
// Of the packed form of u8 weights.
inline int32_t u8_zero_point(int32_t zero_point) { return zero_point - 128; }

inline int64_t packed_s8_bytes(int64_t n, int64_t runs, int64_t run) {
  return padded_channels(n) * runs * ((run + 3) / 4) * 4;
}

// Elements of one packed column, where kernels take k in groups of `group`.
inline int64_t packed_depth(int64_t runs, int64_t run, int64_t group) {
  return runs * ((run + group - 1) / group) * group;
}

// A whole group of 64 columns that follow each other: the rows, or pairs of rows interleaved.
template <int GROUP>
inline void pack_whole_group(const float* w, int64_t, float* packed) {
  static_assert(GROUP == 1, "f32 is packed one by one");
  memcpy(packed, w, PACK_PANEL * sizeof(float));
}
template <int GROUP>
inline void pack_whole_group(const uint16_t* w, int64_t stride_k, uint16_t* packed) {
  if (GROUP == 1) {
    memcpy(packed, w, PACK_PANEL * sizeof(uint16_t));
    return;
  }
  uint32_t pairs[PACK_PANEL];
  for (int64_t j = 0; j < PACK_PANEL; ++j) {
    pairs[j] = static_cast<uint32_t>(w[j]) | static_cast<uint32_t>(w[stride_k + j]) << 16;
  }
  memcpy(packed, pairs, sizeof(pairs));
}
// [N/64][runs * ceil(run / GROUP)][64][GROUP]
template <int GROUP, class T>
inline void pack_groups(const T* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                        T* packed) {
  for (int64_t n0 = 0; n0 < n; n0 += PACK_PANEL) {
    const int64_t width = n - n0 < PACK_PANEL ? n - n0 : PACK_PANEL;
    for (int64_t r = 0; r < runs; ++r) {
      const T* source = w + n0 * strides.n + r * strides.r;
      for (int64_t k = 0; k < run; k += GROUP, packed += PACK_PANEL * GROUP) {
        const int64_t real = run - k < GROUP ? run - k : GROUP;
        const T* rows = source + k * strides.k;
        if (width == PACK_PANEL && real == GROUP && strides.n == 1) {
          pack_whole_group<GROUP>(rows, strides.k, packed);
          continue;
        }
        if (width < PACK_PANEL || real < GROUP) memset(packed, 0, PACK_PANEL * GROUP * sizeof(T));
        for (int64_t column = 0; column < width; ++column) {
          for (int64_t i = 0; i < real; ++i) {
            packed[column * GROUP + i] = rows[column * strides.n + i * strides.k];
          }
        }
      }
    }
  }
}

inline void pack_f32(const float* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                     float* packed) {
  pack_groups<1>(w, strides, n, runs, run, packed);
}
inline void pack_bf16(const uint16_t* w, WeightStrides strides, int64_t n, int64_t runs,
                      int64_t run, uint16_t* packed) {
  pack_groups<2>(w, strides, n, runs, run, packed);
}
inline void pack_f16(const uint16_t* w, WeightStrides strides, int64_t n, int64_t runs, int64_t run,
                     uint16_t* packed) {
  pack_groups<1>(w, strides, n, runs, run, packed);
}

// [taps][C64] s8 -> [C64/64][ceil(taps/4)][4][16][4]: accumulator s, lane l holds channel
// 16 * (l / 4) + 4 * s + l % 4 (depthwise_avx512vnni.inl).
inline void pack_depthwise_by_four(const int8_t* w, int64_t channels, int64_t taps,
                                   int8_t* packed) {
  const int64_t wide = padded_channels(channels), groups = (taps + 3) / 4;
  for (int64_t c = 0; c < wide; c += PACK_PANEL) {
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t s = 0; s < 4; ++s) {
        for (int64_t l = 0; l < 16; ++l) {
          for (int64_t i = 0; i < 4; ++i) {
            const int64_t tap = 4 * g + i;
            *packed++ = tap < taps ? w[tap * wide + c + 16 * (l / 4) + 4 * s + l % 4] : int8_t{0};
          }
        }
      }
    }
  }
}

// [taps][C64] s8, 3x3 or 5x5 -> [C64/64][items][2][4][16][4]: accumulator and lane as above, four
// codes of an item for the output rows v = 0 and 1. Items: kernel column x, rows 0 to 3; 5x5: and
// the pairs (row 4, x), (row 5, x), (row 4, x + 1), (row 5, x + 1) for x = 0, 2, 4. Row r of an
// item meets row r - v of the kernel, or zero. Channels repeat where pixels share a vector.
constexpr bool has_columns(int64_t kernel_h, int64_t kernel_w) {
  return kernel_h == kernel_w && (kernel_h == 3 || kernel_h == 5);
}
inline int64_t depthwise_columns_bytes(int64_t channels, int64_t kernel) {
  return panels(channels) * (kernel == 3 ? 3 : 8) * 512;
}
inline void pack_depthwise_by_columns(const int8_t* w, int64_t channels, int64_t kernel,
                                      int8_t* packed) {
  const int64_t wide = padded_channels(channels), items = kernel == 3 ? 3 : 8;
  for (int64_t c = 0; c < wide; c += PACK_PANEL) {
    const int64_t each = PACK_PANEL / depthwise_pixels(channels - c);
    for (int64_t item = 0; item < items; ++item) {
      const bool pair = item >= kernel;
      for (int64_t v = 0; v < 2; ++v) {
        for (int64_t s = 0; s < 4; ++s) {
          for (int64_t l = 0; l < 16; ++l) {
            const int64_t channel = c + (16 * (l / 4) + 4 * s + l % 4) % each;
            for (int64_t i = 0; i < 4; ++i) {
              const int64_t x = pair ? 2 * (item - kernel) + i / 2 : item;
              const int64_t y = (pair ? 4 + i % 2 : i) - v;
              const bool inside = y >= 0 && y < kernel && x < kernel;
              *packed++ = inside ? w[(y * kernel + x) * wide + channel] : int8_t{0};
            }
          }
        }
      }
    }
  }
}

}  // namespace lp
