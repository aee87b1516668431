// c_api_products.cpp: weights and products of lowprec.h.
#include <math.h>

#include <memory>

#include "c_api.h"
#include "c_api_guard.h"
#include "linear.h"

struct lowprec_weights {
  lp::PackedWeights packed;
};

namespace lp {
namespace {

// In the place of matrices without elements: pointer arithmetic wants an object.
constexpr double NOTHING = 0;

bool is_weight_type(int32_t dtype) {
  return is_code(dtype) || dtype == LOWPREC_F32 || dtype == LOWPREC_BF16 || dtype == LOWPREC_F16;
}

void require_count(const void* list, int64_t count, int64_t n, const char* name) {
  if (list != nullptr && count != 1 && count != n) {
    refuse(LOWPREC_INVALID, "%s has %lld values; expected 1 or n, %lld", name,
           static_cast<long long>(count), static_cast<long long>(n));
  }
}

}  // namespace

lowprec_status api_pack_weights(const lowprec_weights_desc* desc, lowprec_weights** weights) {
  return guarded([&] {
    require(weights, "weights");
    *weights = nullptr;
    const lowprec_weights_desc d = described(desc, "desc");
    if (!is_weight_type(d.dtype)) {
      refuse(LOWPREC_INVALID, "dtype is %d; expected F32 (1), U8 (2), S8 (3), F16 (10), BF16 (16)",
             d.dtype);
    }
    const bool codes = is_code(d.dtype);
    require_size(d.k, "k");
    require_size(d.n, "n");
    product_of(product_of(d.k + 3, d.n + 63, "k and n"), 4, "k and n");
    require_size(d.stride_k, "stride_k");
    require_size(d.stride_n, "stride_n");
    product_of(product_of(d.k, d.stride_k, "k and stride_k") +
                   product_of(d.n, d.stride_n, "n and stride_n") + 1,
               4, "the strides of the weights");
    if (d.k > 0 && d.n > 0) require(d.data, "data");
    if (!codes && (d.zero_points != nullptr || d.scales != nullptr)) {
      refuse(LOWPREC_INVALID, "zero_points or scales are given, but only U8 and S8 have them");
    }
    require_count(d.zero_points, d.zero_point_count, d.n, "zero_points");
    require_count(d.scales, d.scale_count, d.n, "scales");
    require_count(d.bias, d.bias_count, d.n, "bias");
    if (d.zero_points != nullptr) {
      require_zero_points(d.zero_points, d.zero_point_count, d.dtype, "zero_points");
    }
    if (d.scales != nullptr) require_scales(d.scales, d.scale_count, "scales");
    if (d.bias != nullptr && d.bias_dtype != LOWPREC_F32 &&
        !(codes && d.bias_dtype == LOWPREC_S32)) {
      refuse(LOWPREC_INVALID, "bias_dtype is %d; expected F32 (1) or, for codes, S32 (6)",
             d.bias_dtype);
    }
    WeightsSource source{};
    source.type = d.dtype;
    source.data = d.data == nullptr ? &NOTHING : d.data;
    source.k = d.k;
    source.n = d.n;
    source.stride_k = d.stride_k;
    source.stride_n = d.stride_n;
    source.zero_points = d.zero_points;
    source.zero_point_count = d.zero_points == nullptr ? 0 : d.zero_point_count;
    source.scales = d.scales;
    source.scale_count = d.scales == nullptr ? 0 : d.scale_count;
    source.bias_type = d.bias == nullptr ? LOWPREC_NONE : d.bias_dtype;
    source.bias = d.bias;
    source.bias_count = d.bias_count;
    std::unique_ptr<lowprec_weights> packed(new lowprec_weights{{kernels_or_refuse(), source}});
    if (codes && !packed->packed.view().fits_s32()) {
      refuse(LOWPREC_UNSUPPORTED,
             "with k = %lld and these weights a sum could leave s32; cut the product along k",
             static_cast<long long>(d.k));
    }
    *weights = packed.release();
  });
}

void api_free_weights(lowprec_weights* weights) { delete weights; }

lowprec_status api_inspect_weights(const lowprec_weights* weights, lowprec_weights_info* info) {
  return guarded([&] {
    require(weights, "weights");
    const Weights& w = weights->packed.view();
    lowprec_weights_info result{};
    result.dtype = w.type;
    result.has_scales = w.scales != nullptr;
    result.k = w.k;
    result.n = w.n;
    result.packed_bytes = panel_bytes(w.type, w.k, w.n);
    fill(info, result, "info");
  });
}

namespace {

void require_activation(const lowprec_gemm_desc& d) {
  switch (d.activation) {
    case LOWPREC_IDENTITY:
    case LOWPREC_RELU:
    case LOWPREC_CLIP:
    case LOWPREC_LEAKY_RELU:
    case LOWPREC_HARD_SIGMOID:
    case LOWPREC_HARD_SWISH:
    case LOWPREC_SIGMOID:
    case LOWPREC_SILU:
    case LOWPREC_TANH:
    case LOWPREC_GELU:
    case LOWPREC_GELU_TANH:
    case LOWPREC_ELU:
      break;
    default:
      refuse(LOWPREC_INVALID, "activation is %d; expected a lowprec_activation", d.activation);
  }
  if (isnan(d.activation_a) || isnan(d.activation_b)) {
    refuse(LOWPREC_INVALID, "activation_a or activation_b is NaN");
  }
}

// Where rows lie: each reaches over `width`, and those of results do not overlap.
void require_rows(const lowprec_gemm_desc& d, int64_t row, int64_t batch, int64_t width,
                  bool result, const char* name) {
  require_size(row, name);
  require_size(batch, name);
  if (d.m > 1 && row < width) {
    refuse(LOWPREC_INVALID, "%s: rows are %lld elements apart; expected at least %lld", name,
           static_cast<long long>(row), static_cast<long long>(width));
  }
  const int64_t matrix = product_of(d.m - 1, row, name) + width;
  product_of(product_of(d.batches, batch, name) + matrix, 4, name);
  if (result && d.batches > 1 && batch < matrix) {
    refuse(LOWPREC_INVALID, "%s: matrices are %lld elements apart; expected at least %lld", name,
           static_cast<long long>(batch), static_cast<long long>(matrix));
  }
}

void check_operand(const Weights& w, const lowprec_gemm_desc& d) {
  const bool codes = is_code(w.type);
  const bool quantises = codes && d.a_dtype == LOWPREC_F32;
  if (codes ? !is_code(d.a_dtype) && !quantises : d.a_dtype != w.type) {
    refuse(LOWPREC_INVALID, "a_dtype is %d; expected %s", d.a_dtype,
           codes ? "U8 (2), S8 (3), or F32 (1)" : "the weights' type");
  }
  const bool real = d.y_dtype == LOWPREC_F32 || d.y_dtype == LOWPREC_BF16;
  if (!real && !is_code(d.y_dtype) && !(d.y_dtype == LOWPREC_S32 && codes && !quantises)) {
    refuse(LOWPREC_INVALID,
           "y_dtype is %d; expected F32 (1), U8 (2), S8 (3), BF16 (16) or, of codes times codes, "
           "S32 (6)",
           d.y_dtype);
  }
  if (!real && (d.row_scales != nullptr || quantises)) {
    refuse(LOWPREC_UNSUPPORTED, "rows of a have scales of their own; expected y F32 or BF16");
  }
  if (!is_code(d.a_dtype) && (d.row_scales != nullptr || d.row_zero_points != nullptr)) {
    refuse(LOWPREC_INVALID, "row_scales or row_zero_points are given, but a is not U8 or S8");
  }
  if (codes && d.y_dtype != LOWPREC_S32) {
    if (w.scales == nullptr) {
      refuse(LOWPREC_INVALID, "the weights are packed without scales; expected y S32");
    }
    if (d.row_scales != nullptr) {
      require_scales(d.row_scales, d.batches * d.m, "row_scales");
    } else if (!quantises) {
      require_scale(d.a_scale, "a_scale");
    }
  }
  if (is_code(d.a_dtype)) {
    require_zero_point(d.a_zero_point, d.a_dtype, "a_zero_point");
    if (d.row_zero_points != nullptr) {
      require_zero_points(d.row_zero_points, d.batches * d.m, d.a_dtype, "row_zero_points");
    }
  }
}

void check_result(const lowprec_gemm_desc& d) {
  if (is_code(d.y_dtype)) {
    require_scale(d.y_scale, "y_scale");
    require_zero_point(d.y_zero_point, d.y_dtype, "y_zero_point");
  }
  if (d.y_dtype == LOWPREC_S32 &&
      (d.activation != LOWPREC_IDENTITY || d.residual_dtype != LOWPREC_NONE)) {
    refuse(LOWPREC_INVALID, "sums (y S32) have neither an activation nor a residual");
  }
  require_activation(d);
  if (d.residual_dtype == LOWPREC_NONE) return;
  require(d.residual, "residual");
  if (is_code(d.residual_dtype)) {
    require_scale(d.residual_scale, "residual_scale");
    require_zero_point(d.residual_zero_point, d.residual_dtype, "residual_zero_point");
  } else if (d.residual_dtype != LOWPREC_F32 && d.residual_dtype != LOWPREC_BF16) {
    refuse(LOWPREC_INVALID,
           "residual_dtype is %d; expected NONE (0), F32 (1), U8 (2), S8 (3), BF16 (16)",
           d.residual_dtype);
  }
}

}  // namespace

lowprec_status api_gemm(const lowprec_weights* weights, const lowprec_gemm_desc* desc) {
  return guarded([&] {
    require(weights, "weights");
    const Weights& w = weights->packed.view();
    const lowprec_gemm_desc d = described(desc, "desc");
    require_size(d.batches, "batches");
    require_size(d.m, "m");
    product_of(d.batches, d.m, "batches and m");
    if (d.batches == 0 || d.m == 0) return;
    product_of(product_of(d.batches * d.m, w.n, "batches, m and n"), 4, "batches, m and n");
    product_of(product_of(d.batches * d.m, w.k, "batches, m and k"), 4, "batches, m and k");
    check_operand(w, d);
    check_result(d);
    require_rows(d, d.a_row_stride, d.a_batch_stride, w.k, false, "a");
    require_rows(d, d.y_row_stride, d.y_batch_stride, w.n, true, "y");
    if (w.n == 0) return;
    if (w.k > 0) require(d.a, "a");
    require(d.y, "y");

    UnaryOp ops[2];
    int32_t n_ops = 0;
    if (d.residual_dtype != LOWPREC_NONE) ops[n_ops++] = {UNARY_ADD_RESIDUAL, 0, 0};
    if (d.activation != LOWPREC_IDENTITY) {
      ops[n_ops++] = {d.activation, d.activation_a, d.activation_b};
    }
    Linear call{};
    call.a = d.a == nullptr ? &NOTHING : d.a;
    call.a_type = d.a_dtype;
    call.batches = d.batches;
    call.m = d.m;
    call.a_batch = d.a_batch_stride;
    call.a_row = d.a_row_stride;
    call.a_zero_point = is_code(d.a_dtype) ? d.a_zero_point : 0;
    call.row_zero_points = d.row_zero_points;
    call.a_scale = d.row_scales == nullptr ? d.a_scale : 1.0f;
    call.row_scales = d.row_scales;
    call.y = d.y;
    call.y_type = d.y_dtype;
    call.y_batch = d.y_batch_stride;
    call.y_row = d.y_row_stride;
    call.y_scale = d.y_scale;
    call.y_zero_point = is_code(d.y_dtype) ? d.y_zero_point : 0;
    call.with_bias = true;
    call.ops = ops;
    call.n_ops = n_ops;
    call.residual = d.residual_dtype == LOWPREC_NONE ? nullptr : d.residual;
    call.residual_type = d.residual_dtype;
    call.residual_batch = d.m * w.n;
    call.residual_row = w.n;
    call.residual_scale = d.residual_scale;
    call.residual_zero_point = d.residual_zero_point;
    const int64_t bad = linear(kernels_or_refuse(), w, call);
    if (bad > 0) {
      refuse(LOWPREC_INVALID, "a holds %lld NaN or infinite values; those have no range",
             static_cast<long long>(bad));
    }
  });
}

}  // namespace lp
