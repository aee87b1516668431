// ops_region.cpp: element-wise operators in a row as one step (ai.lowprec Elementwise).
//
//   x, rq ──► [ Dequantize | binary | unary chain | Quantize ] ... ──► y
//
// A small straight-line program runs over blocks that stay in the first-level cache: each operand
// is read once, the result is written once, nothing in between reaches memory. Every instruction is
// the kernel that the operator by itself would call, so the bits are those of the operators one by
// one. Operands broadcast as NumPy has it; all results must have the shape of the last one. Where
// that does not hold for the shapes at hand, the operators become steps of their own.
//
// Attributes, one entry per instruction: kinds (Kind), left and right (value: operands first, then
// results; -1: none), codes (BinaryCode, or the DType of codes), scales and zero_points, chain_ends
// (into chain_codes, chain_a, chain_b: unary operators).
#include <string.h>

#include <algorithm>

#include "engine/views.h"

namespace lp {
namespace {

enum Kind : int64_t { CHAIN = 0, BINARY = 1, DEQUANTIZE = 2, QUANTIZE = 3 };

struct Instruction {
  int64_t kind = CHAIN;
  int left = -1, right = -1;
  int32_t code = 0;
  float scale = 1.0f;
  int32_t zero_point = 0;
  std::vector<UnaryOp> chain;
  int slot = -1;        // of the block's memory; -1: the result itself
  bool affine = false;  // the first of Sub, Mul, Add with one value a column: scale_shift does them
  bool affine_codes = false;  // and Quantize to u8 behind them: scale_shift_u8
};

std::vector<Instruction> instructions_of(const Node& node) {
  const auto kinds = node.integers("kinds"), left = node.integers("left"),
             right = node.integers("right"), codes = node.integers("codes"),
             zero_points = node.integers("zero_points"), ends = node.integers("chain_ends");
  const std::vector<float> scales = node.reals("scales");
  const std::vector<UnaryOp> ops = chain_of(node, "chain_");
  const size_t n = kinds.size();
  for (const size_t size :
       {left.size(), right.size(), codes.size(), zero_points.size(), ends.size(), scales.size()}) {
    if (size != n || n == 0) throw Error("lists of different lengths");
  }
  std::vector<Instruction> all(n);
  size_t begin = 0;
  for (size_t i = 0; i < n; ++i) {
    Instruction& now = all[i];
    now.kind = kinds[i];
    const auto known = static_cast<int64_t>(node.inputs.size() + i);
    const bool two = now.kind == BINARY;
    if (left[i] < 0 || left[i] >= known || (two && (right[i] < 0 || right[i] >= known))) {
      throw Error("an operand that is not made yet");
    }
    now.left = static_cast<int>(left[i]);
    now.right = two ? static_cast<int>(right[i]) : -1;
    now.code = static_cast<int32_t>(codes[i]);
    now.scale = scales[i];
    now.zero_point = static_cast<int32_t>(zero_points[i]);
    const auto end = static_cast<size_t>(ends[i]);
    if (ends[i] < 0 || end < begin || end > ops.size()) throw Error("chain_ends");
    now.chain.assign(ops.begin() + static_cast<int64_t>(begin),
                     ops.begin() + static_cast<int64_t>(end));
    begin = end;
    const bool first = now.left < static_cast<int>(node.inputs.size());
    if ((now.kind == DEQUANTIZE && !first) || (now.kind == QUANTIZE && i + 1 < n)) {
      throw Error("codes inside");
    }
  }
  return all;
}

// ------------------------------------------------------------------------------------ one step

constexpr int64_t BLOCK = 2048;  // elements: three blocks of floats leave room in 32 KB

class RegionStep : public Step {
 public:
  const Kernels* kernels = nullptr;
  Nest nest;  // the result, then the operands
  std::vector<Instruction> program;
  int slots = 0;
  DType dtype = DType::F32;

