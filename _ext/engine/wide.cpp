// wide.cpp: integer layers whose sums s32 cannot hold. Right, not fast: they are rare.
#include <string.h>

#include <algorithm>

#include "engine/product.h"

namespace lp {

namespace {

class WideStep : public Step {
 public:
  Geometry g;
  bool is_signed = false;  // s8 codes rather than u8
  int64_t zero_point = 0;
  std::vector<int64_t> weight_zero_points;
  std::vector<int8_t> weights;  // [O][KH][KW][I / groups]
  std::vector<int64_t> bias;
  std::vector<float> multiplier, addend;
  Output output;
  const Kernels* kernels = nullptr;

  void run(Pointers t, uint8_t*) const override {
    const uint8_t* src = t[in[0]];
    const int64_t size = g.out_channels * dtype_size(output.dtype);
    const int64_t per_pixel = g.out_channels * g.taps() * g.group_channels();
    const int64_t grain = grain_of_rows(PLAIN_GRAIN, per_pixel);
    parallel_rows(g.images * g.h.out * g.w.out, grain, [&](int64_t begin, int64_t end) {
      float* row = reinterpret_cast<float*>(thread_scratch(g.out_channels * 4));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t line = i / g.w.out, x = i % g.w.out;
        for (int64_t o = 0; o < g.out_channels; ++o) {
          const size_t at = static_cast<size_t>(o);
          const int64_t acc = sum(src, line / g.h.out, line % g.h.out, x, o) + bias[at];
          row[o] = static_cast<float>(acc) * multiplier[at];
          if (!addend.empty()) row[o] += addend[at];
        }
        finish(row, t[out[0]] + i * size);
      }
    });
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
    const int64_t weight_zero = weight_zero_points[static_cast<size_t>(o)];
    int64_t acc = 0;
    for (int64_t kh = 0; kh < g.h.kernel; ++kh) {
      for (int64_t kw = 0; kw < g.w.kernel; ++kw, w += inner) {
        const int64_t row = pixel(g.h, y, kh), column = pixel(g.w, x, kw);
        if (row < 0 || column < 0) continue;
        const uint8_t* a =
            src + ((image * g.h.in + row) * g.w.in + column) * g.channels + group * inner;
        for (int64_t i = 0; i < inner; ++i) {
          const int64_t code = is_signed ? static_cast<int8_t>(a[i]) : a[i];
          acc += (code - zero_point) * (w[i] - weight_zero);
        }
      }
    }
    return acc;
  }
  void finish(float* row, uint8_t* dst) const {
    const Epilogue& e = output.epilogue;
    const int64_t n = g.out_channels;
    for (const UnaryOp& op : output.ops) {
      if (op.code == UNARY_PRELU_CHANNEL || op.code == UNARY_MUL_CHANNEL) {
        apply_channel_values(output, op.code, row);
      } else {
        kernels->unary(&op, 1, row, row, n);
      }
    }
    if (e.kind == OUT_F32) {
      memcpy(dst, row, static_cast<size_t>(n) * 4);
      return;
    }
    if (e.kind == OUT_BF16) {
      kernels->f32_to_bf16(row, reinterpret_cast<uint16_t*>(dst), n);
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
    if (e.table != nullptr) {
      for (int64_t i = 0; i < n; ++i) dst[i] = e.table[dst[i]];
    }
  }
  template <class T>
  T clamped(T code) const {
    const Epilogue& e = output.epilogue;
    return static_cast<T>(std::min<int32_t>(std::max<int32_t>(code, e.qmin), e.qmax));
  }
};

}  // namespace

void build_wide(Planner& p, const Node& node, int x, const Geometry& g, const int8_t* w,
                bool transposed, const Shape& result, Layout layout) {
  auto step = std::make_unique<WideStep>();
  step->g = g;
  step->kernels = &p.kernels();
  step->zero_point = node.integer("x_zero_point", 0);
  for (int64_t o = 0; o < g.out_channels; ++o) {
    step->weight_zero_points.push_back(weight_zero_point(node, o));
  }
  step->weights = channels_last_weights(w, g, transposed);
  step->bias = integer_bias(p, node, g.out_channels);
  if (step->bias.empty()) step->bias.assign(static_cast<size_t>(g.out_channels), 0);
  if (node.has_input(3)) step->addend = real_bias(p, node, 3, g.out_channels);
  step->output = output_of(node);
  const std::vector<float> scales = multipliers(node, step->output, g.out_channels);
  step->multiplier = scales;
  step->in = {x};
  step->out = {p.output(node, 0, step->output.dtype, result, layout)};
  step->is_signed = p.tensor(x).dtype == DType::S8;
  step->kernel = step->is_signed ? "s8s8 in 64 bits" : "u8s8 in 64 bits";
  p.add(std::move(step));
}

}  // namespace lp
