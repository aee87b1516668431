// ops_sample.cpp: reading an image between its pixels: GridSample, RoiAlign. f32.
#include <math.h>

#include <algorithm>

#include "engine/indices.h"

namespace lp {
namespace {

enum class Between { NEAREST, LINEAR, CUBIC };
enum class Outside { ZEROS, BORDER, REFLECTION };

// The taps of one coordinate along one axis: pixels (-1: a zero) and their weights.
struct AxisTaps {
  int64_t pixel[4];
  float weight[4];
};

struct Sampling {
  Between between;
  Outside outside;
  bool corners;  // -1 and 1 are the centres of the outer pixels, not their edges
  int64_t taps() const {
    return between == Between::NEAREST ? 1 : between == Between::LINEAR ? 2 : 4;
  }
};

// Reflected at low and high until between them.
double reflected(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0.0) return low;
  if (x >= low && x <= high) return x;
  const double beyond = x < low ? low - x : x - high;
  const double times = floor(beyond / range), rest = beyond - times * range;
  const bool even = fmod(times, 2.0) == 0.0;
  return (x < low) == even ? low + rest : high - rest;
}

// Keys' kernel with a = -0.75.
void cubic_weights(float x, float* weight) {
  constexpr float A = -0.75f;
  const auto far = [&](float d) { return ((A * d - 5.0f * A) * d + 8.0f * A) * d - 4.0f * A; };
  const auto near = [&](float d) { return ((A + 2.0f) * d - (A + 3.0f)) * d * d + 1.0f; };
  weight[0] = far(x + 1.0f);
  weight[1] = near(x);
  weight[2] = near(1.0f - x);
  weight[3] = far(2.0f - x);
}

AxisTaps taps_at(float coordinate, int64_t size, const Sampling& how) {
  const double low = how.corners ? 0.0 : -0.5;
  const double high = static_cast<double>(size) - (how.corners ? 1.0 : 0.5);
  const auto extent = static_cast<float>(size);
  float x = how.corners ? (coordinate + 1.0f) / 2.0f * (extent - 1.0f)
                        : ((coordinate + 1.0f) * extent - 1.0f) / 2.0f;
  // What is no number, or nowhere near: outside of everything, or the first pixel.
  if (!(fabsf(x) < 1e9f)) x = how.outside == Outside::ZEROS ? -10.0f : 0.0f;
  if (how.between == Between::NEAREST) x = nearbyintf(x);
  if (static_cast<double>(x) < low || static_cast<double>(x) > high) {
    if (how.outside == Outside::BORDER) {
      x = std::min(std::max(x, 0.0f), extent - 1.0f);
    } else if (how.outside == Outside::REFLECTION) {
      x = static_cast<float>(reflected(x, low, high));
    }
  }
  const auto pixel = [&](int64_t i) -> int64_t {
    if (i >= 0 && i < size) return i;
    if (how.outside == Outside::ZEROS) return -1;
    const int64_t last = size - 1;
    if (how.outside == Outside::BORDER) return std::min(std::max<int64_t>(i, 0), last);
    const auto back = static_cast<int64_t>(reflected(static_cast<double>(i), low, high));
    return std::min(std::max<int64_t>(back, 0), last);
  };
  AxisTaps taps{};
  if (how.between == Between::NEAREST) {
    taps.pixel[0] = pixel(static_cast<int64_t>(x));
    taps.weight[0] = 1.0f;
    return taps;
  }
  const float floor_x = floorf(x), part = x - floor_x;
  const int64_t first = static_cast<int64_t>(floor_x) - (how.between == Between::CUBIC ? 1 : 0);
  for (int64_t i = 0; i < how.taps(); ++i) taps.pixel[i] = pixel(first + i);
  if (how.between == Between::CUBIC) {
    cubic_weights(part, taps.weight);
  } else {
    taps.weight[0] = 1.0f - part;
    taps.weight[1] = part;
  }
  return taps;
}

// Along the last axis first, as nested one-dimensional interpolations.
float sample(const float* plane, const Shape& image, const AxisTaps* taps, size_t axis,
             int64_t start, int64_t n) {
  float sum = 0.0f;
  const bool last = axis + 1 == image.size();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t pixel = taps[axis].pixel[i];
    float value = 0.0f;
    if (pixel >= 0) {
      const int64_t at = start * image[axis] + pixel;
      value = last ? plane[at] : sample(plane, image, taps, axis + 1, at, n);
    }
    sum += taps[axis].weight[i] * value;
  }
  return sum;
}

