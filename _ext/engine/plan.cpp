// plan.cpp: halos, the places of values in one arena, and the run.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>

#include "engine/memory.h"
#include "float_state.h"
#include "threads.h"

namespace lp {

Plan::Plan() = default;
Plan::~Plan() = default;

// A tensor gets a halo where the step that writes it and every step that reads it understand halos:
// then the padding convolutions among the readers need no copy.
void Plan::choose_halos() {
  struct Use {
    Step* writer = nullptr;
    std::vector<Step*> readers;  // as their operand 0: only that has a border of its own
    bool read = false;
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
      if (i == 0) use.readers.push_back(step.get());
      use.read = true;
      use.possible &= step->understands_halo_of(i);
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
    if (!use.possible || use.writer == nullptr || !use.read) continue;
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
    for (size_t i = 1; i < step->in.size(); ++i) {
      if (!step->understands_halo_of(i)) continue;
      step->set_operand_halo(i, tensors_[static_cast<size_t>(step->in[i])].halo);
    }
  }
}

// x1, then x1 x2, then x1 x2 x3 ..: one buffer with the pixels of the last, where each is written
// by a concatenation and read by nothing but the next one and steps that understand a pitch.
void Plan::share_growing_images() {
  struct Use {
    Step* writer = nullptr;
    std::vector<std::pair<Step*, size_t>> readers;
    int tensors = 0;
  };
  std::vector<Use> uses(storages_.size());
  const auto storage_of = [&](int id) {
    return static_cast<size_t>(tensors_[static_cast<size_t>(id)].storage);
  };
  for (const Tensor& tensor : tensors_) ++uses[static_cast<size_t>(tensor.storage)].tensors;
  for (const auto& step : steps_) {
    for (size_t i = 0; i < step->in.size(); ++i) {
      uses[storage_of(step->in[i])].readers.emplace_back(step.get(), i);
    }
    for (const int id : step->out) uses[storage_of(id)].writer = step.get();
  }
  // The concatenation that lets tensor `id` grow, if it can be the front of the result.
  const auto grower = [&](int id) -> Step* {
    const Use& use = uses[storage_of(id)];
    const bool alone = use.tensors == 1 && storages_[storage_of(id)].kind == Storage::ARENA;
    if (!alone || use.writer == nullptr || !use.writer->grows_images()) return nullptr;
    Step* next = nullptr;
    for (const auto& [reader, operand] : use.readers) {
      if (reader->grows_images() && operand == 0 && next == nullptr) {
        next = reader;
      } else if (!reader->reads_with_pitch(operand)) {
        return nullptr;
      }
    }
    return next;
  };
  // From the back: what a front grows into has its pitch and memory already.
  std::vector<int64_t> pitch(tensors_.size(), 0);
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (!(*step)->grows_images()) continue;
    const int whole = (*step)->out[0], front = (*step)->in[0];
    Tensor& result = tensors_[static_cast<size_t>(whole)];
    int64_t& own = pitch[static_cast<size_t>(whole)];
    const bool shareable = uses[storage_of(whole)].tensors == 1 || own != 0;
    if (own == 0) own = result.shape[1];
    const bool there = shareable && storages_[storage_of(whole)].kind == Storage::ARENA &&
                       grower(front) == step->get();
    if (!there && own == result.shape[1]) continue;
    (*step)->grow(own, there);
    if (!there) continue;
    for (const auto& [reader, operand] : uses[storage_of(front)].readers) {
      if (reader != step->get()) reader->set_pitch(operand, own);
    }
    pitch[static_cast<size_t>(front)] = own;
    tensors_[static_cast<size_t>(front)].storage = result.storage;
  }
}

// Where images are put side by side, what writes one of them, for nobody else, writes it into the
// result: nothing is copied.
void Plan::write_parts_in_place() {
  struct Use {
    Step* writer = nullptr;
    int writers = 0, readers = 0, tensors = 0;
  };
  std::vector<Use> uses(storages_.size());
  const auto tensor_of = [&](int id) -> Tensor& { return tensors_[static_cast<size_t>(id)]; };
  const auto use_of = [&](int id) -> Use& {
    return uses[static_cast<size_t>(tensor_of(id).storage)];
  };
  for (const Tensor& tensor : tensors_) ++uses[static_cast<size_t>(tensor.storage)].tensors;
  for (const auto& step : steps_) {
    for (const int id : step->in) ++use_of(id).readers;
    for (const int id : step->out) {
      use_of(id).writer = step.get();
      ++use_of(id).writers;
    }
  }
  const auto alone = [&](int id) {
    const Use& use = use_of(id);
    const Storage& storage = storages_[static_cast<size_t>(tensor_of(id).storage)];
    return use.tensors == 1 && use.writers == 1 && storage.kind == Storage::ARENA &&
           !tensor_of(id).is_constant() && tensor_of(id).layout == Layout::CHANNELS_LAST;
  };
  for (const auto& step : steps_) {
    if (!step->joins_images() || !alone(step->out[0])) continue;
    const Tensor whole = tensor_of(step->out[0]);
    int64_t channels = 0;
    for (size_t i = 0; i < step->in.size(); ++i) {
      Tensor& part = tensor_of(step->in[i]);
      const int64_t before = channels;
      channels += part.shape[1];
      if (!alone(step->in[i]) || part.halo.any() || !step->joins_unchanged(i)) continue;
      const Use& use = use_of(step->in[i]);
      if (use.readers != 1 || !use.writer->writes_inside()) continue;
      part.storage = whole.storage;
      part.offset = before * dtype_size(whole.dtype);
      use.writer->write_inside(whole.shape[1], whole.halo);
      step->part_is_there(i);
    }
  }
}

