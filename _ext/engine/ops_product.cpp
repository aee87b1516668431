// ops_product.cpp: convolutions and matrix products, float and int8.
//
// Images are channels-last. A convolution copies one image at a time into scratch memory with its
// border (and, for a transposed one, with zeros between the pixels); after that every kernel row is one
// contiguous run and there is nothing left to check. Without a border it reads the tensor itself.
#include <string.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "pack.h"

namespace lp {

namespace {

// ------------------------------------------------------------------------------------ geometry
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
    axis.stride = at(strides, i, 1);
    axis.dilation = at(dilations, i, 1);
    if (at(kernel, i, axis.kernel) != axis.kernel) throw Error("kernel_shape is not the weights'");
    if (axis.stride < 1 || axis.dilation < 1) throw Error("strides and dilations must be positive");
    if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      if (transposed) throw Unsupported("ConvTranspose with auto_pad " + mode);
      automatic_border(axis, mode);
    } else if (mode != "VALID") {
      axis.begin = at(pads, i, 0);
      axis.end = at(pads, i + spatial, 0);
    }
    const int64_t reach = (axis.kernel - 1) * axis.dilation;
    if (transposed) {
      if (!output_shape.empty()) throw Unsupported("ConvTranspose with output_shape");
      const int64_t extra = at(output_padding, i, 0);
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

// [O][I/g][spatial] (or [I][O/g][spatial] for a transposed one) to [O][KH][KW][I/g].
template <class T>
std::vector<T> channels_last_weights(const T* w, const Geometry& g, bool transposed) {
  const int64_t inner = g.group_channels(), taps = g.taps(), per_group = g.out_channels / g.groups;
  std::vector<T> result(static_cast<size_t>(g.out_channels * taps * inner));
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t source =
            transposed
                ? (((o / per_group) * inner + i) * per_group + o % per_group) * taps + (taps - 1 - t)
                : (o * inner + i) * taps + t;
        result[static_cast<size_t>((o * taps + t) * inner + i)] = w[source];
      }
    }
  }
  return result;
}

// ------------------------------------------------------------------------------------ epilogue
std::vector<UnaryOp> chain_of(const Node& node) {
  const auto codes = node.integers("chain_codes");
  const auto a = node.reals("chain_a"), b = node.reals("chain_b");
  std::vector<UnaryOp> ops;
  for (size_t i = 0; i < codes.size(); ++i) {
    ops.push_back({static_cast<int32_t>(codes[i]), a[i], b[i]});
  }
  return ops;
}

// What is packed for one node: weights by group, and everything per output channel.
struct Packed : Prepared {
  std::vector<int8_t> weights_s8;
  std::vector<int8_t> by_four;
  std::vector<float> weights_f32;
  std::vector<int32_t> bias_s32;  // zero-point correction included
  std::vector<float> bias_f32, multiplier, addend;
  std::vector<int64_t> sums;  // of the weights of each output channel
  bool exact = true;          // every accumulator fits s32
  bool fast = true;           // and times its multiplier stays below 2^31
};

struct Output {  // dtype and codes of what a product writes
  DType dtype = DType::F32;
  Epilogue epilogue{};
  std::vector<UnaryOp> ops;
};

