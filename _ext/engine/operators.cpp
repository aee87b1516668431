// operators.cpp: the one list of what the engine does natively.
#include "engine/engine.h"

namespace lp {

namespace {
const std::map<std::string, const Operator*>& by_name() {
  static const std::map<std::string, const Operator*> names = [] {
    std::map<std::string, const Operator*> all;
    for (const auto* table :
         {&conv_operators(),      &transposed_operators(), &shuffle_operators(),
          &concat_operators(),    &matrix_operators(),     &elementwise_operators(),
          &quantize_operators(),  &reduce_operators(),     &observe_operators(),
          &pool_operators(),      &shape_operators(),      &resize_operators(),
          &recurrent_operators(), &gather_operators(),     &cast_operators(),
          &bit_operators(),       &angle_operators(),      &sort_operators(),
          &select_operators(),    &window_operators(),     &sample_operators(),
          &boxes_operators(),     &signal_operators(),     &bf16_operators(),
          &region_operators(),    &attention_operators(),  &qconcat_operators()}) {
      for (const Operator& entry : *table) all[entry.op] = &entry;
    }
    return all;
  }();
  return names;
}
}  // namespace

const Operator* find_operator(const std::string& op) {
  const auto it = by_name().find(op);
  return it == by_name().end() ? nullptr : it->second;
}

std::vector<std::string> operator_names() {
  std::vector<std::string> names;
  for (const auto& entry : by_name()) names.push_back(entry.first);
  return names;
}

}  // namespace lp
