// recurrent.h: one layer of RNN, GRU or LSTM: its sizes, its packed weights, and one row of one
// step.
//
//   x gates = X * W^T + bias, all time steps in one product (in blocks that stay in the cache)
//   h gates = H * R^T, one small product per step
//   row     = the cell: gates and state of one sequence to its next state (recurrent_cells.cpp)
//
// Everything is f32; each operation rounds once, activations are those of impl/unary.inl, and
// products are FMA chains: lowprec/numerics/reference.py has the definition (rnn, gru, lstm).
#pragma once
#include "engine/engine.h"
#include "weight_memory.h"

namespace lp {

enum class Cell { RNN, GRU, LSTM };
int64_t gates_of(Cell cell);        // rows of W per hidden unit: 1, 3 (z r h), 4 (i o f c)
int64_t activations_of(Cell cell);  // per direction: 1, 2, 3

// An activation by its ONNX name, with parameters.
struct Activation {
  std::vector<UnaryOp> ops;
  bool thresholded = false;  // x > threshold ? x : 0, which is no UnaryOp
  float threshold = 0.0f;
  void apply(const Kernels& kernels, float* x, int64_t n) const;  // in place
  bool is(UnaryCode code) const { return !thresholded && ops.size() == 1 && ops[0].code == code; }
};

struct RecurrentShape {
  Cell cell = Cell::RNN;
  int64_t steps = 0, batch = 0, input = 0, hidden = 0, directions = 1;
  bool backward = false;     // direction "reverse": the only direction runs from the end
  bool batch_first = false;  // layout 1
  bool linear_before_reset = false, input_forget = false;
  float clip = 0.0f;                    // of what goes into activations; 0: none
  std::vector<Activation> activations;  // activations_of(cell) for each direction

  int64_t gates() const { return gates_of(cell) * hidden; }
  bool runs_backward(int64_t direction) const { return direction == 1 || backward; }
  const Activation* activations_for(int64_t direction) const {
    return activations.data() + direction * activations_of(cell);
  }
};

// From attributes and the shapes of X, W and R; throws Error.
RecurrentShape recurrent_shape(const Node& node, const Shape& x, const Shape& w, const Shape& r);

// What is packed for one direction (pack.h). With GRU's reset before its product, `hidden` holds
// the last gate's part of R, else it is empty and `recurrent` holds all of R.
struct DirectionWeights {
  WeightVector<float> input, recurrent, hidden;
  std::vector<float> input_bias, recurrent_bias;  // padded; added to the products of W and of R
  std::vector<float> peepholes;                   // LSTM: i o f, or empty
};
struct RecurrentWeights : Prepared {
  std::vector<DirectionWeights> directions;
};
// b and peepholes may be null. With `pack_input` false there are only R and the biases.
std::shared_ptr<RecurrentWeights> pack_recurrent(const RecurrentShape& shape, const float* w,
                                                 const float* r, const float* b,
                                                 const float* peepholes, bool pack_input = true);

// One sequence in one step. `h_gates` is overwritten; h and c are the state, before and after.
struct CellRow {
  const float* x_gates;
  float* h_gates;
  float* h;
  float* c;      // LSTM
  float* reset;  // GRU whose reset comes first: r * h, for the product that gives the last gate
};
class CellRunner {
 public:
  CellRunner(const Kernels& kernels, const RecurrentShape& shape, const DirectionWeights& weights,
             int64_t direction)
      : k_(kernels), s_(shape), w_(weights), f_(shape.activations_for(direction)) {}
  void rnn(const CellRow& row) const;
  void lstm(const CellRow& row) const;
  void gru_gates(const CellRow& row) const;  // z and r; reset = r * h
  void gru_state(const CellRow& row) const;  // the last gate and the new state

 private:
  void clip(float* x, int64_t n) const;
  void combine(BinaryCode code, const float* a, const float* b, float* y) const {
    k_.binary(code, a, 1, b, 1, y, s_.hidden);
  }
  void one_minus(const float* x, float* y) const;

  const Kernels& k_;
  const RecurrentShape& s_;
  const DirectionWeights& w_;
  const Activation* f_;
};

}  // namespace lp
