// ops_gather.cpp: reading and writing where indices say.
#include <string.h>

#include <type_traits>

#include "engine/indices.h"

namespace lp {
namespace {

void build_gather(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(indices);
  const bool wide = is_wide(planner, indices);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 0), tensor.rank(), "Gather"));
  Shape shape(tensor.shape.begin(), tensor.shape.begin() + static_cast<int64_t>(axis));
  shape.insert(shape.end(), where.shape.begin(), where.shape.end());
  shape.insert(shape.end(), tensor.shape.begin() + static_cast<int64_t>(axis) + 1,
               tensor.shape.end());
  const int y = planner.output(node, 0, tensor.dtype, shape);
  const int64_t outer = count(tensor.shape, 0, axis), size = tensor.shape[axis];
  const int64_t run = count(tensor.shape, axis + 1, tensor.rank()) * dtype_size(tensor.dtype);
  const int64_t picks = where.elements();
  const bool one = where.shape.empty() && where.is_constant() && size > 0;
  if (one) {  // an axis less: readers may read the original
    View view = planner.view_of(x);
    view.offset += inside(index_at(where.constant, wide, 0), size) * view.strides[axis];
    view.strides.erase(view.strides.begin() + static_cast<int64_t>(axis));
    planner.note_view(y, std::move(view));
  }
  Step& step = planner.add({x, indices}, {y}, [=](Pointers t, uint8_t*) {
    const int64_t grain = std::max<int64_t>(1, std::min(PLAIN_GRAIN, COPY_GRAIN / (run + 1)));
    parallel_rows(outer * picks, grain, [&](int64_t begin, int64_t end) {
      uint8_t* dst = t[y] + begin * run;
      for (int64_t i = begin; i < end; ++i, dst += run) {
        const int64_t at = inside(index_at(t[indices], wide, i % picks), size);
        memcpy(dst, t[x] + (i / picks * size + at) * run, static_cast<size_t>(run));
      }
    });
  });
  step.only_moves = one;
}

void build_gather_elements(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(indices);
  const bool wide = is_wide(planner, indices);
  const size_t rank = tensor.rank();
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 0), rank, "GatherElements"));
  if (where.rank() != rank) throw Error("data and indices differ in rank");
  for (size_t k = 0; k < rank; ++k) {
    if (k != axis && where.shape[k] > tensor.shape[k]) throw Error("indices exceed the data");
  }
  const int y = planner.output(node, 0, tensor.dtype, where.shape);
  const Strides dense = strides_of(where), steps = strides_of(tensor);
  Strides other = steps;
  other[axis] = 0;
  const Nest nest = make_nest(where.shape, {dense, other});
  const int64_t size = tensor.shape[axis], along = steps[axis];
  with_item(dtype_size(tensor.dtype), [&](auto zero) {
    using T = decltype(zero);
    planner.add({x, indices}, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      T* dst = reinterpret_cast<T*>(t[y]);
      for_each_outer<2>(nest, 0, [&](const int64_t* at) {
        dst[at[0]] = src[at[1] + inside(index_at(t[indices], wide, at[0]), size) * along];
      });
    });
  });
}

// Shared by GatherND and ScatterND: where the slices that index tuples name begin.
struct Slices {
  int64_t batches, tuples, depth;    // index tuples per batch, numbers per tuple
  int64_t batch_bytes, slice_bytes;  // of the data
  Shape sizes;                       // of the indexed axes
  Strides bytes;                     // between neighbours along them

  int64_t at(const uint8_t* indices, bool wide, int64_t tuple) const {
    int64_t offset = tuple / tuples * batch_bytes;
    for (int64_t k = 0; k < depth; ++k) {
      const size_t axis = static_cast<size_t>(k);
      offset += inside(index_at(indices, wide, tuple * depth + k), sizes[axis]) * bytes[axis];
    }
    return offset;
  }
};

Slices slices_of(const Tensor& data, const Tensor& indices, size_t batch_axes) {
  if (indices.rank() == 0) throw Error("indices must have a last axis of tuples");
  Slices slices;
  slices.depth = indices.shape.back();
  const size_t depth = static_cast<size_t>(slices.depth);
  if (batch_axes + depth > data.rank()) throw Error("index tuples are longer than the data's rank");
  const int64_t item = dtype_size(data.dtype);
  const Strides steps = strides_of(data.shape, Layout::PLAIN);
  slices.batches = count(data.shape, 0, batch_axes);
  slices.tuples = count(indices.shape, batch_axes, indices.rank() - 1);
  slices.batch_bytes = count(data.shape, batch_axes, data.rank()) * item;
  slices.slice_bytes = count(data.shape, batch_axes + depth, data.rank()) * item;
  for (size_t k = 0; k < depth; ++k) {
    slices.sizes.push_back(data.shape[batch_axes + k]);
    slices.bytes.push_back(steps[batch_axes + k] * item);
  }
  return slices;
}

void build_gather_nd(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(indices);
  const bool wide = is_wide(planner, indices);
  const size_t batch_axes = static_cast<size_t>(node.integer("batch_dims", 0));
  const Slices slices = slices_of(tensor, where, batch_axes);
  Shape shape(where.shape.begin(), where.shape.end() - 1);
  shape.insert(shape.end(), tensor.shape.begin() + static_cast<int64_t>(batch_axes) + slices.depth,
               tensor.shape.end());
  const int y = planner.output(node, 0, tensor.dtype, shape);
  planner.add({x, indices}, {y}, [=](Pointers t, uint8_t*) {
    for (int64_t i = 0; i < slices.batches * slices.tuples; ++i) {
      memcpy(t[y] + i * slices.slice_bytes, t[x] + slices.at(t[indices], wide, i),
             static_cast<size_t>(slices.slice_bytes));
    }
  });
}

