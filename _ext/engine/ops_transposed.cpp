// ops_transposed.cpp: transposed convolutions, f32, bf16 and int8, without inserted zeros.
//
// Output pixels whose coordinates leave the same remainders by the strides are one phase: they see
// the same few taps of the kernel, so a phase is a plain convolution of the input that writes every
// stride-th pixel.
//
//     stride 2, kernel 3:   y 0 2 4 ..   taps 0, 2  of x[y/2 - 1], x[y/2]
//                           y 1 3 5 ..   tap  1     of x[(y-1)/2]
//
// Where the kernel is as large as the stride (what upsampling networks do) every phase is one tap
// of the same pixel: few output channels are then computed together, as one product of
// taps * channels columns whose rows are spread over the lines of the output.
#include <string.h>

#include "engine/product.h"

namespace lp {

namespace {

// Of one axis: the outputs o = first, first + stride .. and, for each of their taps, the input
// pixel relative to o / stride.
struct AxisPhase {
  int64_t first = 0, count = 0;
  std::vector<int64_t> taps, shifts;
};

constexpr int64_t LARGEST_STRIDE = 64;  // there are as many phases

std::vector<AxisPhase> axis_phases(const Axis& axis) {
  const int64_t stride = axis.insert;
  if (stride > LARGEST_STRIDE) throw Unsupported("ConvTranspose with a stride above 64");
  std::vector<AxisPhase> phases;
  for (int64_t r = 0; r < std::min(stride, axis.out); ++r) {
    AxisPhase phase;
    phase.first = r;
    phase.count = (axis.out - r + stride - 1) / stride;
    for (int64_t t = 0; t < axis.kernel; ++t) {
      const int64_t at = r + t * axis.dilation - axis.begin;
      if (((at % stride) + stride) % stride != 0) continue;
      phase.taps.push_back(t);
      phase.shifts.push_back(at / stride);
    }
    phases.push_back(std::move(phase));
  }
  return phases;
}

// Input pixels that phases read outside of the image.
void widen(Axis& border, int64_t in, const std::vector<AxisPhase>& phases) {
  border = Axis{};
  border.in = in;
  for (const AxisPhase& phase : phases) {
    for (const int64_t shift : phase.shifts) {
      border.begin = std::max(border.begin, -shift);
      border.end = std::max(border.end, shift + phase.count - in);
    }
  }
}

// [O][KH][KW][I] to the taps of one phase, in their order; no tap: one that is zero.
template <class T>
std::vector<T> phase_weights(const std::vector<T>& last, const Geometry& g, const AxisPhase& h,
                             const AxisPhase& w) {
  const int64_t inner = g.group_channels();
  std::vector<T> result;
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (const int64_t y : h.taps) {
      for (const int64_t x : w.taps) {
        const auto at = last.begin() + ((o * g.h.kernel + y) * g.w.kernel + x) * inner;
        result.insert(result.end(), at, at + inner);
      }
    }
    if (h.taps.empty() || w.taps.empty()) result.resize(result.size() + static_cast<size_t>(inner));
  }
  return result;
}

struct Phases : Prepared {
  std::vector<Packed> packed;
};

// Where the pixels of the result go.
struct Target {
  int64_t pitch = 0;  // elements between pixels; 0: they are dense
  Halo halo;
  int64_t col(const Geometry& g) const { return pitch == 0 ? g.out_channels : pitch; }
  int64_t row(const Geometry& g) const { return (g.w.out + halo.left + halo.right) * col(g); }
  int64_t image(const Geometry& g) const { return (g.h.out + halo.top + halo.bottom) * row(g); }
  int64_t start(const Geometry& g) const { return halo.top * row(g) + halo.left * col(g); }
};

class TransposedStep : public Step {
 public:
  Target target;
  bool writes_inside() const override { return true; }
  void write_inside(int64_t pitch, const Halo& halo) override { target = {pitch, halo}; }

  Geometry g;
  Axis border_h, border_w;  // of the input: what phases read around it
  std::vector<AxisPhase> rows, columns;
  int64_t element = 4;
  uint8_t border = 0;  // code of real 0.0
  Product product = nullptr;
  Output output;
  std::shared_ptr<Phases> phases;

  void finish_setup() {
    if (bordered()) scratch_bytes = padded_rows() * padded_row() * element + 128;
  }

