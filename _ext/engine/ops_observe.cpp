// ops_observe.cpp: calibration taps. A tapped value is looked at where it lies, in any layout.
#include "channel_observer.h"
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

// Channels that lie side by side are read where they are; another axis asks for the plain layout.
void observe_channels(Planner& p, const Node& node) {
  auto* observer = reinterpret_cast<ChannelObserver*>(node.integer("observer", 0));
  const Shape shape = p.shape_of(node, 0);
  const size_t axis = static_cast<size_t>(
      normalise_axis(observer->axis(), shape.size(), "the channel axis of an observer"));
  const bool last = axis == 1 && p.layout_of(node, 0) == Layout::CHANNELS_LAST;
  const int id = last ? p.operand_as_is(node, 0) : p.operand(node, 0);
  if (p.tensor(id).dtype != DType::F32) throw Error("only f32 values can be observed");
  const int64_t channels = shape[axis];
  if (observer->channels() != 0 && observer->channels() != channels) {
    throw Error("an observed value has " + std::to_string(channels) + " channels here and " +
                std::to_string(observer->channels()) + " before; observe another axis");
  }
  const int64_t inner = last ? 1 : count(shape, axis + 1, shape.size());
  const int64_t outer = channels * inner == 0 ? 0 : count(shape) / (channels * inner);
  p.add({id}, {}, [observer, id, outer, channels, inner](Pointers t, uint8_t*) {
    observer->observe(reinterpret_cast<const float*>(t[id]), outer, channels, inner);
  });
}
}  // namespace

const std::vector<Operator>& observe_operators() {
  static const std::vector<Operator> operators = {
      {"Observe", {{"observe", nullptr, observe}}},
      {"ObserveChannels", {{"observe channels", nullptr, observe_channels}}},
  };
  return operators;
}

}  // namespace lp
