// planner.cpp: from nodes to the steps of one plan.
//
//   nodes ──build──► steps + plan tensors ──fold──► fewer steps ──(plan.cpp)──► halos, one arena
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <iterator>

#include "engine/layouts.h"
#include "engine/memory.h"
#include "engine/views.h"

namespace lp {

namespace {

// What is folded while planning must be cheap to keep: shape arithmetic, small tables.
constexpr int64_t FOLD_LIMIT = int64_t{1} << 20;

class Copy : public Step {
 public:
  explicit Copy(int64_t bytes) : bytes_(bytes) {}
  void run(Pointers t, uint8_t*) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    parallel_rows(bytes_, COPY_GRAIN, [&](int64_t begin, int64_t end) {
      memcpy(dst + begin, src + begin, static_cast<size_t>(end - begin));
    });
  }

 private:
  int64_t bytes_;
};

}  // namespace

Planner::Planner(const Program& program, const Kernels* kernels)
    : program_(program),
      kernels_(kernels),
      plain_(program.values().size(), -1),
      last_(program.values().size(), -1) {}

int Planner::new_tensor(DType dtype, const Shape& shape, Layout layout) {
  for (int64_t extent : shape) {
    if (extent < 0) throw Error("negative size in shape " + to_string(shape));
  }
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.layout = shape.size() < 3 ? Layout::PLAIN : layout;
  tensor.storage = storages_++;
  require_memory(shape, dtype_size(dtype));
  tensors_.push_back(tensor);
  return static_cast<int>(tensors_.size()) - 1;
}

int Planner::convert(int id, Layout layout) {
  const Tensor from = tensor(id);
  if (from.layout == layout) return id;
  if (layouts_agree(from.shape)) {
    Tensor seen = from;
    seen.layout = layout;
    tensors_.push_back(seen);
    return static_cast<int>(tensors_.size()) - 1;
  }
  const int to = new_tensor(from.dtype, from.shape, layout);
  const int64_t channels = from.shape[1], space = count(from.shape, 2, from.shape.size());
  const bool to_last = layout == Layout::CHANNELS_LAST;
  const int64_t size = dtype_size(from.dtype);
  auto step = to_last && channels <= FEW_PLANES && from.rank() <= 4
                  ? planes_to_pixels(size, from.shape)
                  : turning_step(size, from.shape[0], to_last ? channels : space,
                                 to_last ? space : channels);
  step->in = {id};
  step->out = {to};
  step->kernel = to_last ? "to channels-last" : "to channels-first";
  const size_t first = steps_.size();
  add(std::move(step));
  if (from.is_constant()) fold(first);
  return to;
}

int Planner::operand(const Node& node, size_t i, Layout layout) {
  const int id = operand_as_is(node, i);
  if (tensor(id).rank() < 3) return id;
  const size_t value = static_cast<size_t>(node.inputs[i]);
  int& known = layout == Layout::PLAIN ? plain_[value] : last_[value];
  if (known < 0) known = convert(id, layout);
  return known;
}

int Planner::operand_as_is(const Node& node, size_t i) {
  if (!node.has_input(i)) throw Error("operand " + std::to_string(i) + " is missing");
  const size_t value = static_cast<size_t>(node.inputs[i]);
  const int id = last_[value] >= 0 ? last_[value] : plain_[value];
  if (id < 0) {
    const bool named = value < program_.values().size();
    throw Error("value '" + (named ? program_.values()[value].name : node.name) +
                "' is used before it is made");
  }
  return id;
}

Layout Planner::layout_of(const Node& node, size_t i) {
  return tensor(operand_as_is(node, i)).layout;
}
const Shape& Planner::shape_of(const Node& node, size_t i) {
  return tensor(operand_as_is(node, i)).shape;
}
DType Planner::dtype_of(const Node& node, size_t i) { return tensor(operand_as_is(node, i)).dtype; }

bool Planner::is_known(const Node& node, size_t i) {
  return tensor(operand_as_is(node, i)).is_constant();
}

