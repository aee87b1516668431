// ops_conv_any.cpp: f32 convolutions that the planned ones (ops_conv.cpp) do not do: any number of
// spatial axes, weights that are made at run time, every way to size a transposed one.
//
// Patches of the image are gathered row by row and multiplied by the packed weights. An element is
// one chain of fused multiply-adds over the taps in order, then the channels: the bits are those
// of the planned convolutions, which leave no tap out either.
#include <string.h>

#include <algorithm>

#include "engine/product.h"
#include "engine/windows_nd.h"
#include "matrix_args.h"

namespace lp {

namespace {

struct AnyGeometry {
  int64_t images, channels, out_channels, groups;
  std::vector<WindowAxis> axes;
  bool transposed;
  int64_t taps() const {
    int64_t n = 1;
    for (const WindowAxis& axis : axes) n *= axis.kernel;
    return n;
  }
  int64_t depth() const { return taps() * (channels / groups); }
  int64_t positions() const {
    int64_t n = 1;
    for (const WindowAxis& axis : axes) n *= axis.out;
    return n;
  }
};

int64_t at_or(const std::vector<int64_t>& values, size_t i, int64_t otherwise) {
  return i < values.size() ? values[i] : otherwise;
}

// Output size and border of one axis of a transposed convolution.
void size_transposed(const Node& node, size_t i, WindowAxis& axis) {
  const auto wanted = node.integers("output_shape");
  const std::string mode = node.text("auto_pad", "NOTSET");
  const int64_t extra =
      checked_extent(at_or(node.integers("output_padding"), i, 0), "output_padding");
  const int64_t full = (axis.in - 1) * axis.stride + extra + (axis.kernel - 1) * axis.dilation + 1;
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  if (wanted.empty() && !same) {
    if (mode == "VALID") axis.begin = axis.end = 0;
    axis.out = full - axis.begin - axis.end;
    return;
  }
  axis.out = wanted.empty() ? axis.in * axis.stride : checked_extent(wanted[i], "output_shape");
  const int64_t total = std::max<int64_t>(0, full - axis.out);
  axis.begin = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
  axis.end = total - axis.begin;
}

AnyGeometry any_geometry(const Node& node, const Shape& x, const Shape& w) {
  if (x.size() < 3 || w.size() != x.size()) {
    throw Error("an image of shape " + to_string(x) + " and weights of shape " + to_string(w));
  }
  AnyGeometry g;
  g.transposed = node.op == "ConvTranspose";
  g.images = x[0];
  g.channels = x[1];
  g.groups = node.integer("group", 1);
  if (g.groups < 1) throw Error("group must be at least 1");
  g.out_channels = g.transposed ? w[1] * g.groups : w[0];
  const int64_t expected = g.transposed ? w[0] : w[1] * g.groups;
  if (expected != g.channels || g.out_channels % g.groups != 0 || g.channels % g.groups != 0) {
    throw Error("input has " + std::to_string(g.channels) + " channels, the weights want " +
                std::to_string(expected));
  }
  const size_t axes = x.size() - 2;
  const auto kernel = node.integers("kernel_shape"), strides = node.integers("strides"),
             dilations = node.integers("dilations"), pads = node.integers("pads"),
             wanted = node.integers("output_shape");
  const std::string mode = node.text("auto_pad", "NOTSET");
  if (!wanted.empty() && wanted.size() != axes) throw Error("output_shape has another rank");
  for (size_t i = 0; i < axes; ++i) {
    WindowAxis axis{};
    axis.in = x[2 + i];
    axis.kernel = w[2 + i];
    axis.stride = checked_extent(at_or(strides, i, 1), "stride");
    axis.dilation = checked_extent(at_or(dilations, i, 1), "dilation");
    axis.begin = checked_extent(at_or(pads, i, 0), "pad");
    axis.end = checked_extent(at_or(pads, i + axes, 0), "pad");
    if (at_or(kernel, i, axis.kernel) != axis.kernel)
      throw Error("kernel_shape is not the weights'");
    if (axis.stride < 1 || axis.dilation < 1) throw Error("strides and dilations must be positive");
    if (axis.kernel < 1) throw Error("weights without taps");
    const int64_t reach = (axis.kernel - 1) * axis.dilation + 1;
    if (g.transposed) {
      size_transposed(node, i, axis);
    } else if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      axis.out = (axis.in + axis.stride - 1) / axis.stride;
      const int64_t total = std::max<int64_t>(0, (axis.out - 1) * axis.stride + reach - axis.in);
      axis.begin = mode == "SAME_LOWER" ? total - total / 2 : total / 2;
      axis.end = total - axis.begin;
    } else {
      if (mode == "VALID") axis.begin = axis.end = 0;
      const int64_t room = axis.in + axis.begin + axis.end - reach;
      axis.out = room < 0 ? 0 : room / axis.stride + 1;
    }
    if (axis.out < 1) {
      throw Error("a kernel of " + std::to_string(axis.kernel) + " does not fit input of shape " +
                  to_string(x));
    }
    g.axes.push_back(axis);
  }
  return g;
}

// For every output position of an axis and every tap: where in the input, or -1.
std::vector<int64_t> sources_of(const WindowAxis& axis, bool transposed) {
  if (!transposed) return taps_of(axis);
  require_memory({axis.out, axis.kernel}, 8);
  std::vector<int64_t> sources;
  for (int64_t o = 0; o < axis.out; ++o) {
    // The taps in the order in which they meet growing input positions.
    for (int64_t k = axis.kernel - 1; k >= 0; --k) {
      const int64_t spread = o + axis.begin - k * axis.dilation;
      const bool meets = spread >= 0 && spread % axis.stride == 0 && spread / axis.stride < axis.in;
      sources.push_back(meets ? spread / axis.stride : -1);
    }
  }
  return sources;
}

class AnyConvStep : public Step {
 public:
  AnyGeometry g;
  std::vector<std::vector<int64_t>> sources;
  std::shared_ptr<Packed> packed;  // nullptr: packed in every run
  int64_t bias_elements = 0;
  Product product = nullptr;
  std::vector<UnaryOp> ops;