Output output_of(const Node& node) {
  Output out;
  out.ops = chain_of(node);
  Epilogue& e = out.epilogue;
  const int64_t dtype = node.integer("y_dtype", static_cast<int64_t>(DType::F32));
  out.dtype = static_cast<DType>(dtype);
  switch (out.dtype) {
    case DType::F32:
      e.kind = OUT_F32;
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
  return out;
}

// ------------------------------------------------------------------------------ convolution step
class ConvStep : public Step {
 public:
  Geometry g;
  int64_t element = 4;
  uint8_t border = 0;  // code of real 0.0
  bool depthwise = false;
  std::shared_ptr<Packed> packed;
  Output output;
  std::vector<int64_t> offsets;  // of runs or taps, in elements
  int64_t run_length = 0;
  void (*product)(const ProductArgs*) = nullptr;
  void (*depthwise_product)(const DepthwiseArgs*) = nullptr;

  bool understands_halo() const override { return true; }
  uint8_t border_code() const override { return border; }
  Halo wanted_halo() const override {
    const bool plain = g.h.insert == 1 && g.w.insert == 1 && g.h.begin >= 0 && g.h.end >= 0 &&
                       g.w.begin >= 0 && g.w.end >= 0;
    return plain ? Halo{g.h.begin, g.w.begin, g.h.end, g.w.end} : Halo{};
  }
  void set_halos(const Halo& in_halo, const Halo& out_halo, uint8_t code) override {
    source_halo_ = in_halo;
    target_halo_ = out_halo;
    target_border_ = code;
    const Halo wanted = wanted_halo();
    copies_ = g.bordered() && !(wanted.any() && in_halo.top >= wanted.top &&
                                in_halo.left >= wanted.left && in_halo.bottom >= wanted.bottom &&
                                in_halo.right >= wanted.right);
    finish_setup();
  }

  // Where the pixels of one image are.
  struct Frame {
    int64_t row = 0, image = 0;  // steps, in elements
    int64_t start = 0;           // of the first window
  };
  Frame source_frame() const {
    if (copies_) return {g.w.padded() * g.channels, 0, 0};
    const Halo& halo = source_halo_;
    const int64_t row = (g.w.in + halo.left + halo.right) * g.channels;
    const Halo pad = wanted_halo();
    return {row, (g.h.in + halo.top + halo.bottom) * row,
            (halo.top - pad.top) * row + (halo.left - pad.left) * g.channels};
  }
  Frame target_frame() const {
    const Halo& halo = target_halo_;
    const int64_t row = (g.w.out + halo.left + halo.right) * g.out_channels;
    return {row, (g.h.out + halo.top + halo.bottom) * row,
            halo.top * row + halo.left * g.out_channels};
  }

  void finish_setup() {
    const int64_t row = source_frame().row;
    offsets.clear();
    const bool whole_rows = g.groups == 1 && g.w.dilation == 1;
    run_length = whole_rows ? g.w.kernel * g.channels : g.group_channels();
    for (int64_t y = 0; y < g.h.kernel; ++y) {
      for (int64_t x = 0; x < (whole_rows ? 1 : g.w.kernel); ++x) {
        offsets.push_back(y * g.h.dilation * row + x * g.w.dilation * g.channels);
      }
    }
    scratch_bytes = copies_ ? g.h.padded() * row * element + 128 : 0;
  }

  void run(Pointers t, uint8_t* scratch) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    const Frame from = source_frame(), to = target_frame();
    const int64_t out_size = dtype_size(output.dtype);
    if (target_halo_.any()) fill_halo(dst, out_size);
    dst += to.start * out_size;
    if (!copies_) {
      run_images(src + from.start * element, dst, g.images);
      return;
    }
    const int64_t source_row = (g.w.in + source_halo_.left + source_halo_.right) * g.channels;
    const int64_t source_image = (g.h.in + source_halo_.top + source_halo_.bottom) * source_row;
    src += (source_halo_.top * source_row + source_halo_.left * g.channels) * element;
    for (int64_t i = 0; i < g.images; ++i) {
      copy_inside(src + i * source_image * element, source_row * element, scratch);
      run_images(scratch, dst + i * to.image * out_size, 1);
    }
  }

 private:
  bool copies_ = false;
  Halo source_halo_, target_halo_;
  uint8_t target_border_ = 0;

  void fill_halo(uint8_t* dst, int64_t out_size) const {
    const Halo& halo = target_halo_;
    const Frame to = target_frame();
    const int64_t pixel = g.out_channels * out_size, row = to.row * out_size;
    const auto fill = [&](uint8_t* at, int64_t bytes) {
      memset(at, target_border_, static_cast<size_t>(bytes));
    };
    for (int64_t i = 0; i < g.images; ++i, dst += to.image * out_size) {
      fill(dst, halo.top * row);
      uint8_t* line = dst + halo.top * row;
      for (int64_t y = 0; y < g.h.out; ++y, line += row) {
        fill(line, halo.left * pixel);
        fill(line + (halo.left + g.w.out) * pixel, halo.right * pixel);
      }
      fill(line, halo.bottom * row);
    }
  }

  void copy_inside(const uint8_t* src, int64_t src_row, uint8_t* padded) const {
    const int64_t pixel = g.channels * element, width = g.w.padded(), height = g.h.padded();
    const bool plain = g.w.insert == 1 && g.w.begin >= 0 && g.w.end >= 0;
    memset(padded, border, static_cast<size_t>(scratch_bytes));
    for (int64_t y = 0; y < g.h.in; ++y, src += src_row) {
      const int64_t to_y = y * g.h.insert + g.h.begin;
      if (to_y < 0 || to_y >= height) continue;
      uint8_t* row = padded + to_y * width * pixel;
      if (plain) {
        memcpy(row + g.w.begin * pixel, src, static_cast<size_t>(g.w.in * pixel));
        continue;
      }
      for (int64_t x = 0; x < g.w.in; ++x) {
        const int64_t to_x = x * g.w.insert + g.w.begin;
        if (to_x < 0 || to_x >= width) continue;
        memcpy(row + to_x * pixel, src + x * pixel, static_cast<size_t>(pixel));
      }
    }
  }

  template <class Args>
  void set_geometry(Args& args, const uint8_t* src, uint8_t* dst, int64_t images) const {
    const Frame from = source_frame(), to = target_frame();
    args.src = src;
    args.dst = dst;
    args.images = images;
    args.rows = g.h.out;
    args.cols = g.w.out;
    args.src_image = from.image;
    args.src_row = g.h.stride * from.row;
    args.src_col = g.w.stride * g.channels;
    args.dst_image = to.image;
    args.dst_row = to.row;
    args.dst_col = g.out_channels;
    args.epilogue = output.epilogue;
    args.epilogue.ops = output.ops.data();
    args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
    args.epilogue.fast = packed->fast ? 1 : 0;
  }

  void run_images(const uint8_t* src, uint8_t* dst, int64_t images) const {
    const bool codes = element == 1;
    const void* weights = codes ? static_cast<const void*>(packed->weights_s8.data())
                                : static_cast<const void*>(packed->weights_f32.data());
    if (depthwise) {
      DepthwiseArgs args{};
      set_geometry(args, src, dst, images);
      args.tap_offset = offsets.data();
      args.taps = g.taps();
      args.channels = g.channels;
      args.weights = weights;
      args.weights_by_four = packed->by_four.data();
      args.bias = codes ? static_cast<const void*>(packed->bias_s32.data())
                        : static_cast<const void*>(packed->bias_f32.data());
      args.epilogue.multiplier = packed->multiplier.data();
      args.epilogue.addend = packed->addend.empty() ? nullptr : packed->addend.data();
      depthwise_product(&args);
      return;
    }
    ProductArgs args{};
    const int64_t per_group = g.out_channels / g.groups, wide = padded_channels(per_group);
    const int64_t depth = static_cast<int64_t>(offsets.size()) *
                          (codes ? (run_length + 3) / 4 * 4 : run_length);
    for (int64_t group = 0; group < g.groups; ++group) {
      set_geometry(args, src + group * g.group_channels() * element,
                   dst + group * per_group * dtype_size(output.dtype), images);
      args.run_offset = offsets.data();
      args.runs = static_cast<int64_t>(offsets.size());
      args.run_length = run_length;
      args.n = per_group;
      args.packed = static_cast<const uint8_t*>(weights) + group * wide * depth * element;
      args.bias = codes ? static_cast<const void*>(packed->bias_s32.data() + group * wide)
                        : static_cast<const void*>(packed->bias_f32.data() + group * wide);
      if (codes) {
        args.epilogue.multiplier = packed->multiplier.data() + group * wide;
        args.epilogue.addend =
            packed->addend.empty() ? nullptr : packed->addend.data() + group * wide;
      }
      product(&args);
    }
  }
};

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
Geometry as_one_group(Geometry g) {
  g.groups = 1;
  return g;
}

