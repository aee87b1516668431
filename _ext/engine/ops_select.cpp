// ops_select.cpp: operators that pick, place or turn parts of a tensor, and the determinant.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "engine/indices.h"

namespace lp {
namespace {

// The positions of all elements that are not 0, one column each. How many there are decides the
// shape, so the contents must be known while planning.
void build_non_zero(Planner& planner, const Node& node) {
  const Tensor tensor = planner.tensor(planner.operand(node, 0));
  if (!tensor.is_constant()) throw Unsupported("NonZero: its operand must be known before the run");
  std::vector<int64_t> found;
  with_number(tensor.dtype == DType::BOOL ? DType::U8 : tensor.dtype, node, [&](auto zero) {
    const auto* x = reinterpret_cast<const decltype(zero)*>(tensor.constant);
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      if (x[i] != decltype(zero)(0)) found.push_back(i);
    }
  });
  // A scalar has one axis of one element here.
  const Shape seen = tensor.rank() == 0 ? Shape{1} : tensor.shape;
  const Strides steps = row_major_strides(seen);
  const int64_t n = static_cast<int64_t>(found.size());
  const int y = planner.output(node, 0, DType::S64, {static_cast<int64_t>(seen.size()), n});
  planner.add({}, {y}, [=, found = std::move(found)](Pointers t, uint8_t*) {
    int64_t* dst = reinterpret_cast<int64_t*>(t[y]);
    for (size_t axis = 0; axis < seen.size(); ++axis) {
      for (const int64_t at : found) *dst++ = at / steps[axis] % seen[axis];
    }
  });
}

void build_compress(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const bool flat = !node.has("axis");
  const size_t axis =
      flat
          ? 0
          : static_cast<size_t>(normalise_axis(node.integer("axis", 0), tensor.rank(), "Compress"));
  const Shape seen = flat ? Shape{tensor.elements()} : tensor.shape;
  std::vector<int64_t> taken;
  const std::vector<int64_t> condition = planner.known_integers(node, 1);
  for (size_t i = 0; i < condition.size(); ++i) {
    if (condition[i] != 0) taken.push_back(static_cast<int64_t>(i));
  }
  if (!taken.empty() && taken.back() >= seen[axis]) {
    throw Error("the condition takes element " + std::to_string(taken.back()) + " of " +
                std::to_string(seen[axis]));
  }
  Shape shape = seen;
  shape[axis] = static_cast<int64_t>(taken.size());
  const int y = planner.output(node, 0, tensor.dtype, shape);
  const int64_t outer = count(seen, 0, axis), depth = seen[axis];
  const int64_t bytes = count(seen, axis + 1, seen.size()) * dtype_size(tensor.dtype);
  planner.add({x}, {y}, [=, taken = std::move(taken)](Pointers t, uint8_t*) {
    uint8_t* dst = t[y];
    for (int64_t o = 0; o < outer; ++o) {
      for (const int64_t at : taken) {
        memcpy(dst, t[x] + (o * depth + at) * bytes, static_cast<size_t>(bytes));
        dst += bytes;
      }
    }
  });
}

void build_eye_like(Planner& planner, const Node& node) {
  const Shape shape = planner.shape_of(node, 0);
  if (shape.size() != 2) throw Error("needs a matrix, got shape " + to_string(shape));
  const auto own = static_cast<int64_t>(planner.dtype_of(node, 0));
  const DType dtype = static_cast<DType>(node.integer("dtype", own));
  const int64_t k = node.integer("k", 0), rows = shape[0], cols = shape[1];
  const int y = planner.output(node, 0, dtype, shape);
  with_number(dtype == DType::BOOL ? DType::U8 : dtype, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({}, {y}, [=](Pointers t, uint8_t*) {
      T* dst = reinterpret_cast<T*>(t[y]);
      std::fill_n(dst, rows * cols, T(0));
      // From 0 or -k on; k may be any number, so nothing is added to it that could overflow.
      for (int64_t row = k < 0 ? (k <= -rows ? rows : -k) : 0; row < rows; ++row) {
        if (k >= cols - row) break;
        dst[row * cols + row + k] = T(1);
      }
    });
  });
}

// The first sequence_lens[b] steps of each batch entry in the other order.
void build_reverse_sequence(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), lengths = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x);
  const int64_t batch_axis = node.integer("batch_axis", 1), time = node.integer("time_axis", 0);
  if (tensor.rank() < 2 || batch_axis + time != 1 || batch_axis * time != 0) {
    throw Error("batch_axis and time_axis must be 0 and 1, or 1 and 0");
  }
  const bool wide = is_wide(planner, lengths);
  const int64_t batches = tensor.shape[static_cast<size_t>(batch_axis)];
  const int64_t steps = tensor.shape[static_cast<size_t>(time)];
  if (planner.tensor(lengths).elements() != batches) throw Error("one length a batch entry");
  const int64_t bytes = count(tensor.shape, 2, tensor.rank()) * dtype_size(tensor.dtype);
  const int64_t batch_step = batch_axis == 0 ? steps : 1, time_step = time == 0 ? batches : 1;
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  planner.add({x, lengths}, {y}, [=](Pointers t, uint8_t*) {
    for (int64_t b = 0; b < batches; ++b) {
      const int64_t length = index_at(t[lengths], wide, b);
      if (length < 0 || length > steps) {
        throw Error("sequence length " + std::to_string(length) + " of " + std::to_string(steps));
      }
      for (int64_t s = 0; s < steps; ++s) {
        const int64_t from = s < length ? length - 1 - s : s;
        memcpy(t[y] + (b * batch_step + s * time_step) * bytes,
               t[x] + (b * batch_step + from * time_step) * bytes, static_cast<size_t>(bytes));
      }
    }
  });
}

