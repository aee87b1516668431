// recurrent_cells.cpp: see recurrent.h.
#include <string.h>

#include <algorithm>
#include <cctype>

#include "engine/recurrent.h"
#include "pack.h"

namespace lp {

int64_t gates_of(Cell cell) { return cell == Cell::RNN ? 1 : cell == Cell::GRU ? 3 : 4; }
int64_t activations_of(Cell cell) { return cell == Cell::RNN ? 1 : cell == Cell::GRU ? 2 : 3; }

void Activation::apply(const Kernels& kernels, float* x, int64_t n) const {
  if (thresholded) {
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] > threshold || x[i] != x[i] ? x[i] : 0.0f;
    return;
  }
  kernels.unary(ops.data(), static_cast<int32_t>(ops.size()), x, x, n);
}

namespace {

// Parameters are consumed in the order of the activations that have them.
class Parameters {
 public:
  explicit Parameters(std::vector<float> values) : values_(std::move(values)) {}
  float next(float otherwise) { return used_ < values_.size() ? values_[used_++] : otherwise; }

 private:
  std::vector<float> values_;
  size_t used_ = 0;
};

Activation activation(const std::string& name, Parameters& alpha, Parameters& beta) {
  std::string lower;
  for (char c : name) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  Activation result;
  const auto simple = [&](UnaryCode code, float a = 0.0f, float b = 0.0f) {
    result.ops.push_back({code, a, b});
  };
  if (lower == "relu") {
    simple(UNARY_RELU);
  } else if (lower == "tanh") {
    simple(UNARY_TANH);
  } else if (lower == "sigmoid") {
    simple(UNARY_SIGMOID);
  } else if (lower == "softsign") {
    simple(UNARY_SOFTSIGN);
  } else if (lower == "softplus") {
    simple(UNARY_SOFTPLUS);
  } else if (lower == "leakyrelu") {
    simple(UNARY_LEAKY_RELU, alpha.next(0.01f));
  } else if (lower == "elu") {
    simple(UNARY_ELU, alpha.next(1.0f));
  } else if (lower == "hardsigmoid") {
    const float a = alpha.next(0.2f);
    simple(UNARY_HARD_SIGMOID, a, beta.next(0.5f));
  } else if (lower == "affine") {
    simple(UNARY_MUL, alpha.next(1.0f));
    simple(UNARY_ADD, beta.next(0.0f));
  } else if (lower == "scaledtanh") {
    const float a = alpha.next(1.0f);
    simple(UNARY_MUL, beta.next(1.0f));
    simple(UNARY_TANH);
    simple(UNARY_MUL, a);
  } else if (lower == "thresholdedrelu") {
    result.thresholded = true;
    result.threshold = alpha.next(1.0f);
  } else {
    throw Error("activation '" + name + "' is none of ONNX's");
  }
  return result;
}

std::vector<Activation> activations_from(const Node& node, Cell cell, int64_t directions) {
  const std::string usual = cell == Cell::RNN   ? "Tanh"
                            : cell == Cell::GRU ? "Sigmoid,Tanh"
                                                : "Sigmoid,Tanh,Tanh";
  std::string text = node.text("activations", "");
  if (text.empty()) text = directions == 2 ? usual + "," + usual : usual;
  Parameters alpha(node.reals("activation_alpha")), beta(node.reals("activation_beta"));
  std::vector<Activation> result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    result.push_back(activation(text.substr(begin, end - begin), alpha, beta));
    begin = end + 1;
  }
  const int64_t wanted = activations_of(cell) * directions;
  if (static_cast<int64_t>(result.size()) != wanted) {
    throw Error("activations lists " + std::to_string(result.size()) + "; it must list " +
                std::to_string(wanted));
  }
  return result;
}

}  // namespace

RecurrentShape recurrent_shape(const Node& node, const Shape& x, const Shape& w, const Shape& r) {
  RecurrentShape s;
  const auto is = [&](const char* op) { return node.op == op || node.op == std::string("Q") + op; };
  s.cell = is("RNN") ? Cell::RNN : is("GRU") ? Cell::GRU : Cell::LSTM;
  if (x.size() != 3 || w.size() != 3 || r.size() != 3) {
    throw Error("X, W and R must have rank 3; they are " + to_string(x) + ", " + to_string(w) +
                " and " + to_string(r));
  }
  s.batch_first = node.integer("layout", 0) != 0;
  s.steps = x[s.batch_first ? 1 : 0];
  s.batch = x[s.batch_first ? 0 : 1];
  s.input = x[2];
  s.hidden = r[2];
  const std::string direction = node.text("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
    throw Error("direction '" + direction + "' is not forward, reverse or bidirectional");
  }
  s.directions = direction == "bidirectional" ? 2 : 1;
  s.backward = direction == "reverse";
  s.linear_before_reset = node.integer("linear_before_reset", 0) != 0;
  s.input_forget = node.integer("input_forget", 0) != 0;
  s.clip = node.real("clip", 0.0f);
  if (!(s.clip >= 0.0f)) throw Error("clip must not be negative");
  const int64_t hidden = node.integer("hidden_size", s.hidden);
  if (hidden != s.hidden || s.hidden < 1) {
    throw Error("hidden_size is " + std::to_string(hidden) + ", R has shape " + to_string(r));
  }
  checked_extent(s.hidden, "hidden_size");
  if (w != Shape{s.directions, s.gates(), s.input} || r != Shape{s.directions, s.gates(), hidden}) {
    throw Error("W must be " + to_string({s.directions, s.gates(), s.input}) + " and R " +
                to_string({s.directions, s.gates(), hidden}) + "; they are " + to_string(w) +
                " and " + to_string(r));
  }
  s.activations = activations_from(node, s.cell, s.directions);
  return s;
}

