// ops_quantize.cpp: between reals and codes, and element-wise operators on codes.
//
// The operators of domain ai.lowprec here take their parameters as attributes: x_scale and
// x_zero_point of the operand (of QConcat: lists; of QAdd and QMul: a_ and b_), y_scale,
// y_zero_point and y_dtype (ONNX's number, u8 or s8) of the result. Each equals: dequantise,
// operate in f32, quantise (numerics/reference.py: qadd, qmul, qconcat, qaverage_pool,
// make_qtable).
#include <math.h>
#include <string.h>

#include <algorithm>

#include "engine/code_tables.h"
#include "engine/layouts.h"
#include "engine/views.h"
#include "engine/windows.h"
#include "own_range.h"

namespace lp {
namespace {

bool is_wide_code(DType dtype) { return dtype == DType::U16 || dtype == DType::S16; }

// Of the kernels' table; `dtype` is u8, s8, u16 or s16.
int32_t conversion(int32_t to_u8, DType dtype) {
  switch (dtype) {
    case DType::U8:
      return to_u8;
    case DType::S8:
      return to_u8 + 1;
    case DType::U16:
      return to_u8 + 2;
    default:
      return to_u8 + 3;
  }
}
static_assert(QUANTIZE_S8 == QUANTIZE_U8 + 1 && QUANTIZE_S16 == QUANTIZE_U8 + 3 &&
                  DEQUANTIZE_S8 == DEQUANTIZE_U8 + 1 && DEQUANTIZE_S16 == DEQUANTIZE_U8 + 3,
              "conversion() counts on the order of the codes");

void quantize(const Kernels& kernels, DType dtype, const float* x, uint8_t* q, int64_t n,
              Affine affine) {
  if (dtype == DType::U8) {
    kernels.quantize_u8(x, q, n, affine.scale, affine.zero_point);
  } else {
    kernels.quantize_s8(x, reinterpret_cast<int8_t*>(q), n, affine.scale, affine.zero_point);
  }
}

void dequantize(const Kernels& kernels, DType dtype, const uint8_t* q, float* x, int64_t n,
                Affine affine) {
  if (dtype == DType::U8) {
    kernels.dequantize_u8(q, x, n, affine.scale, affine.zero_point);
  } else {
    kernels.dequantize_s8(reinterpret_cast<const int8_t*>(q), x, n, affine.scale,
                          affine.zero_point);
  }
}

// The same, shared out.
void quantize_all(const Kernels& kernels, DType dtype, const float* x, uint8_t* q, int64_t n,
                  Affine affine) {
  parallel_rows(n, VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
    quantize(kernels, dtype, x + begin, q + begin, end - begin, affine);
  });
}
void dequantize_all(const Kernels& kernels, DType dtype, const uint8_t* q, float* x, int64_t n,
                    Affine affine) {
  parallel_rows(n, VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
    dequantize(kernels, dtype, q + begin, x + begin, end - begin, affine);
  });
}

int32_t code_at(const uint8_t* data, DType dtype, int64_t i) {
  if (dtype == DType::U8) return data[i];
  if (dtype == DType::S8) return static_cast<int8_t>(data[i]);
  if (is_wide_code(dtype)) {
    int16_t value;
    memcpy(&value, data + i * 2, 2);
    return dtype == DType::U16 ? static_cast<uint16_t>(value) : value;
  }
  int32_t value;
  memcpy(&value, data + i * 4, 4);
  return value;
}

// One element, as the kernels do it.
// How the scales of a Quantize or Dequantize node run over its operand: `channels` of them, each
// for `run` neighbouring elements, repeated.
struct Channels {
  int x;  // plan tensor
  Layout layout;
  int64_t channels, run;
};

// Calls body(first, last, channel) for the stretches of [0, n) that have one scale.
template <class Body>
void for_stretches(const Channels& c, int64_t n, const Body& body) {
  parallel_rows(n, c.run == 1 ? PLAIN_GRAIN : VECTOR_GRAIN, [&](int64_t begin, int64_t end) {
    for (int64_t last; begin < end; begin = last) {
      const int64_t run = begin / c.run;
      last = std::min(end, (run + 1) * c.run);
      body(begin, last, run % c.channels);
    }
  });
}

