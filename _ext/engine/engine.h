// engine.h: from a program (nodes, shape independent) to a plan (steps, one concrete input shape).
//
// An operator is one function `build(Planner&, const Node&)` (or an ordered list of them, best
// first, each of which may refuse with a reason). It reads the operands' dtypes and shapes,
// declares its outputs, and adds one Step. A Step holds plan-tensor ids and everything that it
// worked out; run() gets the table of pointers. Steps are immutable: plans are shared between
// threads, each concurrent run brings its own arena and pointer table.
//
// Layouts: a tensor's `shape` is always the logical one (N, C, spatial...). CHANNELS_LAST says that
// the memory order is N, spatial..., C. `operand(node, i, layout)` inserts a conversion where
// needed, once.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace lp {

// Values of ONNX's TensorProto.DataType.
enum class DType : int32_t {
  F32 = 1,
  U8 = 2,
  S8 = 3,
  U16 = 4,
  S16 = 5,
  S32 = 6,
  S64 = 7,
  BOOL = 9,
  F16 = 10,
  F64 = 11,
  U32 = 12,
  U64 = 13,
  BF16 = 16,
  // One element a byte, in its low bits.
  F8E4M3 = 17,
  F8E4M3FNUZ = 18,
  F8E5M2 = 19,
  F8E5M2FNUZ = 20,
  U4 = 21,
  S4 = 22,
  F4E2M1 = 23,
  F8E8M0 = 24,
  U2 = 25,
  S2 = 26,
};
int64_t dtype_size(DType dtype);  // bytes; throws Error for a dtype that the engine does not hold
const char* dtype_name(DType dtype);

// What a user must be told: it becomes a LowprecError.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Valid, but not something that this operator does natively: the node runs through the fall-back.
struct Unsupported : Error {
  using Error::Error;
};

enum class Layout : uint8_t { PLAIN, CHANNELS_LAST };

using Shape = std::vector<int64_t>;
int64_t count(const Shape& shape);                            // elements
int64_t count(const Shape& shape, size_t begin, size_t end);  // of the axes [begin, end)
// Throws Error where `shape` with elements of `size` bytes is more than this machine's memory.
void require_memory(const Shape& shape, int64_t size);
// A stride, dilation, border or kernel size: throws Error where it is too large to calculate with.
int64_t checked_extent(int64_t value, const char* what);
std::string to_string(const Shape& shape);                          // "[1, 3, 224, 224]"
Shape broadcast(const Shape& a, const Shape& b, const char* what);  // NumPy rules; throws Error
int64_t normalise_axis(int64_t axis, size_t rank, const char* what);
Shape row_major_strides(const Shape& shape);  // elements

// ------------------------------------------------------------------------------------ program
struct Attribute {
  std::vector<int64_t> ints;
  std::vector<float> floats;
  std::string text;
};

// Something worth computing once for a node and sharing between plans: packed weights.
struct Prepared {
  virtual ~Prepared() = default;
};

class Planner;
class Program;

struct Node {
  std::string op, name;
  std::vector<int> inputs;  // value ids; -1 = absent
  std::vector<int> outputs;
  std::map<std::string, Attribute> attributes;

  bool has(const std::string& key) const { return attributes.count(key) != 0; }
  int64_t integer(const std::string& key, int64_t otherwise) const;
  float real(const std::string& key, float otherwise) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  std::vector<int64_t> integers(const std::string& key,
                                const std::vector<int64_t>& otherwise = {}) const;
  std::vector<float> reals(const std::string& key) const;
  bool has_input(size_t i) const { return i < inputs.size() && inputs[i] >= 0; }

  // Guarded by Program::prepare_mutex.
  mutable std::map<std::string, std::shared_ptr<Prepared>> prepared;
};

// Unary operators run in order: attributes PREFIXcodes (UnaryCode), PREFIXa, PREFIXb.
std::vector<UnaryOp> chain_of(const Node& node, const std::string& prefix = "");

struct ProgramValue {
  std::string name;
  DType dtype = DType::F32;
  bool constant = false;
  Shape shape;                    // of a constant
  const uint8_t* data = nullptr;  // of a constant; kept alive by the owner of the program
};

// --------------------------------------------------------------------------------------- plan
// Extra pixels around each image of a channels-last tensor, so that a convolution that pads reads
// straight on. Whoever writes the tensor fills them, in every run: arena memory is reused.
struct Halo {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  bool any() const { return top || left || bottom || right; }
};

struct Tensor {
  DType dtype = DType::F32;
  Shape shape;  // logical
  Layout layout = Layout::PLAIN;
  const uint8_t* constant = nullptr;  // contents known while planning
  int storage = -1;
  int64_t offset = 0;  // of the first element in the storage, in bytes
  Halo halo;           // set when all steps are known