void Plan::place() {
  const auto storage = [&](int id) -> Storage& {
    return storages_[static_cast<size_t>(tensors_[static_cast<size_t>(id)].storage)];
  };
  const int n = static_cast<int>(steps_.size());
  double macs = 0;
  for (int i = 0; i < n; ++i) {
    for (int id : steps_[static_cast<size_t>(i)]->out) {
      if (storage(id).first < 0) storage(id).first = i;
      storage(id).last = std::max(storage(id).last, i);
    }
    for (int id : steps_[static_cast<size_t>(i)]->in) {
      storage(id).last = std::max(storage(id).last, i);
    }
    scratch_bytes_ = std::max(scratch_bytes_, steps_[static_cast<size_t>(i)]->scratch_bytes);
    macs += steps_[static_cast<size_t>(i)]->macs;
  }
  worth_waking_ = macs >= 10e6;  // about 50 us
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
  std::vector<std::vector<int>> starts(static_cast<size_t>(n) + 1),
      ends(static_cast<size_t>(n) + 1);
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

namespace {
// Addresses that nobody has touched cost nothing: with room to grow, a larger input finds the pages
// of the smaller ones still there and pays for the new ones only. (PP-OCR rec, widths 48 to 640 one
// after the other: fresh pages were a tenth of the time.)
constexpr int64_t ROOM_TO_GROW = 16;                // times what is needed now
constexpr int64_t LARGEST_ROOM = int64_t{4} << 30;  // bytes; above, just what is needed
constexpr int64_t HUGE_PAGES_FROM = int64_t{8} << 20;

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
uint8_t* reserve(int64_t bytes) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}
void release(uint8_t* memory, int64_t bytes) {
  if (memory != nullptr) munmap(memory, static_cast<size_t>(bytes));
}
int64_t room(int64_t bytes) {
  return std::max(bytes, std::min(ROOM_TO_GROW * bytes, LARGEST_ROOM));
}
void prefer_huge_pages(uint8_t* memory, int64_t bytes) {
  if (bytes >= HUGE_PAGES_FROM) madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}
#else
uint8_t* reserve(int64_t bytes) {
  return static_cast<uint8_t*>(aligned_alloc(64, static_cast<size_t>(bytes)));
}
void release(uint8_t* memory, int64_t) { free(memory); }
int64_t room(int64_t bytes) { return bytes; }
void prefer_huge_pages(uint8_t*, int64_t) {}
#endif
}  // namespace

Arena::~Arena() { release(memory, bytes); }

void Arena::fit(int64_t bytes_needed, size_t tensors) {
  pointers.resize(tensors);
  if (bytes_needed <= bytes) return;
  release(memory, bytes);
  bytes = room(bytes_needed);
  memory = reserve(bytes);
  if (memory == nullptr) {
    bytes = bytes_needed;
    memory = reserve(bytes);
  }
  if (memory == nullptr) {
    bytes = 0;
    throw std::bad_alloc();
  }
  prefer_huge_pages(memory, bytes_needed);
}

ArenaPool::Idle& ArenaPool::locked() {
  if (lock.lock()) {
    idle.release();  // half changed when this process was forked off
    idle = std::make_unique<Idle>();
  }
  return *idle;
}

std::unique_ptr<Arena> ArenaPool::take() {
  Idle& arenas = locked();
  std::unique_ptr<Arena> arena;
  if (!arenas.empty()) {
    arena = std::move(arenas.back());
    arenas.pop_back();
  }
  lock.unlock();
  return arena ? std::move(arena) : std::make_unique<Arena>();
}

void ArenaPool::give_back(std::unique_ptr<Arena> arena) {
  locked().push_back(std::move(arena));
  lock.unlock();
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
        pointers[i] =
            storage.offset < 0 ? nullptr : arena->memory + storage.offset + tensors_[i].offset;
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
  const KeepAwake awake(worth_waking_);
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

bool Plan::output_needs_slack(size_t index) const {
  const Tensor& output = output_tensors_[index];
  if (dtype_size(output.dtype) > 1) return false;
  for (const auto& step : steps_) {
    for (int id : step->in) {
      if (tensors_[static_cast<size_t>(id)].storage == output.storage) return true;
    }
  }
  return false;
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
    row.bytes = step->weight_bytes;
    for (int id : step->in) row.bytes += tensors_[static_cast<size_t>(id)].bytes();
    for (int id : step->out) row.bytes += tensors_[static_cast<size_t>(id)].bytes();
    rows.push_back(row);
  }
  return rows;
}

}  // namespace lp