  int64_t per_group() const { return g.out_channels / g.groups; }
  int64_t wide() const { return padded_channels(per_group()); }
  int64_t packed_floats() const { return g.groups * wide() * g.depth(); }
  void finish_setup() {
    const int64_t own = packed ? 0 : packed_floats() + g.out_channels * g.depth();
    scratch_bytes = (g.groups * wide() + own) * 4 + 256;
  }

  void run(Pointers t, uint8_t* scratch) const override {
    float* bias = reinterpret_cast<float*>(scratch);
    const int64_t columns = g.groups * wide();
    memset(bias, 0, static_cast<size_t>(columns) * 4);
    if (bias_elements > 0) {
      const float* given = reinterpret_cast<const float*>(t[in[2]]);
      for (int64_t o = 0; o < g.out_channels; ++o) {
        bias[o / per_group() * wide() + o % per_group()] = given[o];
      }
    }
    const float* weights = packed ? packed->weights_f32.data() : nullptr;
    if (weights == nullptr) {
      float* own = bias + columns;
      pack(reinterpret_cast<const float*>(t[in[1]]), own, own + packed_floats());
      weights = own;
    }
    const float* src = reinterpret_cast<const float*>(t[in[0]]);
    float* dst = reinterpret_cast<float*>(t[out[0]]);
    const int64_t rows = g.images * g.positions();
    // Patches of about 256 kB at a time.
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, g.depth()));
    parallel_rows(rows, grain, [&](int64_t begin, int64_t end) {
      float* patches = reinterpret_cast<float*>(thread_scratch(grain * g.depth() * 4 + 256));
      for (int64_t at = begin; at < end; at += grain) {
        const int64_t n = std::min(grain, end - at);
        for (int64_t group = 0; group < g.groups; ++group) {
          for (int64_t i = 0; i < n; ++i) gather(src, at + i, group, patches + i * g.depth());
          float* to = dst + at * g.out_channels + group * per_group();
          ProductArgs args =
              matrix_args(patches, g.depth(), to, g.out_channels, n, g.depth(), per_group());
          args.packed = weights + group * wide() * g.depth();
          args.bias = bias + group * wide();
          args.epilogue.kind = OUT_F32;
          args.epilogue.ops = ops.data();
          args.epilogue.n_ops = static_cast<int32_t>(ops.size());
          run_product(product, args);
        }
      }
    });
  }

  // [O][I/g][taps], or [I][O/g][taps] of a transposed one, to panels over [taps][I/g].
  void pack(const float* w, float* to, float* last) const {
    const int64_t inner = g.channels / g.groups, taps = g.taps(), each = per_group();
    for (int64_t o = 0; o < g.out_channels; ++o) {
      for (int64_t k = 0; k < taps; ++k) {
        for (int64_t i = 0; i < inner; ++i) {
          const int64_t from =
              g.transposed ? ((o / each * inner + i) * each + o % each) * taps + taps - 1 - k
                           : (o * inner + i) * taps + k;
          last[(o * taps + k) * inner + i] = w[from];
        }
      }
    }
    const int64_t depth = g.depth();
    for (int64_t group = 0; group < g.groups; ++group) {
      pack_f32(last + group * each * depth, WeightStrides{depth, 0, 1}, each, 1, depth,
               to + group * wide() * depth);
    }
  }

 private:
  // The patch of one output position: taps, then the channels of the group.
  void gather(const float* src, int64_t row, int64_t group, float* to) const {
    const int64_t inner = g.channels / g.groups, taps = g.taps();
    const size_t rank = g.axes.size();
    int64_t position = row % g.positions(), pixels = 1, base[8], tap[8] = {0};
    for (size_t i = rank; i-- > 0;) {
      base[i] = position % g.axes[i].out * g.axes[i].kernel;
      position /= g.axes[i].out;
      pixels *= g.axes[i].in;
    }
    src += row / g.positions() * pixels * g.channels + group * inner;
    for (int64_t k = 0; k < taps; ++k, to += inner) {
      int64_t at = 0;
      for (size_t i = 0; i < rank && at >= 0; ++i) {
        const int64_t own = sources[i][static_cast<size_t>(base[i] + tap[i])];
        at = own < 0 ? -1 : at * g.axes[i].in + own;
      }
      if (at < 0) {
        memset(to, 0, static_cast<size_t>(inner) * 4);
      } else {
        memcpy(to, src + at * g.channels, static_cast<size_t>(inner) * 4);
      }
      for (size_t i = rank; i-- > 0 && ++tap[i] == g.axes[i].kernel;) tap[i] = 0;
    }
  }
};

}  // namespace

