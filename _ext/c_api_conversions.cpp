// c_api_conversions.cpp: convert, quantize and the like of lowprec.h.
#include <math.h>

#include <vector>

#include "c_api.h"
#include "c_api_guard.h"
#include "conversions.h"

namespace lp {
namespace {

Strided flat(const void* data, int64_t item, int64_t n) {
  const int64_t shape[1] = {n}, strides[1] = {item};
  return Strided(const_cast<void*>(data), static_cast<int>(item), 1, shape, strides);
}

int64_t item_size(int32_t dtype) {
  switch (dtype) {
    case LOWPREC_U8:
    case LOWPREC_S8:
    case LOWPREC_E4M3:
    case LOWPREC_E5M2:
      return 1;
    case LOWPREC_U16:
    case LOWPREC_S16:
    case LOWPREC_F16:
    case LOWPREC_BF16:
      return 2;
    default:
      return 4;
  }
}

}  // namespace

lowprec_status api_isa(const char** name) {
  return guarded([&] {
    require(name, "name");
    *name = kernels_or_refuse()->name;
  });
}

namespace {

struct Cast {
  int32_t type;
  ConversionCode narrowing, widening;
};
constexpr Cast CASTS[] = {{LOWPREC_BF16, F32_TO_BF16, BF16_TO_F32},
                          {LOWPREC_F16, F32_TO_F16, F16_TO_F32},
                          {LOWPREC_E4M3, F32_TO_E4M3, E4M3_TO_F32},
                          {LOWPREC_E5M2, F32_TO_E5M2, E5M2_TO_F32}};

}  // namespace

lowprec_status api_convert(int32_t from, const void* x, int32_t to, void* y, int64_t n,
                           int32_t saturate) {
  return guarded([&] {
    require_size(n, "n");
    for (const Cast& entry : CASTS) {
      const bool narrows = from == LOWPREC_F32 && to == entry.type;
      if (!narrows && !(from == entry.type && to == LOWPREC_F32)) continue;
      if (n == 0) return;
      require(x, "x");
      require(y, "y");
      cast(kernels_or_refuse(), narrows ? entry.narrowing : entry.widening, FLOAT_F32,
           flat(x, item_size(from), n), flat(y, item_size(to), n), saturate != 0);
      return;
    }
    refuse(LOWPREC_INVALID,
           "from %d to %d; expected F32 (1) to or from F16 (10), BF16 (16), E4M3 (17), E5M2 (19)",
           from, to);
  });
}

namespace {

// Rows with one scale and zero point each; no zero points: 0.
struct RowParameters {
  RowParameters(const float* scales, const int32_t* zero_points, int64_t rows, int64_t n)
      : granularity{} {
    granularity.kind = Granularity::PER_CHANNEL;
    granularity.scale = scales;
    if (zero_points == nullptr) zeros.resize(static_cast<size_t>(rows), 0);
    granularity.zero_point = zero_points == nullptr ? zeros.data() : zero_points;
    granularity.outer = 1;
    granularity.depth = rows;
    granularity.inner = n;
    granularity.block = 1;
  }
  Granularity granularity;
  std::vector<int32_t> zeros;
};

// The common part of the three conversions of codes; false: there is nothing to do.
bool check_rows(const void* x, const void* y, int32_t dtype, int64_t rows, int64_t n,
                const int32_t* zero_points) {
  require_size(rows, "rows");
  require_size(n, "n");
  require_code_type(dtype, "dtype");
  if (product_of(rows, n, "rows and n") == 0) return false;
  require(x, "the source");
  require(y, "the target");
  if (zero_points != nullptr) require_zero_points(zero_points, rows, dtype, "zero_points");
  return true;
}

}  // namespace

lowprec_status api_quantize(const float* x, int32_t dtype, void* q, int64_t rows, int64_t n,
                            const float* scales, const int32_t* zero_points) {
  return guarded([&] {
    if (!check_rows(x, q, dtype, rows, n, zero_points)) return;
    require_scales(scales, rows, "scales");
    const RowParameters parameters(scales, zero_points, rows, n);
    quantize(kernels_or_refuse(), FLOAT_F32, flat(x, 4, rows * n), static_cast<CodeType>(dtype),
             flat(q, item_size(dtype), rows * n), parameters.granularity);
  });
}

lowprec_status api_dequantize(int32_t dtype, const void* q, float* x, int64_t rows, int64_t n,
                              const float* scales, const int32_t* zero_points) {
  return guarded([&] {
    if (!check_rows(q, x, dtype, rows, n, zero_points)) return;
    require_scales(scales, rows, "scales");
    const RowParameters parameters(scales, zero_points, rows, n);
    dequantize(kernels_or_refuse(), static_cast<CodeType>(dtype),
               flat(q, item_size(dtype), rows * n), flat(x, 4, rows * n), parameters.granularity);
  });
}

lowprec_status api_requantize(const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n,
                              const float* multipliers, const int32_t* zero_points) {
  return guarded([&] {
    if (!check_rows(acc, q, dtype, rows, n, zero_points)) return;
    require(multipliers, "multipliers");
    for (int64_t r = 0; r < rows; ++r) {
      if (!isfinite(multipliers[r])) {
        refuse(LOWPREC_INVALID, "multipliers holds %g; expected finite numbers", multipliers[r]);
      }
    }
    const RowParameters parameters(multipliers, zero_points, rows, n);
    requantize(kernels_or_refuse(), flat(acc, 4, rows * n), static_cast<CodeType>(dtype),
               flat(q, item_size(dtype), rows * n), parameters.granularity);
  });
}

lowprec_status api_dynamic_quantize(const float* x, uint8_t* q, int64_t rows, int64_t n,
                                    float* scales, uint8_t* zero_points) {
  return guarded([&] {
    require_size(rows, "rows");
    require_size(n, "n");
    const int64_t size = product_of(rows, n, "rows and n");
    if (rows == 0) return;
    require(scales, "scales");
    require(zero_points, "zero_points");
    if (size > 0) {
      require(x, "x");
      require(q, "q");
    }
    const int64_t bad = dynamic_quantize(kernels_or_refuse(), FLOAT_F32, flat(x, 4, size),
                                         flat(q, 1, size), rows, scales, zero_points);
    if (bad > 0) {
      refuse(LOWPREC_INVALID, "x holds %lld NaN or infinite values; those have no range",
             static_cast<long long>(bad));
    }
  });
}

}  // namespace lp
