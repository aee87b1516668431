// ops_shape.cpp: operators that move or describe data and compute nothing.
//
// What only changes the view is an alias; what changes the order is a strided copy, in either
// layout and for any element of 1, 2, 4 or 8 bytes. Shape arithmetic runs while planning and
// disappears.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "engine/indices.h"

namespace lp {
namespace {

// --------------------------------------------------------------------------------------- views

// Notes where output i of a copy, of this shape, lies in what operand `x` is a view of.
void note_copy(Planner& planner, int y, const View& from, int64_t offset, const Strides& strides) {
  planner.note_view(y, {from.tensor, from.offset + offset, strides});
}

// The view of operand 0 seen with another shape belongs to output 0, too.
void note_reshaped(Planner& planner, const Node& node, int x, const Shape& shape) {
  const View from = planner.view_of(x);
  View seen{from.tensor, from.offset, {}};
  const Shape old = planner.tensor(x).shape;
  if (from.tensor == x || count(old) == 0 || node.outputs.empty() || node.outputs[0] < 0) return;
  if (reshape_strides(old, from.strides, shape, &seen.strides)) {
    planner.note_view(planner.made(node, 0), std::move(seen));
  }
}

void see_as_moved(Planner& planner, const Node& node, const Shape& shape);

// Output 0 is operand 0 with another shape; moves data only where no layout of the new shape fits.
void see_as(Planner& planner, const Node& node, const Shape& shape) {
  const int x = planner.operand_as_is(node, 0);
  see_as_moved(planner, node, shape);
  note_reshaped(planner, node, x, shape);
}

void see_as_moved(Planner& planner, const Node& node, const Shape& shape) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  Strides strides;
  Layout layout;
  if (layouts_agree(tensor.shape)) {
    planner.alias(node, 0, x, shape);
  } else if (tensor.elements() > 0 &&
             reshape_strides(tensor.shape, strides_of(tensor), shape, &strides) &&
             find_layout(shape, strides, &layout)) {
    planner.alias(node, 0, x, shape, layout);
  } else {
    planner.alias(node, 0, planner.operand(node, 0), shape);
  }
}

void build_reshape(Planner& planner, const Node& node) {
  const Shape from = planner.shape_of(node, 0);
  Shape to = planner.known_integers(node, 1);
  const bool allow_zero = node.integer("allowzero", 0) != 0;
  int64_t known = 1;
  int open = -1;
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && !allow_zero) {
      if (i >= from.size()) throw Error("0 in the new shape has no axis to copy");
      to[i] = from[i];
    }
    if (to[i] == -1) {
      if (open >= 0) throw Error("more than one -1 in the new shape");
      open = static_cast<int>(i);
    } else {
      known *= to[i];
    }
  }
  if (open >= 0) {
    if (known == 0 || count(from) % known != 0) {
      throw Error("cannot reshape " + to_string(from) + " to " + to_string(to));
    }
    to[static_cast<size_t>(open)] = count(from) / known;
  }
  if (count(to) != count(from)) {
    throw Error("cannot reshape " + to_string(from) + " to " + to_string(to));
  }
  see_as(planner, node, to);
}

void build_flatten(Planner& planner, const Node& node) {
  const Shape from = planner.shape_of(node, 0);
  const int64_t rank = static_cast<int64_t>(from.size());
  int64_t axis = node.integer("axis", 1);
  if (axis < -rank || axis > rank) throw Error("axis is outside the rank");
  if (axis < 0) axis += rank;
  const size_t split = static_cast<size_t>(axis);
  see_as(planner, node, {count(from, 0, split), count(from, split, from.size())});
}

void build_squeeze(Planner& planner, const Node& node) {
  const Shape from = planner.shape_of(node, 0);
  const std::vector<int64_t> axes = axes_of(planner, node, 1, from.size());
  Shape to;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool named = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (named && from[i] != 1) {
      throw Error("cannot squeeze axis " + std::to_string(i) + " of " + to_string(from));
    }
    if (!(axes.empty() ? from[i] == 1 : named)) to.push_back(from[i]);
  }
  see_as(planner, node, to);
}

void build_unsqueeze(Planner& planner, const Node& node) {
  const Shape from = planner.shape_of(node, 0);
  const size_t named =
      node.has_input(1) ? planner.known_integers(node, 1).size() : node.integers("axes").size();
  const size_t rank = from.size() + named;
  const std::vector<int64_t> axes = axes_of(planner, node, 1, rank);
  Shape to(rank, 0);
  for (const int64_t axis : axes) {
    if (to[static_cast<size_t>(axis)] != 0) throw Error("an axis is named twice");
    to[static_cast<size_t>(axis)] = 1;
  }
  size_t next = 0;
  for (int64_t& size : to) size = size == 1 ? 1 : from[next++];
  see_as(planner, node, to);
}

