// product.cpp: geometry, packing and epilogues of convolutions and matrix products.
#include "engine/product.h"

#include <string.h>

#include <algorithm>
#include <cmath>

namespace lp {

namespace {

int64_t at(const std::vector<int64_t>& values, size_t i, int64_t otherwise) {
  return i < values.size() ? values[i] : otherwise;
}

void automatic_border(Axis& axis, const std::string& mode) {
  const int64_t out = (axis.in + axis.stride - 1) / axis.stride;
  const int64_t reach = (axis.kernel - 1) * axis.dilation + 1;
  const int64_t total = std::max<int64_t>(0, (out - 1) * axis.stride + reach - axis.in);
  axis.begin = mode == "SAME_LOWER" ? total - total / 2 : total / 2;
  axis.end = total - axis.begin;
}

}  // namespace

Geometry conv_geometry(const Node& node, const Shape& x, const Shape& w, bool transposed) {
  const size_t rank = x.size();
  if (rank != 3 && rank != 4) throw Unsupported(node.op + ": rank " + std::to_string(rank));
  if (w.size() != rank) throw Error("weights of rank " + std::to_string(w.size()));
  Geometry g;
  g.images = x[0];
  g.channels = x[1];
  g.groups = node.integer("group", 1);
  if (g.groups < 1) throw Error("group must be at least 1");
  g.out_channels = transposed ? w[1] * g.groups : w[0];
  const int64_t expected = transposed ? w[0] : w[1] * g.groups;
  if (expected != g.channels || g.out_channels % g.groups != 0) {
    throw Error("input has " + std::to_string(g.channels) + " channels, the weights want " +
                std::to_string(expected));
  }
  const auto kernel = node.integers("kernel_shape"), strides = node.integers("strides"),
             dilations = node.integers("dilations"), pads = node.integers("pads"),
             output_padding = node.integers("output_padding"),
             output_shape = node.integers("output_shape");
  const std::string mode = node.text("auto_pad", "NOTSET");
  const size_t spatial = rank - 2;
  for (size_t i = 0; i < spatial; ++i) {
    Axis& axis = i + 1 == spatial ? g.w : g.h;
    axis.in = x[2 + i];
    axis.kernel = w[2 + i];
    axis.stride = checked_extent(at(strides, i, 1), "stride");
    axis.dilation = checked_extent(at(dilations, i, 1), "dilation");
    if (at(kernel, i, axis.kernel) != axis.kernel) throw Error("kernel_shape is not the weights'");
    if (axis.stride < 1 || axis.dilation < 1) throw Error("strides and dilations must be positive");
    if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      if (transposed) throw Unsupported("ConvTranspose with auto_pad " + mode);
      automatic_border(axis, mode);
    } else if (mode != "VALID") {
      axis.begin = checked_extent(at(pads, i, 0), "pad");
      axis.end = checked_extent(at(pads, i + spatial, 0), "pad");
    }
    const int64_t reach = (axis.kernel - 1) * axis.dilation;
    if (transposed) {
      if (!output_shape.empty()) throw Unsupported("ConvTranspose with output_shape");
      const int64_t extra = checked_extent(at(output_padding, i, 0), "output_padding");
      axis.out = (axis.in - 1) * axis.stride - axis.begin - axis.end + reach + 1 + extra;
      axis.insert = axis.stride;
      axis.stride = 1;
      axis.begin = reach - axis.begin;
      axis.end = reach - axis.end + extra;
    } else {
      axis.out = (axis.in + axis.begin + axis.end - reach - 1) / axis.stride + 1;
      if (axis.in + axis.begin + axis.end < reach + 1) axis.out = 0;
    }
    if (axis.out < 1) {
      throw Error("a kernel of " + std::to_string(axis.kernel) + " does not fit input of shape " +
                  to_string(x));
    }
  }
  return g;
}

