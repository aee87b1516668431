// views.h: logical axes over memory. Strides of both layouts, loop nests over several operands at
// once, strided copies, and how element-wise operands broadcast.
#pragma once
#include "engine/engine.h"
#include "threads.h"

namespace lp {

using Strides = std::vector<int64_t>;  // in elements, by logical axis

Strides strides_of(const Shape& shape, Layout layout);
inline Strides strides_of(const Tensor& tensor) { return strides_of(tensor.shape, tensor.layout); }

// Whether both layouts put every element in the same place (one channel, or one pixel).
bool layouts_agree(const Shape& shape);

// Finds the layout in which a dense tensor of `shape` has these strides.
bool find_layout(const Shape& shape, const Strides& strides, Layout* layout);

// The strides of a dense view after reshaping it without moving data; false where that needs a
// copy.
bool reshape_strides(const Shape& from, const Strides& strides, const Shape& to, Strides* result);

// Loops over the same axes of several operands, outermost first. Axes of one element are gone, axes
// that can be walked as one are merged, and operand 0 is walked in memory order.
struct Nest {
  Shape shape;
  std::vector<Strides> strides;  // [operand][axis]
  bool empty = false;            // some axis has no elements

  size_t rank() const { return shape.size(); }
  // Of the axis counted from the innermost; 1 and 0 beyond the outermost.
  int64_t size(size_t from_last) const {
    return from_last < rank() ? shape[rank() - 1 - from_last] : 1;
  }
  int64_t stride(size_t operand, size_t from_last) const {
    return from_last < rank() ? strides[operand][rank() - 1 - from_last] : 0;
  }
};
Nest make_nest(const Shape& shape, const std::vector<Strides>& strides);
// Where each matrix of a batch starts, in elements: the batch axes `own` broadcast to `batch`.
std::vector<int64_t> batch_starts(const Shape& batch, const Shape& own, int64_t matrix);
// Whether rows of operand 0 follow each other without a gap: not in a part that cuts them.
inline bool rows_are_dense(const Nest& nest) {
  return nest.size(1) == 1 || nest.stride(0, 1) == nest.size(0);
}

// Calls body(offsets) for every position of all but the `inner` innermost axes; offsets[k] is
// operand k's.
template <size_t OPERANDS, class Body>
void for_each_outer(const Nest& nest, size_t inner, Body body) {
  if (nest.empty) return;
  const size_t axes = nest.rank() > inner ? nest.rank() - inner : 0;
  int64_t offsets[OPERANDS] = {0};
  Shape index(axes, 0);
  for (;;) {
    body(static_cast<const int64_t*>(offsets));
    size_t axis = axes;
    for (;;) {
      if (axis == 0) return;
      --axis;
      for (size_t k = 0; k < OPERANDS; ++k) offsets[k] += nest.strides[k][axis];
      if (++index[axis] < nest.shape[axis]) break;
      for (size_t k = 0; k < OPERANDS; ++k) {
        offsets[k] -= nest.shape[axis] * nest.strides[k][axis];
      }
      index[axis] = 0;
    }
  }
}

// Calls body(part, offsets) for parts of the nest that cover it once, on the threads of the pool:
// `part` has the nest's axes, one of them shorter; offsets[k] is where operand k begins in it.
// `grain`: elements that take about 2 us. Operand 0 is written: no two parts write one element.
class NestParts {
 public:
  NestParts(const Nest& nest, int64_t grain);
  int64_t count() const { return count_; }
  Nest part(int64_t i, int64_t* offsets) const;

 private:
  const Nest& nest_;
  size_t axis_ = 0;
  int64_t step_ = 0, count_ = 1;
};
template <size_t OPERANDS, class Body>
void parallel_parts(const Nest& nest, int64_t grain, const Body& body) {
  if (nest.empty) return;
  const NestParts parts(nest, grain);
  if (parts.count() == 1) {
    const int64_t offsets[OPERANDS] = {0};
    return body(nest, offsets);
  }
  parallel_tasks(parts.count(), [&](int64_t i) {
    int64_t offsets[OPERANDS];
    const Nest part = parts.part(i, offsets);
    body(part, static_cast<const int64_t*>(offsets));
  });
}

// dst[i] = src[i] over a nest whose operands are dst and src; `item` is 1, 2, 4 or 8 bytes.
class StridedCopy {
 public:
  StridedCopy() = default;
  StridedCopy(int64_t item, const Shape& shape, const Strides& dst, const Strides& src,
              int64_t dst_offset = 0, int64_t src_offset = 0);
  void run(void* dst, const void* src) const;

 private:
  template <class T>
  void run_part(const Nest& nest, T* dst, const T* src) const;

  int64_t item_ = 1, dst_offset_ = 0, src_offset_ = 0;  // offsets in elements
  Nest nest_;
  size_t turned_ = 0;  // axis, from the innermost, along which src is dense (0: none)
};

// dst[0, count) = the element at `value`.
void fill(void* dst, const void* value, int64_t count, int64_t item);

// The operands of an element-wise node, broadcast to one shape and layout.
struct Broadcast {
  std::vector<int> ids;  // plan tensors
  Shape shape;           // of the result
  Layout layout = Layout::PLAIN;
  Nest nest;      // result, then the operands
  int full = -1;  // an operand as large as the result, which it may overwrite
};
Broadcast broadcast_operands(Planner& planner, const Node& node, size_t first, size_t last);

// Axes as an attribute, or as input `i` (known); normalised, in the order given.
std::vector<int64_t> axes_of(Planner& planner, const Node& node, size_t i, size_t rank);

// Throws Unsupported unless operand 0 is f32.
void require_f32(Planner& planner, const Node& node);

// Calls f(T()) with the C++ type of a dtype that arithmetic is done in.
template <class F>
void with_number(DType dtype, const Node& node, F f) {
  switch (dtype) {
    case DType::F32:
      return f(float());
    case DType::F64:
      return f(double());
    case DType::U8:
      return f(uint8_t());
    case DType::S8:
      return f(int8_t());
    case DType::U16:
      return f(uint16_t());
    case DType::S16:
      return f(int16_t());
    case DType::U32:
      return f(uint32_t());
    case DType::S32:
      return f(int32_t());
    case DType::U64:
      return f(uint64_t());
    case DType::S64:
      return f(int64_t());
    default:
      throw Unsupported(node.op + ": no arithmetic in " + dtype_name(dtype));
  }
}

// Calls f(T()) with an unsigned type of `item` bytes.
template <class F>
void with_item(int64_t item, F f) {
  switch (item) {
    case 1:
      return f(uint8_t());
    case 2:
      return f(uint16_t());
    case 4:
      return f(uint32_t());
    default:
      return f(uint64_t());
  }
}

}  // namespace lp