  void finish_setup() {
    n_ = nest.size(0);
    rows_ = nest.size(1);
    outer_ = 1;
    for (size_t axis = 2; axis < nest.rank(); ++axis) outer_ *= nest.size(axis);
    n_step_ = std::min(n_, BLOCK);
    row_step_ = std::max<int64_t>(1, std::min(rows_, BLOCK / n_step_));
    n_blocks_ = (n_ + n_step_ - 1) / n_step_;
    row_blocks_ = (rows_ + row_step_ - 1) / row_step_;
    operands_ = static_cast<int>(in.size());
    for (int k = 0; k < operands_; ++k) {
      dense_.push_back(nest.strides[static_cast<size_t>(k) + 1] == nest.strides[0]);
    }
    find_affine();
    allocate();
  }
  bool is_dense(int operand) const { return dense_[static_cast<size_t>(operand)]; }

  // Pixels of an operand that only the affine step reads may lie apart.
  bool reads_with_pitch(size_t operand) const override {
    const int value = static_cast<int>(operand);
    if (nest.rank() != 2 || !is_dense(value) || uses(value) != 1) return false;
    for (const Instruction& now : program) {
      if (now.left == value) return now.affine && sizes_[operand] == 4 && n_step_ == n_;
    }
    return false;
  }
  void set_pitch(size_t operand, int64_t pitch) override {
    nest.strides[operand + 1][0] = pitch;
    dense_[operand] = false;
    inplace = -1;
  }

  void run(Pointers t, uint8_t*) const override {
    if (nest.empty) return;
    const int64_t blocks = outer_ * row_blocks_ * n_blocks_;
    const int64_t work = n_step_ * row_step_ * static_cast<int64_t>(program.size());
    parallel_rows(blocks, grain_of_rows(VECTOR_GRAIN, work), [&](int64_t begin, int64_t end) {
      float* memory =
          reinterpret_cast<float*>(thread_scratch(std::max(1, slots) * slot_floats() * int64_t{4}));
      for (int64_t i = begin; i < end; ++i) run_block(t, i, memory);
    });
  }

 private:
  int64_t n_ = 1, rows_ = 1, outer_ = 1;
  int64_t n_step_ = 1, row_step_ = 1, n_blocks_ = 1, row_blocks_ = 1;
  int operands_ = 0;
  std::vector<bool> dense_;

  int64_t slot_floats() const { return (n_step_ * row_step_ + 15) / 16 * 16; }

  bool is_column_vector(int value) const {
    if (value < 0 || value >= operands_) return false;
    const size_t k = static_cast<size_t>(value) + 1;
    return nest.stride(k, 0) == 1 && nest.stride(k, 1) == 0;
  }
  // ((x - a) * b) + c, where nobody else reads what is in between.
  void find_affine() {
    for (size_t i = 0; i + 2 < program.size(); ++i) {
      const int first = operands_ + static_cast<int>(i);
      const Instruction &sub = program[i], &mul = program[i + 1], &add = program[i + 2];
      program[i].affine = sub.kind == BINARY && sub.code == BINARY_SUB && mul.kind == BINARY &&
                          mul.code == BINARY_MUL && add.kind == BINARY && add.code == BINARY_ADD &&
                          mul.left == first && add.left == first + 1 &&
                          is_column_vector(sub.right) && is_column_vector(mul.right) &&
                          is_column_vector(add.right) &&
                          (sub.left >= operands_ || dense_[static_cast<size_t>(sub.left)]) &&
                          uses(first) == 1 && uses(first + 1) == 1;
      if (!program[i].affine) continue;
      const Instruction& behind = program[std::min(i + 3, program.size() - 1)];
      program[i].affine_codes = i + 4 == program.size() && behind.kind == QUANTIZE &&
                                behind.code == static_cast<int32_t>(DType::U8) &&
                                behind.left == first + 2 && uses(first + 2) == 1;
      i += 2;
    }
  }
  int uses(int value) const {
    int count = 0;
    for (const Instruction& other : program)
      count += (other.left == value) + (other.right == value);
    return count;
  }

