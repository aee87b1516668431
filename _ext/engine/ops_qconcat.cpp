// ops_qconcat.cpp: codes side by side, each operand with its own scale.
//
// Images are put together line by line, each through its own table of 256 codes (or copied where
// nothing changes). What makes an operand may write it into the result itself (plan.cpp); the
// result may have a halo, which is filled here.
#include <string.h>

#include "engine/code_tables.h"
#include "engine/layouts.h"
#include "engine/views.h"

namespace lp {
namespace {

struct Part {
  bool same;  // nothing changes
  Table table;
  Shape shape;
};

// Channels of channels-last images.
class JoinStep : public Step {
 public:
  const Kernels* kernels = nullptr;
  std::vector<Part> parts;
  int64_t images = 1, height = 1, width = 1, channels = 0;

  void finish_setup() {
    halos_.resize(parts.size());
    there_.resize(parts.size(), false);
  }
  bool understands_halo() const override { return true; }
  bool understands_halo_of(size_t) const override { return true; }
  void set_halos(const Halo& in_halo, const Halo& out_halo, uint8_t code) override {
    halos_[0] = in_halo;
    halo_ = out_halo;
    border_ = code;
  }
  void set_operand_halo(size_t i, const Halo& halo) override { halos_[i] = halo; }
  bool joins_images() const override { return true; }
  bool joins_unchanged(size_t operand) const override { return parts[operand].same; }
  void part_is_there(size_t operand) override {
    there_[operand] = true;
    kernel = "QConcat in place";  // explain() says so
  }

  void run(Pointers t, uint8_t*) const override {
    uint8_t* dst = t[out[0]];
    if (halo_.any()) fill_halo(dst, halo_, images, height, width, channels, border_);
    const int64_t row = (width + halo_.left + halo_.right) * channels;
    const int64_t image = (height + halo_.top + halo_.bottom) * row;
    dst += halo_.top * row + halo_.left * channels;
    const int64_t grain = grain_of_rows(2 * PLAIN_GRAIN, width * channels);
    parallel_rows(images * height, grain, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        uint8_t* to = dst + line / height * image + line % height * row;
        for (size_t i = 0; i < parts.size(); to += parts[i].shape[1], ++i) {
          if (!there_[i]) put_line(i, t[in[i]], line, to);
        }
      }
    });
  }

 private:
  Halo halo_;
  uint8_t border_ = 0;
  std::vector<Halo> halos_;
  std::vector<bool> there_;

  void put_line(size_t i, const uint8_t* src, int64_t line, uint8_t* to) const {
    const Halo& halo = halos_[i];
    const int64_t n = parts[i].shape[1], row = (width + halo.left + halo.right) * n;
    const int64_t image = (height + halo.top + halo.bottom) * row;
    src += line / height * image + (halo.top + line % height) * row + halo.left * n;
    if (!parts[i].same) {
      const LookUpArgs args = {parts[i].table.code, src, to, width, n, n, channels};
      kernels->look_up(&args);
      return;
    }
    for (int64_t x = 0; x < width; ++x) {
      memcpy(to + x * channels, src + x * n, static_cast<size_t>(n));
    }
  }
};

// Any other axis or layout.
class PartsStep : public Step {
 public:
  struct Copy {
    StridedCopy copy;
    Nest nest;
    int64_t offset;
  };
  const Kernels* kernels = nullptr;
  std::vector<Part> parts;
  std::vector<Copy> copies;

  void run(Pointers t, uint8_t*) const override {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].same) {
        copies[i].copy.run(t[out[0]], t[in[i]]);
      } else {
        look_up_part(parts[i].table, copies[i], t[in[i]], t[out[0]] + copies[i].offset);
      }
    }
  }

 private:
  void look_up_part(const Table& table, const Copy& part, const uint8_t* src, uint8_t* dst) const {
    // The innermost axis of one element among several is not dense in the result.
    const bool dense = part.nest.stride(0, 0) == 1 && part.nest.stride(1, 0) == 1;
    parallel_parts<2>(part.nest, 2 * PLAIN_GRAIN, [&](const Nest& nest, const int64_t* from) {
      LookUpArgs args{};
      args.table = table.code;
      args.rows = dense ? 1 : nest.size(0);
      args.n = dense ? nest.size(0) : 1;
      args.x_row = nest.stride(1, 0);
      args.y_row = nest.stride(0, 0);
      for_each_outer<2>(nest, 1, [&](const int64_t* at) {
        args.x = src + from[1] + at[1];
        args.y = dst + from[0] + at[0];
        kernels->look_up(&args);
      });
    });
  }
};

void build_qconcat(Planner& planner, const Node& node) {
  const size_t count = node.inputs.size();
  const std::vector<float> scales = node.reals("x_scale");
  const std::vector<int64_t> zero_points = node.integers("x_zero_point");
  if (scales.size() != count || zero_points.size() != count) {
    throw Error("x_scale and x_zero_point need one value per operand");
  }
  const Affine to = affine_of(node, "y");
  const DType dtype = result_dtype(node);
  Shape shape = planner.shape_of(node, 0);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 1), shape.size(), "axis"));
  Layout layout = Layout::PLAIN;
  for (size_t i = 0; i < count; ++i) {
    const Shape own = planner.shape_of(node, i);
    if ((own.size() == 3 || own.size() == 4) &&
        planner.layout_of(node, i) == Layout::CHANNELS_LAST) {
      layout = Layout::CHANNELS_LAST;
    }
    if (i == 0) continue;
    bool fits = own.size() == shape.size();
    for (size_t k = 0; fits && k < shape.size(); ++k) fits = k == axis || own[k] == shape[k];
    if (!fits) throw Error("operand shapes do not fit along the axis");
    shape[axis] += own[axis];
  }
  std::vector<int> in;
  std::vector<Part> parts;
  for (size_t i = 0; i < count; ++i) {
    const Affine from = {scales[i], static_cast<int32_t>(zero_points[i])};
    const DType own_dtype = code_dtype(planner, node, i);
    in.push_back(planner.operand(node, i, layout));
    const bool same =
        own_dtype == dtype && from.scale == to.scale && from.zero_point == to.zero_point;
    parts.push_back(
        {same, requantize_table(own_dtype, from, dtype, to), planner.tensor(in.back()).shape});
  }
  const int y = planner.output(node, 0, dtype, shape, layout);
  std::unique_ptr<Step> step;
  if (planner.tensor(y).layout == Layout::CHANNELS_LAST && axis == 1) {
    auto join = std::make_unique<JoinStep>();
    join->kernels = &planner.kernels();
    join->images = shape[0];
    join->channels = shape[1];
    join->height = shape.size() == 4 ? shape[2] : 1;
    join->width = shape.back();
    join->parts = std::move(parts);
    join->finish_setup();
    step = std::move(join);
  } else {
    auto apart = std::make_unique<PartsStep>();
    apart->kernels = &planner.kernels();
    const Strides made = strides_of(shape, layout);
    int64_t at = 0;
    for (const Part& part : parts) {
      const Strides src = strides_of(part.shape, layout);
      const int64_t offset = at * made[axis];
      apart->copies.push_back({StridedCopy(1, part.shape, made, src, offset, 0),
                               make_nest(part.shape, {made, src}), offset});
      at += part.shape[axis];
    }
    apart->parts = std::move(parts);
    step = std::move(apart);
  }
  step->in = in;
  step->out = {y};
  planner.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& qconcat_operators() {
  static const std::vector<Operator> table = {
      {"QConcat", {{"QConcat", nullptr, build_qconcat}}},
  };
  return table;
}

}  // namespace lp
