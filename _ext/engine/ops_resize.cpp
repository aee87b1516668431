// ops_resize.cpp: operators whose every axis maps output positions to input positions: resize and
// pad.
//
// Nearest resizing and padding only move data: one map per axis. Linear and cubic resizing weigh
// the neighbours of each axis; an output element is one chain of fused multiply-adds over the
// products of its axes' weights, in row-major order of the neighbours. Source: ONNX operators
// Resize (opset 19) and Pad (opset 21).
#include <math.h>
#include <string.h>

#include <algorithm>

#include "engine/views.h"

namespace lp {
namespace {

// ------------------------------------------------------------------------------------ moving

constexpr int64_t OUTSIDE = -1;

// Logical axes, outermost in memory first.
std::vector<size_t> memory_order(const Tensor& tensor) {
  std::vector<size_t> order;
  const bool last = tensor.layout == Layout::CHANNELS_LAST;
  for (size_t axis = 0; axis < tensor.rank(); ++axis) {
    if (!last || axis != 1) order.push_back(axis);
  }
  if (last) order.push_back(1);
  return order;
}

// dst[i, j, ...] = src[map0[i], map1[j], ...], or a constant where a map says OUTSIDE.
class MappedCopy {
 public:
  // `maps` by logical axis.
  MappedCopy(const Tensor& from, const Tensor& to, const std::vector<std::vector<int64_t>>& maps)
      : item_(dtype_size(from.dtype)) {
    const Strides src = strides_of(from);
    std::vector<size_t> order = memory_order(from);
    while (!order.empty()) {  // trailing axes that are copied whole
      const size_t axis = order.back();
      bool whole = from.shape[axis] == to.shape[axis];
      for (size_t i = 0; whole && i < maps[axis].size(); ++i) {
        whole = maps[axis][i] == static_cast<int64_t>(i);
      }
      if (!whole) break;
      run_ *= to.shape[axis];
      order.pop_back();
    }
    for (const size_t axis : order) {
      std::vector<int64_t> offsets = maps[axis];
      for (int64_t& offset : offsets) {
        if (offset != OUTSIDE) offset *= src[axis];
      }
      offsets_.push_back(std::move(offsets));
    }
    if (run_ == 1 && !offsets_.empty()) find_pieces(offsets_.back());
  }

  void run(void* dst, const void* src, const void* constant) const {
    with_item(item_, [&](auto zero) {
      using T = decltype(zero);
      T value;
      memcpy(&value, constant, sizeof(T));
      if (offsets_.size() < 2) {
        T* to = static_cast<T*>(dst);
        return walk<T>(0, static_cast<const T*>(src), value, &to);
      }
      // The two outermost axes are shared out, or the outermost one: the last is copied in pieces.
      const size_t shared = offsets_.size() == 2 ? 1 : 2;
      const int64_t inner = shared == 1 ? 1 : static_cast<int64_t>(offsets_[1].size());
      int64_t size = run_;
      for (size_t level = shared; level < offsets_.size(); ++level) {
        size *= static_cast<int64_t>(offsets_[level].size());
      }
      const int64_t rows = static_cast<int64_t>(offsets_[0].size()) * inner;
      parallel_rows(rows, grain_of_rows(PLAIN_GRAIN, size), [&](int64_t begin, int64_t end) {
        T* to = static_cast<T*>(dst) + begin * size;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = offsets_[0][static_cast<size_t>(i / inner)];
          const int64_t second = shared == 1 ? 0 : offsets_[1][static_cast<size_t>(i % inner)];
          const bool outside = first == OUTSIDE || second == OUTSIDE;
          walk<T>(shared, outside ? nullptr : static_cast<const T*>(src) + first + second, value,
                  &to);
        }
      });
    });
  }

 private:
  // `src` is null outside of the source.
  template <class T>
  void walk(size_t level, const T* src, T value, T** dst) const {
    if (level == offsets_.size()) {
      if (src == nullptr) {
        std::fill_n(*dst, run_, value);
      } else {
        memcpy(*dst, src, static_cast<size_t>(run_) * sizeof(T));
      }
      *dst += run_;
      return;
    }
    if (level + 1 == offsets_.size() && run_ == 1) {
      for (const Piece& piece : pieces_) {
        T* to = *dst;
        if (src == nullptr || piece.offset == OUTSIDE) {
          std::fill_n(to, piece.count, value);
        } else if (piece.step == 1) {
          memcpy(to, src + piece.offset, static_cast<size_t>(piece.count) * sizeof(T));
        } else {
          const T* from = src + piece.offset;
          for (int64_t i = 0; i < piece.count; ++i) to[i] = from[i * piece.step];
        }
        *dst += piece.count;
      }
      return;
    }
    for (const int64_t offset : offsets_[level]) {
      walk<T>(level + 1, src == nullptr || offset == OUTSIDE ? nullptr : src + offset, value, dst);
    }
  }

