// ops_windows.cpp: pools over any number of spatial axes, one window at a time, and what puts
// windows back: MaxUnpool, Col2Im. Images of one or two axes have faster pools (ops_pool.cpp).
#include <math.h>
#include <string.h>

#include <algorithm>
#include <limits>

#include "engine/indices.h"
#include "engine/mathematics.h"
#include "engine/windows_nd.h"

namespace lp {

std::vector<WindowAxis> pool_axes(const Node& node, const Shape& shape) {
  if (shape.size() < 3) throw Error("needs an image, not shape " + to_string(shape));
  const size_t axes = shape.size() - 2;
  const std::vector<int64_t> kernel = node.integers("kernel_shape");
  const std::vector<int64_t> strides = node.integers("strides", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> dilations = node.integers("dilations", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> pads = node.integers("pads", std::vector<int64_t>(2 * axes, 0));
  if (kernel.size() != axes || strides.size() != axes || dilations.size() != axes ||
      pads.size() != 2 * axes) {
    throw Error("kernel_shape, strides, pads or dilations do not fit " + to_string(shape));
  }
  const std::string mode = node.text("auto_pad", "NOTSET");
  const bool round_up = node.integer("ceil_mode", 0) != 0;
  std::vector<WindowAxis> result;
  for (size_t i = 0; i < axes; ++i) {
    WindowAxis a{shape[2 + i], kernel[i], strides[i], dilations[i], pads[i], pads[axes + i], 0};
    for (const int64_t extent : {a.kernel, a.stride, a.dilation, a.begin, a.end}) {
      checked_extent(extent, "kernel, stride, dilation or pad");
    }
    if (a.kernel < 1 || a.stride < 1 || a.dilation < 1) throw Error("sizes must be positive");
    if (a.begin < 0 || a.end < 0) throw Error("pads must not be negative");
    const int64_t reach = (a.kernel - 1) * a.dilation + 1;
    if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      a.out = (a.in + a.stride - 1) / a.stride;
      const int64_t total = std::max<int64_t>(0, (a.out - 1) * a.stride + reach - a.in);
      a.begin = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      a.end = total - a.begin;
    } else {
      if (mode == "VALID") a.begin = a.end = 0;
      const int64_t room = a.in + a.begin + a.end - reach;
      if (room < 0) throw Error("the window is larger than the padded image " + to_string(shape));
      a.out = (room + (round_up ? a.stride - 1 : 0)) / a.stride + 1;
      // No window starts in the padding at the end.
      if (round_up && (a.out - 1) * a.stride >= a.in + a.begin) --a.out;
    }
    result.push_back(a);
  }
  return result;
}

std::vector<int64_t> taps_of(const WindowAxis& axis) {
  require_memory({axis.out, axis.kernel}, 8);
  std::vector<int64_t> taps;
  taps.reserve(static_cast<size_t>(axis.out * axis.kernel));
  for (int64_t o = 0; o < axis.out; ++o) {
    for (int64_t k = 0; k < axis.kernel; ++k) {
      const int64_t at = o * axis.stride - axis.begin + k * axis.dilation;
      taps.push_back(at >= 0 && at < axis.in ? at : -1);
    }
  }
  return taps;
}

namespace {

// The windows of one plane, and their taps.
struct WindowGrid {
  std::vector<WindowAxis> axes;
  std::vector<std::vector<int64_t>> taps;  // of each axis
  int64_t in = 1, out = 1, kernel = 1;

  explicit WindowGrid(std::vector<WindowAxis> from) : axes(std::move(from)) {
    for (const WindowAxis& axis : axes) {
      taps.push_back(taps_of(axis));
      in *= axis.in;
      out *= axis.out;
      kernel *= axis.kernel;
    }
  }

  // Calls body(input position, tap) for the taps of one window that are inside the image, in order.
  template <class Body>
  void for_taps(int64_t position, const Body& body) const {
    const size_t rank = axes.size();
    int64_t base[8], tap[8] = {0};
    for (size_t i = rank; i-- > 0;) {
      base[i] = position % axes[i].out * axes[i].kernel;
      position /= axes[i].out;
    }
    for (int64_t k = 0; k < kernel; ++k) {
      int64_t at = 0;
      for (size_t i = 0; i < rank && at >= 0; ++i) {
        const int64_t own = taps[i][static_cast<size_t>(base[i] + tap[i])];
        at = own < 0 ? -1 : at * axes[i].in + own;
      }
      if (at >= 0) body(at, k);
      for (size_t i = rank; i-- > 0 && ++tap[i] == axes[i].kernel;) tap[i] = 0;
    }
  }

  // How many taps an average divides by: those inside the image, or inside its border.
  int64_t counted(int64_t position, bool border) const {
    int64_t result = 1;
    for (size_t i = axes.size(); i-- > 0;) {
      const WindowAxis& a = axes[i];
      const int64_t start = position % a.out * a.stride - a.begin;
      const int64_t low = border ? -a.begin : 0, high = a.in + (border ? a.end : 0);
      int64_t own = 0;
      for (int64_t k = 0; k < a.kernel; ++k) {
        const int64_t at = start + k * a.dilation;
        own += at >= low && at < high ? 1 : 0;
      }
      result *= own;
      position /= a.out;
    }
    return result;
  }
};

Shape pooled_shape(const Shape& shape, const WindowGrid& grid) {
  Shape result = {shape[0], shape[1]};
  for (const WindowAxis& axis : grid.axes) result.push_back(axis.out);
  return result;
}

WindowGrid grid_of(const Node& node, const Shape& shape) {
  if (shape.size() > 10) throw Unsupported(node.op + ": more than eight spatial axes");
  return WindowGrid(pool_axes(node, shape));
}

// f(src of a plane, position) makes one output element.
template <class T, class F>
void add_windows(Planner& planner, const Node& node, const WindowGrid& grid, F f) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const int y = planner.output(node, 0, tensor.dtype, pooled_shape(tensor.shape, grid));
  const int64_t planes = tensor.shape[0] * tensor.shape[1];
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    const T* src = reinterpret_cast<const T*>(t[x]);
    T* dst = reinterpret_cast<T*>(t[y]);
    const int64_t grain = grain_of_rows(PLAIN_GRAIN / 8, grid.kernel);
    parallel_rows(planes * grid.out, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        dst[i] = f(grid, src + i / grid.out * grid.in, i % grid.out);
      }
    });
  });
}

