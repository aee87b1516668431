// ops_matrix_any.cpp: MatMul and Gemm in doubles and integers, and Gemm with any addend: plain
// loops, each element one chain of multiply-adds over the depth in order. Integers wrap.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "engine/product.h"
#include "engine/views.h"

namespace lp {

namespace {

struct MatrixShape {
  int64_t m, k, n;
  int64_t a_row, a_depth, b_depth, b_column;  // steps, in elements
  std::vector<int64_t> a_at, b_at;            // start of each batch entry
  Nest addend;                                // the result, then C
  bool has_addend = false;
  double alpha = 1.0, beta = 1.0;
};

template <class T>
void multiply(const MatrixShape& s, const T* a, const T* b, T* y, int64_t begin, int64_t end) {
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  std::vector<U> sums(static_cast<size_t>(s.n));
  for (int64_t row = begin; row < end; ++row) {
    const size_t entry = static_cast<size_t>(row / s.m);
    const T* from = a + s.a_at[entry] + row % s.m * s.a_row;
    const T* weights = b + s.b_at[entry];
    std::fill(sums.begin(), sums.end(), U(0));
    for (int64_t k = 0; k < s.k; ++k) {
      const U factor = static_cast<U>(from[k * s.a_depth]);
      const T* line = weights + k * s.b_depth;
      for (int64_t j = 0; j < s.n; ++j) {
        U& sum = sums[static_cast<size_t>(j)];
        const U value = static_cast<U>(line[j * s.b_column]);
        if constexpr (std::is_floating_point_v<T>) {
          sum = std::fma(factor, value, sum);
        } else {
          sum += factor * value;
        }
      }
    }
    for (int64_t j = 0; j < s.n; ++j)
      y[row * s.n + j] = static_cast<T>(sums[static_cast<size_t>(j)]);
  }
}

// y = alpha * y + beta * c.
template <class T>
void add_addend(const MatrixShape& s, const T* c, T* y) {
  for_each_outer<2>(s.addend, 0, [&](const int64_t* at) {
    if constexpr (std::is_integral_v<T>) {
      const auto scaled = [](T x, double factor) {
        return factor == 1.0 ? x : static_cast<T>(static_cast<double>(x) * factor);
      };
      y[at[0]] = static_cast<T>(static_cast<uint64_t>(scaled(y[at[0]], s.alpha)) +
                                static_cast<uint64_t>(c ? scaled(c[at[1]], s.beta) : T(0)));
    } else {
      const T product = static_cast<T>(s.alpha) * y[at[0]];
      y[at[0]] = c ? product + static_cast<T>(s.beta) * c[at[1]] : product;
    }
  });
}

}  // namespace

void matrix_any(Planner& p, const Node& node) {
  const int a_id = p.operand(node, 0), b_id = p.operand(node, 1);
  const DType dtype = p.tensor(a_id).dtype;
  if (p.tensor(b_id).dtype != dtype) throw Unsupported(node.op + " of two element types");
  Shape a = p.tensor(a_id).shape, b = p.tensor(b_id).shape;
  if (a.empty() || b.empty()) throw Error("an operand is a scalar");
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), 1);
  if (column) b.push_back(1);
  const bool flip_a = node.integer("transA", 0) != 0, flip_b = node.integer("transB", 0) != 0;
  const size_t ar = a.size(), br = b.size();
  MatrixShape s{};
  s.m = a[ar - (flip_a ? 1 : 2)];
  s.k = a[ar - (flip_a ? 2 : 1)];
  s.n = b[br - (flip_b ? 2 : 1)];
  if (b[br - (flip_b ? 1 : 2)] != s.k) {
    throw Error("cannot multiply " + to_string(p.tensor(a_id).shape) + " by " +
                to_string(p.tensor(b_id).shape));
  }
  s.a_row = flip_a ? 1 : s.k;
  s.a_depth = flip_a ? s.m : 1;
  s.b_depth = flip_b ? 1 : s.n;
  s.b_column = flip_b ? s.k : 1;
  s.alpha = static_cast<double>(node.real("alpha", 1.0f));
  s.beta = static_cast<double>(node.real("beta", 1.0f));
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  const Shape batch = broadcast(a_batch, b_batch, "MatMul");
  s.a_at = batch_starts(batch, a_batch, s.m * s.k);
  s.b_at = batch_starts(batch, b_batch, s.k * s.n);
  Shape result = batch;
  if (!row) result.push_back(s.m);
  if (!column) result.push_back(s.n);
  const int y = p.output(node, 0, dtype, result);
  std::vector<int> in = {a_id, b_id};
  int c_id = -1;
  s.has_addend = node.has_input(2) || s.alpha != 1.0;
  Strides c_strides(result.size(), 0);
  if (node.has_input(2)) {
    c_id = p.operand(node, 2);
    const Shape& c = p.tensor(c_id).shape;
    if (p.tensor(c_id).dtype != dtype) throw Unsupported(node.op + " of two element types");
    if (broadcast(c, result, "Gemm") != result) throw Error("the addend is larger than the result");
    const Shape own = row_major_strides(c);
    for (size_t i = 0; i < c.size(); ++i) {
      if (c[i] != 1) c_strides[result.size() - c.size() + i] = own[i];
    }
    in.push_back(c_id);
  }
  s.addend = make_nest(result, {row_major_strides(result), c_strides});
  const int64_t rows = count(batch) * s.m;
  with_number(dtype, node, [&](auto zero) {
    using T = decltype(zero);
    Step& step = p.add(in, {y}, [=](Pointers t, uint8_t*) {
      T* dst = reinterpret_cast<T*>(t[y]);
      parallel_rows(rows, grain_of_rows(PLAIN_GRAIN, s.k * s.n), [&](int64_t begin, int64_t end) {
        multiply(s, reinterpret_cast<const T*>(t[a_id]), reinterpret_cast<const T*>(t[b_id]), dst,
                 begin, end);
      });
      if (!s.has_addend) return;
      add_addend(s, c_id < 0 ? nullptr : reinterpret_cast<const T*>(t[c_id]), dst);
    });
    step.macs = static_cast<double>(rows) * static_cast<double>(s.n) * static_cast<double>(s.k);
  });
}

}  // namespace lp
