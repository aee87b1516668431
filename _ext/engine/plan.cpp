// plan.cpp: build a plan for concrete input shapes; run it.
//
//   nodes ──build──► steps + plan tensors ──fold──► fewer steps ──place──► offsets in one arena
#include "engine/plan_arena.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>

#include "float_state.h"

namespace lp {

namespace {

constexpr int64_t ALIGNMENT = 64;
// Products read up to 3 bytes, vector loads up to 64, past a tensor's end.
constexpr int64_t SLACK = 128;
// What is folded while planning must be cheap to keep: shape arithmetic, small tables.
constexpr int64_t FOLD_LIMIT = int64_t{1} << 20;

int64_t rounded(int64_t bytes) { return (bytes + SLACK + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

std::unique_ptr<uint8_t[]> zeroed(int64_t bytes) {
  return std::unique_ptr<uint8_t[]>(new uint8_t[static_cast<size_t>(bytes)]());
}

template <class T>
void swap_axes(const T* src, T* dst, int64_t outer, int64_t rows, int64_t cols) {
  // [outer][rows][cols] -> [outer][cols][rows], in blocks that stay in the first-level cache.
  constexpr int64_t BLOCK = 16;
  for (int64_t o = 0; o < outer; ++o, src += rows * cols, dst += rows * cols) {
    for (int64_t r0 = 0; r0 < rows; r0 += BLOCK) {
      const int64_t r1 = std::min(rows, r0 + BLOCK);
      for (int64_t c0 = 0; c0 < cols; c0 += BLOCK) {
        const int64_t c1 = std::min(cols, c0 + BLOCK);
        for (int64_t c = c0; c < c1; ++c) {
          for (int64_t r = r0; r < r1; ++r) dst[c * rows + r] = src[r * cols + c];
        }
      }
    }
  }
}

class ConvertLayout : public Step {
 public:
  ConvertLayout(int64_t size, int64_t outer, int64_t rows, int64_t cols)
      : size_(size), outer_(outer), rows_(rows), cols_(cols) {}
  void run(Pointers t, uint8_t*) const override {
    const uint8_t* src = t[in[0]];
    uint8_t* dst = t[out[0]];
    if (size_ == 1) {
      swap_axes(src, dst, outer_, rows_, cols_);
    } else if (size_ == 2) {
      swap_axes(reinterpret_cast<const uint16_t*>(src), reinterpret_cast<uint16_t*>(dst), outer_,
                rows_, cols_);
    } else if (size_ == 4) {
      swap_axes(reinterpret_cast<const uint32_t*>(src), reinterpret_cast<uint32_t*>(dst), outer_,
                rows_, cols_);
    } else {
      swap_axes(reinterpret_cast<const uint64_t*>(src), reinterpret_cast<uint64_t*>(dst), outer_,
                rows_, cols_);
    }
  }

 private:
  int64_t size_, outer_, rows_, cols_;
};

class Copy : public Step {
 public:
  explicit Copy(int64_t bytes) : bytes_(bytes) {}
  void run(Pointers t, uint8_t*) const override {
    memcpy(t[out[0]], t[in[0]], static_cast<size_t>(bytes_));
  }

 private:
  int64_t bytes_;
};

// True where both layouts are the same bytes.
bool layouts_agree(const Shape& shape) {
  return shape.size() < 3 || shape[1] == 1 || count(shape, 2, shape.size()) == 1;
}

}  // namespace

// ------------------------------------------------------------------------------------ Planner
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
  tensor.bytes();  // refuses what cannot be held
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
  auto step = std::make_unique<ConvertLayout>(dtype_size(from.dtype), from.shape[0],
                                              to_last ? channels : space, to_last ? space : channels);
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
    throw Error("value '" + program_.values()[value].name + "' is used before it is made");
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
  if (count(shape) != tensor(source).elements()) {
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

std::shared_ptr<Prepared> Planner::prepared(const Node& node, const std::string& key,
                                            const std::function<std::shared_ptr<Prepared>()>& make) {
  const std::lock_guard<std::mutex> lock(program_.prepare_mutex());
  std::shared_ptr<Prepared>& slot = node.prepared[key];
  if (!slot) slot = make();
  kept_.push_back(slot);
  return slot;
}

void Planner::build(const Node& node) {
  current_ = &node;
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
      if (steps_[i]->kernel == node.op) steps_[i]->kernel = way.name;
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

// --------------------------------------------------------------------------------------- plan
std::shared_ptr<Plan> Program::plan(const std::vector<Shape>& shapes,
                                    const std::vector<const uint8_t*>& known) const {
  failed_node_ = -1;
  Planner planner(*this, kernels_);
  std::vector<int> storage_of_input(inputs_.size(), -1);
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
  plan->choose_halos();
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

Plan::Plan() = default;
Plan::~Plan() = default;

// A tensor gets a halo where the step that writes it and every step that reads it understand halos:
// then the padding convolutions among the readers need no copy.
void Plan::choose_halos() {
  struct Use {
    Step* writer = nullptr;
    std::vector<Step*> readers;
    int tensors = 0;
    bool possible = true;
  };
  std::vector<Use> uses(storages_.size());
  for (const Tensor& tensor : tensors_) {
    Use& use = uses[static_cast<size_t>(tensor.storage)];
    use.possible &= ++use.tensors == 1 && tensor.layout == Layout::CHANNELS_LAST &&
                    storages_[static_cast<size_t>(tensor.storage)].kind == Storage::ARENA &&
                    !tensor.is_constant();
  }
  const auto use_of = [&](int id) -> Use& {
    return uses[static_cast<size_t>(tensors_[static_cast<size_t>(id)].storage)];
  };
  for (const auto& step : steps_) {
    for (size_t i = 0; i < step->in.size(); ++i) {
      Use& use = use_of(step->in[i]);
      use.readers.push_back(step.get());
      use.possible &= step->understands_halo() && i == 0;
    }
    for (size_t i = 0; i < step->out.size(); ++i) {
      Use& use = use_of(step->out[i]);
      use.possible &= use.writer == nullptr && step->understands_halo() && i == 0;
      use.writer = step.get();
    }
  }
  std::vector<uint8_t> border(storages_.size(), 0);
  for (Tensor& tensor : tensors_) {
    Use& use = uses[static_cast<size_t>(tensor.storage)];
    if (!use.possible || use.writer == nullptr || use.readers.empty()) continue;
    Halo halo;
    bool first = true, agree = true;
    uint8_t code = 0;
    for (const Step* reader : use.readers) {
      const Halo wanted = reader->wanted_halo();
      if (!wanted.any()) continue;
      agree &= first || code == reader->border_code();
      first = false;
      code = reader->border_code();
      halo.top = std::max(halo.top, wanted.top);
      halo.left = std::max(halo.left, wanted.left);
      halo.bottom = std::max(halo.bottom, wanted.bottom);
      halo.right = std::max(halo.right, wanted.right);
    }
    if (!agree || !halo.any()) continue;
    tensor.halo = halo;
    border[static_cast<size_t>(tensor.storage)] = code;
  }
  for (const auto& step : steps_) {
    if (!step->understands_halo()) continue;
    const Tensor& from = tensors_[static_cast<size_t>(step->in[0])];
    const Tensor& to = tensors_[static_cast<size_t>(step->out[0])];
    step->set_halos(from.halo, to.halo, border[static_cast<size_t>(to.storage)]);
  }
}

void Plan::place() {
  const auto storage = [&](int id) -> Storage& {
    return storages_[static_cast<size_t>(tensors_[static_cast<size_t>(id)].storage)];
  };
  const int n = static_cast<int>(steps_.size());
  for (int i = 0; i < n; ++i) {
    for (int id : steps_[static_cast<size_t>(i)]->out) {
      if (storage(id).first < 0) storage(id).first = i;
      storage(id).last = std::max(storage(id).last, i);
    }
    for (int id : steps_[static_cast<size_t>(i)]->in) {
      storage(id).last = std::max(storage(id).last, i);
    }
    scratch_bytes_ = std::max(scratch_bytes_, steps_[static_cast<size_t>(i)]->scratch_bytes);
  }
  // In place: the output takes over the memory of an input that nobody reads afterwards.
  for (int i = 0; i < n; ++i) {
    const Step& step = *steps_[static_cast<size_t>(i)];
    if (step.inplace < 0) continue;
    Tensor& from = tensors_[static_cast<size_t>(step.in[static_cast<size_t>(step.inplace)])];
    Tensor& to = tensors_[static_cast<size_t>(step.out[0])];
    Storage& source = storages_[static_cast<size_t>(from.storage)];
    Storage& target = storages_[static_cast<size_t>(to.storage)];
    if (from.storage == to.storage || source.kind != Storage::ARENA ||
        target.kind != Storage::ARENA || source.last != i || target.bytes != source.bytes) {
      continue;
    }
    source.last = target.last;
    target.bytes = 0;
    target.first = target.last = -1;
    const int old = to.storage;
    for (Tensor& tensor : tensors_) {
      if (tensor.storage == old) tensor.storage = from.storage;
    }
  }
  // Offsets: walk the steps, best fit among the free gaps.
  struct Gap {
    int64_t offset, bytes;
  };
  std::vector<Gap> gaps;
  int64_t end = 0;
  std::vector<std::vector<int>> starts(static_cast<size_t>(n) + 1), ends(static_cast<size_t>(n) + 1);
  for (size_t s = 0; s < storages_.size(); ++s) {
    if (storages_[s].kind != Storage::ARENA || storages_[s].first < 0) continue;
    starts[static_cast<size_t>(storages_[s].first)].push_back(static_cast<int>(s));
    ends[static_cast<size_t>(storages_[s].last)].push_back(static_cast<int>(s));
  }
  for (int i = 0; i < n; ++i) {
    for (int s : starts[static_cast<size_t>(i)]) {
      Storage& wanted = storages_[static_cast<size_t>(s)];
      const int64_t bytes = rounded(wanted.bytes);
      int best = -1;
      for (size_t g = 0; g < gaps.size(); ++g) {
        if (gaps[g].bytes >= bytes &&
            (best < 0 || gaps[g].bytes < gaps[static_cast<size_t>(best)].bytes)) {
          best = static_cast<int>(g);
        }
      }
      if (best >= 0) {
        Gap& gap = gaps[static_cast<size_t>(best)];
        wanted.offset = gap.offset;
        gap.offset += bytes;
        gap.bytes -= bytes;
        if (gap.bytes == 0) gaps.erase(gaps.begin() + best);
      } else if (!gaps.empty() && gaps.back().offset + gaps.back().bytes == end) {
        wanted.offset = gaps.back().offset;
        end = wanted.offset + bytes;
        gaps.pop_back();
      } else {
        wanted.offset = end;
        end += bytes;
      }
    }
    for (int s : ends[static_cast<size_t>(i)]) {
      const Storage& done = storages_[static_cast<size_t>(s)];
      Gap gap{done.offset, rounded(done.bytes)};
      auto at = std::lower_bound(gaps.begin(), gaps.end(), gap,
                                 [](const Gap& a, const Gap& b) { return a.offset < b.offset; });
      at = gaps.insert(at, gap);
      if (at + 1 != gaps.end() && at->offset + at->bytes == (at + 1)->offset) {
        at->bytes += (at + 1)->bytes;
        gaps.erase(at + 1);
      }
      if (at != gaps.begin() && (at - 1)->offset + (at - 1)->bytes == at->offset) {
        (at - 1)->bytes += at->bytes;
        gaps.erase(at);
      }
    }
  }
  arena_bytes_ = end;
}

Arena::~Arena() { free(memory); }

void Arena::fit(int64_t bytes_needed, size_t tensors) {
  pointers.resize(tensors);
  if (bytes_needed <= bytes) return;
  free(memory);
  bytes = 0;
  memory = static_cast<uint8_t*>(aligned_alloc(64, static_cast<size_t>(bytes_needed)));
  if (memory == nullptr) throw std::bad_alloc();
  memset(memory, 0, static_cast<size_t>(bytes_needed));
  bytes = bytes_needed;
}

std::unique_ptr<Arena> ArenaPool::take() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (idle.empty()) return std::make_unique<Arena>();
  std::unique_ptr<Arena> arena = std::move(idle.back());
  idle.pop_back();
  return arena;
}

void ArenaPool::give_back(std::unique_ptr<Arena> arena) {
  const std::lock_guard<std::mutex> lock(mutex);
  idle.push_back(std::move(arena));
}

namespace {
int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}
}  // namespace

void Plan::run(const uint8_t* const* inputs, uint8_t* const* outputs, int64_t* nanoseconds) const {
  const FloatingPointState state;
  const int64_t scratch_at = rounded(arena_bytes_);
  std::unique_ptr<Arena> arena = arenas_->take();
  arena->fit(scratch_at + rounded(scratch_bytes_), tensors_.size());
  std::vector<uint8_t*>& pointers = arena->pointers;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Storage& storage = storages_[static_cast<size_t>(tensors_[i].storage)];
    switch (storage.kind) {
      case Storage::ARENA:
        pointers[i] = storage.offset < 0 ? nullptr : arena->memory + storage.offset;
        break;
      case Storage::INPUT:
        pointers[i] = const_cast<uint8_t*>(inputs[storage.index]);
        break;
      case Storage::OUTPUT:
        pointers[i] = outputs[storage.index];
        break;
      case Storage::CONSTANT:
        pointers[i] = const_cast<uint8_t*>(storage.constant);
        break;
    }
  }
  uint8_t* scratch = arena->memory + scratch_at;
  if (nanoseconds == nullptr) {
    for (const auto& step : steps_) step->run(pointers.data(), scratch);
  } else {
    int64_t before = now();
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i]->run(pointers.data(), scratch);
      const int64_t after = now();
      nanoseconds[i] = after - before;
      before = after;
    }
  }
  arenas_->give_back(std::move(arena));
}

std::vector<Plan::Row> Plan::rows() const {
  std::vector<Row> rows;
  for (const auto& step : steps_) {
    Row row;
    row.op = step->node ? step->node->op : "Output";
    row.name = step->node ? step->node->name : "";
    row.kernel = step->kernel;
    row.refused = step->refused;
    if (!step->out.empty()) {
      const Tensor& made = tensors_[static_cast<size_t>(step->out[0])];
      row.shape = std::string(dtype_name(made.dtype)) + to_string(made.shape);
    }
    row.macs = step->macs;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace lp
