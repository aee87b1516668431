// windows_nd.h: windows over any number of spatial axes.
#pragma once
#include "engine/engine.h"

namespace lp {

struct WindowAxis {
  int64_t in, kernel, stride, dilation;
  int64_t begin, end;  // border
  int64_t out;
};
// The spatial axes of a pool over `shape`, [N, C, spatial...], from kernel_shape, strides, pads,
// dilations, auto_pad and ceil_mode. Throws Error where they do not fit.
std::vector<WindowAxis> pool_axes(const Node& node, const Shape& shape);

// For every output position of an axis and every tap: the input position, or -1 outside.
std::vector<int64_t> taps_of(const WindowAxis& axis);

// MaxPool with indices or of any element type; AveragePool in f32 and f64.
void build_max_pool_nd(Planner& planner, const Node& node);
void build_average_pool_nd(Planner& planner, const Node& node);

}  // namespace lp
