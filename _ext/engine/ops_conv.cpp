// ops_conv.cpp: convolutions, f32, bf16 and int8.
//
// Images are channels-last. Where the tensor has the border that a convolution wants around it (its
// halo), the convolution reads it as it is; else it copies one image at a time into scratch memory
// with its border. After that every kernel row is one contiguous run and there is nothing left to
// check. Transposed ones: ops_transposed.cpp.
#include <string.h>

#include "engine/joined_pixels.h"
#include "engine/layouts.h"
#include "engine/product.h"

namespace lp {

namespace {

class ConvStep : public Step {
 public:
  Geometry g;
  int64_t element = 4;
  uint8_t border = 0;  // code of real 0.0
  bool depthwise = false;
  bool is_signed = false;  // s8 codes
  std::shared_ptr<Packed> packed;
  std::shared_ptr<JoinedPixels> joined;  // null: one pixel at a time
  RunTimeScale run_time;
  int residual = -1;  // where it is in `in`
  Output output, joined_output;
  std::vector<int64_t> offsets;  // of runs or taps, in elements
  int64_t run_length = 0;
  Product product = nullptr;
  Depthwise depthwise_product = nullptr;

  bool understands_halo() const override { return true; }
  bool understands_halo_of(size_t i) const override {
    return i == 0 || static_cast<int>(i) == residual;
  }
  void set_operand_halo(size_t, const Halo& halo) override { residual_halo_ = halo; }
  uint8_t border_code() const override { return border; }
  Halo wanted_halo() const override {
    if (run_time.any()) return {};  // nobody else knows the border
    const bool plain = g.h.begin >= 0 && g.h.end >= 0 && g.w.begin >= 0 && g.w.end >= 0;
    return plain ? Halo{g.h.begin, g.w.begin, g.h.end, g.w.end} : Halo{};
  }
  void set_halos(const Halo& in_halo, const Halo& out_halo, uint8_t code) override {
    source_halo_ = in_halo;
    target_halo_ = out_halo;
    target_border_ = code;
    const Halo wanted = wanted_halo();
    copies_ = g.bordered() &&
              !(wanted.any() && in_halo.top >= wanted.top && in_halo.left >= wanted.left &&
                in_halo.bottom >= wanted.bottom && in_halo.right >= wanted.right);
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
  Frame target_frame() const { return result_frame(target_halo_, target_pitch()); }
  Frame result_frame(const Halo& halo, int64_t pitch) const {
    const int64_t row = (g.w.out + halo.left + halo.right) * pitch;
    return {row, (g.h.out + halo.top + halo.bottom) * row, halo.top * row + halo.left * pitch};
  }
  bool writes_inside() const override { return !depthwise; }
  void write_inside(int64_t pitch, const Halo& halo) override {
    pitch_ = pitch;
    target_halo_ = halo;
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
    image_bytes_ = copies_ ? g.h.padded() * row * element + 128 : 0;
    // Weights that s8 does not hold are sums over several taps at the same place.
    const std::vector<int64_t> once = offsets;
    for (int64_t i = 1; i < packed->tap_copies; ++i) {
      offsets.insert(offsets.end(), once.begin(), once.end());
    }
    scratch_bytes = image_bytes_ + (run_time.any() ? RunTimeScale::scratch_bytes(*packed) + 64 : 0);
  }

  void run(Pointers t, uint8_t* scratch) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    const Frame from = source_frame(), to = target_frame();
    const int64_t out_size = dtype_size(output.dtype);
    const RunTimeScale::Values now =
        run_time.values(*packed, t, in, scratch + (image_bytes_ + 63) / 64 * 64);
    if (target_halo_.any() && pitch_ == 0) {
      fill_halo(dst, target_halo_, g.images, g.h.out, g.w.out, g.out_channels * out_size,
                target_border_);
    }
    dst += to.start * out_size;
    const Frame beside = result_frame(residual_halo_, g.out_channels);
    const uint8_t* residual_from = nullptr;
    if (residual >= 0) {
      residual_from = t[in[static_cast<size_t>(residual)]] + beside.start * residual_bytes();
    }
    if (!copies_) {
      run_images(src + from.start * element, dst, residual_from, g.images, now);
      return;
    }
    const int64_t source_row = (g.w.in + source_halo_.left + source_halo_.right) * g.channels;
    const int64_t source_image = (g.h.in + source_halo_.top + source_halo_.bottom) * source_row;
    src += (source_halo_.top * source_row + source_halo_.left * g.channels) * element;
    for (int64_t i = 0; i < g.images; ++i) {
      const uint8_t code = run_time.any() ? static_cast<uint8_t>(now.zero_point) : border;
      copy_inside(src + i * source_image * element, source_row * element, scratch, code);
      run_images(scratch, dst + i * to.image * out_size,
                 residual_from ? residual_from + i * beside.image * residual_bytes() : nullptr, 1,
                 now);
    }
  }

