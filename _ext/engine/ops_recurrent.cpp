// ops_recurrent.cpp: RNN, GRU and LSTM, every attribute that ONNX has; QRNN, QGRU and QLSTM, whose
// X, W and R are codes: with h_scale, h is quantised in each step, too, and H * R^T is a product of
// codes. Zero point and scale of X are attributes, or operands that the run makes. See recurrent.h.
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
constexpr int32_t H_ZERO_POINT = 128;  // h is as likely negative as positive

// Which operand of the node a plan tensor is; -1 in `in` where absent.
enum Operand {
  X,
  W,
  R,
  B,
  LENGTHS,
  INITIAL_H,
  INITIAL_C,
  PEEPHOLES,
  X_ZERO_POINT,
  X_SCALE,
  OPERANDS
};

class RecurrentStep : public Step {
 public:
  RecurrentShape shape;
  const Kernels* kernels = nullptr;
  std::shared_ptr<RecurrentWeights> packed;  // null: weights change from run to run
  Product input_product = nullptr;
  float h_scale = 0.0f;   // of the codes of h; 0: it is not quantised
  int operand[OPERANDS];  // plan tensors, or -1
  int y = -1, y_h = -1, y_c = -1;

  // X gates, h gates, h, c, reset, codes of h, multipliers of X: for all directions.
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
    sizes_[5] = aligned(s.batch * s.hidden / 4 + 2);  // codes, and 3 bytes that kernels may read
    sizes_[6] = operand[X_SCALE] < 0 ? 0 : padded_channels(s.gates());
    per_direction_ = 0;
    for (int64_t size : sizes_) per_direction_ += size;
    scratch_bytes = s.directions * per_direction_ * 4;
    macs = static_cast<double>(s.steps * s.batch * s.directions) * static_cast<double>(s.gates()) *
           static_cast<double>(s.input + s.hidden);
  }

  void run(Pointers t, uint8_t* scratch) const override {
    std::shared_ptr<RecurrentWeights> weights = packed;
    if (weights == nullptr) {
      RecurrentOperands given;
      given.w = reals(t, W);
      given.r = reals(t, R);
      given.b = reals(t, B);
      given.peepholes = reals(t, PEEPHOLES);
      weights = pack_recurrent(shape, given);
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
    uint8_t* codes(int64_t d) const { return reinterpret_cast<uint8_t*>(part(d, 5)); }
    float* multiplier(int64_t d) const { return part(d, 6); }

    void all() {
      read_lengths();
      for (int64_t d = 0; d < s.directions; ++d) {
        start(INITIAL_H, d, h(d));
        start(INITIAL_C, d, c(d));
        if (step.operand[X_SCALE] >= 0) scale_multipliers(d);
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

    void scale_multipliers(int64_t d) const {
      const float scale = *step.reals(t, X_SCALE);
      const std::vector<float>& of_weights =
          weights.directions[static_cast<size_t>(d)].input.multiplier();
      for (size_t i = 0; i < of_weights.size(); ++i) multiplier(d)[i] = scale * of_weights[i];
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
      const int64_t size = w.input.is_integer() ? 1 : 4;
      const uint8_t* x = t[step.operand[X]] + time * (s.batch_first ? 1 : s.batch) * s.input * size;
      ProductArgs args = w.input.args(x, s.input, x_gates(d), s.gates(), inner);
      args.rows = outer;
      args.src_row = (s.batch_first ? s.steps : s.batch) * s.input;
      args.dst_row = inner * s.gates();
      if (step.operand[X_SCALE] >= 0) {
        args.zero_point = *t[step.operand[X_ZERO_POINT]];
        args.epilogue.multiplier = multiplier(d);
      }
      run_product(step.input_product, args);
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

    // Sequences [b0, b1) of a state of direction d, times weights.
    void multiply(const GateProduct& weights, const float* state, int64_t d, int64_t b0, int64_t b1,
                  float* result) const {
      const float* a = state + b0 * s.hidden;
      const int64_t rows = b1 - b0;
      if (!weights.is_integer()) {
        return run_product(step.kernels->product_f32,
                           weights.args(a, s.hidden, result, s.gates(), rows));
      }
      uint8_t* q = codes(d) + b0 * s.hidden;
      step.kernels->quantize_u8(a, q, rows * s.hidden, step.h_scale, H_ZERO_POINT);
      run_product(step.kernels->product_u8s8, weights.args(q, s.hidden, result, s.gates(), rows));
    }

    // Sequences [b0, b1) of direction d.
    void run_steps(int64_t d, int64_t b0, int64_t b1, int64_t first, int64_t last) const {
      const DirectionWeights& w = weights.directions[static_cast<size_t>(d)];
      const CellRunner cell(*step.kernels, s, w, d);
      const bool reset_first = !w.hidden.is_empty();
      const int64_t start_time = block_time(d, first, last), count = last - first;
      float* gates = h_gates(d) + b0 * s.gates();
      for (int64_t number = first; number < last; ++number) {
        multiply(w.recurrent, h(d), d, b0, b1, gates);
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
          multiply(w.hidden, reset(d), d, b0, b1, gates + 2 * s.hidden);
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

  int64_t block_ = 0;  // steps whose X gates are made together
  int64_t sizes_[7] = {0, 0, 0, 0, 0, 0, 0}, per_direction_ = 0;  // floats
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

std::vector<float> scales_of(const Node& node, const char* name, const RecurrentShape& s) {
  std::vector<float> scales = node.reals(name);
  if (scales.size() != 1 && static_cast<int64_t>(scales.size()) != s.gates()) {
    throw Error(std::string(name) + " must hold 1 or " + std::to_string(s.gates()) + " values");
  }
  return scales;
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
    const bool of_lstm = i == INITIAL_C || i == PEEPHOLES;
    const bool there = node.has_input(index) && (lstm || !of_lstm);
    step->operand[i] = there ? p.operand(node, index) : -1;
    const bool is_weight = i == W || i == R || i == B || i == PEEPHOLES;
    if (there && is_weight) constant = constant && p.is_known(node, index);
  }
  const bool is_integer = node.op[0] == 'Q';
  check_operand(p, node, X_ZERO_POINT, {}, "the zero point of X", DType::U8);
  check_operand(p, node, X_SCALE, {}, "the scale of X");
  const DType x_dtype = p.dtype_of(node, X);
  step->input_product = !is_integer            ? p.kernels().product_f32
                        : x_dtype == DType::S8 ? p.kernels().product_s8s8
                                               : p.kernels().product_u8s8;
  step->h_scale = node.real("h_scale", 0.0f);
  if (constant) {
    const auto known = [&](Operand which) {
      const int id = step->operand[which];
      return id < 0 ? nullptr : p.tensor(id).constant;
    };
    step->packed = std::static_pointer_cast<RecurrentWeights>(
        p.prepared(node, "recurrent", [&]() -> std::shared_ptr<Prepared> {
          RecurrentOperands given;
          given.w = known(W);
          given.r = known(R);
          given.b = reinterpret_cast<const float*>(known(B));
          given.peepholes = reinterpret_cast<const float*>(known(PEEPHOLES));
          if (is_integer) {
            given.w_codes = {scales_of(node, "w_scale", s), node.real("x_scale", 1.0f),
                             static_cast<int32_t>(node.integer("x_zero_point", 0))};
            if (p.dtype_of(node, R) == DType::S8) {
              given.r_codes = {scales_of(node, "r_scale", s), step->h_scale, H_ZERO_POINT};
            }
          }
          return pack_recurrent(s, given);
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

const char* refuse_integer(Planner& p, const Node& node) {
  const DType x = p.dtype_of(node, X), r = p.dtype_of(node, R);
  if (x != DType::U8 && x != DType::S8) return "input is not u8 or s8";
  if (p.dtype_of(node, W) != DType::S8) return "W is not s8";
  if (r != DType::S8 && r != DType::F32) return "R is not s8 or f32";
  for (size_t i : {W, R, B, PEEPHOLES}) {
    if (node.has_input(i) && !p.is_known(node, i)) return "the weights are not constant";
  }
  const bool has_zero = node.has_input(X_ZERO_POINT), has_scale = node.has_input(X_SCALE);
  if (has_zero != has_scale) return "only one of zero point and scale of X comes from the run";
  if (has_zero && x != DType::U8) return "input of the run's own range is not u8";
  return nullptr;
}

}  // namespace

const std::vector<Operator>& recurrent_operators() {
  static const std::vector<Operator> operators = {
      {"RNN", {{"rnn f32", refuse_recurrent, build_recurrent}}},
      {"GRU", {{"gru f32", refuse_recurrent, build_recurrent}}},
      {"LSTM", {{"lstm f32", refuse_recurrent, build_recurrent}}},
      {"QRNN", {{"rnn int8", refuse_integer, build_recurrent}}},
      {"QGRU", {{"gru int8", refuse_integer, build_recurrent}}},
      {"QLSTM", {{"lstm int8", refuse_integer, build_recurrent}}},
  };
  return operators;
}

}  // namespace lp