Channels channels_of(Planner& planner, const Node& node) {
  if (node.integer("block_size", 0) != 0) throw Unsupported(node.op + " in blocks");
  const Shape scale = planner.shape_of(node, 1);
  const Shape shape = planner.shape_of(node, 0);
  Channels result;
  const int64_t scales = count(scale);
  if (scale.size() > 1) throw Unsupported(node.op + " in blocks");
  if (scales == 1) {
    result.x = planner.operand_as_is(node, 0);
    result.layout = planner.tensor(result.x).layout;
    result.channels = 1;
    result.run = count(shape);
    return result;
  }
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 1), shape.size(), "axis"));
  if (shape.empty() || scales != shape[axis]) {
    throw Error("the scale has " + std::to_string(scales) + " values for axis " +
                std::to_string(axis) + " of " + to_string(shape));
  }
  const bool last = planner.layout_of(node, 0) == Layout::CHANNELS_LAST && axis == 1;
  result.layout = last ? Layout::CHANNELS_LAST : Layout::PLAIN;
  result.x = planner.operand(node, 0, result.layout);
  result.channels = scales;
  result.run = last ? 1 : count(shape, axis + 1, shape.size());
  return result;
}

// Scales that change from element to element: whole pixels at a time.
void convert_pixels(const Kernels& kernels, int32_t code, const Channels& c, int64_t n,
                    const uint8_t* x, uint8_t* y, int64_t x_size, int64_t y_size,
                    const float* scale, const int32_t* zero_point) {
  parallel_rows(n / c.channels, grain_of_rows(VECTOR_GRAIN, c.channels),
                [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin * c.channels; i < end * c.channels; i += c.channels) {
                    ConvertArgs args{};
                    args.x = x + i * x_size;
                    args.y = y + i * y_size;
                    args.n = c.channels;
                    args.scale = scale;
                    args.zero_point = zero_point;
                    args.each = 1;
                    kernels.convert[code](&args);
                  }
                });
}

// Elements of one scale.
void convert_run(const Kernels& kernels, int32_t code, const void* x, void* y, int64_t n,
                 const Affine& affine) {
  ConvertArgs args{};
  args.x = x;
  args.y = y;
  args.n = n;
  args.scale = &affine.scale;
  args.zero_point = &affine.zero_point;
  kernels.convert[code](&args);
}

bool by_pixel(const Channels& c) { return c.run == 1 && c.channels > 1; }

// Zero points of all channels, in scratch memory.
const int32_t* zero_points_of(Pointers t, int zero_point, DType dtype, int64_t channels,
                              uint8_t* scratch) {
  int32_t* values = reinterpret_cast<int32_t*>(scratch);
  for (int64_t i = 0; i < channels; ++i) {
    values[i] = zero_point >= 0 ? code_at(t[zero_point], dtype, i) : 0;
  }
  return values;
}

Affine affine_at(Pointers t, int scale, int zero_point, DType zero_dtype, int64_t channel) {
  Affine affine = {0.0f, 0};
  memcpy(&affine.scale, t[scale] + channel * 4, 4);
  if (zero_point >= 0) affine.zero_point = code_at(t[zero_point], zero_dtype, channel);
  return affine;
}

void require_f32_scale(Planner& planner, const Node& node) {
  if (planner.dtype_of(node, 1) != DType::F32) throw Unsupported(node.op + ": only f32 scales");
}

bool is_picture(const Tensor& tensor) {
  return tensor.layout == Layout::PLAIN && tensor.rank() == 4 && tensor.shape[1] > 1 &&
         tensor.shape[1] <= FEW_PLANES && tensor.shape[2] * tensor.shape[3] >= 256;
}

