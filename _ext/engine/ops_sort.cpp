// ops_sort.cpp: operators that order the elements of a row.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "engine/views.h"

namespace lp {
namespace {

// As NumPy sorts: NaN is larger than every number.
template <class T>
bool less_than(T a, T b) {
  return a < b || (b != b && a == a);
}

// One axis of a dense tensor: outer * inner rows of `depth` elements, `inner` apart.
struct Rows {
  int64_t outer, depth, inner;
};
Rows rows_of(const Shape& shape, size_t axis) {
  return {count(shape, 0, axis), shape[axis], count(shape, axis + 1, shape.size())};
}

template <class T>
void top_k(const Rows& rows, int64_t k, bool largest, bool sorted, const T* x, T* values,
           int64_t* places) {
  const int64_t grain = grain_of_rows(PLAIN_GRAIN / 8, rows.depth);
  parallel_rows(rows.outer * rows.inner, grain, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order(static_cast<size_t>(rows.depth));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t outer = row / rows.inner, inner = row % rows.inner;
      const T* from = x + outer * rows.depth * rows.inner + inner;
      std::iota(order.begin(), order.end(), int64_t{0});
      // Of equal elements the one that comes first.
      const auto before = [&](int64_t i, int64_t j) {
        const T a = from[i * rows.inner], b = from[j * rows.inner];
        if (largest ? less_than(b, a) : less_than(a, b)) return true;
        if (largest ? less_than(a, b) : less_than(b, a)) return false;
        return i < j;
      };
      if (k < rows.depth) std::nth_element(order.begin(), order.begin() + k, order.end(), before);
      if (sorted) {
        std::sort(order.begin(), order.begin() + k, before);
      } else {
        std::sort(order.begin(), order.begin() + k);  // as they stand in the row
      }
      for (int64_t i = 0; i < k; ++i) {
        const int64_t at = (outer * k + i) * rows.inner + inner;
        const int64_t place = order[static_cast<size_t>(i)];
        if (values != nullptr) values[at] = from[place * rows.inner];
        if (places != nullptr) places[at] = place;
      }
    }
  });
}

bool is_read(const Node& node, size_t i) { return i < node.outputs.size() && node.outputs[i] >= 0; }

void build_top_k(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() == 0) throw Error("a scalar has no largest elements");
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), tensor.rank(), "TopK"));
  const std::vector<int64_t> known = planner.known_integers(node, 1);
  if (known.size() != 1) throw Error("k must be one number");
  const int64_t k = known[0];
  if (k < 0 || k > tensor.shape[axis]) {
    throw Error("k is " + std::to_string(k) + ", axis " + std::to_string(axis) + " has " +
                std::to_string(tensor.shape[axis]) + " elements");
  }
  const bool largest = node.integer("largest", 1) != 0, sorted = node.integer("sorted", 1) != 0;
  Shape shape = tensor.shape;
  shape[axis] = k;
  const Rows rows = rows_of(tensor.shape, axis);
  const int values = is_read(node, 0) ? planner.output(node, 0, tensor.dtype, shape) : -1;
  const int places = is_read(node, 1) ? planner.output(node, 1, DType::S64, shape) : -1;
  std::vector<int> out;
  for (const int id : {values, places}) {
    if (id >= 0) out.push_back(id);
  }
  with_number(tensor.dtype, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({x}, out, [=](Pointers t, uint8_t*) {
      top_k(rows, k, largest, sorted, reinterpret_cast<const T*>(t[x]),
            values < 0 ? nullptr : reinterpret_cast<T*>(t[values]),
            places < 0 ? nullptr : reinterpret_cast<int64_t*>(t[places]));
    });
  });
}

// 1 at the first of the largest elements along an axis, 0 elsewhere.
void build_hardmax(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() == 0) throw Error("a scalar has no axis");
  const size_t axis =
      static_cast<size_t>(normalise_axis(node.integer("axis", -1), tensor.rank(), "Hardmax"));
  const Rows rows = rows_of(tensor.shape, axis);
  const int y = planner.output(node, 0, tensor.dtype, tensor.shape);
  with_number(tensor.dtype, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      T* dst = reinterpret_cast<T*>(t[y]);
      std::fill_n(dst, rows.outer * rows.depth * rows.inner, T(0));
      if (rows.depth == 0) return;
      for (int64_t row = 0; row < rows.outer * rows.inner; ++row) {
        const int64_t start = row / rows.inner * rows.depth * rows.inner + row % rows.inner;
        int64_t most = 0;
        for (int64_t i = 1; i < rows.depth; ++i) {
          if (less_than(src[start + most * rows.inner], src[start + i * rows.inner])) most = i;
        }
        dst[start + most * rows.inner] = T(1);
      }
    });
  });
}