void CellRunner::clip(float* x, int64_t n) const {
  if (s_.clip == 0.0f) return;
  const UnaryOp op = {UNARY_CLIP, -s_.clip, s_.clip};
  k_.unary(&op, 1, x, x, n);
}

void CellRunner::one_minus(const float* x, float* y) const {
  const UnaryOp op = {UNARY_RSUB, 1.0f, 0.0f};
  k_.unary(&op, 1, x, y, s_.hidden);
}

void CellRunner::rnn(const CellRow& row) const {
  combine(BINARY_ADD, row.h_gates, row.x_gates, row.h);
  clip(row.h, s_.hidden);
  f_[0].apply(k_, row.h, s_.hidden);
}

void CellRunner::lstm(const CellRow& row) const {
  const int64_t n = s_.hidden;
  float *input = row.h_gates, *output = input + n, *forget = output + n, *block = forget + n;
  k_.binary(BINARY_ADD, input, 1, row.x_gates, 1, input, 4 * n);
  if (w_.peepholes.empty() && s_.clip == 0.0f && !s_.input_forget) {
    f_[0].apply(k_, input, 3 * n);  // i o f follow each other
    f_[1].apply(k_, block, n);
    combine(BINARY_MUL, forget, row.c, row.c);
    combine(BINARY_MUL, input, block, block);
    combine(BINARY_ADD, row.c, block, row.c);
    memcpy(block, row.c, static_cast<size_t>(n) * sizeof(float));
    f_[2].apply(k_, block, n);
    combine(BINARY_MUL, output, block, row.h);
    return;
  }
  const float* p = w_.peepholes.empty() ? nullptr : w_.peepholes.data();
  // row.h is free until the end.
  const auto add_peephole = [&](const float* weights, float* gate) {
    if (p == nullptr) return;
    combine(BINARY_MUL, weights, row.c, row.h);
    combine(BINARY_ADD, gate, row.h, gate);
  };
  const auto activate = [&](const Activation& f, float* x) {
    clip(x, n);
    f.apply(k_, x, n);
  };
  add_peephole(p, input);
  activate(f_[0], input);
  if (s_.input_forget) {
    one_minus(input, forget);
  } else {
    add_peephole(p == nullptr ? p : p + 2 * n, forget);
    activate(f_[0], forget);
  }
  activate(f_[1], block);
  combine(BINARY_MUL, forget, row.c, row.c);
  combine(BINARY_MUL, input, block, block);
  combine(BINARY_ADD, row.c, block, row.c);
  add_peephole(p == nullptr ? p : p + n, output);
  activate(f_[0], output);
  memcpy(block, row.c, static_cast<size_t>(n) * sizeof(float));
  f_[2].apply(k_, block, n);
  combine(BINARY_MUL, output, block, row.h);
}

void CellRunner::gru_gates(const CellRow& row) const {
  const int64_t n = s_.hidden;
  float* update = row.h_gates;
  k_.binary(BINARY_ADD, update, 1, row.x_gates, 1, update, 2 * n);
  clip(update, 2 * n);
  f_[0].apply(k_, update, 2 * n);
  if (row.reset != nullptr) combine(BINARY_MUL, update + n, row.h, row.reset);
}

void CellRunner::gru_state(const CellRow& row) const {
  const int64_t n = s_.hidden;
  float *update = row.h_gates, *reset = update + n, *state = reset + n;
  if (s_.linear_before_reset) combine(BINARY_MUL, reset, state, state);
  combine(BINARY_ADD, state, row.x_gates + 2 * n, state);
  clip(state, n);
  f_[1].apply(k_, state, n);
  one_minus(update, reset);
  combine(BINARY_MUL, reset, state, state);
  combine(BINARY_MUL, update, row.h, row.h);
  combine(BINARY_ADD, state, row.h, row.h);
}

}  // namespace lp