// Adds one copy step from operand `x`.
void add_copy(Planner& planner, int x, int y, const StridedCopy& copy) {
  Step& step = planner.add({x}, {y}, [=](Pointers t, uint8_t*) { copy.run(t[y], t[x]); });
  step.only_moves = true;
}

void build_transpose(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  std::vector<int64_t> order = node.integers("perm");
  if (order.empty()) {
    for (size_t i = tensor.rank(); i-- > 0;) order.push_back(static_cast<int64_t>(i));
  }
  if (order.size() != tensor.rank()) throw Error("perm does not fit the rank");
  const Strides own = strides_of(tensor);
  const View view = planner.view_of(x);
  Shape shape;
  Strides strides, of_view;
  for (const int64_t axis : order) {
    const size_t from = static_cast<size_t>(normalise_axis(axis, tensor.rank(), "perm"));
    shape.push_back(tensor.shape[from]);
    strides.push_back(own[from]);
    of_view.push_back(view.strides[from]);
  }
  Layout layout;
  if (find_layout(shape, strides, &layout)) {
    planner.alias(node, 0, x, shape, layout);
    if (view.tensor != x) note_copy(planner, planner.made(node, 0), view, 0, of_view);
    return;
  }
  const int y = planner.output(node, 0, tensor.dtype, shape);
  note_copy(planner, y, view, 0, of_view);
  const Strides dense = strides_of(shape, Layout::PLAIN);
  add_copy(planner, x, y, StridedCopy(dtype_size(tensor.dtype), shape, dense, strides));
}

void build_expand(Planner& planner, const Node& node) {
  const Shape wanted = planner.known_integers(node, 1);
  const Shape shape = broadcast(planner.shape_of(node, 0), wanted, "Expand");
  if (shape == planner.shape_of(node, 0)) return see_as(planner, node, shape);
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const Strides own = strides_of(tensor);
  Strides strides(shape.size(), 0);
  const size_t extra = shape.size() - tensor.rank();
  for (size_t i = 0; i < tensor.rank(); ++i) {
    if (tensor.shape[i] != 1) strides[extra + i] = own[i];
  }
  const int y = planner.output(node, 0, tensor.dtype, shape);
  add_copy(planner, x, y,
           StridedCopy(dtype_size(tensor.dtype), shape, strides_of(shape, Layout::PLAIN), strides));
}

void build_tile(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const std::vector<int64_t> repeats = planner.known_integers(node, 1);
  if (repeats.size() != tensor.rank()) throw Error("one repeat count per axis is needed");
  Shape shape = tensor.shape;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (repeats[i] < 0) throw Error("repeat counts must not be negative");
    shape[i] *= repeats[i];
  }
  const int y = planner.output(node, 0, tensor.dtype, shape, tensor.layout);
  const Strides own = strides_of(tensor), made = strides_of(shape, tensor.layout);
  Shape loops;  // (repeat, position) of every axis
  Strides dst, src;
  for (size_t i = 0; i < shape.size(); ++i) {
    loops.insert(loops.end(), {repeats[i], tensor.shape[i]});
    dst.insert(dst.end(), {made[i] * tensor.shape[i], made[i]});
    src.insert(src.end(), {0, own[i]});
  }
  add_copy(planner, x, y, StridedCopy(dtype_size(tensor.dtype), loops, dst, src));
}

