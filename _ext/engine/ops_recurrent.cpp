// ops_recurrent.cpp: RNN, GRU and LSTM, every attribute that ONNX has. See recurrent.h.
#include <string.h>

#include <algorithm>

#include "engine/recurrent.h"
#include "matrix_args.h"
#include "pack.h"
#include "share_product.h"

namespace lp {

namespace {

// X gates are made for so many steps at a time that they stay in the second-level cache until the
// steps have read them, but for no fewer rows than a product is efficient with.
constexpr int64_t BLOCK_FLOATS = 256 * 1024 / 4, EFFICIENT_ROWS = 96;
// Multiply-adds: a step's product that is worth cutting; a layer's that is worth sharing.
constexpr double LARGE_PRODUCT = 1e6, WORTH_SHARING = 200e3;
constexpr int64_t ROWS_PER_TASK = 4;

// Which operand of the node a plan tensor is; -1 in `in` where absent.
enum Operand { X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES, OPERANDS };

class RecurrentStep : public Step {
 public:
  RecurrentShape shape;
  const Kernels* kernels = nullptr;
  std::shared_ptr<RecurrentWeights> packed;  // null: weights change from run to run
  int operand[OPERANDS];                     // plan tensors, or -1
  int y = -1, y_h = -1, y_c = -1;

  // X gates, h gates, h, c, reset: for all directions.
  void finish_setup() {
    const RecurrentShape& s = shape;
    const int64_t row = s.batch * s.gates();
    block_ = s.steps;
    if (operand[LENGTHS] < 0 && row > 0) {
      const int64_t efficient = (EFFICIENT_ROWS + s.batch - 1) / s.batch;
      block_ = std::min(block_, std::max(efficient, BLOCK_FLOATS / row));
    }
    require_memory({s.directions, block_ + 4, s.batch, s.gates()}, 4);
    sizes_[0] = aligned(block_ * row);
    sizes_[1] = aligned(row);
    sizes_[2] = sizes_[3] = sizes_[4] = aligned(s.batch * s.hidden);
    per_direction_ = 0;
    for (int64_t size : sizes_) per_direction_ += size;
    scratch_bytes = s.directions * per_direction_ * 4;
    macs = static_cast<double>(s.steps * s.batch * s.directions) * static_cast<double>(s.gates()) *
           static_cast<double>(s.input + s.hidden);
  }

  void run(Pointers t, uint8_t* scratch) const override {
    std::shared_ptr<RecurrentWeights> weights = packed;
    if (weights == nullptr) {
      weights = pack_recurrent(shape, reals(t, W), reals(t, R), reals(t, B), reals(t, PEEPHOLES));
    }
    Run run{*this, t, reinterpret_cast<float*>(scratch), *weights, {}};
    run.all();
  }

 private:
  static int64_t aligned(int64_t floats) { return (floats + 15) / 16 * 16; }
  const float* reals(Pointers t, Operand which) const {
    const int id = operand[which];
    return id < 0 ? nullptr : reinterpret_cast<const float*>(t[id]);
  }

  struct Run {
    const RecurrentStep& step;
    Pointers t;
    float* scratch;
    const RecurrentWeights& weights;
    std::vector<int64_t> lengths;
    const RecurrentShape& s = step.shape;

    float* part(int64_t direction, int which) const {
      float* at = scratch + direction * step.per_direction_;
      for (int i = 0; i < which; ++i) at += step.sizes_[i];
      return at;
    }
    float* x_gates(int64_t d) const { return part(d, 0); }
    float* h_gates(int64_t d) const { return part(d, 1); }
    float* h(int64_t d) const { return part(d, 2); }
    float* c(int64_t d) const { return part(d, 3); }
    float* reset(int64_t d) const { return part(d, 4); }

