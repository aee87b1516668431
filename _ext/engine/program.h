// program.h: a program (what a model does) and its plans (how, for one set of input shapes).
#pragma once
#include <mutex>

#include "engine/engine.h"

namespace lp {

struct ArenaPool;

class Plan {
 public:
  Plan();
  ~Plan();
  // Runs every step. `inputs` and `outputs` are in program order; the memory of an output is
  // written directly. Safe to call from several threads at once. `nanoseconds` (one per step) may
  // be null.
  void run(const uint8_t* const* inputs, uint8_t* const* outputs, int64_t* nanoseconds) const;

  struct Row {  // for explain()
    std::string op, name, kernel, refused, shape;
    double macs;
    int64_t bytes;  // read and written: operands, results, and the constants that it was made from
  };
  std::vector<Row> rows() const;
  const std::vector<Tensor>& outputs() const { return output_tensors_; }
  int64_t arena_bytes() const { return arena_bytes_; }
  size_t steps() const { return steps_.size(); }
  // Steps read output `index`, too, and byte products read a little past their source's end.
  bool output_needs_slack(size_t index) const;

 private:
  friend class Program;
  struct Storage {
    enum Kind { ARENA, INPUT, OUTPUT, CONSTANT } kind = ARENA;
    int index = 0;  // of the input or output
    const uint8_t* constant = nullptr;
    int64_t bytes = 0, offset = -1;
    int first = -1, last = -1;  // steps
  };
  void choose_halos();
  void share_growing_images();
  void write_parts_in_place();
  void place();  // liveness, in-place merging, offsets

  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Tensor> tensors_;
  std::vector<Storage> storages_;
  std::vector<Tensor> output_tensors_;
  std::vector<int> output_ids_;
  std::vector<std::unique_ptr<uint8_t[]>> owned_;
  std::vector<std::shared_ptr<Prepared>> kept_;
  int64_t arena_bytes_ = 0, scratch_bytes_ = 0;
  bool worth_waking_ = false;  // enough work for threads that are asleep

  std::shared_ptr<ArenaPool> arenas_;
};

class Program {
 public:
  explicit Program(const Kernels* kernels);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  int add_value(const std::string& name, DType dtype);
  int add_constant(const std::string& name, DType dtype, const Shape& shape, const uint8_t* data);
  // Throws Unsupported where no native operator has that name.
  void add_node(Node node);
  void set_inputs(const std::vector<int>& ids) { inputs_ = ids; }
  void set_outputs(const std::vector<int>& ids) { outputs_ = ids; }

  // `known[i]` non-null: the contents of input i, which the plan may rely on.
  std::shared_ptr<Plan> plan(const std::vector<Shape>& shapes,
                             const std::vector<const uint8_t*>& known) const;
  // The node that the last plan() call failed on: index, or -1.
  int failed_node() const { return failed_node_; }

  const std::vector<ProgramValue>& values() const { return values_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const Kernels* kernels() const { return kernels_; }
  std::mutex& prepare_mutex() const { return prepare_mutex_; }

 private:
  const Kernels* kernels_;
  std::vector<ProgramValue> values_;
  std::vector<Node> nodes_;
  std::vector<int> inputs_, outputs_;
  std::shared_ptr<ArenaPool> arenas_;
  mutable std::mutex prepare_mutex_;
  mutable int failed_node_ = -1;
};

}  // namespace lp