// [N, C, H, W] -> blocks of space into channels or back: a transpose of six axes.
void build_depth_space(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const int64_t b = node.integer("blocksize", 0);
  if (tensor.rank() != 4 || b < 1 || b > 65536) throw Error("needs a rank of 4 and a block size");
  const bool to_space = node.op == "DepthToSpace";
  const bool columns_first = node.text("mode", "DCR") == "CRD";
  Shape deep = tensor.shape, wide = tensor.shape;  // the sides with more channels, more space
  if (to_space) {
    wide = {deep[0], deep[1] / (b * b), deep[2] * b, deep[3] * b};
  } else {
    deep = {wide[0], wide[1] * b * b, wide[2] / b, wide[3] / b};
  }
  if (count(deep) != count(wide)) throw Error("the block size does not divide the shape");
  const Shape& shape = to_space ? wide : deep;
  const int y = planner.output(node, 0, tensor.dtype, shape, tensor.layout);
  const Strides d = strides_of(deep, tensor.layout), w = strides_of(wide, tensor.layout);
  // Axes: image, block row, block column, channel of the wide side, row, column of the deep side.
  const Shape loops = {deep[0], b, b, wide[1], deep[2], deep[3]};
  const int64_t channels = wide[1];
  const Strides deep_steps =
      columns_first ? Strides{d[0], d[1] * b, d[1], d[1] * b * b, d[2], d[3]}
                    : Strides{d[0], d[1] * b * channels, d[1] * channels, d[1], d[2], d[3]};
  const Strides wide_steps = {w[0], w[2], w[3], w[1], w[2] * b, w[3] * b};
  add_copy(planner, x, y,
           StridedCopy(dtype_size(tensor.dtype), loops, to_space ? wide_steps : deep_steps,
                       to_space ? deep_steps : wide_steps));
}

// -------------------------------------------------------------------------------- parts of axes

void build_split(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 0), tensor.rank(), "Split"));
  const int64_t size = tensor.shape[axis], parts = static_cast<int64_t>(node.outputs.size());
  std::vector<int64_t> sizes =
      node.has_input(1) ? planner.known_integers(node, 1) : node.integers("split");
  if (sizes.empty()) {
    const int64_t part = (size + parts - 1) / parts;
    for (int64_t i = 0; i < parts; ++i) {
      sizes.push_back(std::max<int64_t>(0, std::min(part, size - i * part)));
    }
  }
  if (std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) != size ||
      sizes.size() != node.outputs.size()) {
    throw Error("the parts do not add up to axis " + std::to_string(axis) + " of " +
                to_string(tensor.shape));
  }
  const Strides own = strides_of(tensor);
  const View view = planner.view_of(x);
  int64_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    Shape shape = tensor.shape;
    shape[axis] = sizes[i];
    if (node.outputs[i] >= 0) {
      const int y = planner.output(node, i, tensor.dtype, shape, tensor.layout);
      note_copy(planner, y, view, at * view.strides[axis], view.strides);
      add_copy(planner, x, y,
               StridedCopy(dtype_size(tensor.dtype), shape, strides_of(shape, tensor.layout), own,
                           0, at * own[axis]));
    }
    at += sizes[i];
  }
}

void build_slice(Planner& planner, const Node& node) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const std::vector<int64_t> starts = planner.known_integers(node, 1);
  const std::vector<int64_t> ends = planner.known_integers(node, 2);
  std::vector<int64_t> axes, steps(starts.size(), 1);
  if (node.has_input(3)) {
    axes = axes_of(planner, node, 3, tensor.rank());
  } else {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (node.has_input(4)) steps = planner.known_integers(node, 4);
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size() || axes.size() > tensor.rank()) {
    throw Error("starts, ends, axes and steps differ in length");
  }
  Shape shape = tensor.shape;
  Strides strides = strides_of(tensor);
  const View view = planner.view_of(x);
  View part = view;
  int64_t offset = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t axis = static_cast<size_t>(axes[i]);
    const int64_t size = tensor.shape[axis], step = steps[i];
    if (std::count(axes.begin(), axes.end(), axes[i]) > 1) throw Error("an axis is named twice");
    if (step == 0 || step == INT64_MIN) throw Error("a step must not be 0");
    // NumPy's rules: negative positions count from the end, then clamp to what the step can reach.
    const auto clamped = [&](int64_t at) {
      if (at < 0) at = at < -size ? -1 : at + size;
      if (step > 0) return std::max<int64_t>(0, std::min(at, size));
      return std::max<int64_t>(-1, std::min(at, size - 1));
    };
    const int64_t first = clamped(starts[i]), last = clamped(ends[i]);
    const int64_t span = step > 0 ? last - first : first - last, pace = step > 0 ? step : -step;
    shape[axis] = span <= 0 ? 0 : (span - 1) / pace + 1;
    if (shape[axis] > 0) {
      offset += first * strides[axis];
      part.offset += first * view.strides[axis];
    }
    // One element: the step, which may be huge, is never taken.
    strides[axis] = shape[axis] > 1 ? strides[axis] * step : 0;
    part.strides[axis] = shape[axis] > 1 ? view.strides[axis] * step : 0;
  }
  if (shape == tensor.shape && offset == 0) {  // e.g. [:] written with a huge end
    bool whole = true;
    for (const int64_t step : steps) whole = whole && step == 1;
    if (whole) {
      planner.alias(node, 0, x, shape, tensor.layout);
      if (view.tensor != x) planner.note_view(planner.made(node, 0), view);
      return;
    }
  }
  const int y = planner.output(node, 0, tensor.dtype, shape, tensor.layout);
  planner.note_view(y, std::move(part));
  add_copy(planner, x, y,
           StridedCopy(dtype_size(tensor.dtype), shape, strides_of(shape, tensor.layout), strides,
                       0, offset));
}