 private:
  bool copies_ = false;
  int64_t image_bytes_ = 0;  // of scratch memory
  int64_t pitch_ = 0;        // of the pixels of the result; 0: they are dense
  int64_t target_pitch() const { return pitch_ == 0 ? g.out_channels : pitch_; }
  Halo source_halo_, target_halo_, residual_halo_;
  uint8_t target_border_ = 0;

  void copy_inside(const uint8_t* src, int64_t src_row, uint8_t* padded, uint8_t code) const {
    const int64_t row = g.w.padded() * g.channels * element, height = g.h.padded();
    memset(padded + height * row, code, static_cast<size_t>(image_bytes_ - height * row));
    parallel_rows(height, grain_of_rows(COPY_GRAIN, row), [&](int64_t begin, int64_t end) {
      for (int64_t y = begin; y < end; ++y) {
        const int64_t from = y - g.h.begin;
        const bool inside = from >= 0 && from < g.h.in;
        copy_line(inside ? src + from * src_row : nullptr, padded + y * row, code);
      }
    });
  }

  // One padded line; no source: it is all border.
  void copy_line(const uint8_t* src, uint8_t* line, uint8_t code) const {
    const int64_t pixel = g.channels * element, width = g.w.padded();
    if (src != nullptr && g.w.begin >= 0 && g.w.end >= 0) {
      memset(line, code, static_cast<size_t>(g.w.begin * pixel));
      memcpy(line + g.w.begin * pixel, src, static_cast<size_t>(g.w.in * pixel));
      memset(line + (g.w.begin + g.w.in) * pixel, code, static_cast<size_t>(g.w.end * pixel));
      return;
    }
    memset(line, code, static_cast<size_t>(width * pixel));
    for (int64_t x = 0; src != nullptr && x < g.w.in; ++x) {
      const int64_t to_x = x + g.w.begin;
      if (to_x < 0 || to_x >= width) continue;
      memcpy(line + to_x * pixel, src + x * pixel, static_cast<size_t>(pixel));
    }
  }

  int64_t residual_bytes() const {
    const int32_t kind = output.epilogue.residual_kind;
    return kind == OUT_F32 ? 4 : kind == OUT_BF16 ? 2 : 1;
  }
  void set_residual(Epilogue& epilogue, const uint8_t* from) const {
    if (from == nullptr) return;
    const Frame frame = result_frame(residual_halo_, g.out_channels);
    epilogue.residual = from;
    epilogue.residual_image = frame.image;
    epilogue.residual_row = frame.row;
    epilogue.residual_col = g.out_channels;
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
    args.dst_col = target_pitch();
  }