Output output_of(const Node& node, DType otherwise) {
  Output out;
  out.ops = chain_of(node, "chain_");
  Epilogue& e = out.epilogue;
  const int64_t dtype = node.integer("y_dtype", static_cast<int64_t>(otherwise));
  out.dtype = static_cast<DType>(dtype);
  switch (out.dtype) {
    case DType::F32:
      e.kind = OUT_F32;
      break;
    case DType::S32:
      e.kind = OUT_S32;
      break;
    case DType::BF16:
      e.kind = OUT_BF16;
      break;
    case DType::U8:
    case DType::S8: {
      const bool u8 = out.dtype == DType::U8;
      e.kind = u8 ? OUT_U8 : OUT_S8;
      e.scale = node.real("y_scale", 1.0f);
      e.zero_point = static_cast<int32_t>(node.integer("y_zero_point", 0));
      e.qmin = static_cast<int32_t>(node.integer("y_qmin", u8 ? 0 : -128));
      e.qmax = static_cast<int32_t>(node.integer("y_qmax", u8 ? 255 : 127));
      break;
    }
    default:
      throw Unsupported(node.op + " to " + dtype_name(out.dtype));
  }
  // A scale that is known only when the step runs is divided then.
  const bool is_code = out.dtype == DType::U8 || out.dtype == DType::S8;
  out.multiplies_to_codes = is_code && out.ops.empty() && !node.has_input(3) && !node.has_input(5);
  read_channel_values(node, out);
  if (has_residual(node)) extend_output(node, out);
  if (node.has("table")) {  // of the codes: passes/fuse_tables.py
    const std::vector<int64_t> codes = node.integers("table");
    if (codes.size() != 256) throw Error("a table has 256 codes");
    out.table = std::make_shared<const std::vector<uint8_t>>(codes.begin(), codes.end());
    e.table = out.table->data();
  }
  return out;
}

// [channels][taps] to [taps][channels rounded up to a whole panel].
template <class T>
static WeightVector<T> depthwise_weights(const std::vector<T>& last, int64_t channels,
                                         int64_t taps) {
  const int64_t wide = padded_channels(channels);
  WeightVector<T> result(static_cast<size_t>(taps * wide), T{0});
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < taps; ++t) {
      result[static_cast<size_t>(t * wide + c)] = last[static_cast<size_t>(c * taps + t)];
    }
  }
  return result;
}

void pack_f32_weights(Packed& packed, const std::vector<float>& last, const Geometry& g,
                      bool depthwise, bool whole_rows) {
  const int64_t taps = g.taps(), inner = g.group_channels(), per_group = g.out_channels / g.groups;
  if (depthwise) {
    packed.weights_f32 = depthwise_weights(last, g.channels, taps);
    return;
  }
  const int64_t runs = whole_rows ? g.h.kernel : taps, run = taps * inner / runs;
  const int64_t size = padded_channels(per_group) * runs * run;
  packed.weights_f32.resize(static_cast<size_t>(g.groups * size));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_f32(last.data() + group * per_group * taps * inner, {taps * inner, run, 1}, per_group,
             runs, run, packed.weights_f32.data() + group * size);
  }
}

void pack_bf16_weights(Packed& packed, const std::vector<uint16_t>& last, const Geometry& g,
                       bool depthwise, bool whole_rows) {
  const int64_t taps = g.taps(), inner = g.group_channels(), per_group = g.out_channels / g.groups;
  if (depthwise) {  // its kernel widens what it reads: the weights are widened once, here
    const WeightVector<uint16_t> narrow = depthwise_weights(last, g.channels, taps);
    packed.weights_f32.resize(narrow.size());
    for (size_t i = 0; i < narrow.size(); ++i) {
      const uint32_t bits = static_cast<uint32_t>(narrow[i]) << 16;
      memcpy(&packed.weights_f32[i], &bits, sizeof(bits));
    }
    return;
  }
  const int64_t runs = whole_rows ? g.h.kernel : taps, run = taps * inner / runs;
  const int64_t size = padded_channels(per_group) * packed_depth(runs, run, 2);
  packed.weights_bf16.resize(static_cast<size_t>(g.groups * size));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_bf16(last.data() + group * per_group * taps * inner, {taps * inner, run, 1}, per_group,
              runs, run, packed.weights_bf16.data() + group * size);
  }
}