// NaN wins. Of equal elements the place of the first.
template <class T>
T largest(const WindowGrid& grid, const T* src, int64_t position, int64_t* place) {
  bool any = false;
  T most = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::lowest();
  *place = 0;
  grid.for_taps(position, [&](int64_t at, int64_t) {
    const T value = src[at];
    if (!any || value > most || (value != value && most == most)) {
      most = value;
      *place = at;
    }
    any = true;
  });
  return most;
}

// A position of a plane with its first spatial axis running fastest.
int64_t column_major(const WindowGrid& grid, int64_t at) {
  int64_t result = 0, step = grid.in;
  for (size_t i = grid.axes.size(); i-- > 0;) {
    step /= grid.axes[i].in;
    result += at % grid.axes[i].in * step;
    at /= grid.axes[i].in;
  }
  return result;
}

}  // namespace

void build_max_pool_nd(Planner& planner, const Node& node) {
  const Tensor tensor = planner.tensor(planner.operand(node, 0));
  const WindowGrid grid = grid_of(node, tensor.shape);
  with_number(tensor.dtype, node, [&](auto zero) {
    using T = decltype(zero);
    const bool values = !node.outputs.empty() && node.outputs[0] >= 0;
    if (values) {
      add_windows<T>(planner, node, grid, [](const WindowGrid& g, const T* src, int64_t position) {
        int64_t place;
        return largest(g, src, position, &place);
      });
    }
    if (node.outputs.size() < 2 || node.outputs[1] < 0) return;
    const int x = planner.operand(node, 0);
    const int y = planner.output(node, 1, DType::S64, pooled_shape(tensor.shape, grid));
    const int64_t planes = tensor.shape[0] * tensor.shape[1];
    const bool turned = node.integer("storage_order", 0) != 0;
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      const T* src = reinterpret_cast<const T*>(t[x]);
      int64_t* dst = reinterpret_cast<int64_t*>(t[y]);
      for (int64_t i = 0; i < planes * grid.out; ++i) {
        const int64_t plane = i / grid.out * grid.in;
        int64_t place;
        largest(grid, src + plane, i % grid.out, &place);
        dst[i] = plane + (turned ? column_major(grid, place) : place);
      }
    });
  });
}