  // Places for what lives from one instruction to another. The last writes to the result.
  void allocate() {
    std::vector<int> free;
    std::vector<size_t> last(program.size(), 0);
    for (size_t i = 0; i < program.size(); ++i) {
      for (const int value : {program[i].left, program[i].right}) {
        if (value >= operands_) last[static_cast<size_t>(value - operands_)] = i;
      }
    }
    for (size_t i = 0; i + 1 < program.size(); ++i) {
      if (free.empty()) free.push_back(slots++);
      program[i].slot = free.back();
      free.pop_back();
      // Another place than the operands': a binary kernel may write over what it reads only where
      // that is not repeated.
      for (size_t j = 0; j <= i; ++j) {
        if (last[j] == i && program[j].slot >= 0 && j < i) free.push_back(program[j].slot);
      }
    }
  }

  // Where a value is in the block.
  struct View {
    const uint8_t* data;
    int64_t row, step;
  };

  void run_block(Pointers t, int64_t block, float* memory) const {
    const int64_t n0 = block % n_blocks_ * n_step_, rest = block / n_blocks_;
    const int64_t r0 = rest % row_blocks_ * row_step_;
    int64_t o = rest / row_blocks_;
    const int64_t n = std::min(n_step_, n_ - n0), rows = std::min(row_step_, rows_ - r0);
    const size_t tensors = static_cast<size_t>(operands_) + 1;
    constexpr size_t MOST = 32;
    int64_t at[MOST];
    for (size_t k = 0; k < tensors; ++k) at[k] = n0 * nest.stride(k, 0) + r0 * nest.stride(k, 1);
    for (size_t axis = 2; axis < nest.rank(); ++axis) {
      const int64_t index = o % nest.size(axis);
      o /= nest.size(axis);
      for (size_t k = 0; k < tensors; ++k) at[k] += index * nest.stride(k, axis);
    }
    View views[MOST * 2];
    for (int k = 0; k < operands_; ++k) {
      const size_t i = static_cast<size_t>(k) + 1;
      const int64_t size = sizes_[static_cast<size_t>(k)];
      const int64_t row = dense_[static_cast<size_t>(k)] ? n : nest.stride(i, 1);
      const int64_t step = dense_[static_cast<size_t>(k)] ? 1 : nest.stride(i, 0);
      views[k] = {t[in[static_cast<size_t>(k)]] + at[i] * size, row, step};
    }
    uint8_t* result = t[out[0]] + at[0] * (dtype == DType::F32 ? 4 : 1);
    for (size_t i = 0; i < program.size(); ++i) {
      const size_t last = i + (program[i].affine_codes ? 3 : program[i].affine ? 2 : 0);
      fetch_next(views, rows * n, i, last + 1);
      const int slot = program[last].slot;
      uint8_t* made = slot < 0 ? result : reinterpret_cast<uint8_t*>(memory + slot * slot_floats());
      if (program[i].affine) {
        const View& x = views[program[i].left];
        const auto column = [&](size_t which) {
          return reinterpret_cast<const float*>(views[program[which].right].data);
        };
        if (program[i].affine_codes) {
          const ScaleShiftCodesArgs args = {reinterpret_cast<const float*>(x.data),
                                            made,
                                            rows,
                                            n,
                                            x.row,
                                            column(i),
                                            column(i + 1),
                                            column(i + 2),
                                            program[last].scale,
                                            program[last].zero_point};
          kernels->scale_shift_u8(&args);
          return;
        }
        ScaleShiftArgs args = {reinterpret_cast<const float*>(x.data),
                               reinterpret_cast<float*>(made),
                               rows,
                               n,
                               n,
                               column(i),
                               column(i + 1),
                               column(i + 2),
                               1};
        if (x.row != n) {
          args.rows = 1;
          for (int64_t row = 1; row < rows; ++row, args.x += x.row, args.y += n) {
            kernels->scale_shift(&args);
          }
        }
        kernels->scale_shift(&args);
      } else {
        run_one(program[i], views, made, rows, n);
      }
      i = last;
      views[static_cast<size_t>(operands_) + i] = {made, n, 1};
    }
  }

