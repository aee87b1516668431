// pool.inl: windows over channels-last images, lanes over the channels; and weighted sums of rows.
//
// Taps outside of the image are skipped: there is no padding value. A float maximum keeps NaN; an
// average adds its taps to +0 in the order kh, kw and divides once. Included inside a per-ISA
// translation unit, after unary.inl.
#pragma once
#include "kernels/impl/elements.inl"
#include "kernels/impl/unary.inl"

namespace {

// The taps of one axis that fall inside [0, size): [first, last) of the kernel.
struct Taps {
  int64_t first, last;
};
LP_INLINE Taps taps_inside(int64_t start, int64_t dilation, int64_t kernel, int64_t size) {
  Taps taps = {0, kernel};
  if (start < 0) taps.first = (-start + dilation - 1) / dilation;
  if (start + (kernel - 1) * dilation >= size) {
    taps.last = start >= size ? 0 : (size - 1 - start) / dilation + 1;
  }
  if (taps.last < taps.first) taps.last = taps.first;
  return taps;
}

// Calls body(first tap, kh count, kw count, dst pixel) for each output pixel, pointers in bytes.
struct Window {
  const uint8_t* first;        // the top left tap inside the image
  int64_t rows, cols;          // taps inside the image
  int64_t row_step, col_step;  // bytes
  int64_t counted;             // taps that an average counts
};
template <class Body>
LP_INLINE void for_windows(const lp::PoolArgs& args, int64_t item, Body body) {
  const int64_t pixel = args.channels * item;
  const uint8_t* src = static_cast<const uint8_t*>(args.src);
  uint8_t* dst = static_cast<uint8_t*>(args.dst);
  Window window;
  window.row_step = args.dilation_h * args.width * pixel;
  window.col_step = args.dilation_w * pixel;
  for (int64_t image = 0; image < args.images; ++image) {
    for (int64_t y = 0; y < args.out_height; ++y) {
      const int64_t top = y * args.stride_h - args.pad_top;
      const Taps v = taps_inside(top, args.dilation_h, args.kernel_h, args.height);
      const Taps padded_v = taps_inside(top + args.pad_top, args.dilation_h, args.kernel_h,
                                        args.height + args.pad_top + args.pad_bottom);
      for (int64_t x = 0; x < args.out_width; ++x) {
        const int64_t left = x * args.stride_w - args.pad_left;
        const Taps h = taps_inside(left, args.dilation_w, args.kernel_w, args.width);
        window.rows = v.last - v.first;
        window.cols = h.last - h.first;
        window.counted = window.rows * window.cols;
        if (args.count_padding != 0) {
          const Taps padded_h = taps_inside(left + args.pad_left, args.dilation_w, args.kernel_w,
                                            args.width + args.pad_left + args.pad_right);
          window.counted = (padded_v.last - padded_v.first) * (padded_h.last - padded_h.first);
        }
        const int64_t first_row = top + v.first * args.dilation_h;
        const int64_t first_col = left + h.first * args.dilation_w;
        window.first = src;
        if (window.rows > 0 && window.cols > 0) {
          window.first += ((image * args.height + first_row) * args.width + first_col) * pixel;
        }
        body(window, dst);
        dst += pixel;
      }
    }
  }
}

// One to four vectors of channels at a time, so that a window's addresses are worked out once for
// them.
template <int V, class T, class Join, class Finish>
LP_INLINE void pool_lanes(const Window& window, int64_t c, int n, T* dst, float first, Join join,
                          Finish finish) {
  VF acc[V];
  for (VF& v : acc) v = vset(first);
  for (int64_t kh = 0; kh < window.rows; ++kh) {
    for (int64_t kw = 0; kw < window.cols; ++kw) {
      const T* tap =
          reinterpret_cast<const T*>(window.first + kh * window.row_step + kw * window.col_step) +
          c;
#pragma GCC unroll 4
      for (int k = 0; k < V; ++k) acc[k] = join(acc[k], load_real(tap + k * W, n));
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < V; ++k) store_real(dst + c + k * W, finish(acc[k]), n);
}

template <class T, class Join, class Finish>
LP_INLINE void pool_pixel(const Window& window, int64_t channels, T* dst, float first, Join join,
                          Finish finish) {
  int64_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) {
    pool_lanes<4>(window, c, W, dst, first, join, finish);
  }
  for (; c + W <= channels; c += W) pool_lanes<1>(window, c, W, dst, first, join, finish);
  if (c < channels) {
    pool_lanes<1>(window, c, static_cast<int>(channels - c), dst, first, join, finish);
  }
}

template <class T>
LP_INLINE void max_pool(const lp::PoolArgs& args) {
  for_windows(args, sizeof(T), [&](const Window& window, uint8_t* dst) {
    pool_pixel(
        window, args.channels, reinterpret_cast<T*>(dst), -__builtin_inff(),
        [](VF a, VF x) { return select(is_nan(a), a, vmax(a, x)); }, [](VF a) { return a; });
  });
}

template <class T>
LP_INLINE void average_pool(const lp::PoolArgs& args) {
  for_windows(args, sizeof(T), [&](const Window& window, uint8_t* dst) {
    const VF counted = vset(static_cast<float>(window.counted));
    pool_pixel(
        window, args.channels, reinterpret_cast<T*>(dst), 0.0f, [](VF a, VF x) { return a + x; },
        [=](VF a) { return a / counted; });
  });
}

static void max_pool_f32(const lp::PoolArgs* args) { max_pool<float>(*args); }
static void max_pool_bf16(const lp::PoolArgs* args) { max_pool<uint16_t>(*args); }
static void average_pool_f32(const lp::PoolArgs* args) { average_pool<float>(*args); }
static void average_pool_bf16(const lp::PoolArgs* args) { average_pool<uint16_t>(*args); }

// Codes: the compiler's own vectors, at most 32 lanes (it splits them where the machine has 16).
template <class T, int LANES>
LP_INLINE void max_lanes(const Window& window, int64_t c, T* dst, T smallest) {
  typedef T Lanes __attribute__((vector_size(LANES)));
  Lanes most = Lanes{} + smallest;
  for (int64_t kh = 0; kh < window.rows; ++kh) {
    for (int64_t kw = 0; kw < window.cols; ++kw) {
      Lanes x;
      memcpy(&x, window.first + kh * window.row_step + kw * window.col_step + c, LANES);
      most = x > most ? x : most;
    }
  }
  memcpy(dst + c, &most, LANES);
}

// Channels between LANES and twice as many: the first and the last of them.
template <class T, int LANES>
LP_INLINE void max_ends(const Window& window, int64_t channels, T* dst, T smallest) {
  max_lanes<T, LANES>(window, 0, dst, smallest);
  max_lanes<T, LANES>(window, channels - LANES, dst, smallest);
}

template <class T>
LP_INLINE void max_codes(const Window& window, int64_t channels, T* dst, T smallest) {
  constexpr int64_t LANES = 32;
  int64_t c = 0;
  for (; c + LANES <= channels; c += LANES) max_lanes<T, LANES>(window, c, dst, smallest);
  if (c == channels) return;
  // The rest once more with what lies before it, where there is enough of that: no channel by
  // itself, and nothing outside of the pixel is touched.
  if (channels >= LANES) return max_lanes<T, 32>(window, channels - 32, dst, smallest);
  if (channels >= 16) return max_ends<T, 16>(window, channels, dst, smallest);
  if (channels >= 8) return max_ends<T, 8>(window, channels, dst, smallest);
  if (channels >= 4) return max_ends<T, 4>(window, channels, dst, smallest);
  for (; c < channels; ++c) max_lanes<T, 1>(window, c, dst, smallest);
}

static void max_pool_u8(const lp::PoolArgs* args) {
  for_windows(*args, 1, [&](const Window& window, uint8_t* dst) {
    max_codes<uint8_t>(window, args->channels, dst, 0);
  });
}

static void max_pool_s8(const lp::PoolArgs* args) {
  for_windows(*args, 1, [&](const Window& window, uint8_t* dst) {
    max_codes<int8_t>(window, args->channels, reinterpret_cast<int8_t*>(dst), -128);
  });
}

static void blend(const float* const* src, const float* weights, int64_t taps, float* y,
                  int64_t n) {
  for_lanes(n, [&](int64_t i, int c) {
    VF sum = vset(0.0f);
    for (int64_t t = 0; t < taps; ++t) sum = fma(vload_any(src[t] + i, c), vset(weights[t]), sum);
    vstore_any(y + i, sum, c);
  });
}

}  // namespace