// Depthwise kernels know no zero points of weights: [channels][taps] less theirs becomes
// [channels][copies * taps], of which the copies add up.
static std::vector<int8_t> without_zero_points(Packed& packed, const Node& node,
                                               const std::vector<int8_t>& last, int64_t channels,
                                               int64_t taps) {
  if (!node.has("w_zero_point")) return last;
  std::vector<int64_t> rest(last.size());
  for (size_t i = 0; i < last.size(); ++i) {
    rest[i] = last[i] - weight_zero_point(node, static_cast<int64_t>(i) / taps);
    if (rest[i] > 127 || rest[i] < -128)
      packed.tap_copies = std::max<int64_t>(packed.tap_copies, 2);
    if (rest[i] > 254) packed.tap_copies = 3;
  }
  std::vector<int8_t> result(last.size() * static_cast<size_t>(packed.tap_copies));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < packed.tap_copies; ++i) {
      for (int64_t t = 0; t < taps; ++t) {
        int64_t& left = rest[static_cast<size_t>(c * taps + t)];
        const int64_t part = std::min<int64_t>(std::max<int64_t>(left, -128), 127);
        result[static_cast<size_t>((c * packed.tap_copies + i) * taps + t)] =
            static_cast<int8_t>(part);
        left -= part;
      }
    }
  }
  return result;
}

void pack_s8_weights(Packed& packed, const Node& node, const std::vector<int8_t>& last,
                     const Geometry& g, bool depthwise, bool whole_rows) {
  const int64_t taps = g.taps(), inner = g.group_channels(), per_group = g.out_channels / g.groups;
  if (depthwise) {
    const std::vector<int8_t> parts = without_zero_points(packed, node, last, g.channels, taps);
    const int64_t all = taps * packed.tap_copies;
    packed.weights_s8 = depthwise_weights(parts, g.channels, all);
    packed.by_four.resize(static_cast<size_t>(padded_channels(g.channels) * ((all + 3) / 4) * 4));
    pack_depthwise_by_four(packed.weights_s8.data(), g.channels, all, packed.by_four.data());
    if (packed.tap_copies == 1 && has_columns(g.h.kernel, g.w.kernel)) {
      packed.by_columns.resize(
          static_cast<size_t>(depthwise_columns_bytes(g.channels, g.h.kernel)));
      pack_depthwise_by_columns(packed.weights_s8.data(), g.channels, g.h.kernel,
                                packed.by_columns.data());
    }
    return;
  }
  const int64_t runs = whole_rows ? g.h.kernel : taps, run = taps * inner / runs;
  const int64_t size = packed_s8_bytes(per_group, runs, run), wide = padded_channels(per_group);
  packed.weights_s8.resize(static_cast<size_t>(g.groups * size));
  packed.sums.resize(static_cast<size_t>(g.groups * wide));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_s8(last.data() + group * per_group * taps * inner, {taps * inner, run, 1}, per_group, runs,
            run, packed.weights_s8.data() + group * size, packed.sums.data() + group * wide);
  }
}

// What an accumulator is multiplied by: s_x * s_w, divided by s_y where codes follow directly.
std::vector<float> multipliers(const Node& node, const Output& output, int64_t n) {
  const float y_scale = node.real("y_scale", 1.0f);
  const std::vector<float> w_scale = node.reals("w_scale");
  std::vector<float> x_scale = node.reals("x_scale");  // one each: of a depthwise layer
  if (x_scale.empty()) x_scale.assign(1, 1.0f);
  const auto of = [](const std::vector<float>& scales, size_t o) {
    return scales[scales.size() == 1 ? 0 : o];
  };
  const auto fits = [&](const std::vector<float>& scales) {
    return scales.size() <= 1 || static_cast<int64_t>(scales.size()) == n;
  };
  if (!fits(x_scale) || !fits(w_scale)) throw Error("scales must be one, or one a channel");
  std::vector<float> result(static_cast<size_t>(n));
  for (size_t o = 0; o < result.size(); ++o) {
    const float both = w_scale.empty() ? of(x_scale, o) : of(x_scale, o) * of(w_scale, o);
    result[o] = output.multiplies_to_codes ? both / y_scale : both;
  }
  return result;
}