  // Brings what the next block reads into the cache while this one is computed, a share of it
  // before each instruction: memory would rest otherwise. Dense operands go on where this block
  // ends.
  void fetch_next(const View* views, int64_t elements, size_t from, size_t to) const {
    const int64_t all = static_cast<int64_t>(program.size());
    for (int k = 0; k < operands_; ++k) {
      if (!dense_[static_cast<size_t>(k)]) continue;
      const int64_t bytes = elements * sizes_[static_cast<size_t>(k)];
      const uint8_t* next = views[k].data + bytes;
      const int64_t begin = bytes * static_cast<int64_t>(from) / all / 64 * 64;
      const int64_t end = bytes * static_cast<int64_t>(to) / all;
      for (int64_t at = begin; at < end; at += 64) __builtin_prefetch(next + at, 0, 3);
    }
  }

  void run_one(const Instruction& now, const View* views, uint8_t* made, int64_t rows,
               int64_t n) const {
    const View& x = views[now.left];
    const auto* floats = reinterpret_cast<const float*>(x.data);
    const int64_t all = rows * n;
    switch (now.kind) {
      case CHAIN:
        kernels->unary(now.chain.data(), static_cast<int32_t>(now.chain.size()), floats,
                       reinterpret_cast<float*>(made), all);
        return;
      case BINARY: {
        const View& b = views[now.right];
        const BinaryArgs args = {floats,
                                 reinterpret_cast<const float*>(b.data),
                                 reinterpret_cast<float*>(made),
                                 rows,
                                 n,
                                 x.row,
                                 x.step,
                                 b.row,
                                 b.step};
        kernels->binary_rows(now.code, &args);
        return;
      }
      case DEQUANTIZE:
        if (now.code == static_cast<int32_t>(DType::U8)) {
          kernels->dequantize_u8(x.data, reinterpret_cast<float*>(made), all, now.scale,
                                 now.zero_point);
        } else {
          kernels->dequantize_s8(reinterpret_cast<const int8_t*>(x.data),
                                 reinterpret_cast<float*>(made), all, now.scale, now.zero_point);
        }
        return;
      default:
        if (now.code == static_cast<int32_t>(DType::U8)) {
          kernels->quantize_u8(floats, made, all, now.scale, now.zero_point);
        } else {
          kernels->quantize_s8(floats, reinterpret_cast<int8_t*>(made), all, now.scale,
                               now.zero_point);
        }
    }
  }

