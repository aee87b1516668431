// own_range.h: scale and zero point of u8 codes by the data's own range, as
// numerics.dynamic_quantize_linear chooses them (reference.choose_qparams).
#pragma once
#include <math.h>
#include <stdint.h>

#include <algorithm>
#include <limits>

namespace lp {

struct OwnRange {
  float scale;
  int32_t zero_point;
};

// The range is widened to hold 0; both ends are finite.
inline OwnRange own_range(float low, float high) {
  constexpr float SMALLEST_SCALE = 0x1p-126f;
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  const float width = high - low;
  if (width == 0.0f) return {1.0f, 0};
  const float scale =
      width <= std::numeric_limits<float>::max() ? width / 255.0f : high / 255.0f - low / 255.0f;
  OwnRange range = {std::max(scale, SMALLEST_SCALE), 0};
  const float zero = 0.0f - low / range.scale;
  range.zero_point = static_cast<int32_t>(rintf(std::min(std::max(zero, 0.0f), 255.0f)));
  return range;
}

}  // namespace lp