  // Elements of the last axis at equal distances, or outside of the source.
  struct Piece {
    int64_t offset, step, count;
  };
  void find_pieces(const std::vector<int64_t>& offsets) {
    for (const int64_t offset : offsets) {
      if (!pieces_.empty()) {
        Piece& last = pieces_.back();
        const bool outside = last.offset == OUTSIDE;
        if (outside != (offset == OUTSIDE)) {
          pieces_.push_back({offset, 1, 1});
          continue;
        }
        if (!outside && last.count == 1) last.step = offset - last.offset;
        if (outside || offset == last.offset + last.step * last.count) {
          ++last.count;
          continue;
        }
      }
      pieces_.push_back({offset, 1, 1});
    }
  }

  int64_t item_, run_ = 1;                     // run_ in elements
  std::vector<Piece> pieces_;                  // of the last axis where run_ is 1
  std::vector<std::vector<int64_t>> offsets_;  // of the other axes, outermost first
};

int64_t remainder_of(int64_t a, int64_t b) { return (a % b + b) % b; }

int64_t padded_from(const std::string& mode, int64_t at, int64_t size) {
  if (at >= 0 && at < size) return at;
  if (size == 0 || mode == "constant") return OUTSIDE;
  if (mode == "edge") return at < 0 ? 0 : size - 1;
  if (mode == "wrap") return remainder_of(at, size);
  if (size == 1) return 0;
  const int64_t period = 2 * (size - 1), phase = remainder_of(at, period);  // reflect
  return phase < size ? phase : period - phase;
}

void build_pad(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const size_t rank = tensor.rank();
  const std::string mode = node.text("mode", "constant");
  if (mode != "constant" && mode != "edge" && mode != "reflect" && mode != "wrap") {
    throw Unsupported("Pad in mode " + mode);
  }
  const std::vector<int64_t> pads =
      node.has_input(1) ? planner.known_integers(node, 1) : node.integers("pads");
  std::vector<int64_t> axes;
  if (node.has_input(3)) {
    axes = axes_of(planner, node, 3, rank);
  } else {
    for (size_t axis = 0; axis < rank; ++axis) axes.push_back(static_cast<int64_t>(axis));
  }
  if (pads.size() != 2 * axes.size()) throw Error("pads need a begin and an end per axis");
  Shape shape = tensor.shape;
  std::vector<int64_t> begin(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = static_cast<size_t>(axes[i]);
    begin[axis] = checked_extent(pads[i], "pad");
    shape[axis] += pads[i] + checked_extent(pads[axes.size() + i], "pad");
    if (shape[axis] < 0) throw Error("pads remove more than " + to_string(tensor.shape) + " has");
  }
  require_memory(shape, dtype_size(tensor.dtype));  // before the tables of this size
  std::vector<std::vector<int64_t>> maps(rank);
  for (size_t axis = 0; axis < rank; ++axis) {
    for (int64_t i = 0; i < shape[axis]; ++i) {
      maps[axis].push_back(padded_from(mode, i - begin[axis], tensor.shape[axis]));
    }
  }
  const int constant = node.has_input(2) ? planner.operand(node, 2) : -1;
  const float attribute = node.real("value", 0.0f);  // before opset 11, f32 only
  const int y = planner.output(node, 0, tensor.dtype, shape, tensor.layout);
  const MappedCopy copy(tensor, planner.tensor(y), maps);
  std::vector<int> in = {x};
  if (constant >= 0) in.push_back(constant);
  planner.add(in, {y}, [=](Pointers t, uint8_t*) {
    uint64_t bits = 0;
    memcpy(&bits, &attribute, sizeof(attribute));
    copy.run(t[y], t[x], constant >= 0 ? static_cast<const void*>(t[constant]) : &bits);
  });
}

// ---------------------------------------------------------------------------------- resizing

struct Neighbour {
  int64_t at;  // position in the input
  double weight;
};
using Neighbours = std::vector<Neighbour>;  // of one output position; none: extrapolated

// What Resize says about one axis.
struct AxisRule {
  int64_t size, made;
  double scale;
  double roi_begin = 0.0, roi_end = 1.0;
};

struct ResizeRule {
  std::string mode, coordinates, rounding;
  double cubic_a;
  bool exclude_outside;

