// matrix_product.cpp: see matrix_product.h.
#include "matrix_product.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "float_state.h"
#include "matrix_args.h"
#include "pack.h"

namespace lp {
namespace {

// Per-channel values, readable up to the next multiple of 64 as kernels want them; 0 where null.
template <class T>
std::vector<T> padded(const T* values, int64_t n) {
  std::vector<T> result(static_cast<size_t>(padded_channels(n)), T{0});
  if (values != nullptr) memcpy(result.data(), values, static_cast<size_t>(n) * sizeof(T));
  return result;
}

int64_t output_bytes(const Epilogue& epilogue) {
  return epilogue.kind == OUT_U8 || epilogue.kind == OUT_S8 ? 1 : 4;
}

void run(Product product, const ProductArgs& args) {
  const Piece piece = whole(args);
  product(&args, &piece);
}

}  // namespace

void matmul_u8s8(const Kernels* kernels, const uint8_t* a, const int8_t* b, int64_t m, int64_t k,
                 int64_t n, const int32_t* bias, const float* multiplier, const float* addend,
                 const Epilogue& epilogue, void* out) {
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  // One more element: a vector of none has no address, and memset must not be given that.
  std::vector<int8_t> packed(static_cast<size_t>(packed_s8_bytes(n, 1, k)) + 1);
  std::vector<int32_t> sums(static_cast<size_t>(padded_channels(n)));
  pack_s8(b, {1, 0, n}, n, 1, k, packed.data(), sums.data());
  const std::vector<int32_t> starts = padded(bias, n);
  const std::vector<float> multipliers = padded(multiplier, n), addends = padded(addend, n);

  // Kernels read whole groups of four, so from the last rows up to 3 bytes past the end of `a`,
  // which could be someone else's memory: those rows are copied.
  const int64_t extra = (k + 3) / 4 * 4 - k;
  const int64_t copied = k == 0 ? 0 : std::min(m, (extra + k - 1) / k);
  std::vector<uint8_t> last(static_cast<size_t>(copied * k + extra));
  if (copied > 0) memcpy(last.data(), a + (m - copied) * k, static_cast<size_t>(copied * k));

  ProductArgs args = matrix_args(a, k, out, n, m - copied, k, n);
  args.epilogue = epilogue;
  args.sums = sums.data();
  args.packed = packed.data();
  args.bias = starts.data();
  args.epilogue.multiplier = multipliers.data();
  args.epilogue.addend = addend == nullptr ? nullptr : addends.data();
  if (args.cols > 0) run(kernels->product_u8s8, args);
  args.dst = static_cast<uint8_t*>(out) + args.cols * n * output_bytes(epilogue);
  args.src = last.data();
  args.cols = copied;
  if (copied > 0) run(kernels->product_u8s8, args);
}

void matmul_f32(const Kernels* kernels, const float* a, const float* b, int64_t m, int64_t k,
                int64_t n, const float* bias, const Epilogue& epilogue, void* out) {
  if (m == 0 || n == 0) return;
  const FloatingPointState state;
  std::vector<float> packed(static_cast<size_t>(padded_channels(n) * k) + 1);
  pack_f32(b, {1, 0, n}, n, 1, k, packed.data());
  const std::vector<float> starts = padded(bias, n);
  ProductArgs args = matrix_args(a, k, out, n, m, k, n);
  args.epilogue = epilogue;
  args.packed = packed.data();
  args.bias = starts.data();
  run(kernels->product_f32, args);
}

}  // namespace lp