// -------------------------------------------------------------------------------- descriptions

// An output whose contents are known now: a step that copies them, which folding runs at once.
void add_contents(Planner& planner, const Node& node, DType dtype, const Shape& shape,
                  std::vector<uint8_t> bytes) {
  const int y = planner.output(node, 0, dtype, shape);
  planner.add({}, {y}, [y, bytes = std::move(bytes)](Pointers t, uint8_t*) {
    if (!bytes.empty()) memcpy(t[y], bytes.data(), bytes.size());
  });
}

void add_integers(Planner& planner, const Node& node, const Shape& shape,
                  const std::vector<int64_t>& values) {
  std::vector<uint8_t> bytes(values.size() * 8);
  if (!values.empty()) memcpy(bytes.data(), values.data(), bytes.size());
  add_contents(planner, node, DType::S64, shape, std::move(bytes));
}

void build_shape(Planner& planner, const Node& node) {
  const Shape own = planner.shape_of(node, 0);
  const int64_t rank = static_cast<int64_t>(own.size());
  const auto clamped = [&](int64_t at) {
    return std::max<int64_t>(0, std::min(at < 0 ? at + rank : at, rank));
  };
  const int64_t first = clamped(node.integer("start", 0));
  const int64_t last = std::max(first, clamped(node.integer("end", rank)));
  const std::vector<int64_t> part(own.begin() + first, own.begin() + last);
  add_integers(planner, node, {last - first}, part);
}

void build_size(Planner& planner, const Node& node) {
  add_integers(planner, node, {}, {count(planner.shape_of(node, 0))});
}

// The attribute `value` is one element: `floats` or `ints`, of element type `value_dtype` (by
// default f32 or s64). Without it: f32 zeros.
void build_constant_of_shape(Planner& planner, const Node& node) {
  const Shape shape = planner.known_integers(node, 0);
  const bool whole = node.has("value") && !node.integers("value").empty();
  const DType otherwise = whole ? DType::S64 : DType::F32;
  const DType dtype =
      static_cast<DType>(node.integer("value_dtype", static_cast<int64_t>(otherwise)));
  double real = node.real("value", 0.0f);
  int64_t integer = node.integer("value", 0);
  if (whole) {
    real = static_cast<double>(integer);
  } else {
    integer = static_cast<int64_t>(real);
  }
  uint8_t one[8] = {0};
  if (dtype == DType::F32) {
    const float value = static_cast<float>(real);
    memcpy(one, &value, 4);
  } else if (dtype == DType::F64) {
    memcpy(one, &real, 8);
  } else if (dtype == DType::F16 || dtype == DType::BF16) {
    throw Unsupported("ConstantOfShape of half floats");
  } else {
    memcpy(one, &integer, 8);  // little endian: the low bytes are the narrower integer
  }
  uint64_t pattern;
  memcpy(&pattern, one, 8);
  const int y = planner.output(node, 0, dtype, shape);
  const int64_t n = planner.tensor(y).elements(), item = dtype_size(dtype);
  planner.add({}, {y}, [=](Pointers t, uint8_t*) { fill(t[y], &pattern, n, item); });
}

template <class T>
void add_range(Planner& planner, const Node& node, DType dtype) {
  T parts[3];
  for (size_t i = 0; i < 3; ++i) {
    const int id = planner.operand(node, i);
    if (!planner.tensor(id).is_constant()) {
      throw Unsupported("Range: its operands must be known before the run");
    }
    memcpy(&parts[i], planner.tensor(id).constant, sizeof(T));
  }
  const T start = parts[0], delta = parts[2];
  if (delta == T(0)) throw Error("the step must not be 0");
  const double steps =
      (static_cast<double>(parts[1]) - static_cast<double>(start)) / static_cast<double>(delta);
  if (!(steps < 1e12)) throw Error("more elements than can be held");
  const int64_t n = steps > 0 ? static_cast<int64_t>(ceil(steps)) : 0;
  require_memory({n}, sizeof(T));
  std::vector<uint8_t> bytes(static_cast<size_t>(n) * sizeof(T));
  for (int64_t i = 0; i < n; ++i) {
    const T value = static_cast<T>(start + static_cast<T>(i) * delta);
    memcpy(bytes.data() + static_cast<size_t>(i) * sizeof(T), &value, sizeof(T));
  }
  add_contents(planner, node, dtype, {n}, std::move(bytes));
}

