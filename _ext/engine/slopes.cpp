// slopes.cpp: PRelu in the epilogue of a convolution, a slope for each output channel.
//
// The node has the attribute `slopes` and UNARY_PRELU_CHANNEL in its chain (passes/fuse_slopes.py).
#include "engine/product.h"

namespace lp {

namespace {
// Every kernel may read whole panels.
std::shared_ptr<const ChannelLists> padded_list(const std::vector<float>& values) {
  auto lists = std::make_shared<ChannelLists>();
  lists->values = values;
  lists->values.resize(static_cast<size_t>(padded_channels(static_cast<int64_t>(values.size()))));
  lists->addresses = {lists->values.data()};
  return lists;
}
}  // namespace

void read_slopes(const Node& node, Output& output) {
  if (!node.has("slopes")) return;
  output.lists = padded_list(node.reals("slopes"));
  output.slopes = static_cast<int64_t>(node.reals("slopes").size());
  output.epilogue.channel_values = output.lists->addresses.data();
}

void repeat_slopes(Output& output, int64_t times) {
  if (output.slopes == 0) return;
  const std::vector<float>& once = output.lists->values;
  std::vector<float> values;
  for (int64_t i = 0; i < times; ++i) {
    values.insert(values.end(), once.begin(), once.begin() + output.slopes);
  }
  output.lists = padded_list(values);
  output.slopes *= times;
  output.epilogue.channel_values = output.lists->addresses.data();
}

void apply_slopes(const Output& output, float* row) {
  const float* slopes = output.lists->values.data();
  for (int64_t i = 0; i < output.slopes; ++i) {
    row[i] = row[i] < 0.0f ? slopes[i] * row[i] : row[i];
  }
}

}  // namespace lp