// An output whose contents are known now: a step that copies them, which folding runs at once.
template <class T>
void add_known(Planner& planner, const Node& node, size_t i, DType dtype, const Shape& shape,
               std::vector<T> values) {
  if (!is_read(node, i)) return;
  const int y = planner.output(node, i, dtype, shape);
  planner.add({}, {y}, [y, values = std::move(values)](Pointers t, uint8_t*) {
    if (!values.empty()) memcpy(t[y], values.data(), values.size() * sizeof(T));
  });
}

// The distinct slices of `x` along an axis (without one: its distinct elements). How many there
// are decides a shape, so the contents must be known while planning.
template <class T>
void add_unique(Planner& planner, const Node& node, const Tensor& tensor) {
  const bool flat = !node.has("axis");
  const size_t axis =
      flat ? 0
           : static_cast<size_t>(normalise_axis(node.integer("axis", 0), tensor.rank(), "Unique"));
  const Shape seen = flat ? Shape{tensor.elements()} : tensor.shape;
  const Rows rows = rows_of(seen, axis);
  const T* x = reinterpret_cast<const T*>(tensor.constant);
  const auto at = [&](int64_t slice, int64_t i) {
    return x[(i / rows.inner * rows.depth + slice) * rows.inner + i % rows.inner];
  };
  const int64_t size = rows.outer * rows.inner;
  const auto compare = [&](int64_t i, int64_t j) {  // -1, 0, 1
    for (int64_t e = 0; e < size; ++e) {
      const T a = at(i, e), b = at(j, e);
      if (less_than(a, b)) return -1;
      if (less_than(b, a)) return 1;
    }
    return 0;
  };
  std::vector<int64_t> order(static_cast<size_t>(rows.depth));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t j) { return compare(i, j) < 0; });
  std::vector<int64_t> first, counts, group(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compare(order[i - 1], order[i]) != 0) {
      first.push_back(order[i]);
      counts.push_back(0);
    }
    ++counts.back();
    group[static_cast<size_t>(order[i])] = static_cast<int64_t>(first.size()) - 1;
  }
  std::vector<int64_t> rank(first.size());  // places of the groups in the result
  std::iota(rank.begin(), rank.end(), int64_t{0});
  if (node.integer("sorted", 1) == 0) {
    std::vector<int64_t> by_place = rank;
    std::sort(by_place.begin(), by_place.end(), [&](int64_t i, int64_t j) {
      return first[static_cast<size_t>(i)] < first[static_cast<size_t>(j)];
    });
    for (size_t i = 0; i < by_place.size(); ++i) {
      rank[static_cast<size_t>(by_place[i])] = static_cast<int64_t>(i);
    }
  }
  const int64_t n = static_cast<int64_t>(first.size());
  std::vector<int64_t> placed_first(first.size()), placed_counts(first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    placed_first[static_cast<size_t>(rank[i])] = first[i];
    placed_counts[static_cast<size_t>(rank[i])] = counts[i];
  }
  for (int64_t& g : group) g = rank[static_cast<size_t>(g)];
  std::vector<T> values(static_cast<size_t>(size * n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t e = 0; e < size; ++e) {
      values[static_cast<size_t>((e / rows.inner * n + i) * rows.inner + e % rows.inner)] =
          at(placed_first[static_cast<size_t>(i)], e);
    }
  }
  Shape shape = seen;
  shape[axis] = n;
  add_known(planner, node, 0, tensor.dtype, shape, std::move(values));
  add_known(planner, node, 1, DType::S64, {n}, std::move(placed_first));
  add_known(planner, node, 2, DType::S64, {rows.depth}, std::move(group));
  add_known(planner, node, 3, DType::S64, {n}, std::move(placed_counts));
}

void build_unique(Planner& planner, const Node& node) {
  const Tensor tensor = planner.tensor(planner.operand(node, 0));
  if (!tensor.is_constant()) throw Unsupported("Unique: its operand must be known before the run");
  if (tensor.elements() == 0) throw Unsupported("Unique of nothing");
  with_number(tensor.dtype == DType::BOOL ? DType::U8 : tensor.dtype, node,
              [&](auto zero) { add_unique<decltype(zero)>(planner, node, tensor); });
}

}  // namespace

const std::vector<Operator>& sort_operators() {
  static const std::vector<Operator> table = {
      {"TopK", {{"TopK", nullptr, build_top_k}}},
      {"Hardmax", {{"Hardmax", nullptr, build_hardmax}}},
      {"Unique", {{"Unique", nullptr, build_unique}}},
  };
  return table;
}

}  // namespace lp