Sampling sampling_of(const Node& node) {
  const std::string mode = node.text("mode", "linear");
  const std::string padding = node.text("padding_mode", "zeros");
  Sampling how{};
  how.corners = node.integer("align_corners", 0) != 0;
  if (mode == "linear" || mode == "bilinear") {
    how.between = Between::LINEAR;
  } else if (mode == "cubic" || mode == "bicubic") {
    how.between = Between::CUBIC;
  } else if (mode == "nearest") {
    how.between = Between::NEAREST;
  } else {
    throw Error("mode is '" + mode + "'; it must be linear, nearest or cubic");
  }
  if (padding == "zeros") {
    how.outside = Outside::ZEROS;
  } else if (padding == "border") {
    how.outside = Outside::BORDER;
  } else if (padding == "reflection") {
    how.outside = Outside::REFLECTION;
  } else {
    throw Error("padding_mode is '" + padding + "'; it must be zeros, border or reflection");
  }
  return how;
}

// Image [N, C, spatial...], grid [N, out..., axes] of coordinates, the last axis first.
void build_grid_sample(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), grid = planner.operand(node, 1);
  const Tensor tensor = planner.tensor(x), where = planner.tensor(grid);
  require_f32(planner, node);
  if (where.dtype != DType::F32) throw Unsupported("GridSample: a grid that is not f32");
  const Sampling how = sampling_of(node);
  const size_t axes = tensor.rank() - 2;
  if (tensor.rank() < 3 || axes > 4 || where.rank() != tensor.rank() ||
      where.shape[0] != tensor.shape[0] || where.shape.back() != static_cast<int64_t>(axes)) {
    throw Error("an image of shape " + to_string(tensor.shape) + " and a grid of shape " +
                to_string(where.shape));
  }
  Shape shape = {tensor.shape[0], tensor.shape[1]};
  shape.insert(shape.end(), where.shape.begin() + 1, where.shape.end() - 1);
  const Shape image(tensor.shape.begin() + 2, tensor.shape.end());
  const int64_t pixels = count(image), points = count(shape, 2, shape.size());
  if (pixels == 0) throw Error("an image without pixels");
  const int64_t channels = tensor.shape[1];
  const int y = planner.output(node, 0, DType::F32, shape);
  planner.add({x, grid}, {y}, [=](Pointers t, uint8_t*) {
    const int64_t grain = grain_of_rows(PLAIN_GRAIN / 16, channels);
    parallel_rows(tensor.shape[0] * points, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* at = reinterpret_cast<const float*>(t[grid]) + i * static_cast<int64_t>(axes);
        AxisTaps taps[4];
        for (size_t k = 0; k < axes; ++k) taps[k] = taps_at(at[axes - 1 - k], image[k], how);
        const int64_t n = i / points;
        for (int64_t c = 0; c < channels; ++c) {
          const float* plane = reinterpret_cast<const float*>(t[x]) + (n * channels + c) * pixels;
          reinterpret_cast<float*>(t[y])[(n * channels + c) * points + i % points] =
              sample(plane, image, taps, 0, 0, how.taps());
        }
      }
    });
  });
}

// One sample of RoiAlign: four pixels around a point, each with its weight.
struct Corners {
  int64_t at[4];
  float weight[4];
};

Corners corners_at(float y, float x, int64_t height, int64_t width) {
  Corners corners{};
  const bool inside = y >= -1.0f && y <= static_cast<float>(height) && x >= -1.0f &&
                      x <= static_cast<float>(width);  // false for NaN
  if (!inside) return corners;
  y = std::max(y, 0.0f);
  x = std::max(x, 0.0f);
  int64_t top = static_cast<int64_t>(y), left = static_cast<int64_t>(x);
  int64_t bottom = top + 1, right = left + 1;
  if (top >= height - 1) {
    top = bottom = height - 1;
    y = static_cast<float>(top);
  }
  if (left >= width - 1) {
    left = right = width - 1;
    x = static_cast<float>(left);
  }
  const float down = y - static_cast<float>(top), along = x - static_cast<float>(left);
  const float up = 1.0f - down, back = 1.0f - along;
  const int64_t at[4] = {top * width + left, top * width + right, bottom * width + left,
                         bottom * width + right};
  const float weight[4] = {up * back, up * along, down * back, down * along};
  for (int i = 0; i < 4; ++i) {
    corners.at[i] = at[i];
    corners.weight[i] = weight[i];
  }
  return corners;
}

struct RoiPool {
  int64_t channels, height, width, out_height, out_width, ratio;
  float scale, offset;
  bool half_pixel, maximum;

