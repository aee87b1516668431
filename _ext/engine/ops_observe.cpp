// ops_observe.cpp: calibration taps. A tapped value is looked at where it lies, in any layout.
#include "engine/engine.h"
#include "observer.h"

namespace lp {

namespace {
void observe(Planner& p, const Node& node) {
  const int id = p.operand_as_is(node, 0);
  const Tensor tensor = p.tensor(id);
  if (tensor.dtype != DType::F32) throw Error("only f32 values can be observed");
  auto* observer = reinterpret_cast<TensorObserver*>(node.integer("observer", 0));
  const int64_t n = tensor.elements();
  // A constant is seen by the plan as known: it must still be counted in every run.
  p.add({id}, {}, [observer, id, n](Pointers t, uint8_t*) {
    observer->observe(reinterpret_cast<const float*>(t[id]), n);
  });
}
}  // namespace

const std::vector<Operator>& observe_operators() {
  static const std::vector<Operator> operators = {{"Observe", {{"observe", nullptr, observe}}}};
  return operators;
}

}  // namespace lp