  void run(Pointers t, uint8_t* scratch) const override {
    const uint8_t* src = t[in[0]];
    const int64_t item = dtype_size(output.dtype), image = target.image(g) * item;
    uint8_t* dst = t[out[0]] + target.start(g) * item;
    const int64_t source = g.h.in * g.w.in * g.channels * element;
    for (int64_t i = 0; i < g.images; ++i) {
      const uint8_t* from = src + i * source;
      if (bordered()) {
        copy_bordered(from, scratch);
        from = scratch;
      }
      for (size_t y = 0; y < rows.size(); ++y) {
        for (size_t x = 0; x < columns.size(); ++x) {
          run_phase(y, x, from, dst + i * image);
        }
      }
    }
  }

 private:
  bool bordered() const { return border_h.begin || border_h.end || border_w.begin || border_w.end; }
  int64_t padded_rows() const { return border_h.padded(); }
  int64_t padded_row() const { return border_w.padded() * g.channels; }

  void copy_bordered(const uint8_t* src, uint8_t* padded) const {
    const int64_t pixel = g.channels * element, row = padded_row() * element;
    parallel_rows(padded_rows(), grain_of_rows(COPY_GRAIN, row), [&](int64_t begin, int64_t end) {
      for (int64_t y = begin; y < end; ++y) {
        uint8_t* line = padded + y * row;
        const int64_t from = y - border_h.begin;
        if (from < 0 || from >= g.h.in) {
          memset(line, border, static_cast<size_t>(row));
          continue;
        }
        const size_t left = static_cast<size_t>(border_w.begin * pixel),
                     inside = static_cast<size_t>(g.w.in * pixel);
        memset(line, border, left);
        memcpy(line + left, src + from * g.w.in * pixel, inside);
        memset(line + left + inside, border, static_cast<size_t>(border_w.end * pixel));
      }
    });
    memset(padded + padded_rows() * row, border, 128);
  }

  void run_phase(size_t y, size_t x, const uint8_t* src, uint8_t* dst) const {
    const AxisPhase &h = rows[y], &w = columns[x];
    const Packed& packed = phases->packed[y * columns.size() + x];
    std::vector<int64_t> offsets;
    for (const int64_t up : h.shifts) {
      for (const int64_t left : w.shifts) {
        offsets.push_back((up + border_h.begin) * padded_row() +
                          (left + border_w.begin) * g.channels);
      }
    }
    if (offsets.empty()) offsets.push_back(0);
    const int64_t out_size = dtype_size(output.dtype), line = target.row(g), col = target.col(g);
    const int64_t per_group = g.out_channels / g.groups, wide = padded_channels(per_group);
    run_products(product, g.groups, [&](int64_t group) {
      ProductArgs args{};
      args.src = src + group * g.group_channels() * element;
      args.dst = dst + (h.first * line + w.first * col + group * per_group) * out_size;
      args.images = 1;
      args.rows = h.count;
      args.cols = w.count;
      args.src_row = padded_row();
      args.src_col = g.channels;
      args.dst_row = g.h.insert * line;
      args.dst_col = g.w.insert * col;
      args.run_offset = offsets.data();
      args.runs = static_cast<int64_t>(offsets.size());
      args.run_length = g.group_channels();
      args.n = per_group;
      set_weights(args, packed, output, element == 1, group * wide);
      return args;
    });
  }
};

// Kernel and stride equal, no border, few channels: one product, its rows spread over the lines.
class SpreadStep : public Step {
 public:
  Target target;
  bool writes_inside() const override { return true; }
  void write_inside(int64_t pitch, const Halo& halo) override { target = {pitch, halo}; }

  Geometry g;
  int64_t element = 4;
  Product product = nullptr;
  Output output;  // of the product: without operators, they follow on whole lines
  std::vector<UnaryOp> ops;
  DType dtype = DType::F32;  // of the result
  const Kernels* kernels = nullptr;
  std::shared_ptr<Packed> packed;

  int64_t columns() const { return g.taps() * g.out_channels; }  // of the product