void pack_f32_weights(Packed& packed, const float* w, const Geometry& g, bool transposed,
                      bool depthwise, bool whole_rows) {
  const std::vector<float> last = channels_last_weights(w, g, transposed);
  const int64_t taps = g.taps(), inner = g.group_channels(), per_group = g.out_channels / g.groups;
  if (depthwise) {
    const int64_t wide = padded_channels(g.channels);
    packed.weights_f32.assign(static_cast<size_t>(taps * wide), 0.0f);
    for (int64_t c = 0; c < g.channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        packed.weights_f32[static_cast<size_t>(t * wide + c)] = last[static_cast<size_t>(c * taps + t)];
      }
    }
    return;
  }
  const int64_t runs = whole_rows ? g.h.kernel : taps, run = taps * inner / runs;
  const int64_t size = padded_channels(per_group) * runs * run;
  packed.weights_f32.resize(static_cast<size_t>(g.groups * size));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_f32(last.data() + group * per_group * taps * inner, {taps * inner, run, 1}, per_group, runs,
             run, packed.weights_f32.data() + group * size);
  }
}

void pack_s8_weights(Packed& packed, const int8_t* w, const Geometry& g, bool transposed,
                     bool depthwise, bool whole_rows) {
  const std::vector<int8_t> last = channels_last_weights(w, g, transposed);
  const int64_t taps = g.taps(), inner = g.group_channels(), per_group = g.out_channels / g.groups;
  if (depthwise) {
    const int64_t wide = padded_channels(g.channels);
    packed.weights_s8.assign(static_cast<size_t>(taps * wide), 0);
    for (int64_t c = 0; c < g.channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        packed.weights_s8[static_cast<size_t>(t * wide + c)] = last[static_cast<size_t>(c * taps + t)];
      }
    }
    packed.by_four.resize(static_cast<size_t>(wide * ((taps + 3) / 4) * 4));
    pack_depthwise_by_four(packed.weights_s8.data(), g.channels, taps, packed.by_four.data());
    return;
  }
  const int64_t runs = whole_rows ? g.h.kernel : taps, run = taps * inner / runs;
  const int64_t size = padded_channels(per_group) * runs * ((run + 3) / 4) * 4;
  packed.weights_s8.resize(static_cast<size_t>(g.groups * size));
  for (int64_t group = 0; group < g.groups; ++group) {
    pack_s8(last.data() + group * per_group * taps * inner, {taps * inner, run, 1}, per_group, runs,
            run, packed.weights_s8.data() + group * size);
  }
}

struct Bounds {
  int64_t positive = 0, negative = 0;  // sums of the weights of one output channel, by sign
};

// What an accumulator is multiplied by: s_x * s_w, divided by s_y where codes follow directly.
std::vector<float> multipliers(const Node& node, const Output& output, int64_t n) {
  const float x_scale = node.real("x_scale", 1.0f), y_scale = node.real("y_scale", 1.0f);
  const std::vector<float> w_scale = node.reals("w_scale");
  const bool plain_codes =
      output.dtype != DType::F32 && output.ops.empty() && !node.has_input(3);
  std::vector<float> result(static_cast<size_t>(n));
  for (size_t o = 0; o < result.size(); ++o) {
    const float both = x_scale * w_scale[w_scale.size() == 1 ? 0 : o];
    result[o] = plain_codes ? both / y_scale : both;
  }
  return result;
}