namespace {
template <class To>
std::vector<To> contents(const Tensor& tensor, const std::string& what) {
  if (!tensor.is_constant()) throw Unsupported(what + " must be known before the run");
  std::vector<To> values(static_cast<size_t>(tensor.elements()));
  const uint8_t* p = tensor.constant;
  for (size_t i = 0; i < values.size(); ++i) {
    switch (tensor.dtype) {
      case DType::S64:
        values[i] = static_cast<To>(reinterpret_cast<const int64_t*>(p)[i]);
        break;
      case DType::S32:
        values[i] = static_cast<To>(reinterpret_cast<const int32_t*>(p)[i]);
        break;
      case DType::F32:
        values[i] = static_cast<To>(reinterpret_cast<const float*>(p)[i]);
        break;
      case DType::F64:
        values[i] = static_cast<To>(reinterpret_cast<const double*>(p)[i]);
        break;
      case DType::BF16: {
        const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(p)[i]} << 16;
        float real;
        memcpy(&real, &bits, sizeof(real));
        values[i] = static_cast<To>(real);
        break;
      }
      case DType::S8:
        values[i] = static_cast<To>(reinterpret_cast<const int8_t*>(p)[i]);
        break;
      case DType::U8:
      case DType::BOOL:
        values[i] = static_cast<To>(p[i]);
        break;
      default:
        throw Unsupported(what + ": element type " + dtype_name(tensor.dtype));
    }
  }
  return values;
}
}  // namespace

std::vector<int64_t> Planner::known_integers(const Node& node, size_t i) {
  return contents<int64_t>(tensor(operand(node, i)), "operand " + std::to_string(i));
}
std::vector<float> Planner::known_reals(const Node& node, size_t i) {
  return contents<float>(tensor(operand(node, i)), "operand " + std::to_string(i));
}

int Planner::output(const Node& node, size_t i, DType dtype, const Shape& shape, Layout layout) {
  const int id = new_tensor(dtype, shape, layout);
  if (i < node.outputs.size() && node.outputs[i] >= 0) {
    const size_t value = static_cast<size_t>(node.outputs[i]);
    (tensor(id).layout == Layout::PLAIN ? plain_ : last_)[value] = id;
  }
  return id;
}

void Planner::alias(const Node& node, size_t i, int source, const Shape& shape, Layout layout) {
  const bool negative = std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n < 0; });
  if (negative || count(shape) != tensor(source).elements()) {
    throw Error("cannot see " + to_string(tensor(source).shape) + " as " + to_string(shape));
  }
  Tensor seen = tensor(source);
  seen.shape = shape;
  seen.layout = shape.size() < 3 ? Layout::PLAIN : layout;
  tensors_.push_back(seen);
  if (i < node.outputs.size() && node.outputs[i] >= 0) {
    const size_t value = static_cast<size_t>(node.outputs[i]);
    (seen.layout == Layout::PLAIN ? plain_ : last_)[value] = static_cast<int>(tensors_.size()) - 1;
  }
}

int Planner::made(const Node& node, size_t i) const {
  if (i >= node.outputs.size() || node.outputs[i] < 0) return -1;
  const size_t value = static_cast<size_t>(node.outputs[i]);
  return last_[value] >= 0 ? last_[value] : plain_[value];
}

void Planner::note_view(int id, View view) { views_[id] = std::move(view); }

View Planner::view_of(int id) const {
  const auto known = views_.find(id);
  return known != views_.end() ? known->second : View{id, 0, strides_of(tensor(id))};
}

