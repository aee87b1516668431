// depthwise_f32.inl: per output one chain of FMAs over the taps in order, bias last. f32 or bf16
// pixels (widened, which is exact); the weights are f32.
//
// Kernels of 3 or 5 columns with strides 1 or 2 load (and widen) every pixel of a kernel row once
// for all outputs that see it: 10 loads for 24 multiply-adds where 8 outputs have 3 columns. That
// takes 28 registers, so sets with 16 do it one tap after the other, as all do for other kernels.
#include "kernels/impl/short_chain.inl"

namespace {

#if defined(LP_ISA_AVX512) || defined(LP_ISA_NEON)
constexpr bool MANY_REGISTERS = true;
#else
constexpr bool MANY_REGISTERS = false;
#endif

// Where the outputs of neighbouring pixels go: to their place at once, or into a tile for
// finish_reals.
struct PixelTarget {
  bool is_final;
  uint8_t* first;
  int64_t step;  // bytes, from pixel to pixel
};

// One vector of channels for N pixels in a row.
template <class T>
struct DepthwiseVector {
  const lp::DepthwiseArgs& args;
  const T* src;
  const float* weights;
  int64_t stride;  // of weights, from tap to tap
  VF bias;
  int lanes;
  PixelTarget out;

  template <int N>
  LP_MEMBER void store(VF (&sum)[N]) const {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] = sum[i] + bias;
    const lp::Epilogue& e = args.epilogue;
    if (out.is_final) {
      for (int op = 0; op < e.n_ops; ++op) {
        with_short(e.ops[op], [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 8
          for (int i = 0; i < N; ++i) sum[i] = f(sum[i]);
        });
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      uint8_t* target = out.first + i * out.step;
      if (!out.is_final) {
        vstore(reinterpret_cast<float*>(target), sum[i]);
      } else if (e.kind == lp::OUT_BF16) {
        store_bf16(reinterpret_cast<uint16_t*>(target), sum[i], lanes);
      } else {
        vstore_any(reinterpret_cast<float*>(target), sum[i], lanes);
      }
    }
  }

  template <int N>
  LP_MEMBER void by_taps() const {
    VF sum[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] = vset(0.0f);
    for (int64_t t = 0; t < args.taps; ++t) {
      const T* x = src + args.tap_offset[t];
      const VF w = vload(weights + t * stride);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) sum[i] = fma(load_real(x + i * args.src_col, lanes), w, sum[i]);
    }
    store<N>(sum);
  }

  template <int N, int COLUMNS, int STRIDE>
  LP_MEMBER void by_rows(int64_t step) const {
    constexpr int SPAN = (N - 1) * STRIDE + COLUMNS;
    VF sum[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] = vset(0.0f);
    const float* w = weights;
    for (int64_t t = 0; t < args.taps; t += COLUMNS) {
      const T* line = src + args.tap_offset[t];
      VF x[SPAN];
#pragma GCC unroll 24
      for (int k = 0; k < SPAN; ++k) x[k] = load_real(line + k * step, lanes);
#pragma GCC unroll 5
      for (int k = 0; k < COLUMNS; ++k, w += stride) {
        const VF factor = vload(w);
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) sum[i] = fma(x[i * STRIDE + k], factor, sum[i]);
      }
    }
    store<N>(sum);
  }
};

// Columns and stride of a kernel whose rows are COLUMNS pixels that follow each other; 0: another.
struct KernelRows {
  int columns = 0, stride = 0;
  int64_t step = 0;  // from pixel to pixel of the source
};
LP_INLINE KernelRows kernel_rows(const lp::DepthwiseArgs& args) {
  if (!MANY_REGISTERS || args.taps < 9) return {};
  const int columns = args.taps % 3 == 0 && args.taps < 25 ? 3 : args.taps % 5 == 0 ? 5 : 0;
  if (columns == 0) return {};
  const int64_t step = args.tap_offset[1] - args.tap_offset[0];
  for (int64_t t = 0; t < args.taps; ++t) {
    const int64_t row = t / columns * columns;
    if (args.tap_offset[t] != args.tap_offset[row] + (t - row) * step) return {};
  }
  if (step > 0 && args.src_col == step) return {columns, 1, step};
  if (step > 0 && args.src_col == 2 * step) return {columns, 2, step};
  return {};
}

template <int N, class T>
LP_INLINE void depthwise_pixels(const KernelRows& kernel, const DepthwiseVector<T>& vector) {
  if constexpr (MANY_REGISTERS && N > 1) {
    switch (10 * kernel.columns + kernel.stride) {
      case 31:
        return vector.template by_rows<N, 3, 1>(kernel.step);
      case 32:
        return vector.template by_rows<N, 3, 2>(kernel.step);
      case 51:
        return vector.template by_rows<N, 5, 1>(kernel.step);
      case 52:
        return vector.template by_rows<N, 5, 2>(kernel.step);
      default:
        break;
    }
  }
  vector.template by_taps<N>();
}