// bias' = bias - zero_point * sum(w); multipliers; and the proof that nothing can wrap.
void pack_channels(Packed& packed, const Geometry& layout, const std::vector<Bounds>& bounds,
                   const std::vector<int64_t>& bias, int64_t zero_point, const Node& node,
                   const Output& output) {
  const std::vector<float> scales = multipliers(node, output, layout.out_channels);
  const auto multiplier = [&](int64_t o) { return scales[static_cast<size_t>(o)]; };
  const auto start = [&](int64_t o) {
    const Bounds& sum = bounds[static_cast<size_t>(o)];
    return (bias.empty() ? 0 : bias[static_cast<size_t>(o)]) -
           zero_point * (sum.positive + sum.negative);
  };
  for (int64_t o = 0; o < layout.out_channels; ++o) {
    const Bounds& sum = bounds[static_cast<size_t>(o)];
    const int64_t high = start(o) + 255 * sum.positive, low = start(o) + 255 * sum.negative;
    if (std::max({high, start(o), -low, -start(o)}) > INT32_MAX) packed.exact = false;
    const double largest = static_cast<double>(std::max(std::abs(high), std::abs(low)));
    if (largest * static_cast<double>(multiplier(o)) >= 2147483000.0) packed.fast = false;
  }
  packed.bias_s32 = by_group<int32_t>(layout, [&](int64_t o) {
    return packed.exact ? static_cast<int32_t>(start(o)) : 0;
  });
  packed.multiplier = by_group<float>(layout, multiplier);
}