namespace {

// Calls f(T()) for the element types of averages.
template <class F>
void with_real(Planner& planner, const Node& node, F f) {
  if (planner.dtype_of(node, 0) == DType::F64) return f(double());
  require_f32(planner, node);
  f(float());
}

}  // namespace

void build_average_pool_nd(Planner& planner, const Node& node) {
  const WindowGrid grid = grid_of(node, planner.shape_of(node, 0));
  const bool border = node.integer("count_include_pad", 0) != 0;
  with_real(planner, node, [&](auto zero) {
    using T = decltype(zero);
    add_windows<T>(planner, node, grid, [=](const WindowGrid& g, const T* src, int64_t position) {
      T sum = T(0);
      g.for_taps(position, [&](int64_t at, int64_t) { sum += src[at]; });
      return sum / static_cast<T>(g.counted(position, border));
    });
  });
}

namespace {

double power(double x, int64_t p) {
  const double magnitude = fabs(x);
  if (p == 1) return magnitude;
  if (p == 2) return x * x;
  return magnitude == 0.0 ? 0.0 : exp_of(static_cast<double>(p) * log_of(magnitude));
}

double root(double x, int64_t p) {
  if (p == 1) return x;
  if (p == 2) return sqrt(x);
  return x == 0.0 ? 0.0 : exp_of(log_of(x) / static_cast<double>(p));
}

// (sum |x|^p)^(1 / p), added up in doubles.
void build_lp_pool(Planner& planner, const Node& node) {
  const WindowGrid grid = grid_of(node, planner.shape_of(node, 0));
  const int64_t p = node.integer("p", 2);
  if (p < 1) throw Error("p must be at least 1");
  with_real(planner, node, [&](auto zero) {
    using T = decltype(zero);
    add_windows<T>(planner, node, grid, [=](const WindowGrid& g, const T* src, int64_t position) {
      double sum = 0.0;
      g.for_taps(position, [&](int64_t at, int64_t) { sum += power(src[at], p); });
      return static_cast<T>(root(sum, p));
    });
  });
}

void build_global_lp_pool(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() < 3) throw Error("needs an image, not shape " + to_string(tensor.shape));
  const int64_t p = node.integer("p", 2);
  if (p < 1) throw Error("p must be at least 1");
  Shape shape(tensor.rank(), 1);
  shape[0] = tensor.shape[0];
  shape[1] = tensor.shape[1];
  const int64_t planes = shape[0] * shape[1], size = count(tensor.shape, 2, tensor.rank());
  const int y = planner.output(node, 0, tensor.dtype, shape);
  with_real(planner, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      parallel_rows(planes, grain_of_rows(PLAIN_GRAIN, size), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const T* src = reinterpret_cast<const T*>(t[x]) + i * size;
          double sum = 0.0;
          for (int64_t k = 0; k < size; ++k) sum += power(src[k], p);
          reinterpret_cast<T*>(t[y])[i] = static_cast<T>(root(sum, p));
        }
      });
    });
  });
}