  int64_t elements() const { return count(shape); }
  int64_t bytes() const;  // halo included
  size_t rank() const { return shape.size(); }
  bool is_constant() const { return constant != nullptr; }
};

// A tensor that only moves what is in another one, as a place in that one: element (i, j, ..) is
// element offset + i * strides[0] + j * strides[1] + .. of `tensor`.
struct View {
  int tensor = -1;
  int64_t offset = 0;
  std::vector<int64_t> strides;  // by logical axis
};

using Pointers = uint8_t* const*;

class Step {
 public:
  virtual ~Step() = default;
  // t[id] is the memory of plan tensor `id`; `scratch` has scratch_bytes, 64-byte aligned.
  virtual void run(Pointers t, uint8_t* scratch) const = 0;

  // Halos are offered where the writer and all readers of in[0] / out[0] understand them.
  virtual bool understands_halo() const { return false; }
  virtual Halo wanted_halo() const { return {}; }  // around in[0]
  virtual void set_halos(const Halo& in_halo, const Halo& out_halo, uint8_t out_border) {
    (void)in_halo, (void)out_halo, (void)out_border;
  }
  virtual uint8_t border_code() const { return 0; }  // what wanted_halo() holds, every byte

  // Images that grow by concatenation share memory where all that write and read them agree: each
  // is then the front of pixels that are `pitch` elements apart.
  virtual bool grows_images() const { return false; }  // out[0] is in[0] and more channels
  virtual void grow(int64_t pitch, bool front_is_there) { (void)pitch, (void)front_is_there; }
  virtual bool reads_with_pitch(size_t operand) const { return (void)operand, false; }
  virtual void set_pitch(size_t operand, int64_t pitch) { (void)operand, (void)pitch; }
  // Images that are put side by side (their channels) may be written where the joined image wants
  // them, its halo left to the step that joins (Plan::write_parts_in_place).
  virtual bool writes_inside() const { return false; }  // out[0]: pixels `pitch` elements apart
  virtual void write_inside(int64_t pitch, const Halo& halo) { (void)pitch, (void)halo; }
  virtual bool joins_images() const { return false; }  // out[0] is in[0], in[1] .. side by side
  virtual bool joins_unchanged(size_t operand) const { return (void)operand, false; }
  virtual void part_is_there(size_t operand) { (void)operand; }
  // Halos of further operands: in[i] is read past one that somebody else wanted.
  virtual bool understands_halo_of(size_t i) const { return i == 0 && understands_halo(); }
  virtual void set_operand_halo(size_t i, const Halo& halo) { (void)i, (void)halo; }

  std::vector<int> in, out;  // plan tensors read and written (liveness)
  int64_t scratch_bytes = 0;
  int inplace = -1;         // in[inplace] may share memory with out[0] (same size, same layout)
  bool only_moves = false;  // a copy that is left out where nobody reads it
  double macs = 0;
  int64_t weight_bytes = 0;  // of the model's constants that are packed into the step
  const Node* node = nullptr;
  std::string kernel;   // "conv_u8s8 avx512vnni"
  std::string refused;  // "depthwise: group is 1; ..."
};

// A Step from a lambda, for operators that are one loop.
class FunctionStep : public Step {
 public:
  explicit FunctionStep(std::function<void(Pointers, uint8_t*)> body) : body_(std::move(body)) {}
  void run(Pointers t, uint8_t* scratch) const override { body_(t, scratch); }

 private:
  std::function<void(Pointers, uint8_t*)> body_;
};

class Planner {
 public:
  // ---- operands (plan tensor ids) ----
  // In the layout asked for; a conversion step is inserted where the value has the other one.
  int operand(const Node& node, size_t i, Layout layout = Layout::PLAIN);
  // In whichever layout the value has (CHANNELS_LAST preferred when it has both).
  int operand_as_is(const Node& node, size_t i);
  const Tensor& tensor(int id) const { return tensors_[static_cast<size_t>(id)]; }
  Layout layout_of(const Node& node, size_t i);  // of operand_as_is
  const Shape& shape_of(const Node& node, size_t i);
  DType dtype_of(const Node& node, size_t i);

  // ---- contents that must be known while planning; throw Error where they are not ----
  bool is_known(const Node& node, size_t i);
  std::vector<int64_t> known_integers(const Node& node, size_t i);  // s64, s32 or bool tensor
  std::vector<float> known_reals(const Node& node, size_t i);  // f32 (f16, f64, ints converted)

  // ---- outputs ----
  int output(const Node& node, size_t i, DType dtype, const Shape& shape,
             Layout layout = Layout::PLAIN);
  // The output is the same memory as `tensor`, seen with another shape (no step).
  void alias(const Node& node, size_t i, int tensor, const Shape& shape,
             Layout layout = Layout::PLAIN);
  // What a step copied from where, for readers that can read it there (view_of).
  void note_view(int id, View view);
  View view_of(int id) const;                  // the tensor itself where nothing was noted
  int made(const Node& node, size_t i) const;  // the plan tensor of an output; -1: not made
  void add(std::unique_ptr<Step> step);        // node, kernel default ("op isa") are filled in
  Step& add(const std::vector<int>& in, const std::vector<int>& out,
            std::function<void(Pointers, uint8_t*)> body);