  double source(const AxisRule& axis, int64_t at) const {
    const double x = static_cast<double>(at), size = static_cast<double>(axis.size);
    const double length = axis.scale * size;  // of the output, not rounded down
    if (coordinates == "asymmetric") return x / axis.scale;
    if (coordinates == "align_corners") {
      return length == 1.0 ? 0.0 : x * (size - 1.0) / (length - 1.0);
    }
    if (coordinates == "pytorch_half_pixel" && axis.made == 1) return -0.5;
    if (coordinates == "half_pixel_symmetric") {
      const double adjustment = static_cast<double>(axis.made) / length;
      return size / 2.0 * (1.0 - adjustment) + (x + 0.5) / axis.scale - 0.5;
    }
    if (coordinates == "tf_crop_and_resize") {
      const double begin = axis.roi_begin * (size - 1.0), span = axis.roi_end - axis.roi_begin;
      if (length == 1.0) return begin + span * (size - 1.0) / 2.0;
      return begin + x * span * (size - 1.0) / (length - 1.0);
    }
    return (x + 0.5) / axis.scale - 0.5;  // half_pixel, pytorch_half_pixel
  }

  double rounded(double x) const {
    if (rounding == "floor") return floor(x);
    if (rounding == "ceil") return ceil(x);
    if (rounding == "round_prefer_ceil") return floor(x + 0.5);
    return ceil(x - 0.5);
  }

  // Keys, "Cubic convolution interpolation for digital image processing", 1981.
  double cubic(double distance) const {
    const double d = fabs(distance);
    if (d <= 1.0) return ((cubic_a + 2.0) * d - (cubic_a + 3.0)) * d * d + 1.0;
    if (d < 2.0) return ((cubic_a * d - 5.0 * cubic_a) * d + 8.0 * cubic_a) * d - 4.0 * cubic_a;
    return 0.0;
  }

  Neighbours neighbours(const AxisRule& axis, int64_t at) const {
    const double x = source(axis, at), most = static_cast<double>(axis.size - 1);
    if (coordinates == "tf_crop_and_resize" && (x < 0.0 || x > most)) return {};
    Neighbours result;
    if (mode == "nearest") {
      result.push_back({static_cast<int64_t>(rounded(x)), 1.0});
    } else {
      const double left = floor(x), part = x - left;
      const int64_t first = static_cast<int64_t>(left);
      if (mode == "linear") {
        result = {{first, 1.0 - part}, {first + 1, part}};
      } else {
        for (int64_t k = -1; k <= 2; ++k) {
          result.push_back({first + k, cubic(static_cast<double>(k) - part)});
        }
      }
    }
    if (exclude_outside && mode != "nearest") {
      double total = 0.0;
      for (Neighbour& n : result) {
        if (n.at < 0 || n.at >= axis.size) n.weight = 0.0;
        total += n.weight;
      }
      for (Neighbour& n : result) n.weight /= total;
    }
    // Without weight nothing is read: an infinite pixel beside an exact hit does not matter.
    result.erase(std::remove_if(result.begin(), result.end(),
                                [](const Neighbour& n) { return n.weight == 0.0; }),
                 result.end());
    for (Neighbour& n : result) n.at = std::max<int64_t>(0, std::min(n.at, axis.size - 1));
    return result;
  }
};

// Rows of `run` elements that are not resized, weighted by the neighbours of all other axes.
class Blend {
 public:
  // `axes` by logical axis; the last `kept` axes in memory are the rows.
  Blend(const Tensor& from, const std::vector<std::vector<Neighbours>>& axes, size_t kept,
        float extrapolated)
      : extrapolated_(extrapolated) {
    const Strides src = strides_of(from);
    std::vector<size_t> order = memory_order(from);
    for (; kept > 0; --kept) {
      run_ *= from.shape[order.back()];
      order.pop_back();
    }
    size_t taps = 1;
    for (const size_t axis : order) {
      std::vector<Neighbours> level = axes[axis];
      size_t most = 1;
      for (Neighbours& near : level) {
        most = std::max(most, near.size());
        for (Neighbour& n : near) n.at *= src[axis];
      }
      taps *= most;
      levels_.push_back(std::move(level));
    }
    if (taps > MOST) throw Unsupported("Resize: more than three resized axes");
  }

