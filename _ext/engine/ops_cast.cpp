// ops_cast.cpp: from one element type to another, by value or bit for bit.
#include <string.h>

#include <limits>
#include <type_traits>

#include "engine/small_types.h"
#include "engine/views.h"

namespace lp {
namespace {

template <class From, class To>
To converted(From x) {
  if constexpr (std::is_floating_point_v<From> && !std::is_floating_point_v<To>) {
    // Through s64, so that what does not fit wraps; what s64 does not hold becomes its smallest.
    const bool fits = x >= From(-0x1p63) && x < From(0x1p63);
    return static_cast<To>(fits ? static_cast<int64_t>(x) : std::numeric_limits<int64_t>::min());
  } else {
    return static_cast<To>(x);
  }
}

struct Bool {  // one byte, 0 or 1
  uint8_t value;
};

template <class From, class To>
void cast_all(const void* src, void* dst, int64_t n) {
  const From* x = static_cast<const From*>(src);
  if constexpr (std::is_same_v<To, Bool>) {
    uint8_t* y = static_cast<uint8_t*>(dst);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] != From(0);
  } else {
    To* y = static_cast<To*>(dst);
    for (int64_t i = 0; i < n; ++i) y[i] = converted<From, To>(x[i]);
  }
}

using CastFunction = void (*)(const void*, void*, int64_t);

template <class From>
CastFunction cast_to(DType to) {
  switch (to) {
    case DType::F32:
      return cast_all<From, float>;
    case DType::F64:
      return cast_all<From, double>;
    case DType::U8:
      return cast_all<From, uint8_t>;
    case DType::S8:
      return cast_all<From, int8_t>;
    case DType::U16:
      return cast_all<From, uint16_t>;
    case DType::S16:
      return cast_all<From, int16_t>;
    case DType::U32:
      return cast_all<From, uint32_t>;
    case DType::S32:
      return cast_all<From, int32_t>;
    case DType::U64:
      return cast_all<From, uint64_t>;
    case DType::S64:
      return cast_all<From, int64_t>;
    case DType::BOOL:
      return cast_all<From, Bool>;
    default:
      return nullptr;
  }
}

CastFunction find_cast(DType from, DType to) {
  switch (from) {
    case DType::F32:
      return cast_to<float>(to);
    case DType::F64:
      return cast_to<double>(to);
    case DType::BOOL:
    case DType::U8:
      return cast_to<uint8_t>(to);
    case DType::S8:
      return cast_to<int8_t>(to);
    case DType::U16:
      return cast_to<uint16_t>(to);
    case DType::S16:
      return cast_to<int16_t>(to);
    case DType::U32:
      return cast_to<uint32_t>(to);
    case DType::S32:
      return cast_to<int32_t>(to);
    case DType::U64:
      return cast_to<uint64_t>(to);
    case DType::S64:
      return cast_to<int64_t>(to);
    default:
      return nullptr;
  }
}

bool is_half(DType dtype) { return dtype == DType::F16 || dtype == DType::BF16; }
bool through_f32(DType dtype) { return is_half(dtype) || is_small_float(dtype); }

Rounding rounding_of(const Node& node) {
  const std::string mode = node.text("round_mode", "up");
  if (mode != "up" && mode != "down" && mode != "nearest") {
    throw Error("round_mode must be up, down or nearest");
  }
  return mode == "up" ? Rounding::UP : mode == "down" ? Rounding::DOWN : Rounding::NEAREST;
}

// One range of elements, in at most three stages: to a number of C, to another, to the result.
struct CastPlan {
  DType from, to;
  DType first, last;              // the numbers of C
  CastFunction middle = nullptr;  // nullptr: first is last
  void (*widen)(const uint16_t*, float*, int64_t) = nullptr;
  void (*narrow)(const float*, uint16_t*, int64_t) = nullptr;
  bool saturate = true;
  Rounding rounding = Rounding::UP;

