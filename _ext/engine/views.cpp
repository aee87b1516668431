#include "engine/views.h"

#include <string.h>

#include <algorithm>
#include <numeric>

namespace lp {

Strides strides_of(const Shape& shape, Layout layout) {
  Strides strides(shape.size(), 0);
  int64_t step = 1;
  const bool last = layout == Layout::CHANNELS_LAST;
  if (last) {
    strides[1] = 1;
    step = shape[1];
  }
  for (size_t axis = shape.size(); axis-- > 0;) {
    if (last && axis == 1) continue;
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

bool layouts_agree(const Shape& shape) {
  if (shape.size() < 3) return true;
  return shape[1] == 1 || count(shape, 2, shape.size()) == 1;
}

bool find_layout(const Shape& shape, const Strides& strides, Layout* layout) {
  const auto matches = [&](Layout candidate) {
    const Strides dense = strides_of(shape, candidate);
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (shape[axis] != 1 && strides[axis] != dense[axis]) return false;
    }
    return true;
  };
  if (matches(Layout::PLAIN)) {
    *layout = Layout::PLAIN;
    return true;
  }
  if ((shape.size() == 3 || shape.size() == 4) && matches(Layout::CHANNELS_LAST)) {
    *layout = Layout::CHANNELS_LAST;
    return true;
  }
  return false;
}

bool reshape_strides(const Shape& from, const Strides& strides, const Shape& to, Strides* result) {
  result->assign(to.size(), 1);
  Shape size;
  Strides step;
  for (size_t axis = 0; axis < from.size(); ++axis) {
    if (from[axis] == 1) continue;
    size.push_back(from[axis]);
    step.push_back(strides[axis]);
  }
  // Match groups of axes with equal products; inside a group the source must be walkable as one.
  size_t a = 0, b = 0;
  while (a < size.size()) {
    size_t a_end = a + 1, b_end = b;
    int64_t have = size[a], want = 1;
    while (want != have || b_end == b) {
      if (want < have || b_end == b) {
        if (b_end == to.size()) return false;
        want *= to[b_end++];
        if (want == 1 && b_end < to.size()) continue;
      } else {
        if (a_end == size.size()) return false;
        if (step[a_end - 1] != size[a_end] * step[a_end]) return false;
        have *= size[a_end++];
      }
      if (want == 0 || have == 0) return false;
    }
    int64_t inner = step[a_end - 1];
    for (size_t k = b_end; k-- > b;) {
      (*result)[k] = inner;
      inner *= to[k];
    }
    a = a_end;
    b = b_end;
  }
  return true;
}

std::vector<int64_t> batch_starts(const Shape& batch, const Shape& own, int64_t matrix) {
  std::vector<int64_t> result;
  const Shape strides = row_major_strides(own);
  for (int64_t i = 0; i < count(batch); ++i) {
    int64_t rest = i, start = 0;
    for (size_t d = batch.size(); d-- > 0;) {
      const int64_t index = rest % batch[d];
      rest /= batch[d];
      if (d + own.size() < batch.size()) continue;
      const size_t axis = d + own.size() - batch.size();
      if (own[axis] != 1) start += index * strides[axis];
    }
    result.push_back(start * matrix);
  }
  return result;
}

Nest make_nest(const Shape& shape, const std::vector<Strides>& strides) {
  Nest nest;
  nest.strides.resize(strides.size());
  std::vector<size_t> order;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 0) nest.empty = true;
    if (shape[axis] != 1) order.push_back(axis);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return strides[0][a] > strides[0][b]; });
  for (const size_t axis : order) {
    bool merges = !nest.shape.empty();
    for (size_t k = 0; merges && k < strides.size(); ++k) {
      merges = nest.strides[k].back() == shape[axis] * strides[k][axis];
    }
    if (merges) {
      nest.shape.back() *= shape[axis];
    } else {
      nest.shape.push_back(shape[axis]);
    }
    for (size_t k = 0; k < strides.size(); ++k) {
      if (merges) {
        nest.strides[k].back() = strides[k][axis];
      } else {
        nest.strides[k].push_back(strides[k][axis]);
      }
    }
  }
  return nest;
}

// ------------------------------------------------------------------------------- parts of a nest

