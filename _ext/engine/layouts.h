// layouts.h: moving images between layouts, and the borders around channels-last ones.
#pragma once
#include <string.h>

#include <algorithm>
#include <memory>

#include "engine/engine.h"
#include "threads.h"

namespace lp {

// The border of `images` channels-last images of height x width pixels; `dst` is the first byte of
// the first border.
void fill_halo(uint8_t* dst, const Halo& halo, int64_t images, int64_t height, int64_t width,
               int64_t pixel_bytes, uint8_t code);

namespace layouts_detail {

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));

template <class V, class T>
inline V load(const T* p) {
  V v;
  memcpy(&v, p, sizeof(V));
  return v;
}

#if defined(__clang__)
#define LP_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LP_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a){__VA_ARGS__})
#endif
inline Bytes zip_low(Bytes a, Bytes b) {
  return LP_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes zip_high(Bytes a, Bytes b) {
  return LP_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Halves zip_low(Halves a, Halves b) { return LP_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Halves zip_high(Halves a, Halves b) { return LP_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
inline Words zip_low(Words a, Words b) { return LP_SHUFFLE(a, b, 0, 4, 1, 5); }
inline Words zip_high(Words a, Words b) { return LP_SHUFFLE(a, b, 2, 6, 3, 7); }
#undef LP_SHUFFLE

// Four rows of COLUMNS elements to as many columns of four; `quads` holds COLUMNS * 4 elements.
template <class T>
struct Quads;
template <>
struct Quads<uint8_t> {
  static constexpr int64_t COLUMNS = 16;
  static void turn(const uint8_t* const* row, uint8_t* quads) {
    const Bytes a = load<Bytes>(row[0]), b = load<Bytes>(row[1]), c = load<Bytes>(row[2]),
                d = load<Bytes>(row[3]);
    const Halves ab[2] = {reinterpret_cast<Halves>(zip_low(a, b)),
                          reinterpret_cast<Halves>(zip_high(a, b))};
    const Halves cd[2] = {reinterpret_cast<Halves>(zip_low(c, d)),
                          reinterpret_cast<Halves>(zip_high(c, d))};
    for (int i = 0; i < 2; ++i) {
      const Halves low = zip_low(ab[i], cd[i]), high = zip_high(ab[i], cd[i]);
      memcpy(quads + 32 * i, &low, 16);
      memcpy(quads + 32 * i + 16, &high, 16);
    }
  }
};
template <>
struct Quads<uint32_t> {
  static constexpr int64_t COLUMNS = 4;
  static void turn(const uint32_t* const* row, uint32_t* quads) {
    const Words a = load<Words>(row[0]), b = load<Words>(row[1]), c = load<Words>(row[2]),
                d = load<Words>(row[3]);
    const Words low = zip_low(a, c), high = zip_high(a, c);
    const Words other_low = zip_low(b, d), other_high = zip_high(b, d);
    const Words columns[4] = {zip_low(low, other_low), zip_high(low, other_low),
                              zip_low(high, other_high), zip_high(high, other_high)};
    memcpy(quads, columns, 64);
  }
};

template <class T>
constexpr bool HAS_QUADS = sizeof(T) == 1 || sizeof(T) == 4;

// Rows r0 .. r0 + 3 (fewer than four rows: the last one repeated) of columns [c, c + COLUMNS).
template <class T>
inline void turn_block(const T* src, int64_t src_row, T* dst, int64_t rows, int64_t r0, int64_t c,
                       bool to_the_end) {
  constexpr int64_t COLUMNS = Quads<T>::COLUMNS;
  const T* row[4];
  for (int64_t i = 0; i < 4; ++i) row[i] = src + std::min(r0 + i, rows - 1) * src_row + c;
  alignas(16) T quads[COLUMNS * 4];
  Quads<T>::turn(row, quads);
  if (rows == 4) {
    memcpy(dst + c * 4, quads, sizeof(quads));
    return;
  }
  // Fewer rows than four: a store reaches into the next column, which is written after it.
  const int64_t whole = COLUMNS - (rows < 4 && to_the_end ? 1 : 0);
  for (int64_t i = 0; i < whole; ++i)
    memcpy(dst + (c + i) * rows + r0, quads + 4 * i, 4 * sizeof(T));
  for (int64_t i = whole; i < COLUMNS; ++i) {
    for (int64_t r = 0; r < rows; ++r) dst[(c + i) * rows + r] = quads[4 * i + r];
  }
}

}  // namespace layouts_detail

// [rows][cols], rows `src_row` apart, to dense [cols][rows].
template <class T>
inline void turn(const T* src, int64_t src_row, T* dst, int64_t rows, int64_t cols) {
  if (rows == 1) {
    memcpy(dst, src, static_cast<size_t>(cols) * sizeof(T));
    return;
  }
  if constexpr (layouts_detail::HAS_QUADS<T>) {
    constexpr int64_t COLUMNS = layouts_detail::Quads<T>::COLUMNS;
    if (cols >= COLUMNS) {
      // The last block of rows or columns may overlap the one before it.
      for (int64_t c = 0; c < cols; c += COLUMNS) {
        const bool last = c + COLUMNS >= cols;
        const int64_t at = last ? cols - COLUMNS : c;
        for (int64_t r = 0; r < rows; r += 4) {
          const int64_t r0 = std::max<int64_t>(0, std::min(r, rows - 4));
          layouts_detail::turn_block(src, src_row, dst, rows, r0, at, last);
        }
      }
      return;
    }
  }
  // Blocks that stay in the first-level cache.
  constexpr int64_t BLOCK = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += BLOCK) {
    const int64_t r1 = std::min(rows, r0 + BLOCK);
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t r = r0; r < r1; ++r) dst[c * rows + r] = src[r * src_row + c];
    }
  }
}

// A step from [outer][rows][cols] to [outer][cols][rows] of elements of `size` bytes.
std::unique_ptr<Step> turning_step(int64_t size, int64_t outer, int64_t rows, int64_t cols);

// Few planes (a picture's colours) to pixels, one line after the other; the result may have a halo.
// convert(t, from, to, n): n elements of `size` bytes made of floats, where the planes are
// quantised on the way; without it they are copied.
using ConvertLine = std::function<void(Pointers t, const float* from, uint8_t* to, int64_t n)>;
constexpr int64_t FEW_PLANES = 4;
std::unique_ptr<Step> planes_to_pixels(int64_t size, const Shape& shape, ConvertLine convert = {});

}  // namespace lp
