// ops_pool.cpp: max and average windows, over channels-last images.
#include "engine/views.h"
#include "engine/windows.h"
#include "engine/windows_nd.h"

namespace lp {

Shape pool_geometry(const Node& node, const Shape& shape, PoolArgs* args) {
  if (shape.size() != 3 && shape.size() != 4) {
    throw Unsupported(node.op + ": only one or two spatial axes, not " + to_string(shape));
  }
  const size_t axes = shape.size() - 2;
  const std::vector<int64_t> kernel = node.integers("kernel_shape");
  const std::vector<int64_t> strides = node.integers("strides", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> dilations = node.integers("dilations", std::vector<int64_t>(axes, 1));
  std::vector<int64_t> pads = node.integers("pads", std::vector<int64_t>(2 * axes, 0));
  if (kernel.size() != axes || strides.size() != axes || dilations.size() != axes ||
      pads.size() != 2 * axes) {
    throw Error("kernel_shape, strides, pads or dilations do not fit " + to_string(shape));
  }
  const std::string auto_pad = node.text("auto_pad", "NOTSET");
  const bool round_up = node.integer("ceil_mode", 0) != 0;
  Shape result = {shape[0], shape[1]};
  for (size_t k = 0; k < axes; ++k) {
    const int64_t size = shape[2 + k], stride = strides[k];
    for (const int64_t extent : {kernel[k], stride, dilations[k], pads[k], pads[axes + k]}) {
      checked_extent(extent, "kernel, stride, dilation or pad");
    }
    if (kernel[k] < 1 || stride < 1 || dilations[k] < 1) throw Error("sizes must be positive");
    const int64_t reach = (kernel[k] - 1) * dilations[k] + 1;
    int64_t& begin = pads[k];
    int64_t& end = pads[axes + k];
    int64_t made;
    if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
      made = (size + stride - 1) / stride;
      const int64_t total = std::max<int64_t>(0, (made - 1) * stride + reach - size);
      begin = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      end = total - begin;
    } else {
      if (auto_pad == "VALID") begin = end = 0;
      if (begin < 0 || end < 0) throw Error("pads must not be negative");
      const int64_t room = size + begin + end - reach;
      if (room < 0) throw Error("the window is larger than the padded image " + to_string(shape));
      made = (room + (round_up ? stride - 1 : 0)) / stride + 1;
      // No window starts in the padding at the end.
      if (round_up && (made - 1) * stride >= size + begin) --made;
    }
    result.push_back(made);
  }
  const size_t w = axes - 1;  // the index of the width among the spatial axes
  const bool flat = axes == 1;
  *args = PoolArgs();
  args->images = shape[0];
  args->channels = shape[1];
  args->height = flat ? 1 : shape[2];
  args->width = shape[2 + w];
  args->out_height = flat ? 1 : result[2];
  args->out_width = result[2 + w];
  args->kernel_h = flat ? 1 : kernel[0];
  args->kernel_w = kernel[w];
  args->stride_h = flat ? 1 : strides[0];
  args->stride_w = strides[w];
  args->dilation_h = flat ? 1 : dilations[0];
  args->dilation_w = dilations[w];
  args->pad_top = flat ? 0 : pads[0];
  args->pad_left = pads[w];
  args->pad_bottom = flat ? 0 : pads[axes];
  args->pad_right = pads[axes + w];
  args->count_padding = node.integer("count_include_pad", 0) != 0 ? 1 : 0;
  return result;
}

void run_pool(void (*kernel)(const PoolArgs*), const PoolArgs& args, int64_t item) {
  const int64_t pixel = args.channels * item, line = args.out_width * args.channels;
  const int64_t grain = grain_of_rows(PLAIN_GRAIN, line * args.kernel_h * args.kernel_w / 4);
  parallel_rows(args.images * args.out_height, grain, [&](int64_t begin, int64_t end) {
    // A stretch of lines of one image is a pooling whose first window lies lower.
    for (int64_t lines; begin < end; begin += lines) {
      const int64_t image = begin / args.out_height, y = begin % args.out_height;
      lines = std::min(end - begin, args.out_height - y);
      PoolArgs part = args;
      part.images = 1;
      part.out_height = lines;
      part.pad_top = args.pad_top - y * args.stride_h;
      part.src = static_cast<const uint8_t*>(args.src) + image * args.height * args.width * pixel;
      part.dst = static_cast<uint8_t*>(args.dst) + begin * args.out_width * pixel;
      kernel(&part);
    }
  });
}

namespace {

void add_pool(Planner& planner, const Node& node, void (*kernel)(const PoolArgs*)) {
  PoolArgs args;
  const Shape shape = pool_geometry(node, planner.shape_of(node, 0), &args);
  const int x = planner.operand(node, 0, Layout::CHANNELS_LAST);
  const int y = planner.output(node, 0, planner.tensor(x).dtype, shape, Layout::CHANNELS_LAST);
  const int64_t item = dtype_size(planner.tensor(x).dtype);
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    PoolArgs now = args;
    now.src = t[x];
    now.dst = t[y];
    run_pool(kernel, now, item);
  });
}

const char* refuse_rank(Planner& planner, const Node& node) {
  const size_t rank = planner.shape_of(node, 0).size();
  return rank == 3 || rank == 4 ? nullptr : "not one or two spatial axes";
}
const char* refuse_max(Planner& planner, const Node& node) {
  if (node.outputs.size() > 1 && node.outputs[1] >= 0) return "indices are asked for";
  const DType dtype = planner.dtype_of(node, 0);
  if (dtype != DType::F32 && dtype != DType::BF16 && dtype != DType::U8 && dtype != DType::S8) {
    return "not f32, bf16, u8 or s8";
  }
  return refuse_rank(planner, node);
}
const char* refuse_average(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  if (dtype != DType::F32 && dtype != DType::BF16) return "not f32 or bf16";
  return refuse_rank(planner, node);
}

void build_max_pool(Planner& planner, const Node& node) {
  const Kernels& kernels = planner.kernels();
  switch (planner.dtype_of(node, 0)) {
    case DType::F32:
      return add_pool(planner, node, kernels.max_pool_f32);
    case DType::BF16:
      return add_pool(planner, node, kernels.max_pool_bf16);
    case DType::U8:
      return add_pool(planner, node, kernels.max_pool_u8);
    case DType::S8:
      return add_pool(planner, node, kernels.max_pool_s8);
    default:
      throw Unsupported(std::string("MaxPool of ") + dtype_name(planner.dtype_of(node, 0)));
  }
}

void build_average_pool(Planner& planner, const Node& node) {
  if (planner.dtype_of(node, 0) == DType::BF16) {
    return add_pool(planner, node, planner.kernels().average_pool_bf16);
  }
  require_f32(planner, node);
  add_pool(planner, node, planner.kernels().average_pool_f32);
}

}  // namespace

const std::vector<Operator>& pool_operators() {
  static const std::vector<Operator> table = {
      {"MaxPool",
       {{"MaxPool", refuse_max, build_max_pool}, {"MaxPool nd", nullptr, build_max_pool_nd}}},
      {"AveragePool",
       {{"AveragePool", refuse_average, build_average_pool},
        {"AveragePool nd", nullptr, build_average_pool_nd}}},
  };
  return table;
}

}  // namespace lp