  void run(const Kernels& kernels, const float* src, float* dst) const {
    const Tap whole = {src, 1.0};
    if (levels_.size() < 2) return walk(kernels, 0, &whole, 1, &dst);
    // The two outermost axes are shared out.
    const int64_t inner = static_cast<int64_t>(levels_[1].size());
    int64_t size = run_;
    for (size_t level = 2; level < levels_.size(); ++level) {
      size *= static_cast<int64_t>(levels_[level].size());
    }
    const int64_t rows = static_cast<int64_t>(levels_[0].size()) * inner;
    parallel_rows(rows, grain_of_rows(PLAIN_GRAIN, size), [&](int64_t begin, int64_t end) {
      float* to = dst + begin * size;
      Tap outer[MOST], taps[MOST];
      for (int64_t i = begin; i < end; ++i) {
        const size_t n = next_taps(levels_[0][static_cast<size_t>(i / inner)], &whole, 1, outer);
        walk(kernels, 2, taps,
             next_taps(levels_[1][static_cast<size_t>(i % inner)], outer, n, taps), &to);
      }
    });
  }

 private:
  static constexpr size_t MOST = 64;  // three cubic axes

  struct Tap {
    const float* row;
    double weight;
  };

  // One axis further in; returns how many there are.
  static size_t next_taps(const Neighbours& near, const Tap* taps, size_t count, Tap* next) {
    size_t made = 0;
    for (size_t k = 0; k < count; ++k) {
      for (const Neighbour& n : near) {
        next[made++] = {taps[k].row + n.at, taps[k].weight * n.weight};
      }
    }
    return made;
  }

  void walk(const Kernels& kernels, size_t level, const Tap* taps, size_t count,
            float** dst) const {
    if (level == levels_.size()) {
      const float* rows[MOST];
      float weights[MOST];
      for (size_t k = 0; k < count; ++k) {
        rows[k] = taps[k].row;
        weights[k] = static_cast<float>(taps[k].weight);
      }
      if (count == 0) {
        std::fill_n(*dst, run_, extrapolated_);
      } else {
        kernels.blend(rows, weights, static_cast<int64_t>(count), *dst, run_);
      }
      *dst += run_;
      return;
    }
    Tap next[MOST];
    for (const Neighbours& near : levels_[level]) {
      walk(kernels, level + 1, next, next_taps(near, taps, count, next), dst);
    }
  }