void build_quantize(Planner& planner, const Node& node) {
  require_f32_scale(planner, node);
  require_f32(planner, node);
  const int zero_point = node.has_input(2) ? planner.operand(node, 2) : -1;
  const int64_t asked = node.integer("output_dtype", 0);
  const DType dtype = zero_point >= 0 ? planner.tensor(zero_point).dtype
                      : asked != 0    ? static_cast<DType>(asked)
                                      : DType::U8;
  if (!is_code(dtype) && !is_wide_code(dtype)) {
    throw Unsupported(std::string("QuantizeLinear to ") + dtype_name(dtype));
  }
  const int scale = planner.operand(node, 1);
  const Channels c = channels_of(planner, node);
  const Tensor tensor = planner.tensor(c.x);
  std::vector<int> in = {c.x, scale};
  if (zero_point >= 0) in.push_back(zero_point);
  const Kernels& kernels = planner.kernels();
  if (c.channels == 1 && is_picture(tensor)) {
    // Who reads the codes of a picture wants channels last.
    auto step = planes_to_pixels(
        1, tensor.shape, [=, &kernels](Pointers t, const float* from, uint8_t* to, int64_t n) {
          quantize(kernels, dtype, from, to, n, affine_at(t, scale, zero_point, dtype, 0));
        });
    step->in = in;
    step->out = {planner.output(node, 0, dtype, tensor.shape, Layout::CHANNELS_LAST)};
    planner.add(std::move(step));
    return;
  }
  const int y = planner.output(node, 0, dtype, tensor.shape, c.layout);
  const int64_t n = tensor.elements();
  Step& step = planner.add(in, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    const float* src = reinterpret_cast<const float*>(t[c.x]);
    if (by_pixel(c)) {
      convert_pixels(kernels, conversion(QUANTIZE_U8, dtype), c, n, t[c.x], t[y], 4,
                     dtype_size(dtype), reinterpret_cast<const float*>(t[scale]),
                     zero_points_of(t, zero_point, dtype, c.channels, scratch));
      return;
    }
    for_stretches(c, n, [&](int64_t first, int64_t last, int64_t channel) {
      const Affine affine = affine_at(t, scale, zero_point, dtype, channel);
      if (is_wide_code(dtype)) {
        convert_run(kernels, conversion(QUANTIZE_U8, dtype), src + first, t[y] + 2 * first,
                    last - first, affine);
      } else if (c.run == 1) {
        t[y][first] = quantize_one(src[first], affine, dtype);
      } else {
        quantize(kernels, dtype, src + first, t[y] + first, last - first, affine);
      }
    });
  });
  if (by_pixel(c)) step.scratch_bytes = c.channels * 4;
}

void build_dequantize(Planner& planner, const Node& node) {
  require_f32_scale(planner, node);
  const DType dtype = planner.dtype_of(node, 0);
  if (!is_code(dtype) && !is_wide_code(dtype) && dtype != DType::S32) {
    throw Unsupported(std::string("DequantizeLinear from ") + dtype_name(dtype));
  }
  if (node.integer("output_dtype", 0) > 1) throw Unsupported("DequantizeLinear: only to f32");
  const int scale = planner.operand(node, 1);
  const int zero_point = node.has_input(2) ? planner.operand(node, 2) : -1;
  const Channels c = channels_of(planner, node);
  const Tensor tensor = planner.tensor(c.x);
  const int y = planner.output(node, 0, DType::F32, tensor.shape, c.layout);
  const int64_t n = tensor.elements();
  std::vector<int> in = {c.x, scale};
  if (zero_point >= 0) in.push_back(zero_point);
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add(in, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    float* dst = reinterpret_cast<float*>(t[y]);
    if (by_pixel(c) && dtype != DType::S32) {
      convert_pixels(kernels, conversion(DEQUANTIZE_U8, dtype), c, n, t[c.x], t[y],
                     dtype_size(dtype), 4, reinterpret_cast<const float*>(t[scale]),
                     zero_points_of(t, zero_point, dtype, c.channels, scratch));
      return;
    }
    for_stretches(c, n, [&](int64_t first, int64_t last, int64_t channel) {
      const Affine affine = affine_at(t, scale, zero_point, dtype, channel);
      if (is_wide_code(dtype)) {
        convert_run(kernels, conversion(DEQUANTIZE_U8, dtype), t[c.x] + 2 * first, dst + first,
                    last - first, affine);
      } else if (c.run > 1 && is_code(dtype)) {
        dequantize(kernels, dtype, t[c.x] + first, dst + first, last - first, affine);
      } else {
        for (int64_t k = first; k < last; ++k) {
          dst[k] = dequantize_one(code_at(t[c.x], dtype, k), affine);
        }
      }
    });
  });
  if (by_pixel(c)) step.scratch_bytes = c.channels * 4;
}