  void run(Pointers t, uint8_t*) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    // So many input lines at once that their products stay in the first-level cache.
    const int64_t line = g.w.in * columns(), lines = std::max<int64_t>(1, 4096 / line);
    const int64_t total = g.images * g.h.in, batches = (total + lines - 1) / lines;
    const int64_t work = lines * line * (4 + g.channels / 16 + 16 * int64_t{!ops.empty()});
    parallel_rows(batches, grain_of_rows(VECTOR_GRAIN, work), [&](int64_t begin, int64_t end) {
      // Products first (f32, bf16 or codes), codes or bf16 made of floats behind them.
      uint8_t* made = thread_scratch(lines * line * 6 + 64);
      for (int64_t batch = begin; batch < end; ++batch) {
        const int64_t first = batch * lines, count = std::min(lines, total - first);
        const uint8_t* done = multiply(src + first * g.w.in * g.channels * element, count * g.w.in,
                                       made, made + lines * line * 4);
        spread(done, first, count, dst);
      }
    });
  }

 private:
  const uint8_t* multiply(const uint8_t* src, int64_t pixels, uint8_t* made, uint8_t* codes) const {
    const int64_t run_offset = 0, n = columns();
    ProductArgs args{};
    args.src = src;
    args.dst = made;
    args.images = args.rows = 1;
    args.cols = pixels;
    args.src_col = g.channels;
    args.dst_col = n;
    args.run_offset = &run_offset;
    args.runs = 1;
    args.run_length = g.channels;
    args.n = n;
    set_weights(args, *packed, output, element == 1, 0);
    const Piece piece = whole(args);
    product(&args, &piece);
    if (output.dtype == dtype && ops.empty()) return made;
    float* values = reinterpret_cast<float*>(made);
    kernels->unary(ops.data(), static_cast<int32_t>(ops.size()), values, values, pixels * n);
    const Epilogue& e = output.epilogue;
    if (dtype == DType::F32) return made;
    if (dtype == DType::BF16) {
      kernels->f32_to_bf16(values, reinterpret_cast<uint16_t*>(codes), pixels * n);
    } else if (dtype == DType::U8) {
      kernels->quantize_u8(values, codes, pixels * n, e.scale, e.zero_point);
    } else {
      kernels->quantize_s8(values, reinterpret_cast<int8_t*>(codes), pixels * n, e.scale,
                           e.zero_point);
    }
    return codes;
  }

