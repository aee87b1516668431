#include "engine/layouts.h"

namespace lp {

void fill_halo(uint8_t* dst, const Halo& halo, int64_t images, int64_t height, int64_t width,
               int64_t pixel_bytes, uint8_t code) {
  const int64_t row = (width + halo.left + halo.right) * pixel_bytes;
  const int64_t image = (height + halo.top + halo.bottom) * row;
  const auto fill = [&](uint8_t* at, int64_t bytes) {
    memset(at, code, static_cast<size_t>(bytes));
  };
  parallel_rows(images, grain_of_rows(COPY_GRAIN, image), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* line = dst + i * image;
      fill(line, halo.top * row);
      line += halo.top * row;
      for (int64_t y = 0; y < height; ++y, line += row) {
        fill(line, halo.left * pixel_bytes);
        fill(line + (halo.left + width) * pixel_bytes, halo.right * pixel_bytes);
      }
      fill(line, halo.bottom * row);
    }
  });
}

namespace {

// Calls body with a null pointer to the unsigned type of `size` bytes.
template <class Body>
void with_size(int64_t size, const Body& body) {
  if (size == 1) return body(static_cast<uint8_t*>(nullptr));
  if (size == 2) return body(static_cast<uint16_t*>(nullptr));
  if (size == 4) return body(static_cast<uint32_t*>(nullptr));
  body(static_cast<uint64_t*>(nullptr));
}

// Threads take strips of columns, whole cache lines.
template <class T>
void turn_all(const T* src, T* dst, int64_t outer, int64_t rows, int64_t cols) {
  constexpr int64_t STRIP = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t strips = (cols + STRIP - 1) / STRIP, matrix = rows * cols;
  const int64_t grain = grain_of_rows(4 * PLAIN_GRAIN, rows * STRIP);
  parallel_rows(outer * strips, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {  // neighbouring strips of one matrix at once
      const int64_t o = begin / strips, first = begin % strips;
      const int64_t last = std::min(strips, first + end - begin);
      const int64_t left = first * STRIP, right = std::min(cols, last * STRIP);
      turn(src + o * matrix + left, cols, dst + o * matrix + left * rows, rows, right - left);
      begin += last - first;
    }
  });
}

class TurningStep : public Step {
 public:
  TurningStep(int64_t size, int64_t outer, int64_t rows, int64_t cols)
      : size_(size), outer_(outer), rows_(rows), cols_(cols) {}
  void run(Pointers t, uint8_t*) const override {
    with_size(size_, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      turn_all(reinterpret_cast<const T*>(t[in[0]]), reinterpret_cast<T*>(t[out[0]]), outer_, rows_,
               cols_);
    });
  }

 private:
  int64_t size_, outer_, rows_, cols_;
};

class PlanesToPixels : public Step {
 public:
  PlanesToPixels(int64_t size, const Shape& shape, ConvertLine convert)
      : size_(size),
        images_(shape[0]),
        planes_(shape[1]),
        height_(shape.size() == 4 ? shape[2] : 1),
        width_(shape.back()),
        convert_(std::move(convert)) {}

  bool understands_halo() const override { return true; }
  void set_halos(const Halo&, const Halo& out_halo, uint8_t code) override {
    halo_ = out_halo;
    code_ = code;
  }

  void run(Pointers t, uint8_t*) const override {
    uint8_t* dst = t[out[0]];
    const int64_t pixel = planes_ * size_;
    if (halo_.any()) fill_halo(dst, halo_, images_, height_, width_, pixel, code_);
    const int64_t row = (width_ + halo_.left + halo_.right) * pixel;
    const int64_t image = (height_ + halo_.top + halo_.bottom) * row;
    dst += halo_.top * row + halo_.left * pixel;
    const int64_t grain = grain_of_rows(4 * PLAIN_GRAIN, width_ * planes_);
    parallel_rows(images_ * height_, grain, [&](int64_t begin, int64_t end) {
      uint8_t* codes = convert_ ? thread_scratch(width_ * pixel) : nullptr;
      for (int64_t line = begin; line < end; ++line) {
        const int64_t i = line / height_, y = line % height_;
        turn_line(t, i, y, dst + i * image + y * row, codes);
      }
    });
  }

 private:
  int64_t size_, images_, planes_, height_, width_;
  ConvertLine convert_;
  Halo halo_;
  uint8_t code_ = 0;

  void turn_line(Pointers t, int64_t image, int64_t y, uint8_t* dst, uint8_t* codes) const {
    const int64_t plane = height_ * width_, first = image * planes_ * plane + y * width_;
    const uint8_t* src = t[in[0]] + first * (convert_ ? 4 : size_);
    int64_t src_row = plane;
    if (convert_) {
      const float* from = reinterpret_cast<const float*>(src);
      for (int64_t c = 0; c < planes_; ++c) {
        convert_(t, from + c * plane, codes + c * width_ * size_, width_);
      }
      src = codes;
      src_row = width_;
    }
    with_size(size_, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      turn(reinterpret_cast<const T*>(src), src_row, reinterpret_cast<T*>(dst), planes_, width_);
    });
  }
};

}  // namespace

std::unique_ptr<Step> turning_step(int64_t size, int64_t outer, int64_t rows, int64_t cols) {
  return std::make_unique<TurningStep>(size, outer, rows, cols);
}
std::unique_ptr<Step> planes_to_pixels(int64_t size, const Shape& shape, ConvertLine convert) {
  return std::make_unique<PlanesToPixels>(size, shape, std::move(convert));
}

}  // namespace lp