// u8 codes by the data's own range; scale and zero point are outputs too.
void build_dynamic_quantize(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  require_f32(planner, node);
  const int y = planner.output(node, 0, DType::U8, tensor.shape, tensor.layout);
  const int scale = planner.output(node, 1, DType::F32, {});
  const int zero_point = planner.output(node, 2, DType::U8, {});
  const int64_t n = tensor.elements();
  const Kernels& kernels = planner.kernels();
  planner.add({x}, {y, scale, zero_point}, [=, &kernels](Pointers t, uint8_t*) {
    const float* src = reinterpret_cast<const float*>(t[x]);
    // The same stretches with any number of threads.
    constexpr int64_t MOST = 64;
    const int64_t size = std::max(VECTOR_GRAIN, (n + MOST - 1) / MOST);
    const int64_t stretches = (n + size - 1) / size;
    float lows[MOST], highs[MOST], low = 0.0f, high = 0.0f;
    parallel_tasks(stretches, [&](int64_t i) {
      int64_t nonfinite = 0;
      lows[i] = highs[i] = 0.0f;
      kernels.range(src + i * size, std::min(size, n - i * size), &lows[i], &highs[i], &nonfinite);
    });
    for (int64_t i = 0; i < stretches; ++i) {
      low = std::min(low, lows[i]);
      high = std::max(high, highs[i]);
    }
    const OwnRange range = own_range(low, high);
    const Affine affine = {range.scale, range.zero_point};
    quantize_all(kernels, DType::U8, src, t[y], n, affine);
    memcpy(t[scale], &affine.scale, 4);
    *t[zero_point] = static_cast<uint8_t>(affine.zero_point);
  });
}

// ------------------------------------------------------------------------------ operators on codes

void build_qbinary(Planner& planner, const Node& node) {
  const int32_t code = node.op == "QAdd" ? BINARY_ADD : BINARY_MUL;
  const Affine a = affine_of(node, "a"), b = affine_of(node, "b"), r = affine_of(node, "y");
  const DType dtype = result_dtype(node);
  QBinaryArgs args = {};
  args.a_signed = code_dtype(planner, node, 0) == DType::S8;
  args.b_signed = code_dtype(planner, node, 1) == DType::S8;
  args.y_signed = dtype == DType::S8;
  args.a_scale = a.scale;
  args.a_zero_point = a.zero_point;
  args.b_scale = b.scale;
  args.b_zero_point = b.zero_point;
  args.y_scale = r.scale;
  args.y_zero_point = r.zero_point;
  const Broadcast operands = broadcast_operands(planner, node, 0, 2);
  const Nest nest = operands.nest;
  args.a_row = nest.stride(1, 1);
  args.a_stride = nest.stride(1, 0);
  args.b_row = nest.stride(2, 1);
  args.b_stride = nest.stride(2, 0);
  const int left = operands.ids[0], right = operands.ids[1];
  const int y = planner.output(node, 0, dtype, operands.shape, operands.layout);
  const auto kernel = planner.kernels().qbinary_rows;
  planner
      .add({left, right}, {y},
           [=](Pointers t, uint8_t*) {
             parallel_parts<3>(nest, VECTOR_GRAIN, [&](const Nest& part, const int64_t* from) {
               QBinaryArgs now = args;
               const bool dense = rows_are_dense(part);
               now.rows = dense ? part.size(1) : 1;
               now.n = part.size(0);
               for_each_outer<3>(part, dense ? 2 : 1, [&](const int64_t* at) {
                 now.y = t[y] + from[0] + at[0];
                 now.a = t[left] + from[1] + at[1];
                 now.b = t[right] + from[2] + at[2];
                 kernel(code, &now);
               });
             });
           })
      .inplace = operands.full;
}

// Attribute table: 256 codes as unsigned bytes.
Table given_table(const Node& node) {
  const std::vector<int64_t> codes = node.integers("table");
  if (codes.size() != 256) throw Error("a table has 256 codes");
  Table table;
  for (size_t i = 0; i < 256; ++i) table.code[i] = static_cast<uint8_t>(codes[i]);
  return table;
}

Table table_of_chain(const Kernels& kernels, const Node& node, DType own, DType dtype) {
  const Affine from = affine_of(node, "x"), to = affine_of(node, "y");
  const std::vector<UnaryOp> ops = chain_of(node);
  float real[256];
  for (int i = 0; i < 256; ++i) {
    real[i] = dequantize_one(own == DType::U8 ? i : static_cast<int8_t>(i), from);
  }
  kernels.unary(ops.data(), static_cast<int32_t>(ops.size()), real, real, 256);
  Table table;
  for (size_t i = 0; i < 256; ++i) table.code[i] = quantize_one(real[i], to, dtype);
  return table;
}