    void all() {
      read_lengths();
      for (int64_t d = 0; d < s.directions; ++d) {
        start(INITIAL_H, d, h(d));
        start(INITIAL_C, d, c(d));
      }
      for (int64_t first = 0; first < s.steps; first += step.block_) {
        const int64_t last = std::min(s.steps, first + step.block_);
        for (int64_t d = 0; d < s.directions; ++d) make_x_gates(d, first, last);
        share_steps(first, last);
      }
      for (int64_t d = 0; d < s.directions; ++d) {
        finish(step.y_h, d, h(d));
        finish(step.y_c, d, c(d));
      }
    }

    void read_lengths() {
      if (step.operand[LENGTHS] < 0) return;
      const int32_t* given = reinterpret_cast<const int32_t*>(t[step.operand[LENGTHS]]);
      for (int64_t b = 0; b < s.batch; ++b) {
        if (given[b] < 0 || given[b] > s.steps) {
          throw Error("sequence_lens holds " + std::to_string(given[b]) + "; the input has " +
                      std::to_string(s.steps) + " steps");
        }
        lengths.push_back(given[b]);
      }
    }

    // Row (direction, sequence) of the states that come in and go out.
    int64_t state_row(int64_t d, int64_t b) const {
      return s.hidden * (s.batch_first ? b * s.directions + d : d * s.batch + b);
    }
    void start(Operand which, int64_t d, float* state) const {
      const float* given = step.reals(t, which);
      const size_t bytes = static_cast<size_t>(s.hidden) * sizeof(float);
      for (int64_t b = 0; b < s.batch; ++b, state += s.hidden) {
        if (given == nullptr) {
          memset(state, 0, bytes);
        } else {
          memcpy(state, given + state_row(d, b), bytes);
        }
      }
    }
    void finish(int id, int64_t d, const float* state) const {
      if (id < 0) return;
      float* result = reinterpret_cast<float*>(t[id]);
      for (int64_t b = 0; b < s.batch; ++b) {
        memcpy(result + state_row(d, b), state + b * s.hidden,
               static_cast<size_t>(s.hidden) * sizeof(float));
      }
    }

    // The earliest time of a block of steps, and the time of one.
    int64_t block_time(int64_t d, int64_t first, int64_t last) const {
      return s.runs_backward(d) ? s.steps - last : first;
    }
    int64_t time_of(int64_t d, int64_t b, int64_t number) const {
      if (!s.runs_backward(d)) return number;
      return (lengths.empty() ? s.steps : lengths[static_cast<size_t>(b)]) - 1 - number;
    }

    void make_x_gates(int64_t d, int64_t first, int64_t last) const {
      const DirectionWeights& w = weights.directions[static_cast<size_t>(d)];
      const int64_t count = last - first, time = block_time(d, first, last);
      const int64_t outer = s.batch_first ? s.batch : count,
                    inner = s.batch_first ? count : s.batch;
      const float* x = step.reals(t, X) + time * (s.batch_first ? 1 : s.batch) * s.input;
      ProductArgs args = matrix_args(x, s.input, x_gates(d), s.gates(), inner, s.input, s.gates());
      args.rows = outer;
      args.src_row = (s.batch_first ? s.steps : s.batch) * s.input;
      args.dst_row = inner * s.gates();
      args.packed = w.input.data();
      args.bias = w.input_bias.data();
      args.epilogue.kind = OUT_F32;
      run_product(step.kernels->product_f32, args);
    }

    // Sequences and directions are independent: threads take them whole. A single one with a large
    // product per step shares out each product instead.
    void share_steps(int64_t first, int64_t last) const {
      const int64_t threads = usable_threads();
      const double product =
          static_cast<double>(s.batch * s.hidden) * static_cast<double>(s.gates());
      const int64_t wanted = (threads + s.directions - 1) / s.directions;
      const int64_t groups = std::max<int64_t>(1, std::min(wanted, s.batch / ROWS_PER_TASK));
      const int64_t tasks = groups * s.directions;
      const bool cut_products = tasks < threads && product >= LARGE_PRODUCT;
      const double work = product * static_cast<double>((last - first) * s.directions);
      if (threads == 1 || cut_products || work < WORTH_SHARING) {
        for (int64_t d = 0; d < s.directions; ++d) run_steps(d, 0, s.batch, first, last);
        return;
      }
      parallel_tasks(tasks, [&](int64_t task) {
        const int64_t group = task % groups;
        run_steps(task / groups, s.batch * group / groups, s.batch * (group + 1) / groups, first,
                  last);
      });
    }

