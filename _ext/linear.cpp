// linear.cpp: see linear.h.
#include "linear.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "float_state.h"
#include "own_range.h"
#include "pack.h"
#include "share_product.h"
#include "weight_memory.h"

namespace lp {

Scratch::~Scratch() {
  for (void* memory : heap_) free(memory);
}

void* Scratch::take(int64_t bytes) {
  const int64_t rounded = (bytes + 63) / 64 * 64;
  if (rounded <= LOCAL - used_) {
    void* memory = local_ + used_;
    used_ += rounded;
    return memory;
  }
  heap_.reserve(heap_.size() + 1);
  void* memory = allocate_weights(static_cast<size_t>(rounded));
  heap_.push_back(memory);
  return memory;
}

namespace {

// Elements of K that lie side by side in packed weights.
int64_t group_of(int32_t type) { return is_code(type) ? 4 : type == VALUE_BF16 ? 2 : 1; }

// One value for all channels, or one each, readable up to the next multiple of 64.
template <class T>
T* per_channel(const T* values, int64_t count, int64_t n, Scratch& scratch) {
  const int64_t wide = padded_channels(n);
  T* result = scratch.take_array<T>(wide);
  const T one = count == 1 ? values[0] : T{0};
  if (count > 1) memcpy(result, values, static_cast<size_t>(n) * sizeof(T));
  std::fill(count > 1 ? result + n : result, result + wide, one);
  return result;
}

int8_t weight_code(const WeightsSource& source, int64_t k, int64_t n) {
  const uint8_t bits =
      static_cast<const uint8_t*>(source.data)[k * source.stride_k + n * source.stride_n];
  return static_cast<int8_t>(source.type == VALUE_U8 ? bits ^ 0x80 : bits);
}

// How far from 0 a sum can be. With codes of A that differ from their zero point by at most 255 in
// all, a sum lies between -255 * (what weights of one sign add up to) and 255 * (the other sign's).
int64_t reach(const WeightsSource& source, const Weights& weights) {
  int64_t furthest_start = 0;
  for (int64_t n = 0; n < source.n; ++n) {
    furthest_start = std::max<int64_t>(furthest_start, std::abs(int64_t{weights.bias_s32[n]}));
  }
  const int64_t widest_step = weights.zero_points == nullptr ? 128 : 255;
  const int64_t loose = furthest_start + 255 * widest_step * source.k;
  if (loose < (int64_t{1} << 31)) return loose;
  int64_t furthest = 0;
  for (int64_t n = 0; n < source.n; ++n) {
    const int64_t zero = weights.zero_points == nullptr ? 0 : weights.zero_points[n];
    int64_t positive = 0, negative = 0;
    for (int64_t k = 0; k < source.k; ++k) {
      const int64_t step = weight_code(source, k, n) - zero;
      (step > 0 ? positive : negative) += std::abs(step);
    }
    furthest = std::max(
        furthest, 255 * std::max(positive, negative) + std::abs(int64_t{weights.bias_s32[n]}));
  }
  return furthest;
}

void pack_code_weights(const Kernels* kernels, const WeightsSource& source, Weights& weights,
                       Scratch& scratch) {
  const int64_t wide = padded_channels(source.n);
  int8_t* panels = scratch.take_array<int8_t>(panel_bytes(source.type, source.k, source.n));
  int32_t* sums = scratch.take_array<int32_t>(wide);
  const int32_t flip = source.type == VALUE_U8 ? 0x80 : 0;
  if (source.stride_n == 1) {
    const uint8_t* rows = static_cast<const uint8_t*>(source.data);
    parallel_panels(source.n, source.k / 8, [&](int64_t first, int64_t channels) {
      kernels->pack_rows_s8(rows + first, source.stride_k, source.k, channels, flip,
                            panels + packed_s8_bytes(first, 1, source.k), sums + first);
    });
  } else {
    const WeightStrides strides = {source.stride_n, 0, source.stride_k};
    if (flip != 0) {
      pack_u8(static_cast<const uint8_t*>(source.data), strides, source.n, 1, source.k, panels,
              sums);
    } else {
      pack_s8(static_cast<const int8_t*>(source.data), strides, source.n, 1, source.k, panels,
              sums);
    }
  }
  weights.panels = panels;
  weights.sums = sums;
  const bool moved = source.type == VALUE_U8;
  if (source.zero_point_count > 0 || moved) {
    const int32_t none = 0;
    int32_t* zeros =
        source.zero_point_count > 0
            ? per_channel(source.zero_points, source.zero_point_count, source.n, scratch)
            : per_channel(&none, 1, source.n, scratch);
    bool any = false;
    for (int64_t n = 0; n < source.n; ++n) {
      zeros[n] -= moved ? 128 : 0;
      any = any || zeros[n] != 0;
    }
    weights.zero_points = any ? zeros : nullptr;
  }
}

}  // namespace

int64_t panel_bytes(int32_t type, int64_t k, int64_t n) {
  if (is_code(type)) return packed_s8_bytes(n, 1, k);
  return padded_channels(n) * packed_depth(1, k, group_of(type)) * value_bytes(type);
}

Weights pack_weights(const Kernels* kernels, const WeightsSource& source, Scratch& scratch) {
  Weights weights{};
  weights.type = source.type;
  weights.k = source.k;
  weights.n = source.n;
  if (source.scale_count > 0) {
    weights.scales = per_channel(source.scales, source.scale_count, source.n, scratch);
  }
  if (source.bias_type == VALUE_F32) {
    weights.bias_f32 =
        per_channel(static_cast<const float*>(source.bias), source.bias_count, source.n, scratch);
  }
  if (is_code(source.type)) {
    const bool given = source.bias_type == VALUE_S32;
    weights.bias_s32 = per_channel(given ? static_cast<const int32_t*>(source.bias) : nullptr,
                                   given ? source.bias_count : 0, source.n, scratch);
    pack_code_weights(kernels, source, weights, scratch);
    weights.reach = reach(source, weights);
  } else {
    const WeightStrides strides = {source.stride_n, 0, source.stride_k};
    const int64_t size = value_bytes(source.type);
    uint8_t* panels = scratch.take_array<uint8_t>(panel_bytes(source.type, source.k, source.n));
    parallel_panels(source.n, source.k * size / 8, [&](int64_t first, int64_t channels) {
      const uint8_t* data =
          static_cast<const uint8_t*>(source.data) + first * source.stride_n * size;
      uint8_t* target = panels + panel_bytes(source.type, source.k, first);
      if (source.type == VALUE_F32) {
        pack_f32(reinterpret_cast<const float*>(data), strides, channels, 1, source.k,
                 reinterpret_cast<float*>(target));
      } else {
        const auto pack = source.type == VALUE_BF16 ? pack_bf16 : pack_f16;
        pack(reinterpret_cast<const uint16_t*>(data), strides, channels, 1, source.k,
             reinterpret_cast<uint16_t*>(target));
      }
    });
    weights.panels = panels;
  }
  return weights;
}

namespace {

// The rows of A or Y, one after the other in memory, with one stride where one is enough.
struct Rows {
  int64_t batches, m, batch, row;
};

Rows rows_of(int64_t batches, int64_t m, int64_t batch, int64_t row) {
  if (m == 1) return {1, batches, 0, batch};
  return {batches, m, batches == 1 ? 0 : batch, row};
}

OutputKind output_kind(int32_t type) {
  switch (type) {
    case VALUE_S32:
      return OUT_S32;
    case VALUE_U8:
      return OUT_U8;
    case VALUE_S8:
      return OUT_S8;
    case VALUE_BF16:
      return OUT_BF16;
    default:
      return OUT_F32;
  }
}

bool is_relu(const Linear& call) { return call.n_ops == 1 && call.ops[0].code == UNARY_RELU; }

// Multipliers, and whether |accumulator * multiplier| is proven to stay below 2^31.
float* multipliers(const Weights& weights, const Linear& call, bool requantises, bool* fast,
                   Scratch& scratch) {
  float* result = scratch.take_array<float>(padded_channels(weights.n));
  float largest = 0;
  for (int64_t n = 0; n < padded_channels(weights.n); ++n) {
    float multiplier = weights.scales == nullptr ? 1.0f : weights.scales[n];
    multiplier = call.a_scale * multiplier;
    if (requantises) multiplier = multiplier / call.y_scale;
    result[n] = multiplier;
    largest = multiplier > largest ? multiplier : largest;
  }
  // A factor of 2 below is room for every rounding.
  *fast = static_cast<double>(weights.reach) * largest < 1073741824.0;
  return result;
}

// Runs the product of a call; the last rows from a copy where reading groups would leave A.
void run_rows(Product product, ProductArgs args, const Linear& call, int64_t k, Scratch& scratch) {
  // Products of codes read A in whole groups.
  const int64_t size = value_bytes(call.a_type), group = is_code(call.a_type) ? 4 : 1;
  const int64_t extra = (k + group - 1) / group * group - k;
  const int64_t rows = args.rows * args.cols;
  const bool ascending = (args.cols == 1 || args.src_col >= k) &&
                         (args.rows == 1 || args.src_row >= (args.cols - 1) * args.src_col + k);
  if (extra == 0 || k == 0) return run_product(product, args, whole(args));
  const int64_t last = std::min(args.cols, (extra + args.src_col - 1) / args.src_col);
  const bool copies_all = !ascending || (args.cols * args.src_col < extra && args.rows > 1);
  const int64_t copied = copies_all ? rows : args.cols == 1 ? 1 : last;
  const uint8_t* a = static_cast<const uint8_t*>(args.src);
  uint8_t* copy = scratch.take_array<uint8_t>((copied * k + extra) * size);
  for (int64_t i = 0; i < copied; ++i) {
    const int64_t row = rows - copied + i;
    const int64_t start = row / args.cols * args.src_row + row % args.cols * args.src_col;
    memcpy(copy + i * k * size, a + start * size, static_cast<size_t>(k * size));
  }
  memset(copy + copied * k * size, 0, static_cast<size_t>(extra * size));
  if (copied < rows) run_product(product, args, {0, rows - copied, 0, args.n});
  // Rows are counted over the whole product, so the copy pretends to be all of A.
  if (copies_all) {
    args.src_row = args.cols * k;
    args.src_col = k;
    args.src = copy;
    return run_product(product, args, whole(args));
  }
  const int64_t before = args.cols - copied, y_size = value_bytes(call.y_type);
  const int64_t line = args.rows - 1;
  args.dst =
      static_cast<uint8_t*>(args.dst) + (line * args.dst_row + before * args.dst_col) * y_size;
  if (args.epilogue.residual != nullptr) {
    args.epilogue.residual =
        static_cast<const uint8_t*>(args.epilogue.residual) +
        (line * args.epilogue.residual_row + before * args.epilogue.residual_col) *
            value_bytes(call.residual_type);
  }
  if (args.row_zero_points != nullptr) args.row_zero_points += rows - copied;
  if (args.epilogue.row_multiplier != nullptr) args.epilogue.row_multiplier += rows - copied;
  args.src = copy;
  args.src_col = k;
  args.rows = 1;
  args.cols = copied;
  run_product(product, args, whole(args));
}

// Every row of f32 to u8 codes by its own range; returns how many values were not finite.
int64_t quantize_rows(const Kernels* kernels, int64_t k, const Linear& call, Linear* quantized,
                      Scratch& scratch) {
  const int64_t rows = call.batches * call.m;
  uint8_t* codes = scratch.take_array<uint8_t>(rows * k + 3);
  float* scales = scratch.take_array<float>(rows);
  int32_t* zero_points = scratch.take_array<int32_t>(rows);
  int64_t nonfinite = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const float* x =
        static_cast<const float*>(call.a) + row / call.m * call.a_batch + row % call.m * call.a_row;
    float low = 0.0f, high = 0.0f;
    kernels->range(x, k, &low, &high, &nonfinite);
    const OwnRange range = own_range(low, high);
    scales[row] = range.scale;
    zero_points[row] = range.zero_point;
    kernels->quantize_u8(x, codes + row * k, k, range.scale, range.zero_point);
  }
  quantized->a = codes;
  quantized->a_type = VALUE_U8;
  quantized->a_batch = call.m * k;
  quantized->a_row = k;
  quantized->a_scale = 1;
  quantized->row_scales = scales;
  quantized->row_zero_points = zero_points;
  return nonfinite;
}

void multiply(const Kernels* kernels, const Weights& weights, const Linear& call,
              Scratch& scratch) {
  static const int64_t no_offset = 0;
  const Rows a = rows_of(call.batches, call.m, call.a_batch, call.a_row);
  const Rows y = rows_of(call.batches, call.m, call.y_batch, call.y_row);
  const Rows residual = rows_of(call.batches, call.m, call.residual_batch, call.residual_row);
  ProductArgs args{};
  args.images = 1;
  args.rows = a.batches;
  args.cols = a.m;
  args.src = call.a;
  args.src_row = a.batch;
  args.src_col = a.row;
  args.dst = call.y;
  args.dst_row = y.batch;
  args.dst_col = y.row;
  args.run_offset = &no_offset;
  args.runs = 1;
  args.run_length = weights.k;
  args.n = weights.n;
  args.packed = weights.panels;

  Epilogue& e = args.epilogue;
  e.kind = output_kind(call.y_type);
  e.zero_point = call.y_zero_point;
  e.qmin = call.y_type == VALUE_S8 ? -128 : 0;
  e.qmax = call.y_type == VALUE_S8 ? 127 : 255;
  e.scale = call.y_scale;
  e.ops = call.ops;
  e.n_ops = call.n_ops;
  e.residual = call.residual;
  e.residual_kind = output_kind(call.residual_type);
  e.residual_zero_point = call.residual_zero_point;
  e.residual_scale = call.residual_scale;
  e.residual_row = residual.batch;
  e.residual_col = residual.row;

  if (!is_code(weights.type)) {
    args.bias = weights.bias_f32;
    if (args.bias == nullptr) {
      const float none = 0;
      args.bias = per_channel(&none, 1, weights.n, scratch);
    }
    const Product product = weights.type == VALUE_F32    ? kernels->product_f32
                            : weights.type == VALUE_BF16 ? kernels->product_bf16
                                                         : kernels->product_f16;
    return run_rows(product, args, call, weights.k, scratch);
  }

  const int32_t none = 0;
  args.bias = weights.bias_s32;
  if (e.kind == OUT_S32) {
    if (!call.with_bias) args.bias = per_channel(&none, 1, weights.n, scratch);
  } else {
    bool requantises = false;
    if (is_code(call.y_type) && weights.bias_f32 == nullptr && (call.n_ops == 0 || is_relu(call))) {
      requantises = true;
      if (is_relu(call)) e.qmin = std::max(e.qmin, e.zero_point);
      e.ops = nullptr;
      e.n_ops = 0;
    }
    bool fast = false;
    e.multiplier = multipliers(weights, call, requantises, &fast, scratch);
    e.fast = requantises && fast ? 1 : 0;
    e.addend = weights.bias_f32;
    e.row_multiplier = call.row_scales;
  }
  args.sums = weights.sums;
  args.zero_point = call.a_zero_point;
  args.row_zero_points = call.row_zero_points;
  args.weight_zero_points = weights.zero_points;
  run_rows(call.a_type == VALUE_S8 ? kernels->product_s8s8 : kernels->product_u8s8, args, call,
           weights.k, scratch);
}

}  // namespace

int64_t linear(const Kernels* kernels, const Weights& weights, const Linear& call) {
  if (call.m == 0 || call.batches == 0 || weights.n == 0) return 0;
  const FloatingPointState state;
  Scratch scratch;
  if (is_code(weights.type) && call.a_type == VALUE_F32) {
    Linear quantized = call;
    const int64_t nonfinite = quantize_rows(kernels, weights.k, call, &quantized, scratch);
    if (nonfinite == 0) multiply(kernels, weights, quantized, scratch);
    return nonfinite;
  }
  multiply(kernels, weights, call, scratch);
  return 0;
}

}  // namespace lp