// N pixels, `width` channels; `channel`: bytes of one at the target.
template <int N, class T>
static __attribute__((noinline)) void depthwise_tile(const lp::DepthwiseArgs& args,
                                                     const KernelRows& kernel, const T* src,
                                                     const float* weights, const float* bias,
                                                     int64_t width, const PixelTarget& target,
                                                     int64_t channel) {
  const int64_t stride = rounded_channels(args.channels);
  for (int64_t at = 0; at < width; at += W) {
    const PixelTarget out = {target.is_final, target.first + at * channel, target.step};
    const VF add = vload(bias + at);
    if (at + W <= width) {
      const DepthwiseVector<T> vector = {args, src + at, weights + at, stride, add, W, out};
      depthwise_pixels<N>(kernel, vector);
    } else {
      const int rest = static_cast<int>(width - at);
      const DepthwiseVector<T> vector = {args, src + at, weights + at, stride, add, rest, out};
      depthwise_pixels<N>(kernel, vector);
    }
  }
}

// Pixels [x, x + count) of a line.
LP_INLINE void place_line(RowBlock& block, const lp::DepthwiseArgs& args, int64_t image, int64_t y,
                          int64_t x, int64_t count) {
  const lp::Epilogue& e = args.epilogue;
  const int64_t out = output_bytes(e), first = image * args.dst_image + y * args.dst_row;
  block.m0 = (image * args.rows + y) * args.cols + x;
  block.count = static_cast<int>(count);
  uint8_t* target = static_cast<uint8_t*>(args.dst) + (first + x * args.dst_col) * out;
  for (int64_t i = 0; i < count; ++i) block.target[i] = target + i * args.dst_col * out;
  RowWalk walk = {image, y, x, args.rows, args.cols};
  for (int64_t i = 0; i < count; ++i, ++walk.x) block.residual[i] = walk.residual(e);
}

// At most TILE_PIXELS: a whole tile, the 7 of images of 7 or 14, or what is left of a line.
template <class T>
LP_INLINE void depthwise_some(const lp::DepthwiseArgs& args, const KernelRows& kernel, const T* src,
                              const float* weights, const float* bias, int64_t width,
                              int64_t pixels, const PixelTarget& target, int64_t channel) {
  if (pixels == 8)
    return depthwise_tile<8, T>(args, kernel, src, weights, bias, width, target, channel);
  if (pixels == 7)
    return depthwise_tile<7, T>(args, kernel, src, weights, bias, width, target, channel);
  PixelTarget now = target;
  for (; pixels >= 4; pixels -= 4, src += 4 * args.src_col, now.first += 4 * now.step) {
    depthwise_tile<4, T>(args, kernel, src, weights, bias, width, now, channel);
  }
  for (; pixels > 0; --pixels, src += args.src_col, now.first += now.step) {
    depthwise_tile<1, T>(args, kernel, src, weights, bias, width, now, channel);
  }
}

template <class T>
LP_INLINE void depthwise_reals(const lp::DepthwiseArgs& args, const lp::Piece* piece) {
  const KernelRows kernel = kernel_rows(args);
  const lp::Epilogue& e = args.epilogue;
  const bool is_final = has_short_chain(e);
  const int64_t most = args.cols % 8 != 0 && args.cols % 7 == 0 ? 7 : TILE_PIXELS;
  const int64_t out = output_bytes(e);
  RowBlock block;
  alignas(64) float tile[TILE_PIXELS][DEPTHWISE_BLOCK] = {};
  const PixelTarget into_tile = {false, reinterpret_cast<uint8_t*>(tile[0]),
                                 DEPTHWISE_BLOCK * int64_t{sizeof(float)}};
  for (int64_t line = piece->row_begin; line < piece->row_end; ++line) {
    const int64_t image = line / args.rows, y = line % args.rows;
    const T* src_row = static_cast<const T*>(args.src) + image * args.src_image + y * args.src_row;
    uint8_t* dst_row =
        static_cast<uint8_t*>(args.dst) + (image * args.dst_image + y * args.dst_row) * out;
    for (int64_t c = piece->n_begin; c < piece->n_end; c += DEPTHWISE_BLOCK) {
      const int64_t width = piece->n_end - c < DEPTHWISE_BLOCK ? piece->n_end - c : DEPTHWISE_BLOCK;
      const float* weights = static_cast<const float*>(args.weights) + c;
      const float* bias = static_cast<const float*>(args.bias) + c;
      for (int64_t x = 0; x < args.cols; x += most) {
        const int64_t pixels = args.cols - x < most ? args.cols - x : most;
        const T* src = src_row + x * args.src_col + c;
        if (is_final) {
          const PixelTarget target = {true, dst_row + (x * args.dst_col + c) * out,
                                      args.dst_col * out};
          depthwise_some<T>(args, kernel, src, weights, bias, width, pixels, target, out);
          continue;
        }
        depthwise_some<T>(args, kernel, src, weights, bias, width, pixels, into_tile, 4);
        place_line(block, args, image, y, x, pixels);
        finish_reals(e, block, 0, block.count, c, static_cast<int>(width), tile[0],
                     DEPTHWISE_BLOCK);
      }
    }
  }
}

[[maybe_unused]] static void depthwise_f32(const lp::DepthwiseArgs* args, const lp::Piece* piece) {
  depthwise_reals<float>(*args, piece);
}
static void depthwise_bf16(const lp::DepthwiseArgs* args, const lp::Piece* piece) {
  depthwise_reals<uint16_t>(*args, piece);
}

}  // namespace