NestParts::NestParts(const Nest& nest, int64_t grain) : nest_(nest) {
  constexpr int64_t PARTS_PER_THREAD = 4, ALIGN = 64;
  const int64_t elements = lp::count(nest.shape);
  const int threads = elements < 2 * grain ? 1 : usable_threads();
  if (threads == 1 || (elements < 8 * grain && !threads_are_awake())) return;
  const int64_t wanted = std::min(elements / grain, PARTS_PER_THREAD * threads);
  // The outermost axis that is long enough, else the longest.
  for (size_t axis = nest.rank(); axis-- > 0;) {
    if (nest.shape[axis] >= nest.shape[axis_]) axis_ = axis;
  }
  for (size_t axis = nest.rank(); axis-- > 0;) {
    if (nest.shape[axis] >= 2 * wanted) axis_ = axis;
  }
  const int64_t size = nest.shape[axis_];
  step_ = (size + wanted - 1) / wanted;
  // Long axes are cut at whole tiles and cache lines.
  if (step_ >= ALIGN / 2) step_ = (step_ + ALIGN - 1) / ALIGN * ALIGN;
  count_ = (size + step_ - 1) / step_;
}

Nest NestParts::part(int64_t i, int64_t* offsets) const {
  Nest part = nest_;
  const int64_t begin = i * step_;
  part.shape[axis_] = std::min(step_, nest_.shape[axis_] - begin);
  for (size_t k = 0; k < nest_.strides.size(); ++k) {
    offsets[k] = begin * nest_.strides[k][axis_];
  }
  return part;
}

// -------------------------------------------------------------------------------------- copies

void fill(void* dst, const void* value, int64_t count, int64_t item) {
  with_item(item, [&](auto zero) {
    using T = decltype(zero);
    T one;
    memcpy(&one, value, sizeof(T));
    std::fill_n(static_cast<T*>(dst), count, one);
  });
}

StridedCopy::StridedCopy(int64_t item, const Shape& shape, const Strides& dst, const Strides& src,
                         int64_t dst_offset, int64_t src_offset)
    : item_(item),
      dst_offset_(dst_offset),
      src_offset_(src_offset),
      nest_(make_nest(shape, {dst, src})) {
  if (nest_.stride(1, 0) != 1 && nest_.stride(0, 0) == 1) {
    for (size_t axis = 1; axis < nest_.rank(); ++axis) {
      if (nest_.stride(1, axis) == 1) turned_ = axis;
    }
  }
}

void StridedCopy::run(void* dst, const void* src) const {
  with_item(item_, [&](auto zero) {
    using T = decltype(zero);
    T* to = static_cast<T*>(dst) + dst_offset_;
    const T* from = static_cast<const T*>(src) + src_offset_;
    const bool dense = nest_.stride(0, 0) == 1 && nest_.stride(1, 0) == 1;
    const int64_t grain = dense ? COPY_GRAIN / static_cast<int64_t>(sizeof(T)) : PLAIN_GRAIN;
    parallel_parts<2>(nest_, grain, [&](const Nest& part, const int64_t* at) {
      run_part(part, to + at[0], from + at[1]);
    });
  });
}

namespace {

// memcpy of runs that are mostly short (the channels of a pixel), where a call would cost as much.
template <class T>
inline void copy_run(T* dst, const T* src, int64_t n) {
  constexpr int64_t BLOCK = 16 / sizeof(T);
  if (n < BLOCK) {
    for (int64_t i = 0; i < n; ++i) dst[i] = src[i];
  } else if (n > 8 * BLOCK) {
    memcpy(dst, src, static_cast<size_t>(n) * sizeof(T));
  } else {
    for (int64_t i = 0; i + BLOCK < n; i += BLOCK) memcpy(dst + i, src + i, 16);
    memcpy(dst + n - BLOCK, src + n - BLOCK, 16);  // may overlap the block before
  }
}

}  // namespace