// Puts maxima back where their indices say; the rest is 0. The indices count in the shape from
// which kernel, strides and pads would have made the operand.
void build_max_unpool(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), indices = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x);
  if (tensor.rank() < 3 || planner.tensor(indices).shape != tensor.shape ||
      planner.tensor(indices).dtype != DType::S64) {
    throw Error("needs an image, and s64 indices of its shape");
  }
  const size_t axes = tensor.rank() - 2;
  const std::vector<int64_t> kernel = node.integers("kernel_shape");
  const std::vector<int64_t> strides = node.integers("strides", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> pads = node.integers("pads", std::vector<int64_t>(2 * axes, 0));
  if (kernel.size() != axes || strides.size() != axes || pads.size() != 2 * axes) {
    throw Error("kernel_shape, strides or pads do not fit " + to_string(tensor.shape));
  }
  Shape pooled = {tensor.shape[0], tensor.shape[1]};
  for (size_t i = 0; i < axes; ++i) {
    for (const int64_t extent : {kernel[i], strides[i], pads[i], pads[axes + i]}) {
      checked_extent(extent, "kernel, stride or pad");
    }
    pooled.push_back((tensor.shape[2 + i] - 1) * strides[i] - pads[i] - pads[axes + i] + kernel[i]);
    if (pooled.back() < 0) throw Error("pads are larger than the image");
  }
  const Shape shape = node.has_input(2) ? planner.known_integers(node, 2) : pooled;
  if (shape.size() != pooled.size()) throw Error("output_shape has another rank");
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < pooled[i]) {
      throw Error("output_shape " + to_string(shape) + " is smaller than " + to_string(pooled));
    }
  }
  const int y = planner.output(node, 0, tensor.dtype, shape);
  const int64_t n = tensor.elements(), item = dtype_size(tensor.dtype), size = count(pooled);
  const int64_t bytes = planner.tensor(y).bytes();
  const Strides inner = row_major_strides(pooled), outer = row_major_strides(shape);
  planner.add({x, indices}, {y}, [=](Pointers t, uint8_t*) {
    memset(t[y], 0, static_cast<size_t>(bytes));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = inside(index_at(t[indices], true, i), size);
      int64_t to = 0;
      for (size_t k = 0; k < pooled.size(); ++k) to += at / inner[k] % pooled[k] * outer[k];
      memcpy(t[y] + to * item, t[x] + i * item, static_cast<size_t>(item));
    }
  });
}

// Adds up columns of window elements, [N, C * kernel, windows], where they overlap in the image.
void build_col2im(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const std::vector<int64_t> image = planner.known_integers(node, 1);
  const std::vector<int64_t> block = planner.known_integers(node, 2);
  const size_t axes = image.size();
  if (tensor.rank() != 3 || axes == 0 || axes > 8 || block.size() != axes) {
    throw Error("needs columns [N, C * block, windows], and one block size an axis of the image");
  }
  Node as_pool = node;
  Attribute kernel;
  kernel.ints = block;
  as_pool.attributes["kernel_shape"] = kernel;
  Shape seen = {tensor.shape[0], 1};
  seen.insert(seen.end(), image.begin(), image.end());
  for (const int64_t extent : image) {
    if (extent < 1) throw Error("image sizes must be positive");
  }
  require_memory(seen, 4);
  const WindowGrid grid(pool_axes(as_pool, seen));
  if (tensor.shape[1] % grid.kernel != 0 || tensor.shape[2] != grid.out) {
    throw Error("columns of shape " + to_string(tensor.shape) + " for " + std::to_string(grid.out) +
                " windows of " + std::to_string(grid.kernel));
  }
  const int64_t planes = tensor.shape[0] * (tensor.shape[1] / grid.kernel);
  seen[1] = tensor.shape[1] / grid.kernel;
  const int y = planner.output(node, 0, tensor.dtype, seen);
  with_real(planner, node, [&](auto zero) {
    using T = decltype(zero);
    planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
      parallel_rows(planes, grain_of_rows(PLAIN_GRAIN / 8, grid.kernel * grid.out),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t plane = begin; plane < end; ++plane) {
                        const T* src =
                            reinterpret_cast<const T*>(t[x]) + plane * grid.kernel * grid.out;
                        T* dst = reinterpret_cast<T*>(t[y]) + plane * grid.in;
                        std::fill_n(dst, grid.in, T(0));
                        for (int64_t position = 0; position < grid.out; ++position) {
                          grid.for_taps(position, [&](int64_t at, int64_t tap) {
                            dst[at] += src[tap * grid.out + position];
                          });
                        }
                      }
                    });
    });
  });
}

}  // namespace

const std::vector<Operator>& window_operators() {
  static const std::vector<Operator> table = {
      {"LpPool", {{"LpPool", nullptr, build_lp_pool}}},
      {"GlobalLpPool", {{"GlobalLpPool", nullptr, build_global_lp_pool}}},
      {"MaxUnpool", {{"MaxUnpool", nullptr, build_max_unpool}}},
      {"Col2Im", {{"Col2Im", nullptr, build_col2im}}},
  };
  return table;
}

}  // namespace lp
