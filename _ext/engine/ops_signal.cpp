// ops_signal.cpp: discrete Fourier transforms of whole signals and of frames. f32 and f64; the work
// is done in doubles, by halving where the length is a power of two and term by term elsewhere.
#include <math.h>

#include <algorithm>

#include "engine/indices.h"
#include "engine/mathematics.h"

namespace lp {
namespace {

struct Complex {
  double re, im;
};
Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// One length: the turns e^(-2 pi i k / n), or of the inverse transform e^(2 pi i k / n).
class Transform {
 public:
  Transform(int64_t n, bool inverse) : n_(n), inverse_(inverse), halves_((n & (n - 1)) == 0) {
    constexpr double PI = 3.14159265358979323846;
    require_memory({n}, 64);
    for (int64_t k = 0; k < n; ++k) {
      const double angle = 2.0 * PI * static_cast<double>(k) / static_cast<double>(n);
      turns_.push_back({cos_of(angle), inverse ? sin_of(angle) : -sin_of(angle)});
    }
  }
  int64_t scratch_numbers() const { return 2 * n_; }

  // x: n numbers, overwritten by the result; `other`: room for n more.
  void run(Complex* x, Complex* other) const {
    if (halves_) {
      by_halves(x, other);
    } else {
      for (int64_t k = 0; k < n_; ++k) {
        Complex sum = {0.0, 0.0};
        for (int64_t j = 0, at = 0; j < n_; ++j) {
          const Complex term = x[j] * turns_[static_cast<size_t>(at)];
          sum.re += term.re;
          sum.im += term.im;
          at += k;
          if (at >= n_) at -= n_;
        }
        other[k] = sum;
      }
      std::copy(other, other + n_, x);
    }
    if (!inverse_) return;
    const auto size = static_cast<double>(n_);
    for (int64_t k = 0; k < n_; ++k) {
      x[k].re /= size;
      x[k].im /= size;
    }
  }

 private:
  // Stockham: every stage reads one buffer in order and writes the other.
  void by_halves(Complex* x, Complex* other) const {
    Complex* from = x;
    Complex* to = other;
    for (int64_t half = n_ / 2, stride = 1; half >= 1; half /= 2, stride *= 2) {
      for (int64_t p = 0; p < half; ++p) {
        const Complex turn = turns_[static_cast<size_t>(p * stride)];
        for (int64_t q = 0; q < stride; ++q) {
          const Complex a = from[q + stride * p], b = from[q + stride * (p + half)];
          to[q + stride * 2 * p] = {a.re + b.re, a.im + b.im};
          to[q + stride * (2 * p + 1)] = Complex{a.re - b.re, a.im - b.im} * turn;
        }
      }
      std::swap(from, to);
    }
    if (from != x) std::copy(from, from + n_, x);
  }