  // [input line][pixel][KH][KW * O] to [input line][KH][pixel][KW * O].
  void spread(const uint8_t* made, int64_t first, int64_t count, uint8_t* dst) const {
    const int64_t item = dtype_size(dtype), run = g.w.kernel * g.out_channels * item;
    for (int64_t y = 0; y < count; ++y) {
      const int64_t image = (first + y) / g.h.in, line = (first + y) % g.h.in * g.h.kernel;
      uint8_t* lines = dst + (image * target.image(g) + target.start(g)) * item;
      for (int64_t kh = 0; kh < g.h.kernel; ++kh) {
        const uint8_t* from = made + (y * g.w.in * g.h.kernel + kh) * run;
        uint8_t* to = lines + (line + kh) * target.row(g) * item;
        if (target.pitch == 0) {
          copy_runs(from, to, run);
        } else {
          copy_pixels(from, to, item);
        }
      }
    }
  }
  // A line whose pixels are apart.
  void copy_pixels(const uint8_t* from, uint8_t* to, int64_t item) const {
    const int64_t piece = g.out_channels * item, apart = target.pitch * item;
    const int64_t step = g.taps() * piece;
    for (int64_t x = 0; x < g.w.in; ++x) {
      for (int64_t kw = 0; kw < g.w.kernel; ++kw, to += apart) {
        const uint8_t* pixel = from + x * step + kw * piece;
        if (piece == 32) {
          memcpy(to, pixel, 32);
        } else {
          memcpy(to, pixel, static_cast<size_t>(piece));
        }
      }
    }
  }
  template <class T>
  static void copy_each(const uint8_t* from, uint8_t* to, int64_t pixels, int64_t step) {
    for (int64_t x = 0; x < pixels; ++x) {
      T value;
      memcpy(&value, from + x * step, sizeof(T));
      memcpy(to + x * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
    }
  }
  void copy_runs(const uint8_t* from, uint8_t* to, int64_t run) const {
    const int64_t step = run * g.h.kernel;
    if (run == 2) return copy_each<uint16_t>(from, to, g.w.in, step);
    if (run == 8) return copy_each<uint64_t>(from, to, g.w.in, step);
    for (int64_t x = 0; x < g.w.in; ++x) {
      memcpy(to + x * run, from + x * step, static_cast<size_t>(run));
    }
  }
};

bool can_spread(const Geometry& g) {
  const auto whole_axis = [](const Axis& a) {
    return a.insert == a.kernel && a.dilation == 1 && a.begin == a.kernel - 1 &&
           a.out == a.in * a.kernel;
  };
  return g.groups == 1 && g.out_channels <= 32 && whole_axis(g.h) && whole_axis(g.w);
}

// Everything of a channel that phases share.
void fill_channels(Packed& packed, Planner& p, const Node& node, const Geometry& g, bool codes,
                   const std::vector<Bounds>& bounds, DType x_dtype, const Output& output) {
  if (codes) {
    if (node.has("w_zero_point")) throw Unsupported(node.op + ": weights with zero points");
    pack_channels(packed, g, bounds, integer_bias(p, node, g.out_channels), x_dtype, false, node,
                  output);
    if (!node.has_input(3)) return;
  }
  const auto values = real_bias(p, node, codes ? 3 : 2, g.out_channels);
  (codes ? packed.addend : packed.bias_f32) =
      by_group<float>(g, [&](int64_t o) { return values[static_cast<size_t>(o)]; });
}

void pack_one(Packed& packed, const Node& node, const std::vector<int8_t>& last,
              const Geometry& g) {
  pack_s8_weights(packed, node, last, g, false, false);
}
void pack_one(Packed& packed, const Node&, const std::vector<float>& last, const Geometry& g) {
  pack_f32_weights(packed, last, g, false, false);
}
void pack_one(Packed& packed, const Node&, const std::vector<uint16_t>& last, const Geometry& g) {
  pack_bf16_weights(packed, last, g, false, false);
}
std::vector<Bounds> bounds_or_none(const Node& node, const std::vector<int8_t>& last,
                                   int64_t channels) {
  return bounds_of(node, last, channels);
}
template <class T>
std::vector<Bounds> bounds_or_none(const Node&, const std::vector<T>&, int64_t) {
  return {};
}

// A phase as the plain convolution that it is, for packing.
Geometry phase_geometry(const Geometry& g, const AxisPhase& h, const AxisPhase& w) {
  Geometry phase = g;
  phase.h = phase.w = Axis{};
  const bool none = h.taps.empty() || w.taps.empty();
  phase.h.kernel = none ? 1 : static_cast<int64_t>(h.taps.size());
  phase.w.kernel = none ? 1 : static_cast<int64_t>(w.taps.size());
  return phase;
}

template <class T>
std::shared_ptr<Phases> pack_phases(Planner& p, const Node& node, const TransposedStep& step,
                                    const T* w, DType x_dtype) {
  const auto last = channels_last_weights(w, step.g, true);
  auto phases = std::make_shared<Phases>();
  for (const AxisPhase& h : step.rows) {
    for (const AxisPhase& v : step.columns) {
      const auto part = phase_weights(last, step.g, h, v);
      const Geometry g = phase_geometry(step.g, h, v);
      Packed packed;
      pack_one(packed, node, part, g);
      fill_channels(packed, p, node, g, std::is_same_v<T, int8_t>,
                    bounds_or_none(node, part, g.out_channels), x_dtype, step.output);
      phases->packed.push_back(std::move(packed));
    }
  }
  return phases;
}

// One column of the product for each tap and channel: weights and what belongs to the channels.
template <class T>
std::shared_ptr<Packed> pack_spread(Planner& p, const Node& node, const SpreadStep& step,
                                    const T* w, DType x_dtype) {
  const Geometry& g = step.g;
  const int64_t taps = g.taps(), inner = g.channels;
  const auto last = channels_last_weights(w, g, true);
  std::vector<T> joined(last.size());
  for (int64_t o = 0; o < g.out_channels; ++o) {
    for (int64_t t = 0; t < taps; ++t) {
      // Flipped, as a convolution reads it: output pixel t sees the tap at the other end.
      const auto from = last.begin() + (o * taps + taps - 1 - t) * inner;
      std::copy(from, from + inner, joined.begin() + (t * g.out_channels + o) * inner);
    }
  }
  Geometry flat = g;
  flat.out_channels = step.columns();
  flat.h = flat.w = Axis{};
  auto packed = std::make_shared<Packed>();
  pack_one(*packed, node, joined, flat);
  std::vector<Bounds> worst = bounds_or_none(node, joined, step.columns());
  Packed channels;
  Output output = step.output;
  // Every tap of a channel has its own sums: each must fit.
  bool exact = true, fast = true;
  for (int64_t t = 0; t < taps; ++t) {
    std::vector<Bounds> part;
    if (!worst.empty()) {
      part.assign(worst.begin() + t * g.out_channels, worst.begin() + (t + 1) * g.out_channels);
    }
    Geometry one = flat;
    one.out_channels = g.out_channels;
    channels = Packed();
    fill_channels(channels, p, node, one, std::is_same_v<T, int8_t>, part, x_dtype, output);
    exact &= channels.exact;
    fast &= channels.fast;
  }
  const auto repeat = [&](const auto& values, auto& result) {
    if (values.empty()) return;
    result.assign(static_cast<size_t>(padded_channels(step.columns())), 0);
    for (int64_t i = 0; i < step.columns(); ++i) {
      result[static_cast<size_t>(i)] = values[static_cast<size_t>(i % g.out_channels)];
    }
  };
  repeat(channels.bias_s32, packed->bias_s32);
  repeat(channels.bias_f32, packed->bias_f32);
  repeat(channels.multiplier, packed->multiplier);
  repeat(channels.addend, packed->addend);
  packed->zero_point = channels.zero_point;
  packed->exact = exact;
  packed->fast = fast;
  return packed;
}

// Calls f with the weights as what they are.
template <class F>
auto with_weights(const Tensor& weights, const F& f) {
  if (weights.dtype == DType::BF16) {
    return f(reinterpret_cast<const uint16_t*>(weights.constant));
  }
  if (weights.dtype == DType::F32) return f(reinterpret_cast<const float*>(weights.constant));
  return f(reinterpret_cast<const int8_t*>(weights.constant));
}

// What both kinds have in common.
template <class MyStep>
void describe(MyStep& step, Planner& p, int x, const Geometry& g, bool codes) {
  step.g = g;
  const bool bf16 = p.tensor(x).dtype == DType::BF16;
  step.element = codes ? 1 : bf16 ? 2 : 4;
  step.product = bf16                             ? p.kernels().product_bf16
                 : !codes                         ? p.kernels().product_f32
                 : p.tensor(x).dtype == DType::S8 ? p.kernels().product_s8s8
                                                  : p.kernels().product_u8s8;
}

void place(Planner& p, const Node& node, int x, const Geometry& g, DType dtype,
           std::unique_ptr<Step> step) {
  Shape result = p.tensor(x).shape;
  result[1] = g.out_channels;
  result[result.size() - 1] = g.w.out;
  if (result.size() == 4) result[2] = g.h.out;
  step->in = {x};
  step->out = {p.output(node, 0, dtype, result, Layout::CHANNELS_LAST)};
  step->macs = static_cast<double>(g.images * g.h.in * g.w.in) *
               static_cast<double>(g.out_channels * g.group_channels() * g.taps());
  p.add(std::move(step));
}

bool build_spread(Planner& p, const Node& node, int x, const Geometry& g, bool codes) {
  auto step = std::make_unique<SpreadStep>();
  describe(*step, p, x, g, codes);
  step->kernels = &p.kernels();
  const DType x_dtype = p.tensor(x).dtype;
  step->output = output_of(node, x_dtype == DType::BF16 ? DType::BF16 : DType::F32);
  step->dtype = step->output.dtype;
  Epilogue& e = step->output.epilogue;
  if (!step->output.ops.empty()) {
    const bool whole_range = e.kind == OUT_F32 || e.kind == OUT_BF16 ||
                             (e.kind == OUT_U8 && e.qmin == 0 && e.qmax == 255) ||
                             (e.kind == OUT_S8 && e.qmin == -128 && e.qmax == 127);
    if (!whole_range) return false;
    step->ops.swap(step->output.ops);
  }
  // The chain sees floats; what the channels are multiplied by is decided by the whole output.
  const Output whole_output = output_of(node, step->dtype);
  const Tensor weights = p.tensor(p.operand(node, 1));
  SpreadStep described = *step;
  described.output = whole_output;
  step->packed = std::static_pointer_cast<Packed>(
      p.prepared(node, "spread", [&]() -> std::shared_ptr<Prepared> {
        return with_weights(
            weights, [&](const auto* w) { return pack_spread(p, node, described, w, x_dtype); });
      }));
  if (!step->packed->exact) return false;
  if (!step->ops.empty()) {
    step->output.dtype = DType::F32;
    e.kind = OUT_F32;
  }
  const DType dtype = step->dtype;
  place(p, node, x, g, dtype, std::move(step));
  return true;
}

void build_transposed(Planner& p, const Node& node, bool codes) {
  const Tensor weights = p.tensor(p.operand(node, 1));
  const int x = p.operand(node, 0, Layout::CHANNELS_LAST);
  const Geometry g = conv_geometry(node, p.tensor(x).shape, weights.shape, true);
  if (can_spread(g) && build_spread(p, node, x, g, codes)) return;
  auto step = std::make_unique<TransposedStep>();
  describe(*step, p, x, g, codes);
  const DType x_dtype = p.tensor(x).dtype;
  step->output = output_of(node, x_dtype == DType::BF16 ? DType::BF16 : DType::F32);
  step->border = codes ? static_cast<uint8_t>(node.integer("x_zero_point", 0)) : 0;
  step->rows = axis_phases(g.h);
  step->columns = axis_phases(g.w);
  widen(step->border_h, g.h.in, step->rows);
  widen(step->border_w, g.w.in, step->columns);
  require_memory({step->border_h.padded(), step->border_w.padded(), g.channels}, 4);
  // An output narrower than the stride has fewer phases.
  const std::string key =
      "phases " + std::to_string(step->rows.size()) + "x" + std::to_string(step->columns.size());
  const auto* w_codes = reinterpret_cast<const int8_t*>(weights.constant);
  step->phases =
      std::static_pointer_cast<Phases>(p.prepared(node, key, [&]() -> std::shared_ptr<Prepared> {
        return with_weights(weights,
                            [&](const auto* w) { return pack_phases(p, node, *step, w, x_dtype); });
      }));
  for (const Packed& packed : step->phases->packed) {
    if (packed.exact) continue;
    Shape result = p.tensor(x).shape;
    result[1] = g.out_channels;
    result[result.size() - 1] = g.w.out;
    if (result.size() == 4) result[2] = g.h.out;
    build_wide(p, node, x, g, w_codes, true, result, Layout::CHANNELS_LAST);
    return;
  }
  step->finish_setup();
  const DType dtype = step->output.dtype;
  place(p, node, x, g, dtype, std::move(step));
}

const char* refuse_f32(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::F32) return "input is not f32";
  if (p.dtype_of(node, 1) != DType::F32) return "weights are not f32";
  return not_constant(p, node);
}
const char* refuse_bf16(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::BF16) return "input is not bf16";
  if (p.dtype_of(node, 1) != DType::BF16) return "weights are not bf16";
  return not_constant(p, node);
}
const char* refuse_image(Planner& p, const Node& node) {
  const size_t rank = p.shape_of(node, 0).size();
  if (rank != 3 && rank != 4) return "not one or two spatial axes";
  const std::string mode = node.text("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") return "auto_pad";
  if (!node.integers("output_shape").empty()) return "output_shape";
  if (node.has_input(2) && !p.is_known(node, 2)) return "the bias is not constant";
  for (const int64_t stride : node.integers("strides")) {
    if (stride > LARGEST_STRIDE) return "a stride above 64";
  }
  return refuse_f32(p, node);
}
const char* refuse_u8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::U8) return "input is not u8";
  return not_constant(p, node);
}
const char* refuse_s8(Planner& p, const Node& node) {
  if (p.dtype_of(node, 0) != DType::S8) return "input is not s8";
  return not_constant(p, node);
}
void transposed_reals(Planner& p, const Node& node) { build_transposed(p, node, false); }
void transposed_int8(Planner& p, const Node& node) { build_transposed(p, node, true); }

}  // namespace

const std::vector<Operator>& transposed_operators() {
  static const std::vector<Operator> operators = {
      {"ConvTranspose",
       {{"conv f32 transposed", refuse_image, transposed_reals},
        {"conv f32 any transposed", refuse_conv_any, conv_any},
        {"conv bf16 transposed", refuse_bf16, transposed_reals}}},
      {"QConvTranspose",
       {{"conv u8s8 transposed", refuse_u8, transposed_int8},
        {"conv s8s8 transposed", refuse_s8, transposed_int8}}},
  };
  return operators;
}

}  // namespace lp