// A cache with new entries from write_indices[batch] on, in a ring where `mode` is circular.
void build_tensor_scatter(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), update = planner.operand(node, 1);
  const int starts = node.has_input(2) ? planner.operand(node, 2) : -1;
  const Tensor tensor = planner.tensor(x), fresh = planner.tensor(update);
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -2), tensor.rank(), "TensorScatter"));
  const std::string mode = node.text("mode", "linear");
  if (mode != "linear" && mode != "circular") throw Error("mode must be linear or circular");
  const bool ring = mode == "circular";
  Shape fits = fresh.shape;
  if (axis == 0 || fits.size() != tensor.rank() || fits[axis] > tensor.shape[axis]) {
    throw Error("update of shape " + to_string(fresh.shape) + " for a cache of shape " +
                to_string(tensor.shape));
  }
  fits[axis] = tensor.shape[axis];
  if (fits != tensor.shape || fresh.dtype != tensor.dtype) throw Error("update and cache differ");
  const bool wide = starts >= 0 && is_wide(planner, starts);
  if (starts >= 0 && planner.tensor(starts).elements() != tensor.shape[0]) {
    throw Error("one start a batch entry");
  }
  const int64_t outer = count(tensor.shape, 0, axis), steps = tensor.shape[axis];
  const int64_t per_batch = count(tensor.shape, 1, axis), added = fresh.shape[axis];
  const int64_t bytes = count(tensor.shape, axis + 1, tensor.rank()) * dtype_size(tensor.dtype);
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  std::vector<int> in = {x, update};
  if (starts >= 0) in.push_back(starts);
  planner
      .add(in, {y},
           [=](Pointers t, uint8_t*) {
             if (t[y] != t[x]) memcpy(t[y], t[x], static_cast<size_t>(outer * steps * bytes));
             for (int64_t o = 0; o < outer; ++o) {
               const int64_t start =
                   starts < 0 ? 0 : index_at(t[starts], wide, per_batch > 0 ? o / per_batch : 0);
               if (start < 0 || (!ring && start > steps - added)) {
                 throw Error("a write starts at " + std::to_string(start) + " of " +
                             std::to_string(steps));
               }
               for (int64_t s = 0; s < added; ++s) {
                 const int64_t at = ring ? (start % steps + s) % steps : start + s;
                 memcpy(t[y] + (o * steps + at) * bytes, t[update] + (o * added + s) * bytes,
                        static_cast<size_t>(bytes));
               }
             }
           })
      .inplace = 0;
}

// By Gaussian elimination with row exchanges, in doubles. Overwrites the matrix.
double determinant(double* a, int64_t n) {
  double result = 1.0;
  for (int64_t k = 0; k < n; ++k) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; ++i) {
      if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
    }
    if (pivot != k) {
      for (int64_t j = k; j < n; ++j) std::swap(a[k * n + j], a[pivot * n + j]);
      result = -result;
    }
    const double diagonal = a[k * n + k];
    result *= diagonal;
    if (diagonal == 0.0) return 0.0;
    for (int64_t i = k + 1; i < n; ++i) {
      const double factor = a[i * n + k] / diagonal;
      for (int64_t j = k + 1; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  return result;
}

void build_det(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() < 2 || tensor.shape.back() != tensor.shape[tensor.rank() - 2]) {
    throw Error("needs square matrices, got shape " + to_string(tensor.shape));
  }
  if (tensor.dtype != DType::F64) require_f32(planner, node);
  const Shape shape(tensor.shape.begin(), tensor.shape.end() - 2);
  const int64_t n = tensor.shape.back(), matrices = count(shape);
  const int y = planner.output(node, 0, tensor.dtype, shape);
  const bool doubles = tensor.dtype == DType::F64;
  Step& step = planner.add({x}, {y}, [=](Pointers t, uint8_t* scratch) {
    double* own = reinterpret_cast<double*>(scratch);
    for (int64_t m = 0; m < matrices; ++m) {
      for (int64_t i = 0; i < n * n; ++i) {
        own[i] = doubles ? reinterpret_cast<const double*>(t[x])[m * n * n + i]
                         : static_cast<double>(reinterpret_cast<const float*>(t[x])[m * n * n + i]);
      }
      const double value = determinant(own, n);
      if (doubles) {
        reinterpret_cast<double*>(t[y])[m] = value;
      } else {
        reinterpret_cast<float*>(t[y])[m] = static_cast<float>(value);
      }
    }
  });
  step.scratch_bytes = n * n * 8;
}

}  // namespace

const std::vector<Operator>& select_operators() {
  static const std::vector<Operator> table = {
      {"NonZero", {{"NonZero", nullptr, build_non_zero}}},
      {"Compress", {{"Compress", nullptr, build_compress}}},
      {"EyeLike", {{"EyeLike", nullptr, build_eye_like}}},
      {"ReverseSequence", {{"ReverseSequence", nullptr, build_reverse_sequence}}},
      {"TensorScatter", {{"TensorScatter", nullptr, build_tensor_scatter}}},
      {"Det", {{"Det", nullptr, build_det}}},
  };
  return table;
}

}  // namespace lp