enum class Reduce { NONE, ADD, MUL, MIN, MAX };

Reduce reduction_of(const Node& node) {
  const std::string name = node.text("reduction", "none");
  if (name == "none") return Reduce::NONE;
  if (name == "add") return Reduce::ADD;
  if (name == "mul") return Reduce::MUL;
  if (name == "min") return Reduce::MIN;
  if (name == "max") return Reduce::MAX;
  throw Error("reduction is '" + name + "'; it must be none, add, mul, min or max");
}

// Integers wrap; NaN wins, as in the element-wise operators.
template <class T>
T reduced(Reduce reduce, T old, T update) {
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  switch (reduce) {
    case Reduce::ADD:
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(update));
    case Reduce::MUL:
      return static_cast<T>(static_cast<U>(old) * static_cast<U>(update));
    case Reduce::MIN:
      return old != old || old < update ? old : update;
    case Reduce::MAX:
      return old != old || old > update ? old : update;
    default:
      return update;
  }
}

// dst[i] = what `reduce` makes of dst[i] and src[i].
using Combine = void (*)(Reduce, void* dst, const void* src, int64_t n);
Combine combine_of(DType dtype, const Node& node) {
  Combine result = nullptr;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    result = [](Reduce reduce, void* dst, const void* src, int64_t n) {
      T* y = static_cast<T*>(dst);
      const T* x = static_cast<const T*>(src);
      for (int64_t i = 0; i < n; ++i) y[i] = reduced<T>(reduce, y[i], x[i]);
    };
  });
  return result;
}

void build_scatter_nd(Planner& planner, const Node& node) {
  const Reduce reduce = reduction_of(node);
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const int updates = planner.operand(node, 2);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(indices);
  const Combine combine = reduce == Reduce::NONE ? nullptr : combine_of(tensor.dtype, node);
  const bool wide = is_wide(planner, indices);
  const Slices slices = slices_of(tensor, where, 0);
  if (planner.tensor(updates).bytes() != slices.tuples * slices.slice_bytes) {
    throw Error("updates do not fit the indices");
  }
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  const size_t bytes = static_cast<size_t>(tensor.bytes());
  const int64_t each = slices.slice_bytes / dtype_size(tensor.dtype);
  planner
      .add({x, indices, updates}, {y},
           [=](Pointers t, uint8_t*) {
             if (t[y] != t[x]) memcpy(t[y], t[x], bytes);
             for (int64_t i = 0; i < slices.tuples; ++i) {
               uint8_t* dst = t[y] + slices.at(t[indices], wide, i);
               const uint8_t* src = t[updates] + i * slices.slice_bytes;
               if (combine != nullptr) {
                 combine(reduce, dst, src, each);
               } else {
                 memcpy(dst, src, static_cast<size_t>(slices.slice_bytes));
               }
             }
           })
      .inplace = 0;
}

void build_scatter_elements(Planner& planner, const Node& node) {
  const Reduce reduce = reduction_of(node);
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const int updates = planner.operand(node, 2);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(indices);
  const Combine combine = reduce == Reduce::NONE ? nullptr : combine_of(tensor.dtype, node);
  const bool wide = is_wide(planner, indices);
  const size_t rank = tensor.rank();
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", 0), rank, "ScatterElements"));
  if (where.rank() != rank || planner.tensor(updates).shape != where.shape) {
    throw Error("data, indices and updates do not fit");
  }
  for (size_t k = 0; k < rank; ++k) {
    if (k != axis && where.shape[k] > tensor.shape[k]) throw Error("indices exceed the data");
  }
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  const Strides dense = strides_of(where), steps = strides_of(tensor);
  Strides other = steps;
  other[axis] = 0;
  const Nest nest = make_nest(where.shape, {dense, other});
  const int64_t size = tensor.shape[axis], along = steps[axis];
  const size_t bytes = static_cast<size_t>(tensor.bytes());
  with_item(dtype_size(tensor.dtype), [&](auto zero) {
    using T = decltype(zero);
    planner
        .add({x, indices, updates}, {y},
             [=](Pointers t, uint8_t*) {
               if (t[y] != t[x]) memcpy(t[y], t[x], bytes);
               const T* src = reinterpret_cast<const T*>(t[updates]);
               T* dst = reinterpret_cast<T*>(t[y]);
               for_each_outer<2>(nest, 0, [&](const int64_t* at) {
                 const int64_t index = inside(index_at(t[indices], wide, at[0]), size);
                 T* target = dst + at[1] + index * along;
                 if (combine != nullptr) {
                   combine(reduce, target, src + at[0], 1);
                 } else {
                   *target = src[at[0]];
                 }
               });
             })
        .inplace = 0;
  });
}

}  // namespace

const std::vector<Operator>& gather_operators() {
  static const std::vector<Operator> table = {
      {"Gather", {{"Gather", nullptr, build_gather}}},
      {"GatherElements", {{"GatherElements", nullptr, build_gather_elements}}},
      {"GatherND", {{"GatherND", nullptr, build_gather_nd}}},
      {"ScatterND", {{"ScatterND", nullptr, build_scatter_nd}}},
      {"ScatterElements", {{"ScatterElements", nullptr, build_scatter_elements}}},
  };
  return table;
}

}  // namespace lp
