// recurrent.h: one layer of RNN, GRU or LSTM: its sizes, its packed weights, and one row of one
// step.
//
//   x gates = X * W^T + bias, all time steps in one product (in blocks that stay in the cache)
//   h gates = H * R^T, one small product per step
//   row     = the cell: gates and state of one sequence to its next state (recurrent_cells.cpp)
//
// States are f32, and so are gates; products are of floats or of codes (QRNN, QGRU, QLSTM). Each
// operation rounds once, activations are those of impl/unary.inl, and products are FMA chains:
// lowprec/numerics/reference.py has the definition (rnn, gru, lstm).
#pragma once
#include "engine/engine.h"
#include "matrix_args.h"
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

// Rows of W or R (one per gate) as the weights of a product: floats, or codes whose sums become
// floats at once: f32(acc) * (x_scale * scale) + bias.
class GateProduct {
 public:
  GateProduct() = default;
  // rows [n][k]; bias has n values or is null.
  GateProduct(const float* rows, const float* bias, int64_t n, int64_t k);
  GateProduct(const int8_t* rows, const std::vector<float>& scales, float x_scale,
              int32_t x_zero_point, const float* bias, int64_t n, int64_t k);
  bool is_integer() const { return !codes_.empty(); }
  bool is_empty() const { return n_ == 0; }
  // What sums of codes are multiplied by, padded: x_scale * scale of each row.
  const std::vector<float>& multiplier() const { return multiplier_; }
  // The product of m rows of floats or codes; strides in elements. The caller may change rows.
  ProductArgs args(const void* a, int64_t a_stride, float* y, int64_t y_stride, int64_t m) const;

 private:
  int64_t n_ = 0, k_ = 0;
  int32_t zero_point_ = 0;
  WeightVector<float> floats_;
  WeightVector<int8_t> codes_;
  std::vector<int32_t> sums_, no_bias_;
  std::vector<float> multiplier_, bias_;  // padded
  bool has_bias_ = false;
};

// What is packed for one direction. With GRU's reset before its product, `hidden` holds the last
// gate's part of R, else it is empty and `recurrent` holds all of R.
struct DirectionWeights {
  GateProduct input, recurrent, hidden;
  std::vector<float> peepholes;  // LSTM: i o f, or empty
};
struct RecurrentWeights : Prepared {
  std::vector<DirectionWeights> directions;
};

// The codes of one operand, and of what they are multiplied with; scales hold 1 value, or one for
// each gate row of a direction.
struct GateCodes {
  std::vector<float> scales;
  float x_scale = 0.0f;  // 0: products of floats, with the codes dequantised
  int32_t x_zero_point = 0;
};
// The operands as they are in memory; b and peepholes may be null. W and R are f32, or s8 where
// there are scales.
struct RecurrentOperands {
  const void *w = nullptr, *r = nullptr;
  const float *b = nullptr, *peepholes = nullptr;
  GateCodes w_codes, r_codes;
};
std::shared_ptr<RecurrentWeights> pack_recurrent(const RecurrentShape& shape,
                                                 const RecurrentOperands& operands);

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