// Copies whose readers all read the original (view_of).
void Planner::leave_out_unread_copies(const std::vector<int>& outputs) {
  std::vector<bool> read(static_cast<size_t>(storages_), false);
  const auto storage = [&](int id) { return static_cast<size_t>(tensor(id).storage); };
  for (const int id : outputs) read[storage(id)] = true;
  std::vector<std::unique_ptr<Step>> kept;
  for (size_t i = steps_.size(); i-- > 0;) {
    const bool wanted = std::any_of(steps_[i]->out.begin(), steps_[i]->out.end(),
                                    [&](int id) { return read[storage(id)]; });
    if (steps_[i]->only_moves && !wanted) continue;
    for (const int id : steps_[i]->in) read[storage(id)] = true;
    kept.push_back(std::move(steps_[i]));
  }
  steps_.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

void Planner::add(std::unique_ptr<Step> step) {
  step->node = current_;
  if (step->kernel.empty()) step->kernel = current_ ? current_->op : "";
  steps_.push_back(std::move(step));
}

Step& Planner::add(const std::vector<int>& in, const std::vector<int>& out,
                   std::function<void(Pointers, uint8_t*)> body) {
  auto step = std::make_unique<FunctionStep>(std::move(body));
  step->in = in;
  step->out = out;
  Step& added = *step;
  add(std::move(step));
  return added;
}

std::shared_ptr<Prepared> Planner::prepared(
    const Node& node, const std::string& key,
    const std::function<std::shared_ptr<Prepared>()>& make) {
  const std::lock_guard<std::mutex> lock(program_.prepare_mutex());
  std::shared_ptr<Prepared>& slot = node.prepared[key];
  if (!slot) slot = make();
  kept_.push_back(slot);
  return slot;
}

int Planner::new_value() {
  plain_.push_back(-1);
  last_.push_back(-1);
  return static_cast<int>(plain_.size()) - 1;
}

int Planner::new_value(DType dtype, const void* contents) {
  const int id = new_tensor(dtype, {}, Layout::PLAIN), value = new_value();
  owned_.push_back(zeroed(rounded(dtype_size(dtype))));
  memcpy(owned_.back().get(), contents, static_cast<size_t>(dtype_size(dtype)));
  tensors_[static_cast<size_t>(id)].constant = owned_.back().get();
  plain_[static_cast<size_t>(value)] = id;
  return value;
}

void Planner::build(const Node& node) {
  current_ = &node;
  build_part(node);
}

void Planner::build_part(const Node& node) {
  const size_t first = steps_.size();
  std::string refused;
  for (const Implementation& way : find_operator(node.op)->implementations) {
    const char* why = way.refuse ? way.refuse(*this, node) : nullptr;
    if (why) {
      refused += (refused.empty() ? "" : "; ") + std::string(way.name) + ": " + why;
      continue;
    }
    way.build(*this, node);
    for (size_t i = first; i < steps_.size(); ++i) {
      if (steps_[i]->kernel == current_->op) steps_[i]->kernel = way.name;
      if (steps_[i]->refused.empty()) steps_[i]->refused = refused;
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const int value = node.outputs[i];
      if (value >= 0 && plain_[static_cast<size_t>(value)] < 0 &&
          last_[static_cast<size_t>(value)] < 0) {
        throw Unsupported(node.op + ": output " + std::to_string(i) + " is not made natively");
      }
    }
    fold(first);
    return;
  }
  throw Unsupported(node.op + ": " + refused);
}

// Runs the steps since `first` now, where everything that they read is known and small.
void Planner::fold(size_t first) {
  int64_t total = 0;
  for (size_t i = first; i < steps_.size(); ++i) {
    if (steps_[i]->out.empty()) return;  // it is there for what it does, not for what it makes
    for (int id : steps_[i]->in) {
      bool made_here = false;
      for (size_t j = first; j < i; ++j) {
        for (int out : steps_[j]->out) made_here |= tensor(out).storage == tensor(id).storage;
      }
      if (!tensor(id).is_constant() && !made_here) return;
    }
    for (int id : steps_[i]->out) total += tensor(id).bytes();
  }
  if (first == steps_.size() || total > FOLD_LIMIT) return;
  std::vector<uint8_t*> pointers(tensors_.size(), nullptr);
  for (size_t i = first; i < steps_.size(); ++i) {
    const Step& step = *steps_[i];
    for (int id : step.in) {
      if (tensor(id).is_constant()) {
        pointers[static_cast<size_t>(id)] = const_cast<uint8_t*>(tensor(id).constant);
      }
    }
    for (int id : step.out) {
      owned_.push_back(zeroed(rounded(tensor(id).bytes())));
      uint8_t* memory = owned_.back().get();
      for (size_t other = 0; other < tensors_.size(); ++other) {
        if (tensors_[other].storage == tensor(id).storage) {
          tensors_[other].constant = memory;
          pointers[other] = memory;
        }
      }
    }
    void* scratch = aligned_alloc(64, static_cast<size_t>(rounded(step.scratch_bytes)));
    step.run(pointers.data(), static_cast<uint8_t*>(scratch));
    free(scratch);
  }
  steps_.resize(first);
}

std::shared_ptr<Plan> Program::plan(const std::vector<Shape>& shapes,
                                    const std::vector<const uint8_t*>& known) const {
  failed_node_ = -1;
  Planner planner(*this, kernels_);
  std::vector<int> storage_of_input(inputs_.size(), -1);
  planner.tensors_.reserve(values_.size() * 3 / 2);
  planner.steps_.reserve(nodes_.size());
  for (size_t v = 0; v < values_.size(); ++v) {
    if (!values_[v].constant) continue;
    const int id = planner.new_tensor(values_[v].dtype, values_[v].shape, Layout::PLAIN);
    planner.tensors_[static_cast<size_t>(id)].constant = values_[v].data;
    planner.plain_[v] = id;
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const size_t v = static_cast<size_t>(inputs_[i]);
    const int id = planner.new_tensor(values_[v].dtype, shapes[i], Layout::PLAIN);
    if (known[i] != nullptr) {
      const int64_t bytes = planner.tensor(id).bytes();
      planner.owned_.push_back(zeroed(rounded(bytes)));
      memcpy(planner.owned_.back().get(), known[i], static_cast<size_t>(bytes));
      planner.tensors_[static_cast<size_t>(id)].constant = planner.owned_.back().get();
    }
    storage_of_input[i] = planner.tensor(id).storage;
    planner.plain_[v] = id;
    if (known[i] == nullptr && dtype_size(values_[v].dtype) == 1) {
      // Byte products read a little past the end of their source: only the arena has room for that.
      planner.plain_[v] = planner.new_tensor(values_[v].dtype, shapes[i], Layout::PLAIN);
      auto step = std::make_unique<Copy>(planner.tensor(id).bytes());
      step->in = {id};
      step->out = {planner.plain_[v]};
      step->kernel = "copy input";
      planner.add(std::move(step));
    }
  }
  for (size_t n = 0; n < nodes_.size(); ++n) {
    try {
      planner.build(nodes_[n]);
    } catch (const Unsupported& error) {
      failed_node_ = static_cast<int>(n);
      throw;
    } catch (const Error& error) {
      failed_node_ = static_cast<int>(n);
      throw Error("node '" + nodes_[n].name + "' (" + nodes_[n].op + "): " + error.what());
    }
  }

  auto plan = std::make_shared<Plan>();
  plan->arenas_ = arenas_;
  // Graph outputs are plain, and each is its own memory: an input, a constant, a tensor that is
  // returned twice or a view gets a copy.
  std::vector<int> taken;
  planner.current_ = nullptr;
  for (const int value : outputs_) {
    const size_t v = static_cast<size_t>(value);
    int id = planner.plain_[v] >= 0 ? planner.plain_[v] : planner.last_[v];
    if (id < 0) throw Error("output '" + values_[v].name + "' is never made");
    id = planner.convert(id, Layout::PLAIN);
    const Tensor made = planner.tensor(id);
    const bool is_input = std::find(storage_of_input.begin(), storage_of_input.end(),
                                    made.storage) != storage_of_input.end();
    const bool is_taken = std::find(taken.begin(), taken.end(), made.storage) != taken.end();
    if (made.is_constant() || is_input || is_taken) {
      const int copy = planner.new_tensor(made.dtype, made.shape, Layout::PLAIN);
      auto step = std::make_unique<Copy>(made.bytes());
      step->in = {id};
      step->out = {copy};
      step->kernel = "copy";
      planner.add(std::move(step));
      id = copy;
    }
    taken.push_back(planner.tensor(id).storage);
    plan->output_ids_.push_back(id);
    plan->output_tensors_.push_back(planner.tensor(id));
  }
  planner.leave_out_unread_copies(plan->output_ids_);

  for (const auto& step : planner.steps_) {
    if (step->node == nullptr || step->macs == 0) continue;
    for (const int value : step->node->inputs) {
      if (value < 0 || !values_[static_cast<size_t>(value)].constant) continue;
      const ProgramValue& constant = values_[static_cast<size_t>(value)];
      const int id = planner.plain_[static_cast<size_t>(value)];
      if (std::find(step->in.begin(), step->in.end(), id) != step->in.end()) continue;
      step->weight_bytes += count(constant.shape) * dtype_size(constant.dtype);
    }
  }
  plan->steps_ = std::move(planner.steps_);
  plan->tensors_ = std::move(planner.tensors_);
  plan->owned_ = std::move(planner.owned_);
  plan->kept_ = std::move(planner.kept_);
  plan->storages_.resize(static_cast<size_t>(planner.storages_));
  for (size_t i = 0; i < inputs_.size(); ++i) {
    Plan::Storage& storage = plan->storages_[static_cast<size_t>(storage_of_input[i])];
    storage.kind = Plan::Storage::INPUT;
    storage.index = static_cast<int>(i);
  }
  for (size_t i = 0; i < plan->output_ids_.size(); ++i) {
    Plan::Storage& storage = plan->storages_[static_cast<size_t>(plan->output_tensors_[i].storage)];
    storage.kind = Plan::Storage::OUTPUT;
    storage.index = static_cast<int>(i);
  }
  plan->share_growing_images();
  plan->choose_halos();
  plan->write_parts_in_place();
  for (const Tensor& tensor : plan->tensors_) {
    Plan::Storage& storage = plan->storages_[static_cast<size_t>(tensor.storage)];
    storage.bytes = std::max(storage.bytes, tensor.bytes());
    if (tensor.is_constant()) {
      storage.kind = Plan::Storage::CONSTANT;
      storage.constant = tensor.constant;
    }
  }
  plan->place();
  return plan;
}

Program::Program(const Kernels* kernels)
    : kernels_(kernels), arenas_(std::make_shared<ArenaPool>()) {}

}  // namespace lp
