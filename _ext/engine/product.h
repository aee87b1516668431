// product.h: what convolutions and matrix products share: geometry, packed weights, epilogues.
#pragma once
#include "engine/engine.h"
#include "pack.h"
#include "share_product.h"
#include "weight_memory.h"

namespace lp {

struct Axis {  // one spatial axis of a convolution
  int64_t in = 1, kernel = 1, stride = 1, dilation = 1;
  int64_t begin = 0, end = 0;  // border
  int64_t insert = 1;          // distance of input pixels after zeros are inserted (transposed)
  int64_t out = 1;
  int64_t padded() const { return insert * (in - 1) + 1 + begin + end; }
};

struct Geometry {
  int64_t images = 1, channels = 0, out_channels = 0, groups = 1;
  Axis h, w;
  bool bordered() const {
    return h.begin || h.end || w.begin || w.end || h.insert > 1 || w.insert > 1;
  }
  int64_t taps() const { return h.kernel * w.kernel; }
  int64_t group_channels() const { return channels / groups; }
};

// From attributes and shapes; throws Error or Unsupported.
Geometry conv_geometry(const Node& node, const Shape& x, const Shape& w, bool transposed);

// [O][I/g][spatial] (or [I][O/g][spatial] for a transposed one) to [O][KH][KW][I/g].
template <class T>
std::vector<T> channels_last_weights(const T* w, const Geometry& g, bool transposed) {
  const int64_t inner = g.group_channels(), taps = g.taps(), per_group = g.out_channels / g.groups;
  std::vector<T> result(static_cast<size_t>(g.out_channels * taps * inner));
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t source =
            transposed ? (((o / per_group) * inner + i) * per_group + o % per_group) * taps +
                             (taps - 1 - t)
                       : (o * inner + i) * taps + t;
        result[static_cast<size_t>((o * taps + t) * inner + i)] = w[source];
      }
    }
  }
  return result;
}

// What is packed for one node: weights by group, and everything per output channel.
struct Packed : Prepared {
  WeightVector<int8_t> weights_s8;
  WeightVector<int8_t> by_four, by_columns;  // of depthwise weights
  WeightVector<float> weights_f32;
  WeightVector<uint16_t> weights_bf16;
  std::vector<int32_t> bias_s32;  // depthwise: the correction for the zero point of x included
  std::vector<int32_t> sums;      // of the packed codes of each output channel
  std::vector<int32_t> weight_zero_points;  // none where all are 0
  int64_t tap_copies = 1;                   // depthwise: how many s8 weights add up to one
  int32_t zero_point = 0;                   // of x
  std::vector<float> bias_f32, multiplier, addend;
  bool exact = true;   // every accumulator fits s32
  bool fast = true;    // and times its multiplier stays below 2^31
  double largest = 0;  // |accumulator * multiplier| at most
};

// Values of output channels that an epilogue finds by its column (Epilogue::channel_values).
struct ChannelLists {
  std::vector<float> values;  // readable up to the next multiple of 64
  std::vector<const float*> addresses;
};

struct Output {  // dtype and codes of what a product writes
  DType dtype = DType::F32;
  Epilogue epilogue{};
  std::vector<UnaryOp> ops;
  bool multiplies_to_codes = false;  // the multiplier of an int8 product has y_scale in it
  bool bounded = false;              // Epilogue::fast where there are operators
  std::shared_ptr<const std::vector<uint8_t>> table;  // what epilogue.table points to
  std::shared_ptr<const ChannelLists> lists;          // the same of epilogue.channel_values
  int64_t channel_count = 0;  // of channel values: how many, one for each output channel
};

// With the unary operators that a product applies to its result. `otherwise`: the dtype of a node
// that names none.
Output output_of(const Node& node, DType otherwise = DType::F32);
const char* not_constant(Planner& p, const Node& node);  // a reason to refuse, or nullptr

// ---- operators of the chain with a constant for each channel (channel_values.cpp) ----
void read_channel_values(const Node& node, Output& output);
// Of a product in one group; throws Error where there are values, but not so many.
void check_channel_values(const Output& output, int64_t groups, int64_t channels);
void repeat_channel_values(Output& output, int64_t times);  // for so many pixels side by side
// UNARY_MUL_CHANNEL or UNARY_PRELU_CHANNEL on all channels of one pixel.
void apply_channel_values(const Output& output, int32_t code, float* row);

// ---- a tensor added to the result (residual.cpp) ----
//
//   product, its chain, codes and back ──► + residual ──► chain ──► codes
//
// The node is the product's (attributes chain_*, y_*) with one more operand, of the result's shape:
// f32, bf16, or codes with residual_scale and residual_zero_point. What follows the sum: sum_codes,
// sum_a, sum_b (unary operators), then sum_dtype, sum_scale, sum_zero_point.
constexpr size_t RESIDUAL = 6;  // the operand, after those of RunTimeScale
inline bool has_residual(const Node& node) { return node.has_input(RESIDUAL); }
// The output of the whole node from that of its product.
void extend_output(const Node& node, Output& output);
// Whether the epilogue can read it: of this shape, in a type that it reads.
bool residual_fits(Planner& p, const Node& node, const Shape& result);
// The plan tensor of the residual; sets what the epilogue knows of it.
int residual_operand(Planner& p, const Node& node, Layout layout, Output& output);
// Epilogue::fast of a product that adds a residual.
bool is_bounded(const Node& node, const Packed& packed, const Output& output);
// The product and what follows it as steps of their own.
void build_apart(Planner& p, const Node& node);

