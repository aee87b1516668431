// recurrent_weights.cpp: W and R of a recurrent layer, packed for products of floats or of codes.
#include <algorithm>

#include "engine/recurrent.h"
#include "pack.h"

namespace lp {

namespace {

std::vector<float> padded(const float* values, int64_t n) {
  std::vector<float> result(static_cast<size_t>(padded_channels(n)), 0.0f);
  if (values != nullptr) std::copy(values, values + n, result.begin());
  return result;
}

float scale_of(const std::vector<float>& scales, int64_t row) {
  return scales[scales.size() == 1 ? 0 : static_cast<size_t>(row)];
}

// The gate rows of one direction, in whatever form they are, as products of some of them.
class GateRows {
 public:
  GateRows(const void* data, const GateCodes& codes, int64_t direction, int64_t rows, int64_t k)
      : codes_(codes), k_(k) {
    const int64_t start = direction * rows * k;
    if (codes.scales.empty()) {
      floats_ = static_cast<const float*>(data) + start;
      return;
    }
    bytes_ = static_cast<const int8_t*>(data) + start;
    if (codes.x_scale != 0.0f) return;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < k; ++i) {
        dequantized_.push_back(static_cast<float>(bytes_[row * k + i]) *
                               scale_of(codes.scales, row));
      }
    }
    floats_ = dequantized_.data();
  }

  GateProduct product(int64_t first, int64_t n, const float* bias) const {
    if (floats_ != nullptr) return GateProduct(floats_ + first * k_, bias, n, k_);
    std::vector<float> scales;
    for (int64_t row = first; row < first + n; ++row) {
      scales.push_back(scale_of(codes_.scales, row));
    }
    return GateProduct(bytes_ + first * k_, scales, codes_.x_scale, codes_.x_zero_point, bias, n,
                       k_);
  }

 private:
  const GateCodes& codes_;
  int64_t k_;
  const float* floats_ = nullptr;
  const int8_t* bytes_ = nullptr;
  std::vector<float> dequantized_;
};

}  // namespace

GateProduct::GateProduct(const float* rows, const float* bias, int64_t n, int64_t k)
    : n_(n),
      k_(k),
      floats_(static_cast<size_t>(padded_channels(n) * k)),
      bias_(padded(bias, n)),
      has_bias_(true) {
  pack_f32(rows, {k, 0, 1}, n, 1, k, floats_.data());
}

GateProduct::GateProduct(const int8_t* rows, const std::vector<float>& scales, float x_scale,
                         int32_t x_zero_point, const float* bias, int64_t n, int64_t k)
    : n_(n),
      k_(k),
      zero_point_(x_zero_point),
      codes_(static_cast<size_t>(packed_s8_bytes(n, 1, k))),
      sums_(static_cast<size_t>(padded_channels(n))),
      no_bias_(static_cast<size_t>(padded_channels(n)), 0),
      bias_(padded(bias, n)),
      has_bias_(bias != nullptr) {
  pack_s8(rows, {k, 0, 1}, n, 1, k, codes_.data(), sums_.data());
  multiplier_.assign(static_cast<size_t>(padded_channels(n)), 0.0f);
  for (size_t i = 0; i < scales.size(); ++i) multiplier_[i] = x_scale * scales[i];
}

ProductArgs GateProduct::args(const void* a, int64_t a_stride, float* y, int64_t y_stride,
                              int64_t m) const {
  ProductArgs args = matrix_args(a, a_stride, y, y_stride, m, k_, n_);
  args.epilogue.kind = OUT_F32;
  if (!is_integer()) {
    args.packed = floats_.data();
    args.bias = bias_.data();
    return args;
  }
  args.packed = codes_.data();
  args.bias = no_bias_.data();
  args.sums = sums_.data();
  args.zero_point = zero_point_;
  args.epilogue.multiplier = multiplier_.data();
  args.epilogue.addend = has_bias_ ? bias_.data() : nullptr;
  return args;
}

std::shared_ptr<RecurrentWeights> pack_recurrent(const RecurrentShape& s,
                                                 const RecurrentOperands& operands) {
  auto result = std::make_shared<RecurrentWeights>();
  const int64_t gates = s.gates(), hidden = s.hidden;
  const bool is_gru = s.cell == Cell::GRU;
  const bool reset_first = is_gru && !s.linear_before_reset;
  for (int64_t d = 0; d < s.directions; ++d) {
    DirectionWeights one;
    const float* b = operands.b == nullptr ? nullptr : operands.b + d * 2 * gates;
    // Both biases of a gate are added once, but for the gate whose R part is reset by itself.
    std::vector<float> input_bias(static_cast<size_t>(gates), 0.0f);
    const float* apart = nullptr;
    if (b != nullptr) {
      std::copy(b, b + gates, input_bias.begin());
      const bool is_apart = is_gru && s.linear_before_reset;
      const int64_t added = is_apart ? 2 * hidden : gates;
      for (int64_t i = 0; i < added; ++i) input_bias[static_cast<size_t>(i)] += b[gates + i];
      if (is_apart) apart = b + gates + added;
    }
    const GateRows w(operands.w, operands.w_codes, d, gates, s.input);
    one.input = w.product(0, gates, b == nullptr ? nullptr : input_bias.data());
    const GateRows r(operands.r, operands.r_codes, d, gates, hidden);
    if (reset_first) {
      one.recurrent = r.product(0, 2 * hidden, nullptr);
      one.hidden = r.product(2 * hidden, hidden, nullptr);
    } else {
      std::vector<float> bias(static_cast<size_t>(gates), 0.0f);
      if (apart != nullptr) std::copy(apart, apart + hidden, bias.end() - hidden);
      one.recurrent = r.product(0, gates, apart == nullptr ? nullptr : bias.data());
    }
    if (operands.peepholes != nullptr) {
      const float* p = operands.peepholes + d * 3 * hidden;
      one.peepholes.assign(p, p + 3 * hidden);
    }
    result->directions.push_back(std::move(one));
  }
  return result;
}

}  // namespace lp