void pack_channels(Packed& packed, const Geometry& layout, const std::vector<Bounds>& bounds,
                   const std::vector<int64_t>& bias, DType x_dtype, bool depthwise,
                   const Node& node, const Output& output) {
  const int64_t zero_point = node.integer("x_zero_point", 0);
  // Bounds are those of u8 codes: an s8 code and its zero point 128 higher give the same sums.
  const int64_t u8_zero = zero_point + (x_dtype == DType::S8 ? 128 : 0);
  const std::vector<float> scales = multipliers(node, output, layout.out_channels);
  const auto multiplier = [&](int64_t o) { return scales[static_cast<size_t>(o)]; };
  const auto added = [&](int64_t o) { return bias.empty() ? 0 : bias[static_cast<size_t>(o)]; };
  const auto start = [&](int64_t o) {
    const Bounds& sum = bounds[static_cast<size_t>(o)];
    return added(o) - u8_zero * (sum.positive + sum.negative);
  };
  for (int64_t o = 0; o < layout.out_channels; ++o) {
    const Bounds& sum = bounds[static_cast<size_t>(o)];
    const int64_t high = start(o) + 255 * sum.positive, low = start(o) + 255 * sum.negative;
    if (std::max({high, start(o), -low, -start(o)}) > INT32_MAX) packed.exact = false;
    // With any zero point.
    if (node.has_input(4) && 255 * (sum.positive - sum.negative) > INT32_MAX) packed.exact = false;
    const double largest = static_cast<double>(std::max(std::abs(high), std::abs(low)));
    packed.largest = std::max(packed.largest, largest * static_cast<double>(multiplier(o)));
    if (packed.largest >= 2147483000.0) packed.fast = false;
  }
  packed.zero_point = static_cast<int32_t>(zero_point);
  if (depthwise) {
    packed.sums = by_group<int32_t>(layout, [&](int64_t o) {
      const Bounds& sum = bounds[static_cast<size_t>(o)];
      return static_cast<int32_t>(sum.positive + sum.negative);
    });
  }
  packed.bias_s32 = by_group<int32_t>(layout, [&](int64_t o) {
    return packed.exact ? static_cast<int32_t>(depthwise ? start(o) : added(o)) : 0;
  });
  packed.multiplier = by_group<float>(layout, multiplier);
  if (node.has("w_zero_point")) {
    packed.weight_zero_points = by_group<int32_t>(
        layout, [&](int64_t o) { return static_cast<int32_t>(weight_zero_point(node, o)); });
  }
}

RunTimeScale run_time_scale(Planner& p, const Node& node, std::vector<int>& in) {
  RunTimeScale result;
  for (size_t i : {4, 5}) {
    if (!node.has_input(i)) continue;
    const int operand = p.operand(node, i);
    const Tensor& tensor = p.tensor(operand);
    if (tensor.elements() != 1) throw Unsupported(node.op + ": one scale for all rows only");
    (i == 4 ? result.zero_point : result.scale) = static_cast<int>(in.size());
    if (i == 4) result.is_signed = tensor.dtype == DType::S8;
    in.push_back(operand);
  }
  const Output output = output_of(node);
  const bool codes = output.dtype == DType::U8 || output.dtype == DType::S8;
  if (codes && output.ops.empty() && !node.has_input(3)) result.y_scale = output.epilogue.scale;
  return result;
}