  // ---- things shared between plans of one program ----
  std::shared_ptr<Prepared> prepared(const Node& node, const std::string& key,
                                     const std::function<std::shared_ptr<Prepared>()>& make);

  // ---- a fused node whose parts must run one by one here ----
  int new_value();                                   // a value id that is not in the program
  int new_value(DType dtype, const void* contents);  // of a known scalar
  void build_part(const Node& part);  // its steps; `part` itself need not outlive the call

  const Kernels& kernels() const { return *kernels_; }

 private:
  friend class Plan;
  friend class Program;
  Planner(const Program& program, const Kernels* kernels);
  int new_tensor(DType dtype, const Shape& shape, Layout layout);
  int convert(int tensor, Layout layout);
  void build(const Node& node);
  void fold(size_t first_step);
  void leave_out_unread_copies(const std::vector<int>& outputs);

  const Program& program_;
  const Kernels* kernels_;
  const Node* current_ = nullptr;
  std::vector<Tensor> tensors_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<int> plain_, last_;  // by value id: plan tensor in that layout, or -1
  std::map<int, View> views_;      // by plan tensor
  int storages_ = 0;
  std::vector<std::unique_ptr<uint8_t[]>> owned_;  // folded constants
  std::vector<std::shared_ptr<Prepared>> kept_;    // alive as long as the plan
};

// One way to do an operator. `refuse` returns why not, or nullptr; a null `refuse` always accepts.
struct Implementation {
  const char* name;
  const char* (*refuse)(Planner&, const Node&);
  void (*build)(Planner&, const Node&);
};

// Registration: one table per ops_*.cpp, listed in operators.cpp. No static constructors.
struct Operator {
  const char* op;
  std::vector<Implementation> implementations;  // best first
};
const Operator* find_operator(const std::string& op);  // nullptr: not native
std::vector<std::string> operator_names();

// --------------------------------------------------------------------------- operator tables
const std::vector<Operator>& conv_operators();        // ops_conv.cpp: Conv, QConv
const std::vector<Operator>& transposed_operators();  // ops_transposed.cpp
const std::vector<Operator>& matrix_operators();     // ops_matrix.cpp: MatMul, Gemm, QMatMul, QGemm
const std::vector<Operator>& attention_operators();  // ops_attention.cpp
const std::vector<Operator>& observe_operators();    // ops_observe.cpp: calibration taps
const std::vector<Operator>& elementwise_operators();  // ops_elementwise.cpp
const std::vector<Operator>& quantize_operators();     // ops_quantize.cpp
const std::vector<Operator>& qconcat_operators();      // ops_qconcat.cpp: codes side by side
const std::vector<Operator>& reduce_operators();       // ops_reduce.cpp: reductions, softmax, norms
const std::vector<Operator>& pool_operators();         // ops_pool.cpp
const std::vector<Operator>& shuffle_operators();      // ops_shuffle.cpp
const std::vector<Operator>& concat_operators();       // ops_concat.cpp
const std::vector<Operator>& shape_operators();      // ops_shape.cpp: reshape, transpose, slice...
const std::vector<Operator>& gather_operators();     // ops_gather.cpp: gathers and scatters
const std::vector<Operator>& resize_operators();     // ops_resize.cpp: resize, pad
const std::vector<Operator>& bf16_operators();       // ops_bf16.cpp: f32 arithmetic, bf16 storage
const std::vector<Operator>& cast_operators();       // ops_cast.cpp
const std::vector<Operator>& bit_operators();        // ops_bits.cpp
const std::vector<Operator>& angle_operators();      // ops_angles.cpp: trigonometric, hyperbolic
const std::vector<Operator>& sort_operators();       // ops_sort.cpp: TopK, Unique, Hardmax
const std::vector<Operator>& select_operators();     // ops_select.cpp: NonZero, Compress ...
const std::vector<Operator>& window_operators();     // ops_windows.cpp: LpPool, MaxUnpool, Col2Im
const std::vector<Operator>& sample_operators();     // ops_sample.cpp: GridSample, RoiAlign
const std::vector<Operator>& boxes_operators();      // ops_boxes.cpp: NonMaxSuppression
const std::vector<Operator>& signal_operators();     // ops_signal.cpp: DFT, STFT
const std::vector<Operator>& recurrent_operators();  // ops_recurrent.cpp: RNN, GRU, LSTM
const std::vector<Operator>& region_operators();     // ops_region.cpp: element-wise ones in a row

}  // namespace lp