  void run_images(const uint8_t* src, uint8_t* dst, const uint8_t* residual_from, int64_t images,
                  const RunTimeScale::Values& now) const {
    const bool codes = element == 1;
    if (depthwise) {
      DepthwiseArgs args{};
      set_geometry(args, src, dst, images);
      args.epilogue = output.epilogue;
      args.epilogue.ops = output.ops.data();
      args.epilogue.n_ops = static_cast<int32_t>(output.ops.size());
      args.epilogue.fast = output.ops.empty() ? packed->fast && !run_time.any() : output.bounded;
      args.tap_offset = offsets.data();
      args.taps = static_cast<int64_t>(offsets.size());
      args.channels = g.channels;
      // bf16 weights of a depthwise convolution are kept as the f32 that they stand for.
      args.weights = codes ? static_cast<const void*>(packed->weights_s8.data())
                           : static_cast<const void*>(packed->weights_f32.data());
      args.weights_by_four = packed->by_four.data();
      args.weights_by_columns = packed->by_columns.empty() ? nullptr : packed->by_columns.data();
      args.is_signed = is_signed ? 1 : 0;
      args.bias = codes ? static_cast<const void*>(now.depthwise_start)
                        : static_cast<const void*>(packed->bias_f32.data());
      args.epilogue.multiplier = now.multiplier;
      set_residual(args.epilogue, residual_from);
      args.epilogue.addend = packed->addend.empty() ? nullptr : packed->addend.data();
      run_product(depthwise_product, args);
      return;
    }
    if (joined != nullptr && pitch_ == 0) return run_joined(src, dst, images);
    const int64_t per_group = g.out_channels / g.groups, wide = padded_channels(per_group);
    run_products(product, g.groups, [&](int64_t group) {
      ProductArgs args{};
      set_geometry(args, src + group * g.group_channels() * element,
                   dst + group * per_group * dtype_size(output.dtype), images);
      args.run_offset = offsets.data();
      args.runs = static_cast<int64_t>(offsets.size());
      args.run_length = run_length;
      args.n = per_group;
      set_weights(args, *packed, output, codes, group * wide);
      if (run_time.any()) {
        args.zero_point = now.zero_point;
        args.epilogue.multiplier = now.multiplier + group * wide;
        args.epilogue.fast = 0;
      }
      set_residual(args.epilogue,
                   residual_from ? residual_from + group * per_group * residual_bytes() : nullptr);
      return args;
    });
  }