    void multiply(const float* a, const WeightVector<float>& packed_weights, const float* bias,
                  float* result, int64_t rows, int64_t n) const {
      ProductArgs args = matrix_args(a, s.hidden, result, s.gates(), rows, s.hidden, n);
      args.packed = packed_weights.data();
      args.bias = bias;
      args.epilogue.kind = OUT_F32;
      run_product(step.kernels->product_f32, args);
    }

    // Sequences [b0, b1) of direction d.
    void run_steps(int64_t d, int64_t b0, int64_t b1, int64_t first, int64_t last) const {
      const DirectionWeights& w = weights.directions[static_cast<size_t>(d)];
      const CellRunner cell(*step.kernels, s, w, d);
      const bool reset_first = !w.hidden.empty();
      const int64_t start_time = block_time(d, first, last), count = last - first;
      float* gates = h_gates(d) + b0 * s.gates();
      const int64_t columns = reset_first ? 2 * s.hidden : s.gates();
      for (int64_t number = first; number < last; ++number) {
        multiply(h(d) + b0 * s.hidden, w.recurrent, w.recurrent_bias.data(), gates, b1 - b0,
                 columns);
        const auto row = [&](int64_t b) {
          const int64_t time = time_of(d, b, number) - start_time;
          const int64_t x_row = s.batch_first ? b * count + time : time * s.batch + b;
          return CellRow{x_gates(d) + x_row * s.gates(), h_gates(d) + b * s.gates(),
                         h(d) + b * s.hidden, c(d) + b * s.hidden,
                         reset_first ? reset(d) + b * s.hidden : nullptr};
        };
        if (reset_first) {
          for (int64_t b = b0; b < b1; ++b) {
            if (!ended(b, number)) {
              cell.gru_gates(row(b));
            } else {
              memset(reset(d) + b * s.hidden, 0, static_cast<size_t>(s.hidden) * sizeof(float));
            }
          }
          multiply(reset(d) + b0 * s.hidden, w.hidden, w.recurrent_bias.data() + columns,
                   gates + columns, b1 - b0, s.hidden);
        }
        for (int64_t b = b0; b < b1; ++b) {
          if (ended(b, number)) {
            write_y(d, b, number, nullptr);
            continue;
          }
          const CellRow one = row(b);
          if (s.cell == Cell::LSTM) {
            cell.lstm(one);
          } else if (s.cell == Cell::RNN) {
            cell.rnn(one);
          } else {
            if (!reset_first) cell.gru_gates(one);
            cell.gru_state(one);
          }
          write_y(d, b, time_of(d, b, number), one.h);
        }
      }
    }

    bool ended(int64_t b, int64_t number) const {
      return !lengths.empty() && number >= lengths[static_cast<size_t>(b)];
    }

    void write_y(int64_t d, int64_t b, int64_t time, const float* state) const {
      if (step.y < 0) return;
      const int64_t row = s.batch_first ? (b * s.steps + time) * s.directions + d
                                        : (time * s.directions + d) * s.batch + b;
      float* result = reinterpret_cast<float*>(t[step.y]) + row * s.hidden;
      const size_t bytes = static_cast<size_t>(s.hidden) * sizeof(float);
      if (state == nullptr) {
        memset(result, 0, bytes);
      } else {
        memcpy(result, state, bytes);
      }
    }
  };