// Per-channel values of all groups, each group padded to whole panels.
template <class T, class Value>
std::vector<T> by_group(const Geometry& g, Value value) {
  const int64_t per_group = g.out_channels / g.groups, wide = padded_channels(per_group);
  std::vector<T> result(static_cast<size_t>(g.groups * wide), T{0});
  for (int64_t o = 0; o < g.out_channels; ++o) {
    result[static_cast<size_t>(o / per_group * wide + o % per_group)] = value(o);
  }
  return result;
}

// The same with one padded list for all channels, as depthwise kernels want it.
inline Geometry as_one_group(Geometry g) {
  g.groups = 1;
  return g;
}

// `last`: from channels_last_weights.
void pack_f32_weights(Packed& packed, const std::vector<float>& last, const Geometry& g,
                      bool depthwise, bool whole_rows);
void pack_bf16_weights(Packed& packed, const std::vector<uint16_t>& last, const Geometry& g,
                       bool depthwise, bool whole_rows);
void pack_s8_weights(Packed& packed, const Node& node, const std::vector<int8_t>& last,
                     const Geometry& g, bool depthwise, bool whole_rows);

struct Bounds {
  // Sums of the weights of one output channel, less its zero point, by sign.
  int64_t positive = 0, negative = 0;
  void add(int64_t weight) { (weight > 0 ? positive : negative) += weight; }
};
// Attribute w_zero_point: one value for all output channels or one each; none: all are 0.
int64_t weight_zero_point(const Node& node, int64_t channel);
std::vector<Bounds> bounds_of(const Node& node, const std::vector<int8_t>& last, int64_t channels);

// What an accumulator is multiplied by: s_x * s_w, divided by s_y where codes follow directly.
std::vector<float> multipliers(const Node& node, const Output& output, int64_t n);
// Bias, zero point, multipliers, and the proof that nothing can wrap.
void pack_channels(Packed& packed, const Geometry& layout, const std::vector<Bounds>& bounds,
                   const std::vector<int64_t>& bias, DType x_dtype, bool depthwise,
                   const Node& node, const Output& output);
// The operands of a product of codes or floats that belong to the weights, for the group of output
// channels that starts at padded channel `at`.
void set_weights(ProductArgs& args, const Packed& packed, const Output& output, bool codes,
                 int64_t at);
// Operands 4 (zero point of x) and 5 (scale of x) of an integer layer: one number each that is only
// known when the step runs, as DynamicQuantizeLinear makes them. Attributes x_zero_point and
// x_scale stay away then.
struct RunTimeScale {
  int zero_point = -1, scale = -1;  // where they are in the step's `in`
  bool is_signed = false;           // of the zero point
  float y_scale = 0.0f;             // of codes that follow directly; 0: none do
  bool any() const { return zero_point >= 0 || scale >= 0; }

  struct Values {
    int32_t zero_point;
    const float* multiplier;
    const int32_t* depthwise_start;
  };
  static int64_t scratch_bytes(const Packed& packed) {
    return static_cast<int64_t>(packed.multiplier.size()) * 8;
  }
  // Null where it is known from the start.
  Values values(const Packed& packed, const uint8_t* zero, const uint8_t* x_scale,
                uint8_t* scratch) const;
  Values values(const Packed& packed, Pointers t, const std::vector<int>& in,
                uint8_t* scratch) const {
    const auto operand = [&](int i) { return i < 0 ? nullptr : t[in[static_cast<size_t>(i)]]; };
    return values(packed, operand(zero_point), operand(scale), scratch);
  }
};
// Adds the operands to `in`.
RunTimeScale run_time_scale(Planner& p, const Node& node, std::vector<int>& in);

// One value a channel; no operand: none, or zeros.
std::vector<int64_t> integer_bias(Planner& p, const Node& node, int64_t n);
std::vector<float> real_bias(Planner& p, const Node& node, size_t i, int64_t n);

// Both operands are made in the same run (ops_matrix_codes.cpp).
const char* refuse_matrix_codes(Planner& p, const Node& node);
void matrix_codes(Planner& p, const Node& node);

// A layer whose sums could pass 2^31: one output at a time with a 64-bit accumulator.
void build_wide(Planner& p, const Node& node, int x, const Geometry& g, const int8_t* w,
                bool transposed, const Shape& result, Layout layout);

// Products of two bf16 operands that both change from run to run (ops_matrix_bf16.cpp).
const char* refuse_dynamic_bf16(Planner& p, const Node& node);
void matrix_dynamic_bf16(Planner& p, const Node& node);
// f32 convolutions in any number of axes and with weights made at run time (ops_conv_any.cpp).
const char* refuse_conv_any(Planner& p, const Node& node);
void conv_any(Planner& p, const Node& node);

// MatMul and Gemm in any element type that there is arithmetic in (ops_matrix_any.cpp).
void matrix_any(Planner& p, const Node& node);

}  // namespace lp