 public:
  std::vector<int64_t> sizes_;  // bytes of an element, by operand
};

// ------------------------------------------------------------------------- steps of their own

const char* binary_name(int32_t code) {
  switch (code) {
    case BINARY_ADD:
      return "Add";
    case BINARY_SUB:
      return "Sub";
    case BINARY_MUL:
      return "Mul";
    case BINARY_DIV:
      return "Div";
    case BINARY_MIN:
      return "Min";
    case BINARY_MAX:
      return "Max";
    case BINARY_PRELU:
      return "PRelu";
    default:
      throw Error("binary operator " + std::to_string(code));
  }
}

void build_one_by_one(Planner& p, const Node& node, const std::vector<Instruction>& program) {
  std::vector<int> values = node.inputs;
  for (size_t i = 0; i < program.size(); ++i) {
    const Instruction& now = program[i];
    Node part;
    part.name = node.name;
    part.inputs = {values[static_cast<size_t>(now.left)]};
    part.outputs = {i + 1 < program.size() ? p.new_value() : node.outputs[0]};
    if (now.kind == BINARY) {
      part.op = binary_name(now.code);
      part.inputs.push_back(values[static_cast<size_t>(now.right)]);
    } else if (now.kind == CHAIN) {
      part.op = "UnaryChain";
      for (const UnaryOp& op : now.chain) {
        part.attributes["codes"].ints.push_back(op.code);
        part.attributes["a"].floats.push_back(op.a);
        part.attributes["b"].floats.push_back(op.b);
      }
    } else {
      part.op = now.kind == QUANTIZE ? "QuantizeLinear" : "DequantizeLinear";
      const uint8_t zero = static_cast<uint8_t>(now.zero_point);
      part.inputs.push_back(p.new_value(DType::F32, &now.scale));
      part.inputs.push_back(p.new_value(static_cast<DType>(now.code), &zero));
    }
    p.build_part(part);
    values.push_back(part.outputs[0]);
  }
}

bool is_code(DType dtype) { return dtype == DType::U8 || dtype == DType::S8; }

// Every result has the shape of the last, and operands have the types that instructions read.
bool is_uniform(Planner& p, const Node& node, const std::vector<Instruction>& program) {
  constexpr size_t MOST_OPERANDS = 31, MOST_INSTRUCTIONS = 32;
  const size_t operands = node.inputs.size();
  if (operands > MOST_OPERANDS || program.size() > MOST_INSTRUCTIONS) return false;
  std::vector<Shape> shapes;
  for (size_t i = 0; i < operands; ++i) shapes.push_back(p.shape_of(node, i));
  for (const Instruction& now : program) {
    Shape made = shapes[static_cast<size_t>(now.left)];
    if (now.kind == BINARY) {
      made = broadcast(made, shapes[static_cast<size_t>(now.right)], "Elementwise");
    }
    shapes.push_back(made);
    for (const int value : {now.left, now.right}) {
      if (value < 0 || static_cast<size_t>(value) >= operands) continue;
      const DType dtype = p.dtype_of(node, static_cast<size_t>(value));
      const bool fits =
          now.kind == DEQUANTIZE ? dtype == static_cast<DType>(now.code) : dtype == DType::F32;
      if (!fits) return false;
    }
  }
  for (size_t i = operands; i < shapes.size(); ++i) {
    if (shapes[i] != shapes.back()) return false;
  }
  return true;
}

// Saturation does what a Relu just before does, where the smallest code stands for 0 (a NaN becomes
// that code either way): the Relu goes.
std::vector<Instruction> without_last_relu(std::vector<Instruction> program, size_t operands) {
  const size_t n = program.size();
  if (n < 2) return program;
  Instruction &last = program[n - 1], &before = program[n - 2];
  const int32_t smallest = last.code == static_cast<int32_t>(DType::U8) ? 0 : -128;
  if (last.kind != QUANTIZE || last.zero_point != smallest || before.kind != CHAIN ||
      last.left != static_cast<int>(operands + n - 2) || before.chain.empty() ||
      before.chain.back().code != UNARY_RELU) {
    return program;
  }
  before.chain.pop_back();
  if (before.chain.empty()) {
    last.left = before.left;
    program.erase(program.end() - 2);
  }
  return program;
}

void build_region(Planner& p, const Node& node) {
  const std::vector<Instruction> program = instructions_of(node);
  if (!is_uniform(p, node, program)) return build_one_by_one(p, node, program);
  const Broadcast operands = broadcast_operands(p, node, 0, node.inputs.size());
  auto step = std::make_unique<RegionStep>();
  step->kernels = &p.kernels();
  step->nest = operands.nest;
  step->program = without_last_relu(program, node.inputs.size());
  step->in = operands.ids;
  for (const int id : step->in) step->sizes_.push_back(dtype_size(p.tensor(id).dtype));
  step->finish_setup();
  // What is read as a whole must lie as the result does.
  for (const Instruction& now : program) {
    const bool whole = now.kind == CHAIN || now.kind == DEQUANTIZE || now.kind == QUANTIZE;
    if (whole && now.left < static_cast<int>(node.inputs.size()) && !step->is_dense(now.left)) {
      return build_one_by_one(p, node, program);
    }
  }
  const Instruction& last = program.back();
  step->dtype = last.kind == QUANTIZE ? static_cast<DType>(last.code) : DType::F32;
  if (!is_code(step->dtype) && step->dtype != DType::F32) throw Error("codes must be u8 or s8");
  step->out = {p.output(node, 0, step->dtype, operands.shape, operands.layout)};
  if (step->dtype == DType::F32 && operands.full >= 0) {
    const int full = step->in[static_cast<size_t>(operands.full)];
    if (p.tensor(full).dtype == DType::F32) step->inplace = operands.full;
  }
  p.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& region_operators() {
  static const std::vector<Operator> table = {
      {"Elementwise", {{"elementwise in blocks", nullptr, build_region}}},
  };
  return table;
}

}  // namespace lp