std::vector<Bounds> weight_bounds(const int8_t* w, const Geometry& g, bool transposed) {
  const std::vector<int8_t> last = channels_last_weights(w, g, transposed);
  const int64_t depth = g.taps() * g.group_channels();
  std::vector<Bounds> bounds(static_cast<size_t>(g.out_channels));
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (int64_t k = 0; k < depth; ++k) {
      const int8_t x = last[static_cast<size_t>(o * depth + k)];
      (x > 0 ? bounds[static_cast<size_t>(o)].positive : bounds[static_cast<size_t>(o)].negative) += x;
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

// ------------------------------------------------------------------- sums that s32 cannot hold
// One output at a time with a 64-bit accumulator: for the rare layer whose depth and weights could
// pass 2^31. Right, not fast.
class WideStep : public Step {
 public:
  Geometry g;
  int64_t zero_point = 0;
  std::vector<int8_t> weights;  // [O][KH][KW][I / groups]
  std::vector<int64_t> bias;
  std::vector<float> multiplier, addend;
  Output output;
  const Kernels* kernels = nullptr;

  void run(Pointers t, uint8_t* scratch) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    float* row = reinterpret_cast<float*>(scratch);
    const int64_t size = dtype_size(output.dtype);
    for (int64_t image = 0; image < g.images; ++image) {
      for (int64_t y = 0; y < g.h.out; ++y) {
        for (int64_t x = 0; x < g.w.out; ++x, dst += g.out_channels * size) {
          for (int64_t o = 0; o < g.out_channels; ++o) {
            const size_t at = static_cast<size_t>(o);
            row[o] = static_cast<float>(sum(src, image, y, x, o) + bias[at]) * multiplier[at];
            if (!addend.empty()) row[o] += addend[at];
          }
          finish(row, dst);
        }
      }
    }
  }

 private:
  // The pixel of an axis that tap k of output o sees; -1: the border.
  static int64_t pixel(const Axis& axis, int64_t o, int64_t k) {
    const int64_t at = o * axis.stride + k * axis.dilation - axis.begin;
    if (at < 0 || at % axis.insert != 0 || at / axis.insert >= axis.in) return -1;
    return at / axis.insert;
  }
  int64_t sum(const uint8_t* src, int64_t image, int64_t y, int64_t x, int64_t o) const {
    const int64_t inner = g.group_channels(), group = o / (g.out_channels / g.groups);
    const int8_t* w = weights.data() + o * g.taps() * inner;
    int64_t acc = 0;
    for (int64_t kh = 0; kh < g.h.kernel; ++kh) {
      for (int64_t kw = 0; kw < g.w.kernel; ++kw, w += inner) {
        const int64_t row = pixel(g.h, y, kh), column = pixel(g.w, x, kw);
        if (row < 0 || column < 0) continue;
        const uint8_t* a =
            src + ((image * g.h.in + row) * g.w.in + column) * g.channels + group * inner;
        for (int64_t i = 0; i < inner; ++i) acc += (a[i] - zero_point) * w[i];
      }
    }
    return acc;
  }
  void finish(float* row, uint8_t* dst) const {
    const Epilogue& e = output.epilogue;
    const int64_t n = g.out_channels;
    if (!output.ops.empty()) {
      kernels->unary(output.ops.data(), static_cast<int32_t>(output.ops.size()), row, row, n);
    }
    if (e.kind == OUT_F32) {
      memcpy(dst, row, static_cast<size_t>(n) * 4);
      return;
    }
    // A plain requantisation has the output scale in its multiplier already.
    const float scale = output.ops.empty() && addend.empty() ? 1.0f : e.scale;
    if (e.kind == OUT_U8) {
      kernels->quantize_u8(row, dst, n, scale, e.zero_point);
      for (int64_t i = 0; i < n; ++i) dst[i] = clamped<uint8_t>(dst[i]);
    } else {
      int8_t* codes = reinterpret_cast<int8_t*>(dst);
      kernels->quantize_s8(row, codes, n, scale, e.zero_point);
      for (int64_t i = 0; i < n; ++i) codes[i] = clamped<int8_t>(codes[i]);
    }
  }
  template <class T>
  T clamped(T code) const {
    const Epilogue& e = output.epilogue;
    return static_cast<T>(std::min<int32_t>(std::max<int32_t>(code, e.qmin), e.qmax));
  }
};

void build_wide(Planner& p, const Node& node, int x, Geometry g, const int8_t* w, bool transposed,
                const Shape& result, Layout layout) {
  auto step = std::make_unique<WideStep>();
  step->g = g;
  step->kernels = &p.kernels();
  step->zero_point = node.integer("x_zero_point", 0);
  step->weights = channels_last_weights(w, g, transposed);
  step->bias = integer_bias(p, node, g.out_channels);
  if (step->bias.empty()) step->bias.assign(static_cast<size_t>(g.out_channels), 0);
  if (node.has_input(3)) step->addend = real_bias(p, node, 3, g.out_channels);
  step->output = output_of(node);
  const std::vector<float> scales = multipliers(node, step->output, g.out_channels);
  step->multiplier = scales;
  step->scratch_bytes = g.out_channels * 4;
  step->in = {x};
  step->out = {p.output(node, 0, step->output.dtype, result, layout)};
  step->kernel = "u8s8 in 64 bits";
  p.add(std::move(step));
}

const char* not_constant(Planner& p, const Node& node) {
  return p.is_known(node, 1) ? nullptr : "the weights are not constant";
}

bool is_transposed(const Node& node) { return node.op.find("Transpose") != std::string::npos; }

void build_conv(Planner& p, const Node& node, bool codes, bool depthwise) {
  const bool transposed = is_transposed(node);
  const Tensor weights = p.tensor(p.operand(node, 1));
  const int x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Shape shape = p.tensor(x).shape;
  const Geometry g = conv_geometry(node, shape, weights.shape, transposed);
  const bool whole_rows = g.groups == 1 && g.w.dilation == 1;
  const Geometry layout = depthwise ? as_one_group(g) : g;

  auto step = std::make_unique<ConvStep>();
  step->g = g;
  step->output = output_of(node);
  step->depthwise = depthwise;
  step->element = codes ? 1 : 4;
  step->border = codes ? static_cast<uint8_t>(node.integer("x_zero_point", 0)) : 0;
  step->packed = std::static_pointer_cast<Packed>(
      p.prepared(node, std::string(depthwise ? "depthwise" : "product") + (whole_rows ? " rows" : ""),
                 [&]() -> std::shared_ptr<Prepared> {
                   auto packed = std::make_shared<Packed>();
                   if (codes) {
                     const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
                     pack_s8_weights(*packed, w, g, transposed, depthwise, whole_rows);
                     pack_channels(*packed, layout, weight_bounds(w, g, transposed),
                                   integer_bias(p, node, g.out_channels),
                                   node.integer("x_zero_point", 0), node, step->output);
                     if (node.has_input(3)) {
                       const auto addend = real_bias(p, node, 3, g.out_channels);
                       packed->addend = by_group<float>(
                           layout, [&](int64_t o) { return addend[static_cast<size_t>(o)]; });
                     }
                   } else {
                     const auto* w = reinterpret_cast<const float*>(weights.constant);
                     pack_f32_weights(*packed, w, g, transposed, depthwise, whole_rows);
                     const auto bias = real_bias(p, node, 2, g.out_channels);
                     packed->bias_f32 = by_group<float>(
                         layout, [&](int64_t o) { return bias[static_cast<size_t>(o)]; });
                   }
                   return packed;
                 }));
  Shape result = shape;
  result[1] = g.out_channels;
  result[result.size() - 1] = g.w.out;
  if (result.size() == 4) result[2] = g.h.out;
  if (!step->packed->exact) {
    build_wide(p, node, x, g, reinterpret_cast<const int8_t*>(weights.constant), transposed, result,
               Layout::CHANNELS_LAST);
    return;
  }
  step->set_halos({}, {}, 0);
  step->product = codes ? p.kernels().product_u8s8 : p.kernels().product_f32;
  step->depthwise_product = codes ? p.kernels().depthwise_u8s8 : p.kernels().depthwise_f32;
  step->in = {x};
  step->out = {p.output(node, 0, step->output.dtype, result, Layout::CHANNELS_LAST)};
  const double pixels = transposed ? static_cast<double>(g.h.in * g.w.in)
                                   : static_cast<double>(g.h.out * g.w.out);
  step->macs = static_cast<double>(g.images) * pixels * static_cast<double>(g.out_channels) *
               static_cast<double>(g.group_channels() * g.taps());
  p.add(std::move(step));
}

const char* refuse_depthwise(Planner& p, const Node& node) {
  if (const char* why = not_constant(p, node)) return why;
  if (is_transposed(node)) return "transposed";
  const Shape& x = p.shape_of(node, 0);
  const Shape& w = p.shape_of(node, 1);
  const int64_t groups = node.integer("group", 1);
  if (groups == 1) return "group is 1";
  if (x.size() < 3 || w.size() != x.size()) return "rank";
  if (groups != x[1] || w[0] != x[1]) return "more than one input or output channel a group";
  return nullptr;
}
const char* refuse_product(Planner& p, const Node& node) {
  if (const char* why = not_constant(p, node)) return why;
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  return nullptr;
}
const char* refuse_depthwise_f32(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  return refuse_depthwise(p, node);
}

void conv_f32(Planner& p, const Node& node) { build_conv(p, node, false, false); }
void conv_depthwise_f32(Planner& p, const Node& node) { build_conv(p, node, false, true); }
void conv_u8s8(Planner& p, const Node& node) { build_conv(p, node, true, false); }
void conv_depthwise_u8s8(Planner& p, const Node& node) { build_conv(p, node, true, true); }

// ---------------------------------------------------------------------------- matrix products
class MatrixStep : public Step {
 public:
  int64_t rows = 0, depth = 0, columns = 0;
  int64_t element = 4;
  std::shared_ptr<Packed> packed;
  Output output;
  void (*product)(const ProductArgs*) = nullptr;

  void run(Pointers t, uint8_t*) const override {
    ProductArgs args{};
    const int64_t zero = 0;
    args.src = t[in[0]];
    args.dst = t[out[0]];
    args.images = args.rows = 1;
    args.cols = rows;
    args.src_col = depth;
    args.dst_col = columns;
    args.run_offset = &zero;
    args.runs = 1;
    args.run_length = depth;
    args.n = columns;
    args.epilogue = output.epilogue;
    args.epilogue.ops = output.ops.data();
    args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
    args.epilogue.fast = packed->fast ? 1 : 0;
    if (element == 1) {
      args.packed = packed->weights_s8.data();
      args.bias = packed->bias_s32.data();
      args.epilogue.multiplier = packed->multiplier.data();
      args.epilogue.addend = packed->addend.empty() ? nullptr : packed->addend.data();
    } else {
      args.packed = packed->weights_f32.data();
      args.bias = packed->bias_f32.data();
    }
    product(&args);
  }
};

// Gemm's weights may be transposed; MatMul's are [K, N].
bool transposed_b(const Node& node) { return node.integer("transB", 0) != 0; }

void build_matrix(Planner& p, const Node& node, bool codes) {
  const int a = p.operand(node, 0);
  const Tensor weights = p.tensor(p.operand(node, 1));
  const Shape shape = p.tensor(a).shape;
  const bool flip = transposed_b(node);
  const int64_t depth = weights.shape[flip ? 1 : 0], n = weights.shape[flip ? 0 : 1];
  if (shape.empty() || shape.back() != depth) {
    throw Error("input of shape " + to_string(shape) + " times weights of depth " +
                std::to_string(depth));
  }
  Geometry layout;
  layout.channels = depth;
  layout.out_channels = n;
  auto step = std::make_unique<MatrixStep>();
  step->depth = depth;
  step->columns = n;
  step->rows = count(shape, 0, shape.size() - 1);
  step->element = codes ? 1 : 4;
  step->output = output_of(node);
  step->product = codes ? p.kernels().product_u8s8 : p.kernels().product_f32;
  step->packed = std::static_pointer_cast<Packed>(
      p.prepared(node, "matrix", [&]() -> std::shared_ptr<Prepared> {
        auto packed = std::make_shared<Packed>();
        const WeightStrides strides = flip ? WeightStrides{depth, 0, 1} : WeightStrides{1, 0, n};
        if (codes) {
          const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
          packed->weights_s8.resize(static_cast<size_t>(padded_channels(n) * ((depth + 3) / 4) * 4));
          pack_s8(w, strides, n, 1, depth, packed->weights_s8.data());
          std::vector<Bounds> bounds(static_cast<size_t>(n));
          for (int64_t o = 0; o < n; ++o) {
            for (int64_t k = 0; k < depth; ++k) {
              const int8_t x = w[o * strides.n + k * strides.k];
              Bounds& sum = bounds[static_cast<size_t>(o)];
              (x > 0 ? sum.positive : sum.negative) += x;
            }
          }
          pack_channels(*packed, layout, bounds, integer_bias(p, node, n),
                        node.integer("x_zero_point", 0), node, step->output);
          if (node.has_input(3)) {
            const auto addend = real_bias(p, node, 3, n);
            packed->addend =
                by_group<float>(layout, [&](int64_t o) { return addend[static_cast<size_t>(o)]; });
          }
        } else {
          const auto* w = reinterpret_cast<const float*>(weights.constant);
          packed->weights_f32.resize(static_cast<size_t>(padded_channels(n) * depth));
          pack_f32(w, strides, n, 1, depth, packed->weights_f32.data());
          const float alpha = node.real("alpha", 1.0f), beta = node.real("beta", 1.0f);
          if (alpha != 1.0f) {
            for (float& x : packed->weights_f32) x *= alpha;
          }
          std::vector<float> bias(static_cast<size_t>(n), 0.0f);
          if (node.has_input(2)) {
            const auto known = p.known_reals(node, 2);
            for (size_t i = 0; i < bias.size(); ++i) {
              bias[i] = known[known.size() == 1 ? 0 : i] * beta;
            }
          }
          packed->bias_f32 =
              by_group<float>(layout, [&](int64_t o) { return bias[static_cast<size_t>(o)]; });
        }
        return packed;
      }));
  Shape result = shape;
  result.back() = n;
  if (!step->packed->exact) {
    // A matrix is an image of one row; its weights are [K][N], or [N][K] as a convolution's.
    Geometry as_image = layout;
    as_image.w.in = as_image.w.out = step->rows;
    const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
    build_wide(p, node, a, as_image, w, !flip, result, Layout::PLAIN);
    return;
  }
  step->in = {a};
  step->out = {p.output(node, 0, step->output.dtype, result)};
  step->macs = static_cast<double>(step->rows) * static_cast<double>(n) * static_cast<double>(depth);
  p.add(std::move(step));
}

const char* refuse_matrix(Planner& p, const Node& node) {
  if (const char* why = not_constant(p, node)) return why;
  if (p.shape_of(node, 1).size() != 2) return "weights are not a matrix";
  if (p.shape_of(node, 0).empty()) return "input is a scalar";
  if (node.integer("transA", 0) != 0) return "transA";
  return nullptr;
}
const char* refuse_matrix_f32(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  if (const char* why = refuse_matrix(p, node)) return why;
  if (node.has_input(2)) {
    const int64_t n = p.shape_of(node, 1)[transposed_b(node) ? 0 : 1];
    const int64_t size = count(p.shape_of(node, 2));
    const Shape& c = p.shape_of(node, 2);
    if (!p.is_known(node, 2) || (size != 1 && (size != n || c.back() != n))) {
      return "bias is not one constant a column";
    }
  }
  return nullptr;
}

void matrix_f32(Planner& p, const Node& node) { build_matrix(p, node, false); }
void matrix_u8s8(Planner& p, const Node& node) { build_matrix(p, node, true); }

// Both operands change from run to run: B is packed on the way, one batch entry at a time.
class DynamicMatrixStep : public Step {
 public:
  int64_t m = 0, k = 0, n = 0;
  WeightStrides a{}, b{};               // a.n: row stride, a.k: depth stride
  std::vector<int64_t> a_at, b_at;      // start of each batch entry
  float alpha = 1.0f, beta = 1.0f;
  int64_t c_elements = 0;               // 0: no addend; n or 1: a row
  std::vector<UnaryOp> ops;
  void (*product)(const ProductArgs*) = nullptr;

  int64_t packed_floats() const { return padded_channels(n) * k; }
  void finish_setup() {
    scratch_bytes = (packed_floats() + padded_channels(n) + m * k) * 4 + 256;
  }
  void run(Pointers t, uint8_t* scratch) const override {
    float* packed = reinterpret_cast<float*>(scratch);
    float* bias = packed + packed_floats();
    float* rows = bias + padded_channels(n);
    memset(bias, 0, static_cast<size_t>(padded_channels(n)) * 4);
    if (c_elements > 0) {
      const float* c = reinterpret_cast<const float*>(t[in[2]]);
      for (int64_t i = 0; i < n; ++i) bias[i] = c[c_elements == 1 ? 0 : i] * beta;
    }
    const int64_t zero = 0;
    for (size_t entry = 0; entry < a_at.size(); ++entry) {
      const float* source = reinterpret_cast<const float*>(t[in[0]]) + a_at[entry];
      const float* weights = reinterpret_cast<const float*>(t[in[1]]) + b_at[entry];
      if (entry == 0 || b_at[entry] != b_at[entry - 1]) {
        if (b.n == 1) {
          pack_rows(weights, packed);
        } else {
          pack_f32(weights, b, n, 1, k, packed);
        }
        if (alpha != 1.0f) {
          for (int64_t i = 0; i < packed_floats(); ++i) packed[i] *= alpha;
        }
      }
      int64_t stride = a.n;
      if (a.k != 1) {
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < k; ++j) rows[i * k + j] = source[i * a.n + j * a.k];
        }
        source = rows;
        stride = k;
      }
      ProductArgs args{};
      args.src = source;
      args.dst = reinterpret_cast<float*>(t[out[0]]) + static_cast<int64_t>(entry) * m * n;
      args.images = args.rows = 1;
      args.cols = m;
      args.src_col = stride;
      args.dst_col = n;
      args.run_offset = &zero;
      args.runs = 1;
      args.run_length = k;
      args.n = n;
      args.packed = packed;
      args.bias = bias;
      args.epilogue.kind = OUT_F32;
      args.epilogue.ops = ops.data();
      args.epilogue.n_ops = static_cast<int32_t>(ops.size());
      product(&args);
    }
  }

 private:
  // B is row-major [k][n]: a panel row is 64 floats in a row.
  void pack_rows(const float* w, float* packed) const {
    for (int64_t n0 = 0; n0 < n; n0 += PACK_PANEL) {
      const size_t width = static_cast<size_t>(std::min(PACK_PANEL, n - n0));
      for (int64_t j = 0; j < k; ++j, packed += PACK_PANEL) {
        memcpy(packed, w + j * b.k + n0, width * 4);
        memset(packed + width, 0, (static_cast<size_t>(PACK_PANEL) - width) * 4);
      }
    }
  }
};