RunTimeScale::Values RunTimeScale::values(const Packed& packed, const uint8_t* zero,
                                          const uint8_t* x_scale, uint8_t* scratch) const {
  Values result = {packed.zero_point, packed.multiplier.data(), packed.bias_s32.data()};
  const size_t n = packed.multiplier.size();
  if (zero != nullptr) {
    result.zero_point = is_signed ? static_cast<int8_t>(*zero) : *zero;
    int32_t* start = reinterpret_cast<int32_t*>(scratch);
    for (size_t i = 0; i < n; ++i) {
      start[i] = static_cast<int32_t>(static_cast<uint32_t>(packed.bias_s32[i]) -
                                      static_cast<uint32_t>(result.zero_point) *
                                          static_cast<uint32_t>(packed.sums[i]));
    }
    result.depthwise_start = start;
  }
  if (x_scale != nullptr) {
    float scale;
    memcpy(&scale, x_scale, 4);
    float* multiplier = reinterpret_cast<float*>(scratch) + n;
    for (size_t i = 0; i < n; ++i) {
      // packed: the scale of the weights, times an x_scale of 1.
      const float both = scale * packed.multiplier[i];
      multiplier[i] = y_scale != 0.0f ? both / y_scale : both;
    }
    result.multiplier = multiplier;
  }
  return result;
}

int64_t weight_zero_point(const Node& node, int64_t channel) {
  if (!node.has("w_zero_point")) return 0;
  const std::vector<int64_t>& values = node.attributes.at("w_zero_point").ints;
  return values.size() == 1 ? values[0] : at(values, static_cast<size_t>(channel), 0);
}

void set_weights(ProductArgs& args, const Packed& packed, const Output& output, bool codes,
                 int64_t at) {
  args.epilogue = output.epilogue;
  args.epilogue.ops = output.ops.data();
  args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
  if (!codes) {
    if (packed.weights_bf16.empty()) {
      args.packed = packed.weights_f32.data() + at * args.runs * args.run_length;
    } else {
      args.packed = packed.weights_bf16.data() + at * packed_depth(args.runs, args.run_length, 2);
    }
    args.bias = packed.bias_f32.data() + at;
    return;
  }
  args.packed = packed.weights_s8.data() + at * args.runs * ((args.run_length + 3) / 4) * 4;
  args.bias = packed.bias_s32.data() + at;
  args.sums = packed.sums.data() + at;
  args.zero_point = packed.zero_point;
  args.weight_zero_points =
      packed.weight_zero_points.empty() ? nullptr : packed.weight_zero_points.data() + at;
  args.epilogue.fast = output.ops.empty() ? packed.fast : output.bounded;
  args.epilogue.multiplier = packed.multiplier.data() + at;
  args.epilogue.addend = packed.addend.empty() ? nullptr : packed.addend.data() + at;
}

std::vector<Bounds> bounds_of(const Node& node, const std::vector<int8_t>& last, int64_t channels) {
  const int64_t depth = static_cast<int64_t>(last.size()) / channels;
  std::vector<Bounds> bounds(static_cast<size_t>(channels));
  for (int64_t o = 0; o < channels; ++o) {
    const int64_t zero_point = weight_zero_point(node, o);
    for (int64_t k = 0; k < depth; ++k) {
      bounds[static_cast<size_t>(o)].add(last[static_cast<size_t>(o * depth + k)] - zero_point);
    }
  }
  return bounds;
}

std::vector<int64_t> integer_bias(Planner& p, const Node& node, int64_t n) {
  if (!node.has_input(2)) return {};
  const auto bias = p.known_integers(node, 2);
  if (static_cast<int64_t>(bias.size()) != n) throw Error("bias must have one value a channel");
  return bias;
}

std::vector<float> real_bias(Planner& p, const Node& node, size_t i, int64_t n) {
  if (!node.has_input(i)) return std::vector<float>(static_cast<size_t>(n), 0.0f);
  const auto bias = p.known_reals(node, i);
  if (static_cast<int64_t>(bias.size()) != n) throw Error("bias must have one value a channel");
  return bias;
}

const char* not_constant(Planner& p, const Node& node) {
  return p.is_known(node, 1) ? nullptr : "the weights are not constant";
}

}  // namespace lp