  int64_t run_ = 1;
  float extrapolated_;
  std::vector<std::vector<Neighbours>> levels_;  // of the other axes, outermost first
};

// Sizes and scales per axis, from whichever of the two the node gives.
std::vector<AxisRule> axis_rules(Planner& planner, const Node& node, const Shape& shape) {
  const size_t rank = shape.size();
  std::vector<AxisRule> rules;
  for (const int64_t size : shape) rules.push_back({size, size, 1.0});
  std::vector<size_t> axes;
  if (node.has("axes")) {
    for (const int64_t axis : node.integers("axes")) {
      axes.push_back(static_cast<size_t>(normalise_axis(axis, rank, "axes")));
    }
  } else {
    for (size_t axis = 0; axis < rank; ++axis) axes.push_back(axis);
  }
  const bool upsample = node.op == "Upsample";
  const size_t scales_at = upsample ? 1 : 2;
  std::vector<float> scales, roi;
  std::vector<int64_t> sizes;
  if (node.has_input(scales_at)) scales = planner.known_reals(node, scales_at);
  if (upsample && scales.empty()) scales = node.reals("scales");
  if (!upsample && node.has_input(3)) sizes = planner.known_integers(node, 3);
  if (!upsample && node.has_input(1)) roi = planner.known_reals(node, 1);
  if (sizes.size() == axes.size() && !axes.empty()) {
    const std::string policy = node.text("keep_aspect_ratio_policy", "stretch");
    double common = policy == "not_larger" ? INFINITY : 0.0;
    for (size_t i = 0; i < axes.size(); ++i) {
      const double scale = static_cast<double>(sizes[i]) / static_cast<double>(shape[axes[i]]);
      common = policy == "not_larger" ? std::min(common, scale) : std::max(common, scale);
    }
    for (size_t i = 0; i < axes.size(); ++i) {
      AxisRule& rule = rules[axes[i]];
      rule.made = sizes[i];
      rule.scale = static_cast<double>(sizes[i]) / static_cast<double>(rule.size);
      if (policy != "stretch") {
        rule.scale = common;
        rule.made = static_cast<int64_t>(floor(common * static_cast<double>(rule.size) + 0.5));
      }
    }
  } else if (scales.size() == axes.size()) {
    for (size_t i = 0; i < axes.size(); ++i) {
      AxisRule& rule = rules[axes[i]];
      rule.scale = static_cast<double>(scales[i]);
      if (!(rule.scale > 0.0 && rule.scale < 1e6)) throw Error("a scale is out of range");
      rule.made = static_cast<int64_t>(floor(rule.scale * static_cast<double>(rule.size)));
    }
  } else {
    throw Error("scales or sizes need one value per axis of " + to_string(shape));
  }
  if (roi.size() == 2 * axes.size()) {
    for (size_t i = 0; i < axes.size(); ++i) {
      rules[axes[i]].roi_begin = static_cast<double>(roi[i]);
      rules[axes[i]].roi_end = static_cast<double>(roi[axes.size() + i]);
    }
  }
  return rules;
}

void build_resize(Planner& planner, const Node& node) {
  const Shape shape = planner.shape_of(node, 0);
  const size_t rank = shape.size();
  const bool upsample = node.op == "Upsample";
  const ResizeRule rule = {
      node.text("mode", "nearest"),
      upsample ? "asymmetric" : node.text("coordinate_transformation_mode", "half_pixel"),
      upsample ? "floor" : node.text("nearest_mode", "round_prefer_floor"),
      static_cast<double>(node.real("cubic_coeff_a", -0.75f)),
      node.integer("exclude_outside", 0) != 0,
  };
  if (node.integer("antialias", 0) != 0) throw Unsupported("Resize with antialias");
  const bool nearest = rule.mode == "nearest";
  if (!nearest && rule.mode != "linear" && rule.mode != "cubic") {
    throw Unsupported("Resize in mode " + rule.mode);
  }
  const float extrapolated = node.real("extrapolation_value", 0.0f);
  const std::vector<AxisRule> rules = axis_rules(planner, node, shape);
  Shape made;
  for (const AxisRule& axis : rules) made.push_back(checked_extent(axis.made, "size"));
  require_memory(made, dtype_size(planner.dtype_of(node, 0)));  // before the tables of this size
  std::vector<std::vector<Neighbours>> near(rank);
  size_t first = rank, resized = 0;  // the resized axes lie in [first, resized)
  for (size_t axis = 0; axis < rank; ++axis) {
    const bool crops = rule.coordinates == "tf_crop_and_resize" &&
                       (rules[axis].roi_begin != 0.0 || rules[axis].roi_end != 1.0);
    const bool changes = rules[axis].scale != 1.0 || rules[axis].made != shape[axis] || crops;
    if (changes) {
      first = std::min(first, axis);
      resized = axis + 1;
    }
    for (int64_t i = 0; i < rules[axis].made; ++i) {
      near[axis].push_back(changes ? rule.neighbours(rules[axis], i) : Neighbours{{i, 1.0}});
    }
  }
  const DType dtype = planner.dtype_of(node, 0);
  const Kernels& kernels = planner.kernels();
  if (nearest) {
    std::vector<std::vector<int64_t>> maps(rank);
    for (size_t axis = 0; axis < rank; ++axis) {
      for (const Neighbours& n : near[axis]) maps[axis].push_back(n.empty() ? OUTSIDE : n[0].at);
    }
    if (dtype != DType::F32 && extrapolated != 0.0f) {
      throw Unsupported("Resize of integers with an extrapolation value");
    }
    const int x = planner.operand_as_is(node, 0);
    const int y = planner.output(node, 0, dtype, made, planner.tensor(x).layout);
    const MappedCopy copy(planner.tensor(x), planner.tensor(y), maps);
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      uint64_t bits = 0;
      memcpy(&bits, &extrapolated, sizeof(extrapolated));
      copy.run(t[y], t[x], &bits);
    });
    return;
  }
  if (dtype != DType::F32) {
    throw Unsupported("Resize in mode " + rule.mode + ": only f32");
  }
  // Images run over their channels; other data over the trailing axes that stay.
  const bool image = (rank == 3 || rank == 4) && first >= 2;
  const Layout layout = image ? Layout::CHANNELS_LAST : Layout::PLAIN;
  const int x = planner.operand(node, 0, layout);
  const int y = planner.output(node, 0, DType::F32, made, layout);
  const Blend blend(planner.tensor(x), near, image ? 1 : rank - resized, extrapolated);
  planner.add({x}, {y}, [=, &kernels](Pointers t, uint8_t*) {
    blend.run(kernels, reinterpret_cast<const float*>(t[x]), reinterpret_cast<float*>(t[y]));
  });
}

}  // namespace

const std::vector<Operator>& resize_operators() {
  static const std::vector<Operator> table = {
      {"Resize", {{"Resize", nullptr, build_resize}}},
      {"Upsample", {{"Upsample", nullptr, build_resize}}},
      {"Pad", {{"Pad", nullptr, build_pad}}},
  };
  return table;
}

}  // namespace lp
