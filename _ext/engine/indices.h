// indices.h: operands of s32 or s64 that say where in an axis something is.
#pragma once
#include <string.h>

#include "engine/views.h"

namespace lp {

// The value at `i` of an s32 or s64 tensor.
inline int64_t index_at(const uint8_t* data, bool wide, int64_t i) {
  if (wide) {
    int64_t value;
    memcpy(&value, data + i * 8, 8);
    return value;
  }
  int32_t value;
  memcpy(&value, data + i * 4, 4);
  return value;
}

// Counted from the end where negative; throws Error outside the axis.
inline int64_t inside(int64_t index, int64_t size) {
  if (index < -size || index >= size) {
    throw Error("index " + std::to_string(index) + " is outside an axis of " +
                std::to_string(size));
  }
  return index < 0 ? index + size : index;
}

inline bool is_wide(const Planner& planner, int id) {
  const DType dtype = planner.tensor(id).dtype;
  if (dtype != DType::S64 && dtype != DType::S32) throw Error("indices must be s32 or s64");
  return dtype == DType::S64;
}

}  // namespace lp
