// windows.h: the geometry that convolution-like pools share: strides, pads, dilations, output
// sizes.
#pragma once
#include "engine/engine.h"

namespace lp {

// One or two spatial axes; a single axis is a row of height 1. Fills everything of `args` but
// pointers. `shape` is [N, C, spatial...]; the result's shape is returned. Throws Unsupported for
// other ranks.
Shape pool_geometry(const Node& node, const Shape& shape, PoolArgs* args);

// The whole of a pooling over elements of `item` bytes, its lines shared out.
void run_pool(void (*kernel)(const PoolArgs*), const PoolArgs& args, int64_t item);

}  // namespace lp