  bool widens() const { return from != first; }
  bool narrows() const { return to != last; }
  // `a` and `b`: room for n numbers each.
  void run(const uint8_t* x, uint8_t* y, uint8_t* a, uint8_t* b, int64_t n) const {
    const uint8_t* src = x;
    if (widens()) {
      uint8_t* wide = middle == nullptr && !narrows() ? y : a;
      if (is_small_integer(from)) {
        widen_integers(from, src, wide, n);
      } else if (is_small_float(from)) {
        widen_small(from, src, reinterpret_cast<float*>(wide), n);
      } else {
        widen(reinterpret_cast<const uint16_t*>(src), reinterpret_cast<float*>(wide), n);
      }
      src = wide;
    }
    if (middle != nullptr) {
      uint8_t* made = narrows() ? b : y;
      middle(src, made, n);
      src = made;
    }
    if (!narrows()) return;
    if (is_small_integer(to)) {
      narrow_integers(to, src, y, n);
    } else if (is_small_float(to)) {
      narrow_small(to, reinterpret_cast<const float*>(src), y, n, saturate, rounding);
    } else {
      narrow(reinterpret_cast<const float*>(src), reinterpret_cast<uint16_t*>(y), n);
    }
  }
};

void odd_floats(const void* src, void* dst, int64_t n) {
  const double* x = static_cast<const double*>(src);
  float* y = static_cast<float*>(dst);
  for (int64_t i = 0; i < n; ++i) y[i] = round_to_odd(x[i]);
}

DType number_of(DType dtype) {
  if (through_f32(dtype)) return DType::F32;
  if (is_small_integer(dtype)) {
    return dtype == DType::S4 || dtype == DType::S2 ? DType::S8 : DType::U8;
  }
  return dtype;
}

void add_cast(Planner& planner, const Node& node, DType to) {
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const DType from = tensor.dtype;
  if (from == to) return planner.alias(node, 0, x, tensor.shape, tensor.layout);
  CastPlan cast;
  cast.from = from;
  cast.to = to;
  cast.first = number_of(from);
  cast.last = number_of(to);
  if (cast.first != cast.last) {
    cast.middle = find_cast(cast.first, cast.last);
    // A double that is rounded twice is first rounded so that the second time decides.
    if (from == DType::F64 && through_f32(to)) cast.middle = odd_floats;
    if (cast.middle == nullptr) {
      throw Unsupported(std::string("Cast from ") + dtype_name(from) + " to " + dtype_name(to));
    }
  }
  const Kernels& kernels = planner.kernels();
  cast.widen = from == DType::F16 ? kernels.f16_to_f32 : kernels.bf16_to_f32;
  cast.narrow = to == DType::F16 ? kernels.f32_to_f16 : kernels.f32_to_bf16;
  cast.saturate = node.integer("saturate", 1) != 0;
  cast.rounding = rounding_of(node);
  const int y = planner.output(node, 0, to, tensor.shape, tensor.layout);
  const int64_t n = tensor.elements();
  const int64_t from_size = dtype_size(from), to_size = dtype_size(to);
  const int64_t first_size = cast.widens() ? dtype_size(cast.first) : 0;
  const int64_t last_size = cast.narrows() ? dtype_size(cast.last) : 0;
  Step& step = planner.add({x}, {y}, [=](Pointers t, uint8_t* scratch) {
    uint8_t* second = scratch + n * first_size;
    parallel_rows(n, 2 * PLAIN_GRAIN, [&](int64_t begin, int64_t end) {
      cast.run(t[x] + begin * from_size, t[y] + begin * to_size, scratch + begin * first_size,
               second + begin * last_size, end - begin);
    });
  });
  step.scratch_bytes = n * (first_size + last_size);
}

void build_cast(Planner& planner, const Node& node) {
  add_cast(planner, node, static_cast<DType>(node.integer("to", 0)));
}

void build_cast_like(Planner& planner, const Node& node) {
  add_cast(planner, node, planner.dtype_of(node, 1));
}

// The same bytes under another element type.
void build_bit_cast(Planner& planner, const Node& node) {
  const DType to = static_cast<DType>(node.integer("to", 0));
  const int x = planner.operand_as_is(node, 0);
  const Tensor tensor = planner.tensor(x);
  const auto bits = [](DType dtype) {
    if (dtype == DType::U2 || dtype == DType::S2) return int64_t{2};
    if (is_small_integer(dtype) || dtype == DType::F4E2M1) return int64_t{4};
    return dtype_size(dtype) * 8;
  };
  if (bits(to) != bits(tensor.dtype)) {
    throw Error(std::string("cannot see ") + dtype_name(tensor.dtype) + " as " + dtype_name(to) +
                ": another number of bits");
  }
  const int y = planner.output(node, 0, to, tensor.shape, tensor.layout);
  const int64_t n = tensor.bytes();
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    parallel_rows(n, COPY_GRAIN, [&](int64_t begin, int64_t end) {
      memcpy(t[y] + begin, t[x] + begin, static_cast<size_t>(end - begin));
    });
  });
}

}  // namespace

const std::vector<Operator>& cast_operators() {
  static const std::vector<Operator> table = {
      {"Cast", {{"Cast", nullptr, build_cast}}},
      {"CastLike", {{"CastLike", nullptr, build_cast_like}}},
      {"BitCast", {{"BitCast", nullptr, build_bit_cast}}},
  };
  return table;
}

}  // namespace lp
