// element_loops.h: element-wise operators that are one expression, in any element type.
#pragma once
#include "engine/views.h"

namespace lp {

// y[i] = f(x[i]) in any dtype; the result's dtype is f's.
template <class T, class F>
void add_map(Planner& planner, const Node& node, DType result, F f) {
  using R = decltype(f(T()));
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const int y = planner.output(node, 0, result, tensor.shape, tensor.layout);
  const int64_t n = tensor.elements();
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    const T* src = reinterpret_cast<const T*>(t[x]);
    R* dst = reinterpret_cast<R*>(t[y]);
    // By value here and below: stores of bytes could change what is seen by reference.
    parallel_rows(n, PLAIN_GRAIN, [=](int64_t begin, int64_t end) {
      const T* from = src;
      R* to = dst;
      for (int64_t i = begin; i < end; ++i) to[i] = f(from[i]);
    });
  });
}

// y[i] = f(a[i], b[i]) with broadcasting; the result's dtype is f's.
template <class T, class F>
void add_typed_binary(Planner& planner, const Node& node, DType result, F f) {
  using R = decltype(f(T(), T()));
  const Broadcast operands = broadcast_operands(planner, node, 0, 2);
  const int y = planner.output(node, 0, result, operands.shape, operands.layout);
  const int a = operands.ids[0], b = operands.ids[1];
  const Nest nest = operands.nest;
  planner.add({a, b}, {y}, [=](Pointers t, uint8_t*) {
    parallel_parts<3>(nest, PLAIN_GRAIN, [&](const Nest& part, const int64_t* from) {
      for_each_outer<3>(part, 1, [&](const int64_t* at) {
        const int64_t n = part.size(0), a_step = part.stride(1, 0), b_step = part.stride(2, 0);
        R* dst = reinterpret_cast<R*>(t[y]) + from[0] + at[0];
        const T* left = reinterpret_cast<const T*>(t[a]) + from[1] + at[1];
        const T* right = reinterpret_cast<const T*>(t[b]) + from[2] + at[2];
        for (int64_t i = 0; i < n; ++i) dst[i] = f(left[i * a_step], right[i * b_step]);
      });
    });
  });
}

}  // namespace lp