const char* refuse_conv_any(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32 || p.dtype_of(node, 1) != DType::F32) {
    return "operands are not f32";
  }
  return p.shape_of(node, 0).size() > 10 ? "more than eight spatial axes" : nullptr;
}

void conv_any(Planner& p, const Node& node) {
  const int weights = p.operand(node, 1), x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Tensor w = p.tensor(weights);
  auto step = std::make_unique<AnyConvStep>();
  step->g = any_geometry(node, p.tensor(x).shape, w.shape);
  const AnyGeometry& g = step->g;
  require_memory({g.out_channels, g.depth()}, 8);
  for (const WindowAxis& axis : g.axes) step->sources.push_back(sources_of(axis, g.transposed));
  step->in = {x, weights};
  if (node.has_input(2)) {
    step->in.push_back(p.operand(node, 2));
    step->bias_elements = p.tensor(step->in[2]).elements();
    if (step->bias_elements != g.out_channels || p.tensor(step->in[2]).dtype != DType::F32) {
      throw Error("the bias must be one f32 for each of " + std::to_string(g.out_channels) +
                  " output channels");
    }
  }
  step->product = p.kernels().product_f32;
  step->ops = chain_of(node, "chain_");
  if (w.is_constant()) {
    step->packed = std::static_pointer_cast<Packed>(
        p.prepared(node, "any", [&]() -> std::shared_ptr<Prepared> {
          auto packed = std::make_shared<Packed>();
          packed->weights_f32.resize(static_cast<size_t>(step->packed_floats()));
          std::vector<float> last(static_cast<size_t>(g.out_channels * g.depth()));
          step->pack(reinterpret_cast<const float*>(w.constant), packed->weights_f32.data(),
                     last.data());
          return packed;
        }));
  }
  step->finish_setup();
  Shape result = {g.images, g.out_channels};
  for (const WindowAxis& axis : g.axes) result.push_back(axis.out);
  step->out = {p.output(node, 0, DType::F32, result, Layout::CHANNELS_LAST)};
  step->macs = static_cast<double>(g.images * g.positions()) * static_cast<double>(g.out_channels) *
               static_cast<double>(g.depth());
  p.add(std::move(step));
}

}  // namespace lp
