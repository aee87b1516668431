// channel_values.cpp: operators in the epilogue of a product that have a constant for each channel.
//
// The node has the attribute `channel_values`, and UNARY_PRELU_CHANNEL or UNARY_MUL_CHANNEL in its
// chain (passes/channel_values.py).
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

void read_channel_values(const Node& node, Output& output) {
  if (!node.has("channel_values")) return;
  const std::vector<float> values = node.reals("channel_values");
  output.lists = padded_list(values);
  output.channel_count = static_cast<int64_t>(values.size());
  output.epilogue.channel_values = output.lists->addresses.data();
}

void check_channel_values(const Output& output, int64_t groups, int64_t channels) {
  if (output.channel_count == 0) return;
  if (groups != 1 || output.channel_count != channels) {
    throw Error("one value for each output channel is wanted");
  }
}

void repeat_channel_values(Output& output, int64_t times) {
  if (output.channel_count == 0) return;
  const std::vector<float>& once = output.lists->values;
  std::vector<float> values;
  for (int64_t i = 0; i < times; ++i) {
    values.insert(values.end(), once.begin(), once.begin() + output.channel_count);
  }
  output.lists = padded_list(values);
  output.channel_count *= times;
  output.epilogue.channel_values = output.lists->addresses.data();
}

void apply_channel_values(const Output& output, int32_t code, float* row) {
  const float* values = output.lists->values.data();
  for (int64_t i = 0; i < output.channel_count; ++i) {
    if (code == UNARY_MUL_CHANNEL || row[i] < 0.0f) row[i] = values[i] * row[i];
  }
}

}  // namespace lp