  int64_t block_ = 0;                                       // steps whose X gates are made together
  int64_t sizes_[5] = {0, 0, 0, 0, 0}, per_direction_ = 0;  // floats
};

void check_operand(Planner& p, const Node& node, Operand which, const Shape& wanted,
                   const char* name, DType dtype = DType::F32) {
  if (!node.has_input(which)) return;
  if (p.shape_of(node, which) != wanted || p.dtype_of(node, which) != dtype) {
    throw Error(std::string(name) + " must be " + dtype_name(dtype) + " " + to_string(wanted) +
                "; it is " + dtype_name(p.dtype_of(node, which)) + " " +
                to_string(p.shape_of(node, which)));
  }
}

void build_recurrent(Planner& p, const Node& node) {
  auto step = std::make_unique<RecurrentStep>();
  RecurrentShape& s = step->shape;
  s = recurrent_shape(node, p.shape_of(node, X), p.shape_of(node, W), p.shape_of(node, R));
  const bool lstm = s.cell == Cell::LSTM;
  const Shape state = s.batch_first ? Shape{s.batch, s.directions, s.hidden}
                                    : Shape{s.directions, s.batch, s.hidden};
  check_operand(p, node, B, {s.directions, 2 * s.gates()}, "B");
  check_operand(p, node, LENGTHS, {s.batch}, "sequence_lens", DType::S32);
  check_operand(p, node, INITIAL_H, state, "initial_h");
  if (lstm) {
    check_operand(p, node, INITIAL_C, state, "initial_c");
    check_operand(p, node, PEEPHOLES, {s.directions, 3 * s.hidden}, "P");
  }
  step->kernels = &p.kernels();
  bool constant = true;
  for (int i = 0; i < OPERANDS; ++i) {
    const size_t index = static_cast<size_t>(i);
    const bool there = node.has_input(index) && (lstm || i < INITIAL_C);
    step->operand[i] = there ? p.operand(node, index) : -1;
    const bool is_weight = i == W || i == R || i == B || i == PEEPHOLES;
    if (there && is_weight) constant = constant && p.is_known(node, index);
  }
  if (constant) {
    const auto known = [&](Operand which) {
      const int id = step->operand[which];
      return id < 0 ? nullptr : reinterpret_cast<const float*>(p.tensor(id).constant);
    };
    step->packed = std::static_pointer_cast<RecurrentWeights>(
        p.prepared(node, "recurrent", [&]() -> std::shared_ptr<Prepared> {
          return pack_recurrent(s, known(W), known(R), known(B), known(PEEPHOLES));
        }));
    for (Operand i : {W, R, B, PEEPHOLES}) step->operand[i] = -1;
  }
  for (int id : step->operand) {
    if (id >= 0) step->in.push_back(id);
  }
  const auto wanted = [&](size_t i) { return i < node.outputs.size() && node.outputs[i] >= 0; };
  const auto make = [&](size_t i, const Shape& result) {
    const int id = p.output(node, i, DType::F32, result);
    step->out.push_back(id);
    return id;
  };
  if (wanted(0)) {
    step->y = make(0, s.batch_first ? Shape{s.batch, s.steps, s.directions, s.hidden}
                                    : Shape{s.steps, s.directions, s.batch, s.hidden});
  }
  if (wanted(1) || !wanted(0)) step->y_h = make(1, state);
  if (wanted(2) && lstm) step->y_c = make(2, state);
  step->finish_setup();
  p.add(std::move(step));
}

const char* refuse_recurrent(Planner& p, const Node& node) {
  for (size_t i : {X, W, R}) {
    if (p.dtype_of(node, i) != DType::F32) return "operands are not f32";
  }
  return nullptr;
}

}  // namespace

const std::vector<Operator>& recurrent_operators() {
  static const std::vector<Operator> operators = {
      {"RNN", {{"rnn f32", refuse_recurrent, build_recurrent}}},
      {"GRU", {{"gru f32", refuse_recurrent, build_recurrent}}},
      {"LSTM", {{"lstm f32", refuse_recurrent, build_recurrent}}},
  };
  return operators;
}

}  // namespace lp