  // Whole groups of pixels of each line, then the pixels that are left.
  void run_joined(const uint8_t* src, uint8_t* dst, int64_t images) const {
    const int64_t groups = g.w.out / joined->pixels, done = groups * joined->pixels;
    ProductArgs args{};
    set_geometry(args, src, dst, images);
    args.run_offset = offsets.data();
    args.runs = static_cast<int64_t>(offsets.size());
    ProductArgs rest = args;
    args.cols = groups;
    args.src_col *= joined->pixels;
    args.dst_col *= joined->pixels;
    args.run_length = joined->run_length;
    args.n = joined->pixels * g.out_channels;
    set_weights(args, joined->packed, joined_output, true, 0);
    run_product(product, args);
    if (done == g.w.out) return;
    rest.src = src + done * rest.src_col;
    rest.dst = dst + done * rest.dst_col * dtype_size(output.dtype);
    rest.cols = g.w.out - done;
    rest.run_length = run_length;
    rest.n = g.out_channels;
    set_weights(rest, *packed, output, true, 0);
    run_product(product, rest);
  }
};

// A step that may compute several pixels at once does so where it pays.
void join(Planner& p, const Node& node, ConvStep& step, const Tensor& weights) {
  if (pixels_to_join(step.g) == 1 || step.residual >= 0 || step.run_time.any() ||
      !step.packed->weight_zero_points.empty()) {
    return;
  }
  const std::string key = "joined " + std::to_string(pixels_to_join(step.g));
  step.joined = std::static_pointer_cast<JoinedPixels>(
      p.prepared(node, key, [&]() -> std::shared_ptr<Prepared> {
        const auto* w = reinterpret_cast<const int8_t*>(weights.constant);
        return join_pixels(node, channels_last_weights(w, step.g, false), step.g, *step.packed);
      }));
  step.joined_output = step.output;
  repeat_channel_values(step.joined_output, step.joined->pixels);
}

enum class Kind { F32, BF16, CODES };

Product product_of(const Kernels& kernels, Kind kind, DType x) {
  if (kind == Kind::F32) return kernels.product_f32;
  if (kind == Kind::BF16) return kernels.product_bf16;
  return x == DType::S8 ? kernels.product_s8s8 : kernels.product_u8s8;
}
Depthwise depthwise_of(const Kernels& kernels, Kind kind) {
  return kind == Kind::F32    ? kernels.depthwise_f32
         : kind == Kind::BF16 ? kernels.depthwise_bf16
                              : kernels.depthwise_u8s8;
}

void build_conv(Planner& p, const Node& node, Kind kind, bool depthwise) {
  const bool codes = kind == Kind::CODES;
  const Tensor weights = p.tensor(p.operand(node, 1));
  const int x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Shape shape = p.tensor(x).shape;
  const Geometry g = conv_geometry(node, shape, weights.shape, false);
  // A border may be larger than the image and its result.
  require_memory({g.h.padded(), g.w.padded(), g.channels}, 4);
  const bool whole_rows = g.groups == 1 && g.w.dilation == 1;
  const Geometry layout = depthwise ? as_one_group(g) : g;
  Shape result = shape;
  result[1] = g.out_channels;
  result[result.size() - 1] = g.w.out;
  if (result.size() == 4) result[2] = g.h.out;
  if (has_residual(node) && !residual_fits(p, node, result)) return build_apart(p, node);

  auto step = std::make_unique<ConvStep>();
  step->g = g;
  step->output = output_of(node, kind == Kind::BF16 ? DType::BF16 : DType::F32);
  step->depthwise = depthwise;
  step->element = codes ? 1 : kind == Kind::BF16 ? 2 : 4;
  step->border = codes ? static_cast<uint8_t>(node.integer("x_zero_point", 0)) : 0;
  const DType x_dtype = p.tensor(x).dtype;
  step->is_signed = x_dtype == DType::S8;
  step->packed = std::static_pointer_cast<Packed>(p.prepared(
      node, std::string(depthwise ? "depthwise" : "product") + (whole_rows ? " rows" : ""),
      [&]() -> std::shared_ptr<Prepared> {
        auto packed = std::make_shared<Packed>();
        if (codes) {
          const auto last =
              channels_last_weights(reinterpret_cast<const int8_t*>(weights.constant), g, false);
          pack_s8_weights(*packed, node, last, g, depthwise, whole_rows);
          pack_channels(*packed, layout, bounds_of(node, last, g.out_channels),
                        integer_bias(p, node, g.out_channels), x_dtype, depthwise, node,
                        step->output);
          if (node.has_input(3)) {
            const auto addend = real_bias(p, node, 3, g.out_channels);
            packed->addend =
                by_group<float>(layout, [&](int64_t o) { return addend[static_cast<size_t>(o)]; });
          }
        } else {
          if (kind == Kind::BF16) {
            const auto* w = reinterpret_cast<const uint16_t*>(weights.constant);
            pack_bf16_weights(*packed, channels_last_weights(w, g, false), g, depthwise,
                              whole_rows);
          } else {
            const auto* w = reinterpret_cast<const float*>(weights.constant);
            pack_f32_weights(*packed, channels_last_weights(w, g, false), g, depthwise, whole_rows);
          }
          const auto bias = real_bias(p, node, 2, g.out_channels);
          packed->bias_f32 =
              by_group<float>(layout, [&](int64_t o) { return bias[static_cast<size_t>(o)]; });
        }
        return packed;
      }));
  check_channel_values(step->output, g.groups, g.out_channels);
  if (!step->packed->exact) {
    if (has_residual(node)) return build_apart(p, node);
    if (node.has_input(4)) throw Unsupported(node.op + ": its sums could pass 2^31");
    build_wide(p, node, x, g, reinterpret_cast<const int8_t*>(weights.constant), false, result,
               Layout::CHANNELS_LAST);
    return;
  }
  step->in = {x};
  step->run_time = run_time_scale(p, node, step->in);
  step->set_halos({}, {}, 0);
  step->product = product_of(p.kernels(), kind, x_dtype);
  step->depthwise_product = depthwise_of(p.kernels(), kind);
  if (has_residual(node)) {
    step->residual = static_cast<int>(step->in.size());
    step->in.push_back(residual_operand(p, node, Layout::CHANNELS_LAST, step->output));
    step->output.bounded = is_bounded(node, *step->packed, step->output);
  }
  if (codes && !depthwise) join(p, node, *step, weights);
  step->out = {p.output(node, 0, step->output.dtype, result, Layout::CHANNELS_LAST)};
  step->macs = static_cast<double>(g.images * g.h.out * g.w.out) *
               static_cast<double>(g.out_channels) *
               static_cast<double>(g.group_channels() * g.taps());
  p.add(std::move(step));
}

const char* refuse_depthwise(Planner& p, const Node& node) {
  if (const char* why = not_constant(p, node)) return why;
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
  if (p.dtype_of(node, 1) != DType::F32) return "weights are not f32";
  return nullptr;
}
const char* refuse_product_bf16(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::BF16) return "input is not bf16";
  if (p.dtype_of(node, 1) != DType::BF16) return "weights are not bf16";
  return not_constant(p, node);
}
const char* refuse_image(Planner& p, const Node& node) {
  const size_t rank = p.shape_of(node, 0).size();
  if (rank != 3 && rank != 4) return "not one or two spatial axes";
  if (node.has_input(2) && !p.is_known(node, 2)) return "the bias is not constant";
  return refuse_product(p, node);
}
const char* refuse_depthwise_f32(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  if (p.dtype_of(node, 1) != DType::F32) return "weights are not f32";
  if (p.shape_of(node, 0).size() > 4) return "not one or two spatial axes";
  if (node.has_input(2) && !p.is_known(node, 2)) return "the bias is not constant";
  return refuse_depthwise(p, node);
}
const char* refuse_depthwise_bf16(Planner& p, const Node& node) {
  if (const char* why = refuse_product_bf16(p, node)) return why;
  return refuse_depthwise(p, node);
}

const char* refuse_depthwise_u8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::U8) return "input is not u8";
  return refuse_depthwise(p, node);
}
const char* refuse_depthwise_s8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::S8) return "input is not s8";
  return refuse_depthwise(p, node);
}
const char* refuse_conv_u8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::U8) return "input is not u8";
  return not_constant(p, node);
}
const char* refuse_conv_s8s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::S8) return "input is not s8";
  return not_constant(p, node);
}