  // One region of one image, [channels][out_height][out_width].
  void run(const float* image, const float* roi, float* dst) const {
    const float left = roi[0] * scale - offset, top = roi[1] * scale - offset;
    float across = roi[2] * scale - offset - left, down = roi[3] * scale - offset - top;
    if (!half_pixel) {
      across = std::max(across, 1.0f);
      down = std::max(down, 1.0f);
    }
    const float bin_h = down / static_cast<float>(out_height);
    const float bin_w = across / static_cast<float>(out_width);
    const int64_t rows = samples(bin_h), cols = samples(bin_w);
    for (int64_t bin = 0; bin < out_height * out_width; ++bin) {
      const float y0 = top + static_cast<float>(bin / out_width) * bin_h;
      const float x0 = left + static_cast<float>(bin % out_width) * bin_w;
      for (int64_t c = 0; c < channels; ++c) dst[c * out_height * out_width + bin] = 0.0f;
      for (int64_t i = 0; i < rows * cols; ++i) {
        const float part_y = static_cast<float>(i / cols) + 0.5f;
        const float part_x = static_cast<float>(i % cols) + 0.5f;
        const Corners corners =
            corners_at(y0 + part_y * bin_h / static_cast<float>(rows),
                       x0 + part_x * bin_w / static_cast<float>(cols), height, width);
        for (int64_t c = 0; c < channels; ++c) {
          const float* plane = image + c * height * width;
          float& result = dst[c * out_height * out_width + bin];
          float term[4];
          for (int k = 0; k < 4; ++k) term[k] = corners.weight[k] * plane[corners.at[k]];
          if (maximum) {
            const float most = std::max(std::max(term[0], term[1]), std::max(term[2], term[3]));
            result = i == 0 ? most : std::max(result, most);
          } else {
            result += term[0] + term[1] + term[2] + term[3];
          }
        }
      }
      if (maximum) continue;
      const auto samples_taken = static_cast<float>(std::max<int64_t>(rows * cols, 1));
      for (int64_t c = 0; c < channels; ++c) dst[c * out_height * out_width + bin] /= samples_taken;
    }
  }

  int64_t samples(float bin) const {
    if (ratio > 0) return ratio;
    // A region far larger than any image, or none: it is outside anyway.
    constexpr float MOST = 4096.0f;
    return bin > 0.0f ? static_cast<int64_t>(ceilf(std::min(bin, MOST))) : 0;
  }
};

void build_roi_align(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0), rois = planner.operand(node, 1);
  const int images = planner.operand(node, 2);
  const Tensor tensor = planner.tensor(x), regions = planner.tensor(rois);
  require_f32(planner, node);
  if (tensor.rank() != 4 || regions.rank() != 2 || regions.shape[1] != 4 ||
      planner.tensor(images).elements() != regions.shape[0]) {
    throw Error("needs images [N, C, H, W], regions [R, 4] and one image number a region");
  }
  if (regions.dtype != DType::F32) throw Unsupported("RoiAlign: regions that are not f32");
  const std::string mode = node.text("mode", "avg");
  const std::string coordinates = node.text("coordinate_transformation_mode", "half_pixel");
  if (mode != "avg" && mode != "max") throw Error("mode must be avg or max");
  RoiPool pool{};
  pool.channels = tensor.shape[1];
  pool.height = tensor.shape[2];
  pool.width = tensor.shape[3];
  pool.out_height = checked_extent(node.integer("output_height", 1), "output_height");
  pool.out_width = checked_extent(node.integer("output_width", 1), "output_width");
  pool.ratio = node.integer("sampling_ratio", 0);
  if (pool.ratio < 0 || pool.ratio > 1024) throw Error("sampling_ratio must be 0 to 1024");
  if (pool.height < 1 || pool.width < 1) throw Error("images without pixels");
  pool.scale = node.real("spatial_scale", 1.0f);
  pool.half_pixel = coordinates == "half_pixel";
  pool.offset = pool.half_pixel ? 0.5f : 0.0f;
  pool.maximum = mode == "max";
  const bool wide = is_wide(planner, images);
  const int64_t n = regions.shape[0], batch = tensor.shape[0];
  const int y =
      planner.output(node, 0, DType::F32, {n, pool.channels, pool.out_height, pool.out_width});
  const int64_t made = pool.channels * pool.out_height * pool.out_width;
  const int64_t image = pool.channels * pool.height * pool.width;
  planner.add({x, rois, images}, {y}, [=](Pointers t, uint8_t*) {
    parallel_rows(n, grain_of_rows(PLAIN_GRAIN / 16, made), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = inside(index_at(t[images], wide, i), batch);
        pool.run(reinterpret_cast<const float*>(t[x]) + from * image,
                 reinterpret_cast<const float*>(t[rois]) + i * 4,
                 reinterpret_cast<float*>(t[y]) + i * made);
      }
    });
  });
}

}  // namespace

const std::vector<Operator>& sample_operators() {
  static const std::vector<Operator> table = {
      {"GridSample", {{"GridSample", nullptr, build_grid_sample}}},
      {"RoiAlign", {{"RoiAlign", nullptr, build_roi_align}}},
  };
  return table;
}

}  // namespace lp