template <class T>
void StridedCopy::run_part(const Nest& nest, T* dst, const T* src) const {
  const int64_t n = nest.size(0), dst_step = nest.stride(0, 0), src_step = nest.stride(1, 0);
  if (nest.rank() == 0 || (dst_step == 1 && src_step == 1)) {
    const int64_t rows = nest.size(1), dst_row = nest.stride(0, 1), src_row = nest.stride(1, 1);
    for_each_outer<2>(nest, 2, [&](const int64_t* at) {
      for (int64_t row = 0; row < rows; ++row) {
        copy_run(dst + at[0] + row * dst_row, src + at[1] + row * src_row, n);
      }
    });
    return;
  }
  if (turned_ == 0) {
    for_each_outer<2>(nest, 1, [&](const int64_t* at) {
      T* d = dst + at[0];
      const T* s = src + at[1];
      for (int64_t i = 0; i < n; ++i) d[i * dst_step] = s[i * src_step];
    });
    return;
  }
  // A transpose: tiles, so that neither side touches a cache line twice.
  constexpr int64_t TILE = 16;
  Nest outer = nest;
  const size_t turned = outer.rank() - 1 - turned_;
  const int64_t m = outer.shape[turned], row = outer.strides[0][turned];
  outer.shape[turned] = 1;
  for_each_outer<2>(outer, 1, [&](const int64_t* at) {
    for (int64_t j = 0; j < m; j += TILE) {
      const int64_t j_end = std::min(m, j + TILE);
      for (int64_t i = 0; i < n; i += TILE) {
        const int64_t i_end = std::min(n, i + TILE);
        for (int64_t r = j; r < j_end; ++r) {
          T* d = dst + at[0] + r * row;
          const T* s = src + at[1] + r;
          for (int64_t c = i; c < i_end; ++c) d[c] = s[c * src_step];
        }
      }
    }
  });
}

// ---------------------------------------------------------------------------------- broadcasting

namespace {

Shape padded(const Shape& shape, size_t rank) {
  Shape result(rank - shape.size(), 1);
  result.insert(result.end(), shape.begin(), shape.end());
  return result;
}

}  // namespace

Broadcast broadcast_operands(Planner& planner, const Node& node, size_t first, size_t last) {
  Broadcast result;
  for (size_t i = first; i < last; ++i) {
    const Shape shape = planner.shape_of(node, i);
    result.shape = i == first ? shape : broadcast(result.shape, shape, node.op.c_str());
  }
  const size_t rank = result.shape.size();
  // Channels-last where an image already is; a lower rank follows only where its bytes do not
  // change.
  bool channels_last = false;
  if (rank == 3 || rank == 4) {
    const bool any = layouts_agree(result.shape);
    for (size_t i = first; i < last; ++i) {
      const Shape& shape = planner.shape_of(node, i);
      if (shape.size() == rank && (any || !layouts_agree(shape)) &&
          planner.layout_of(node, i) == Layout::CHANNELS_LAST) {
        channels_last = true;
      }
    }
    for (size_t i = first; i < last; ++i) {
      const Shape& shape = planner.shape_of(node, i);
      if (shape.size() != rank && !layouts_agree(padded(shape, rank))) channels_last = false;
    }
  }
  result.layout = channels_last ? Layout::CHANNELS_LAST : Layout::PLAIN;

  std::vector<Strides> strides = {strides_of(result.shape, result.layout)};
  for (size_t i = first; i < last; ++i) {
    const Shape own = planner.shape_of(node, i);
    const Shape shape = padded(own, rank);
    int id;
    if (own.size() < rank) {
      id = planner.operand(node, i);
    } else if (layouts_agree(own)) {
      id = planner.operand_as_is(node, i);
    } else {
      id = planner.operand(node, i, result.layout);
    }
    Strides steps = strides_of(shape, result.layout);
    for (size_t axis = 0; axis < rank; ++axis) {
      if (shape[axis] == 1) steps[axis] = 0;
    }
    if (result.full < 0 && own == result.shape && planner.tensor(id).layout == result.layout) {
      result.full = static_cast<int>(i - first);
    }
    result.ids.push_back(id);
    strides.push_back(steps);
  }
  result.nest = make_nest(result.shape, strides);
  return result;
}

std::vector<int64_t> axes_of(Planner& planner, const Node& node, size_t i, size_t rank) {
  std::vector<int64_t> axes =
      node.has_input(i) ? planner.known_integers(node, i) : node.integers("axes");
  for (int64_t& axis : axes) axis = normalise_axis(axis, rank, node.op.c_str());
  return axes;
}

void require_f32(Planner& planner, const Node& node) {
  const DType dtype = planner.dtype_of(node, 0);
  if (dtype != DType::F32) {
    throw Unsupported(node.op + ": no arithmetic in " + dtype_name(dtype));
  }
}

}  // namespace lp