void build_range(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  with_number(dtype, node, [&](auto zero) { add_range<decltype(zero)>(planner, node, dtype); });
}

void build_one_hot(Planner& planner, const Node& node) {
  const int indices = planner.operand(node, 0), values = planner.operand(node, 2);
  const int64_t depth = planner.known_integers(node, 1).at(0);
  const Tensor where = planner.tensor(indices);
  if (where.dtype != DType::S64 && where.dtype != DType::S32) {
    throw Unsupported("OneHot: indices that are not s32 or s64");
  }
  const bool wide = where.dtype == DType::S64;
  const DType dtype = planner.tensor(values).dtype;
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), where.rank() + 1, "OneHot"));
  Shape shape = where.shape;
  shape.insert(shape.begin() + static_cast<int64_t>(axis), depth);
  const int y = planner.output(node, 0, dtype, shape);
  const int64_t outer = count(where.shape, 0, axis);
  const int64_t inner = count(where.shape, axis, where.rank());
  with_item(dtype_size(dtype), [&](auto zero) {
    using T = decltype(zero);
    planner.add({indices, values}, {y}, [=](Pointers t, uint8_t*) {
      T off_on[2];
      memcpy(off_on, t[values], sizeof(off_on));
      T* dst = reinterpret_cast<T*>(t[y]);
      std::fill_n(dst, outer * depth * inner, off_on[0]);
      for (int64_t o = 0; o < outer; ++o) {
        for (int64_t i = 0; i < inner; ++i) {
          const int64_t at = index_at(t[indices], wide, o * inner + i);
          if (at < -depth || at >= depth) continue;  // outside: all off
          dst[(o * depth + (at < 0 ? at + depth : at)) * inner + i] = off_on[1];
        }
      }
    });
  });
}

void build_trilu(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() < 2) throw Error("needs a matrix");
  const int64_t k = node.has_input(1) ? planner.known_integers(node, 1).at(0) : 0;
  const bool upper = node.integer("upper", 1) != 0;
  const int64_t rows = tensor.shape[tensor.rank() - 2], cols = tensor.shape.back();
  const int64_t matrices = count(tensor.shape, 0, tensor.rank() - 2);
  const int64_t item = dtype_size(tensor.dtype);
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    for (int64_t row = 0; row < matrices * rows; ++row) {
      const int64_t diagonal =
          std::max<int64_t>(0, std::min(cols, row % rows + k + (upper ? 0 : 1)));
      const int64_t first = upper ? diagonal : 0, last = upper ? cols : diagonal;
      uint8_t* dst = t[y] + row * cols * item;
      memset(dst, 0, static_cast<size_t>(cols * item));
      memcpy(dst + first * item, t[x] + (row * cols + first) * item,
             static_cast<size_t>((last - first) * item));
    }
  });
}

}  // namespace

const std::vector<Operator>& shape_operators() {
  static const std::vector<Operator> table = {
      {"Reshape", {{"Reshape", nullptr, build_reshape}}},
      {"Flatten", {{"Flatten", nullptr, build_flatten}}},
      {"Squeeze", {{"Squeeze", nullptr, build_squeeze}}},
      {"Unsqueeze", {{"Unsqueeze", nullptr, build_unsqueeze}}},
      {"Transpose", {{"Transpose", nullptr, build_transpose}}},
      {"Expand", {{"Expand", nullptr, build_expand}}},
      {"Tile", {{"Tile", nullptr, build_tile}}},
      {"DepthToSpace", {{"DepthToSpace", nullptr, build_depth_space}}},
      {"SpaceToDepth", {{"SpaceToDepth", nullptr, build_depth_space}}},
      {"Split", {{"Split", nullptr, build_split}}},
      {"Slice", {{"Slice", nullptr, build_slice}}},
      {"Shape", {{"Shape", nullptr, build_shape}}},
      {"Size", {{"Size", nullptr, build_size}}},
      {"ConstantOfShape", {{"ConstantOfShape", nullptr, build_constant_of_shape}}},
      {"Range", {{"Range", nullptr, build_range}}},
      {"OneHot", {{"OneHot", nullptr, build_one_hot}}},
      {"Trilu", {{"Trilu", nullptr, build_trilu}}},
  };
  return table;
}

}  // namespace lp