// A chain of unary float operators (attributes as UnaryChain's) has only 256 different operands.
void build_qtable(Planner& planner, const Node& node) {
  const DType dtype = result_dtype(node), own = code_dtype(planner, node, 0);
  const Kernels& kernels = planner.kernels();
  const Table table =
      node.has("table") ? given_table(node) : table_of_chain(kernels, node, own, dtype);
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const int y = planner.output(node, 0, dtype, tensor.shape, tensor.layout);
  const int64_t n = tensor.elements();
  planner
      .add({x}, {y},
           [=, &kernels](Pointers t, uint8_t*) {
             parallel_rows(n, 2 * PLAIN_GRAIN, [&](int64_t begin, int64_t end) {
               const LookUpArgs args = {table.code, t[x] + begin, t[y] + begin, 1, end - begin, 0,
                                        0};
               kernels.look_up(&args);
             });
           })
      .inplace = 0;
}

void build_qaverage_pool(Planner& planner, const Node& node) {
  const Affine a = affine_of(node, "x"), r = affine_of(node, "y");
  const DType dtype = result_dtype(node), from = code_dtype(planner, node, 0);
  PoolArgs args;
  const Shape shape = pool_geometry(node, planner.shape_of(node, 0), &args);
  const int x = planner.operand(node, 0, Layout::CHANNELS_LAST);
  const int y = planner.output(node, 0, dtype, shape, Layout::CHANNELS_LAST);
  const int64_t n = planner.tensor(x).elements(), made = planner.tensor(y).elements();
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    float* real = reinterpret_cast<float*>(scratch);
    float* mean = real + n;
    dequantize_all(kernels, from, t[x], real, n, a);
    PoolArgs now = args;
    now.src = real;
    now.dst = mean;
    run_pool(kernels.average_pool_f32, now, 4);
    quantize_all(kernels, dtype, mean, t[y], made, r);
  });
  step.scratch_bytes = (n + made) * 4;
}

void build_qglobal_average_pool(Planner& planner, const Node& node) {
  const Affine a = affine_of(node, "x"), r = affine_of(node, "y");
  const DType dtype = result_dtype(node), from = code_dtype(planner, node, 0);
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() < 3) throw Error("needs an image");
  const int64_t space = count(tensor.shape, 2, tensor.rank());
  const int64_t batch = tensor.shape[0], channels = tensor.shape[1];
  Shape shape(tensor.rank(), 1);
  shape[0] = batch;
  shape[1] = channels;
  const bool last = tensor.layout == Layout::CHANNELS_LAST;
  const int y = planner.output(node, 0, dtype, shape, tensor.layout);
  const int64_t n = tensor.elements(), made = batch * channels;
  const Kernels& kernels = planner.kernels();
  Step& step = planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t* scratch) {
    float* mean = reinterpret_cast<float*>(scratch);
    if (last) {
      for (int64_t image = 0; image < batch; ++image) {
        const uint8_t* codes = t[x] + image * space * channels;
        float* sums = mean + image * channels;
        const auto part = [&](int64_t begin, int64_t end) {
          const SumCodesArgs args = {codes + begin, sums + begin, space,        end - begin,
                                     channels,      a.scale,      a.zero_point, from == DType::S8};
          kernels.sum_codes(&args);
        };
        parallel_rows(channels, grain_of_rows(VECTOR_GRAIN, space), part, 64);
      }
    } else {
      float* real = mean + made;
      dequantize_all(kernels, from, t[x], real, n, a);
      kernels.reduce(REDUCE_SUM, real, mean, made, space, 1);
    }
    const UnaryOp divide = {UNARY_DIV, static_cast<float>(space), 0.0f};
    kernels.unary(&divide, 1, mean, mean, made);
    quantize(kernels, dtype, mean, t[y], made, r);
  });
  step.scratch_bytes = (last ? made : n + made) * 4;
}

}  // namespace

const std::vector<Operator>& quantize_operators() {
  static const std::vector<Operator> table = {
      {"QuantizeLinear", {{"QuantizeLinear", nullptr, build_quantize}}},
      {"DequantizeLinear", {{"DequantizeLinear", nullptr, build_dequantize}}},
      {"DynamicQuantizeLinear", {{"DynamicQuantizeLinear", nullptr, build_dynamic_quantize}}},
      {"QAdd", {{"QAdd", nullptr, build_qbinary}}},
      {"QMul", {{"QMul", nullptr, build_qbinary}}},
      {"QTable", {{"QTable", nullptr, build_qtable}}},
      {"QAveragePool", {{"QAveragePool", nullptr, build_qaverage_pool}}},
      {"QGlobalAveragePool", {{"QGlobalAveragePool", nullptr, build_qglobal_average_pool}}},
  };
  return table;
}

}  // namespace lp