void conv_f32(Planner& p, const Node& node) { build_conv(p, node, Kind::F32, false); }
void conv_depthwise_f32(Planner& p, const Node& node) { build_conv(p, node, Kind::F32, true); }
void conv_bf16(Planner& p, const Node& node) { build_conv(p, node, Kind::BF16, false); }
void conv_depthwise_bf16(Planner& p, const Node& node) { build_conv(p, node, Kind::BF16, true); }
void conv_int8(Planner& p, const Node& node) { build_conv(p, node, Kind::CODES, false); }
void conv_depthwise_int8(Planner& p, const Node& node) { build_conv(p, node, Kind::CODES, true); }

}  // namespace

const std::vector<Operator>& conv_operators() {
  static const std::vector<Operator> operators = {
      {"Conv",
       {{"depthwise f32", refuse_depthwise_f32, conv_depthwise_f32},
        {"conv f32", refuse_image, conv_f32},
        {"conv f32 any", refuse_conv_any, conv_any},
        {"depthwise bf16", refuse_depthwise_bf16, conv_depthwise_bf16},
        {"conv bf16", refuse_product_bf16, conv_bf16}}},
      {"QConv",
       {{"depthwise u8s8", refuse_depthwise_u8s8, conv_depthwise_int8},
        {"depthwise s8s8", refuse_depthwise_s8s8, conv_depthwise_int8},
        {"conv u8s8", refuse_conv_u8s8, conv_int8},
        {"conv s8s8", refuse_conv_s8s8, conv_int8}}},
  };
  return operators;
}

}  // namespace lp