const char* refuse_dynamic(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32 || p.dtype_of(node, 1) != DType::F32) {
    return "operands are not f32";
  }
  if (p.shape_of(node, 0).empty() || p.shape_of(node, 1).empty()) return "an operand is a scalar";
  if (node.has_input(2)) {
    const Shape& c = p.shape_of(node, 2);
    const Shape& b = p.shape_of(node, 1);
    const int64_t n = b[b.size() == 1 ? 0 : b.size() - (transposed_b(node) ? 2 : 1)];
    if (count(c) != 1 && (count(c) != n || c.back() != n)) return "addend is not one row";
  }
  return nullptr;
}

void matrix_dynamic(Planner& p, const Node& node) {
  const int a_id = p.operand(node, 0), b_id = p.operand(node, 1);
  Shape a = p.tensor(a_id).shape, b = p.tensor(b_id).shape;
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), 1);
  if (column) b.push_back(1);
  const bool flip_a = node.integer("transA", 0) != 0, flip_b = transposed_b(node);
  auto step = std::make_unique<DynamicMatrixStep>();
  const size_t ar = a.size(), br = b.size();
  step->m = a[ar - (flip_a ? 1 : 2)];
  step->k = a[ar - (flip_a ? 2 : 1)];
  step->n = b[br - (flip_b ? 2 : 1)];
  if (b[br - (flip_b ? 1 : 2)] != step->k) {
    throw Error("cannot multiply " + to_string(p.tensor(a_id).shape) + " by " +
                to_string(p.tensor(b_id).shape));
  }
  step->a = flip_a ? WeightStrides{1, 0, step->m} : WeightStrides{step->k, 0, 1};
  step->b = flip_b ? WeightStrides{step->k, 0, 1} : WeightStrides{1, 0, step->n};
  step->alpha = node.real("alpha", 1.0f);
  step->beta = node.real("beta", 1.0f);
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  Shape batch = broadcast(a_batch, b_batch, "MatMul");
  const auto starts = [&](const Shape& own, int64_t matrix) {
    std::vector<int64_t> result;
    const Shape strides = row_major_strides(own);
    for (int64_t i = 0; i < count(batch); ++i) {
      int64_t rest = i, start = 0;
      for (size_t d = batch.size(); d-- > 0;) {
        const int64_t index = rest % batch[d];
        rest /= batch[d];
        if (d + own.size() >= batch.size()) {
          const size_t axis = d + own.size() - batch.size();
          if (own[axis] != 1) start += index * strides[axis];
        }
      }
      result.push_back(start * matrix);
    }
    return result;
  };
  step->a_at = starts(a_batch, step->m * step->k);
  step->b_at = starts(b_batch, step->k * step->n);
  step->product = p.kernels().product_f32;
  step->ops = chain_of(node);
  step->in = {a_id, b_id};
  if (node.has_input(2)) {
    step->in.push_back(p.operand(node, 2));
    step->c_elements = p.tensor(step->in[2]).elements();
  }
  step->finish_setup();
  Shape result = batch;
  if (!row) result.push_back(step->m);
  if (!column) result.push_back(step->n);
  step->out = {p.output(node, 0, DType::F32, result)};
  step->macs = static_cast<double>(count(batch)) * static_cast<double>(step->m) *
               static_cast<double>(step->n) * static_cast<double>(step->k);
  p.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& product_operators() {
  static const std::vector<Operator> operators = {
      {"Conv",
       {{"depthwise f32", refuse_depthwise_f32, conv_depthwise_f32},
        {"conv f32", refuse_product, conv_f32}}},
      {"ConvTranspose", {{"conv f32 transposed", refuse_product, conv_f32}}},
      {"QConv",
       {{"depthwise u8s8", refuse_depthwise, conv_depthwise_u8s8},
        {"conv u8s8", not_constant, conv_u8s8}}},
      {"QConvTranspose", {{"conv u8s8 transposed", not_constant, conv_u8s8}}},
      {"MatMul",
       {{"matrix f32", refuse_matrix_f32, matrix_f32},
        {"matrix f32 dynamic", refuse_dynamic, matrix_dynamic}}},
      {"Gemm",
       {{"matrix f32", refuse_matrix_f32, matrix_f32},
        {"matrix f32 dynamic", refuse_dynamic, matrix_dynamic}}},
      {"QMatMul", {{"matrix u8s8", refuse_matrix, matrix_u8s8}}},
      {"QGemm", {{"matrix u8s8", refuse_matrix, matrix_u8s8}}},
  };
  return operators;
}

}  // namespace lp