  int64_t n_;
  bool inverse_, halves_;
  std::vector<Complex> turns_;
};

struct Signal {
  bool doubles = false;
  double read(const uint8_t* data, int64_t i) const {
    return doubles ? reinterpret_cast<const double*>(data)[i]
                   : static_cast<double>(reinterpret_cast<const float*>(data)[i]);
  }
  void write(uint8_t* data, int64_t i, double value) const {
    if (doubles) {
      reinterpret_cast<double*>(data)[i] = value;
    } else {
      reinterpret_cast<float*>(data)[i] = static_cast<float>(value);
    }
  }
};

Signal signal_of(Planner& planner, const Node& node) {
  Signal signal;
  signal.doubles = planner.dtype_of(node, 0) == DType::F64;
  if (!signal.doubles) require_f32(planner, node);
  return signal;
}

int64_t known_number(Planner& planner, const Node& node, size_t i, int64_t otherwise) {
  if (!node.has_input(i)) return otherwise;
  const std::vector<int64_t> values = planner.known_integers(node, i);
  if (values.size() != 1) throw Error("operand " + std::to_string(i) + " must be one number");
  return checked_extent(values[0], "length or axis");
}

// [..., n, ..., 1 or 2] with real, or real and imaginary parts last.
void build_dft(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const Signal signal = signal_of(planner, node);
  const int64_t parts = tensor.rank() > 0 ? tensor.shape.back() : 0;
  if (tensor.rank() < 2 || (parts != 1 && parts != 2)) {
    throw Error("needs a signal whose last axis has 1 or 2 elements");
  }
  const int64_t named =
      node.has("axis") ? node.integer("axis", 0) : known_number(planner, node, 2, -2);
  const size_t axis = static_cast<size_t>(normalise_axis(named, tensor.rank(), "DFT"));
  if (axis + 1 == tensor.rank()) throw Error("the axis must not be that of the parts");
  const bool inverse = node.integer("inverse", 0) != 0, half = node.integer("onesided", 0) != 0;
  const int64_t given = tensor.shape[axis];
  const int64_t n = known_number(planner, node, 1, inverse && half ? 2 * (given - 1) : given);
  if (n < 1) throw Error("the length of the transform must be positive");
  // The inverse of a one-sided transform is real; its other half is the mirror image.
  const bool to_real = inverse && half;
  Shape shape = tensor.shape;
  shape[axis] = half && !inverse ? n / 2 + 1 : n;
  shape.back() = to_real ? 1 : 2;
  const int64_t made = shape[axis], read = std::min(given, to_real ? n / 2 + 1 : n);
  const int64_t outer = count(tensor.shape, 0, axis);
  const int64_t inner = count(tensor.shape, axis + 1, tensor.rank() - 1);
  const int64_t made_parts = shape.back();
  const auto transform = std::make_shared<Transform>(n, inverse);
  const int y = planner.output(node, 0, tensor.dtype, shape);
  planner.add({x}, {y}, [=](Pointers t, uint8_t*) {
    parallel_rows(
        outer * inner, grain_of_rows(PLAIN_GRAIN / 16, n), [&](int64_t begin, int64_t end) {
          auto* own = reinterpret_cast<Complex*>(
              thread_scratch(2 * n * static_cast<int64_t>(sizeof(Complex))));
          for (int64_t i = begin; i < end; ++i) {
            std::fill_n(own, n, Complex{0.0, 0.0});
            for (int64_t k = 0; k < read; ++k) {
              const int64_t at = ((i / inner * given + k) * inner + i % inner) * parts;
              own[k] = {signal.read(t[x], at), parts == 2 ? signal.read(t[x], at + 1) : 0.0};
              if (to_real && k > 0 && k < n - k) own[n - k] = {own[k].re, -own[k].im};
            }
            transform->run(own, own + n);
            for (int64_t k = 0; k < made; ++k) {
              const int64_t at = ((i / inner * made + k) * inner + i % inner) * made_parts;
              signal.write(t[y], at, own[k].re);
              if (made_parts == 2) signal.write(t[y], at + 1, own[k].im);
            }
          }
        });
  });
}

// [batch, n, 1 or 2] to [batch, frames, bins, 2].
void build_stft(Planner& planner, const Node& node) {
  const int x = planner.operand(node, 0);
  const Tensor tensor = planner.tensor(x);
  const Signal signal = signal_of(planner, node);
  if (tensor.rank() != 3 || (tensor.shape[2] != 1 && tensor.shape[2] != 2)) {
    throw Error("needs a signal of shape [batch, length, 1 or 2]");
  }
  const int window = node.has_input(2) ? planner.operand(node, 2) : -1;
  const int64_t batch = tensor.shape[0], length = tensor.shape[1], parts = tensor.shape[2];
  const int64_t step = known_number(planner, node, 1, 0);
  const int64_t width =
      known_number(planner, node, 3, window >= 0 ? planner.tensor(window).elements() : length);
  if (step < 1 || width < 1 || width > length) {
    throw Error("frames of " + std::to_string(width) + " every " + std::to_string(step) +
                " of a signal of " + std::to_string(length));
  }
  if (window >= 0 && (planner.tensor(window).elements() != width ||
                      planner.tensor(window).dtype != tensor.dtype)) {
    throw Error("the window must have the length of a frame and the signal's element type");
  }
  const int64_t frames = (length - width) / step + 1;
  const bool half = node.integer("onesided", 1) != 0;
  const int64_t bins = half ? width / 2 + 1 : width;
  const auto transform = std::make_shared<Transform>(width, false);
  const int y = planner.output(node, 0, tensor.dtype, {batch, frames, bins, 2});
  std::vector<int> in = {x};
  if (window >= 0) in.push_back(window);
  planner.add(in, {y}, [=](Pointers t, uint8_t*) {
    parallel_rows(batch * frames, grain_of_rows(PLAIN_GRAIN / 16, width),
                  [&](int64_t begin, int64_t end) {
                    auto* own = reinterpret_cast<Complex*>(
                        thread_scratch(2 * width * static_cast<int64_t>(sizeof(Complex))));
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t start = i / frames * length + i % frames * step;
                      for (int64_t k = 0; k < width; ++k) {
                        const double weight = window >= 0 ? signal.read(t[window], k) : 1.0;
                        const int64_t at = (start + k) * parts;
                        own[k] = {signal.read(t[x], at) * weight,
                                  parts == 2 ? signal.read(t[x], at + 1) * weight : 0.0};
                      }
                      transform->run(own, own + width);
                      for (int64_t k = 0; k < bins; ++k) {
                        signal.write(t[y], (i * bins + k) * 2, own[k].re);
                        signal.write(t[y], (i * bins + k) * 2 + 1, own[k].im);
                      }
                    }
                  });
  });
}

}  // namespace

const std::vector<Operator>& signal_operators() {
  static const std::vector<Operator> table = {
      {"DFT", {{"DFT", nullptr, build_dft}}},
      {"STFT", {{"STFT", nullptr, build_stft}}},
  };
  return table;
}

}  // namespace lp
