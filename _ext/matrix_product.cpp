// matrix_product.cpp: see matrix_product.h.
#include "matrix_product.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "float_state.h"
#include "matrix_args.h"
#include "pack.h"
#include "share_product.h"

namespace lp {
namespace {

// Per-channel values, readable up to the next multiple of 64 as kernels want them; 0 where null.
template <class T>
std::vector<T> padded(const T* values, int64_t n) {
  std::vector<T> result(static_cast<size_t>(padded_channels(n)), T{0});
  if (values != nullptr) memcpy(result.data(), values, static_cast<size_t>(n) * sizeof(T));
  return result;
}

// `pack` (pack.h) of b (k, n), its k in groups of `group`, panels shared out.
template <class Pack, class T>
void pack_columns(const Pack& pack, const T* b, int64_t k, int64_t n, int64_t group,
                  std::vector<T>* packed) {
  const int64_t depth = packed_depth(1, k, group);
  parallel_panels(n, k, [&](int64_t first, int64_t channels) {
    pack(b + first, WeightStrides{1, 0, n}, channels, 1, k, packed->data() + first * depth);
  });
}

int64_t element_bytes(int32_t kind) {
  return kind == OUT_U8 || kind == OUT_S8 ? 1 : kind == OUT_BF16 ? 2 : 4;
}

}  // namespace

void matmul_int8(const Kernels* kernels, const CodeOperands& operands, const int32_t* bias,
                 const float* multiplier, const float* addend, const Epilogue& epilogue,
                 void* out) {
  const int64_t m = operands.m, k = operands.k, n = operands.n, stride = operands.a_stride;
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  // One more element: a vector of none has no address, and memset must not be given that.
  std::vector<int8_t> packed(static_cast<size_t>(packed_s8_bytes(n, 1, k)) + 1);
  std::vector<int32_t> sums(static_cast<size_t>(padded_channels(n)));
  std::vector<int32_t> zero_points = padded(operands.column_zero_points, n);
  const int32_t flip = operands.b_signed ? 0 : 0x80;
  parallel_panels(n, k / 8, [&](int64_t first, int64_t channels) {
    kernels->pack_rows_s8(static_cast<const uint8_t*>(operands.b) + first, n, k, channels, flip,
                          packed.data() + packed_s8_bytes(first, 1, k), sums.data() + first);
  });
  if (!operands.b_signed) {
    for (int32_t& zero_point : zero_points) zero_point = u8_zero_point(zero_point);
  }
  const std::vector<int32_t> starts = padded(bias, n);
  const std::vector<float> multipliers = padded(multiplier, n), addends = padded(addend, n);
  const Product product = operands.a_signed ? kernels->product_s8s8 : kernels->product_u8s8;

  // Kernels read whole groups of four, so from the last rows up to 3 bytes past the end of `a`,
  // which could be someone else's memory: those rows are copied.
  const auto* a = static_cast<const uint8_t*>(operands.a);
  const int64_t extra = (k + 3) / 4 * 4 - k;
  const int64_t copied = k == 0 ? 0 : std::min(m, (extra + stride - 1) / stride);
  std::vector<uint8_t> last(static_cast<size_t>(copied * k + extra));
  for (int64_t i = 0; i < copied; ++i) {
    memcpy(last.data() + i * k, a + (m - copied + i) * stride, static_cast<size_t>(k));
  }

  ProductArgs args = matrix_args(a, stride, out, n, m - copied, k, n);
  args.epilogue = epilogue;
  args.packed = packed.data();
  args.bias = starts.data();
  args.sums = sums.data();
  args.zero_point = operands.a_zero_point;
  args.row_zero_points = operands.row_zero_points;
  const bool centred = operands.b_signed && operands.column_zero_points == nullptr;
  args.weight_zero_points = centred ? nullptr : zero_points.data();
  args.epilogue.multiplier = multipliers.data();
  args.epilogue.addend = addend == nullptr ? nullptr : addends.data();
  if (args.cols > 0) run_product(product, args);
  if (copied == 0) return;
  args.dst = static_cast<uint8_t*>(out) + args.cols * n * element_bytes(epilogue.kind);
  args.src = last.data();
  args.src_col = k;
  if (args.row_zero_points) args.row_zero_points += args.cols;
  if (args.epilogue.row_multiplier) args.epilogue.row_multiplier += args.cols;
  if (args.epilogue.residual) {
    const int64_t skipped = args.cols * args.epilogue.residual_col;
    args.epilogue.residual = static_cast<const uint8_t*>(args.epilogue.residual) +
                             skipped * element_bytes(args.epilogue.residual_kind);
  }
  args.cols = copied;
  run_product(product, args);
}

namespace {

// f32, bf16 and f16: `packed` holds b as the kernel wants it.
template <class T>
void run_float(Product product, const T* a, const std::vector<T>& packed, int64_t m, int64_t k,
               int64_t n, const float* bias, const Epilogue& epilogue, void* out) {
  const std::vector<float> starts = padded(bias, n);
  ProductArgs args = matrix_args(a, k, out, n, m, k, n);
  args.epilogue = epilogue;
  args.packed = packed.data();
  args.bias = starts.data();
  run_product(product, args);
}

// Room for b, its k in groups of `group`.
template <class T>
std::vector<T> packed_room(int64_t k, int64_t n, int64_t group) {
  return std::vector<T>(static_cast<size_t>(padded_channels(n) * packed_depth(1, k, group)) + 1);
}

}  // namespace

void matmul_f32(const Kernels* kernels, const float* a, const float* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out) {
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  std::vector<float> packed = packed_room<float>(k, n, 1);
  pack_columns(pack_f32, b, k, n, 1, &packed);
  run_float(kernels->product_f32, a, packed, m, k, n, bias, epilogue, out);
}

void matmul_bf16(const Kernels* kernels, const uint16_t* a, const uint16_t* b, int64_t m, int64_t k,
                 int64_t n, const float* bias, const Epilogue& epilogue, void* out) {
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  std::vector<uint16_t> packed = packed_room<uint16_t>(k, n, 2);
  pack_columns(pack_bf16, b, k, n, 2, &packed);
  run_float(kernels->product_bf16, a, packed, m, k, n, bias, epilogue, out);
}

void matmul_f16(const Kernels* kernels, const uint16_t* a, const uint16_t* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out) {
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  std::vector<uint16_t> packed = packed_room<uint16_t>(k, n, 1);
  pack_columns(pack_f16, b, k, n, 1, &packed);
  run_float(kernels->product_f16, a, packed, m, k, n, bias, epilogue, out);
}

}  // namespace lp
