// kernels.h: the table of kernels that each instruction set provides.
//
// One `Kernels` object per ISA; dispatch (cpu.h) picks one at run time and everything above calls
// through it. Pointers are trusted here: shapes and dtypes are checked before. All sizes and
// strides are in elements. Sources of u8 x s8 products must be readable 3 elements past their end,
// those of depthwise u8 x s8 products 63 past theirs.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lp {

// ---- unary float operators: a chain runs in order on each element, every step rounded to f32 ----
enum UnaryCode : int32_t {
  UNARY_RELU = 1,
  UNARY_CLIP = 2,          // min(max(x, a), b)
  UNARY_ADD = 3,           // x + a
  UNARY_MUL = 4,           // x * a
  UNARY_DIV = 5,           // x / a
  UNARY_RSUB = 6,          // a - x
  UNARY_RDIV = 7,          // a / x
  UNARY_LEAKY_RELU = 8,    // x < 0 ? a * x : x
  UNARY_HARD_SIGMOID = 9,  // min(max(a * x + b, 0), 1)
  UNARY_HARD_SWISH = 10,   // x * min(max(x * (1/6) + 0.5, 0), 1)
  UNARY_SIGMOID = 11,
  UNARY_SILU = 12,  // x * sigmoid(x)
  UNARY_TANH = 13,
  UNARY_EXP = 14,
  UNARY_LOG = 15,
  UNARY_SQRT = 16,
  UNARY_RECIPROCAL = 17,
  UNARY_NEG = 18,
  UNARY_ABS = 19,
  UNARY_ERF = 20,
  UNARY_GELU = 21,  // 0.5 * x * (1 + erf(x * sqrt(1/2)))
  UNARY_GELU_TANH = 22,
  UNARY_SOFTPLUS = 23,
  UNARY_ELU = 24,  // x < 0 ? a * (exp(x) - 1) : x
  UNARY_FLOOR = 25,
  UNARY_CEIL = 26,
  UNARY_ROUND = 27,
  UNARY_SIGN = 28,
  UNARY_SQUARE = 29,
  UNARY_SELU = 30,  // a: alpha, b: gamma
  UNARY_SOFTSIGN = 31,
  UNARY_MISH = 32,
  // Only in the epilogue of a product, which knows the row and the column:
  UNARY_ADD_RESIDUAL = 64,  // x + (residual - residual_zero_point) * residual_scale
  UNARY_ADD_CHANNEL = 65,   // x + channel_values[(int)a][n]
  UNARY_MUL_CHANNEL = 66,   // x * channel_values[(int)a][n]
  UNARY_THROUGH_U8 = 67,    // dequantize(quantize(x)): u8 codes, scale a, zero point b
  UNARY_THROUGH_S8 = 68,
  UNARY_PRELU_CHANNEL = 69,  // x < 0 ? channel_values[(int)a][n] * x : x
};
struct UnaryOp {
  int32_t code;
  float a, b;
};

// ---- what happens to an accumulator ----
enum OutputKind : int32_t { OUT_S32 = 0, OUT_F32 = 1, OUT_U8 = 2, OUT_S8 = 3, OUT_BF16 = 4 };

// int8 product:   OUT_S32            acc
//                 OUT_F32            chain(f32(acc) * multiplier[n] + addend[n])
//                 OUT_U8/S8, plain   clamp(saturate(rint(f32(acc) * multiplier[n]) + zero_point))
//                 OUT_U8/S8, else    clamp(quantize(chain(as for OUT_F32), scale))
//                 plain: no addend, no operators; "+ addend" is a separate rounding, left out if
//                 null
// float product:  OUT_F32            chain(acc + bias[n])
//                 OUT_U8/S8          clamp(quantize(chain(acc + bias[n]), scale))
// both:           OUT_BF16           as OUT_F32, then rounded to bf16
// With row_multiplier (int8 products, OUT_F32 or OUT_BF16): multiplier[n] becomes
// row_multiplier[m] * multiplier[n], rounded, m counted over all rows.
// With table: a u8/s8 code q, as an unsigned byte, is replaced by table[q] at the very end.
struct Epilogue {
  int32_t kind;
  int32_t zero_point;  // of the output codes
  int32_t qmin, qmax;  // clamp, within the code type
  // 1: |acc * multiplier| < 2^31 is proven, so no clamp before rounding; with a residual of codes
  // also |sum| < 2^30 * scale
  int32_t fast;
  float scale;              // of the output codes, used where Quantize divides
  const float* multiplier;  // per output channel, readable up to the next multiple of 64
  const float* addend;      // per output channel or null; int8 products only
  const UnaryOp* ops;
  int32_t n_ops;
  const float* row_multiplier;         // one per row, or null
  const uint8_t* table;                // 256 bytes, or null
  const float* const* channel_values;  // lists of one value per output channel, padded to 64
  // Of UNARY_ADD_RESIDUAL: at the row's own place, residual_* strides like dst_*, in elements.
  const void* residual;
  int32_t residual_kind;  // OUT_F32, OUT_U8, OUT_S8 or OUT_BF16
  int32_t residual_zero_point;
  float residual_scale;
  int64_t residual_image, residual_row, residual_col;
};

// ---- products over runs ----
// Row m of A is `runs` contiguous pieces of `run_length` elements at base(m) + run_offset[r]. A
// matrix is one run; a KH x KW convolution over channels-last data is KH runs of KW * C (no
// im2col). Row m = (image, y, x); base = src + image * src_image + y * src_row + x * src_col,
// likewise dst.
struct ProductArgs {
  const void* src;
  void* dst;
  int64_t images, rows, cols;
  int64_t src_image, src_row, src_col;
  int64_t dst_image, dst_row, dst_col;
  const int64_t* run_offset;
  int64_t runs, run_length;
  int64_t n;           // output channels
  const void* packed;  // pack.h: panels of 64 output channels
  const void* bias;    // s32 or f32, readable up to the next multiple of 64
  Epilogue epilogue;

  // int8 products only:
  //   acc[m][n] = bias[n] + sum over k of (a[m][k] - za) * (w[k][n] - zw[n])
  // Kernels fold the zero points with `sums` (of w, per output channel, no zero point; readable up
  // to the next multiple of 64, and always given) and with sums of the rows of A where zw is given.
  const int32_t* sums;
  int32_t zero_point;                 // za
  const int32_t* row_zero_points;     // za per row m (counted over all rows), or null
  const int32_t* weight_zero_points;  // zw, readable up to the next multiple of 64, or null (0)
};

// The piece of a product that one call does: rows [row_begin, row_end) of images * rows * cols and
// output channels [n_begin, n_end), n_begin a multiple of 64. Pieces are independent, so threads
// share out a product; a sum over k is never cut. Depthwise: rows are lines (image, y), n channels.
struct Piece {
  int64_t row_begin, row_end, n_begin, n_end;
};

// ---- depthwise products: output channel c = sum over taps t of src[c + tap_offset[t]] * w[t][c]
// ----
struct DepthwiseArgs {
  const void* src;
  void* dst;
  int64_t images, rows, cols;
  int64_t src_image, src_row, src_col;
  int64_t dst_image, dst_row, dst_col;
  const int64_t* tap_offset;
  int64_t taps;
  int64_t channels;
  const void* weights;          // [taps][channels rounded up to 64], s8 or f32
  const void* weights_by_four;  // s8 only: four taps side by side (pack.h)
  // s8 only, 3x3 and 5x5, else null: four rows side by side (pack.h), 64-byte aligned. Then
  // tap_offset is that of KH rows of KW taps at equal distances.
  const void* weights_by_columns;
  const void* bias;  // readable up to the next multiple of 64
  // Codes only: src holds s8 codes, read as the u8 codes 128 higher. `bias` has what that takes.
  int32_t is_signed;
  Epilogue epilogue;
};

// With weights_by_columns, so many neighbouring pixels share a vector of 64 codes where so many
// channels are left.
static inline int64_t depthwise_pixels(int64_t channels) {
  return channels <= 16 ? 4 : channels <= 32 ? 2 : 1;
}

enum BinaryCode : int32_t {
  BINARY_ADD = 1,
  BINARY_SUB = 2,
  BINARY_MUL = 3,
  BINARY_DIV = 4,
  BINARY_MIN = 5,
  BINARY_MAX = 6,
  BINARY_POW = 7,
  BINARY_PRELU = 8,  // x < 0 ? slope * x : x
};

// ---- the same operator on `rows` rows of n elements; operands advance by their own row strides,
// in
// ---- a row by 1, or 0 for a repeated element ----
struct BinaryArgs {
  const float* a;
  const float* b;
  float* y;  // rows follow each other; may be a or b where those are not repeated
  int64_t rows, n;
  int64_t a_row, a_stride, b_row, b_stride;
};

// y = quantize(dequantize(a) op dequantize(b)), BINARY_ADD or BINARY_MUL
struct QBinaryArgs {
  const void* a;
  const void* b;
  void* y;
  int64_t rows, n;
  int64_t a_row, a_stride, b_row, b_stride;
  int32_t a_signed, b_signed, y_signed;  // s8 rather than u8
  int32_t a_zero_point, b_zero_point, y_zero_point;
  float a_scale, b_scale, y_scale;
};

// y[r * y_row + i] = table[x[r * x_row + i]], r < rows, i < n: codes as unsigned bytes. y may be x
// where the rows are equally far apart.
struct LookUpArgs {
  const uint8_t* table;  // 256 codes
  const uint8_t* x;
  uint8_t* y;
  int64_t rows, n, x_row, y_row;
};

// ---- reductions of x [outer][depth][inner] over depth; a float sum adds element i to the partial
// sum
// ---- i % 16, then the partial sums j and j + 8, j + 4, j + 2, j + 1 ----
enum ReduceCode : int32_t {
  REDUCE_SUM = 1,
  REDUCE_SUM_SQUARE = 2,
  REDUCE_SUM_ABS = 3,
  REDUCE_SUM_EXP = 4,
  REDUCE_PROD = 5,  // partial products, the same way
  REDUCE_MAX = 6,   // NaN stays
  REDUCE_MIN = 7,
};

// y[i] = the sum as above, over d, of (x[d * stride + i] - zero_point) * scale, i < n: u8 codes, or
// s8.
struct SumCodesArgs {
  const void* x;
  float* y;
  int64_t depth, n, stride;
  float scale;
  int32_t zero_point;
  int32_t is_signed;
};

// Rows of n elements: (x - mean) * (1 / sqrt(mean of squared differences + epsilon)) * gamma +
// beta.
struct NormArgs {
  const float* x;
  float* y;
  int64_t rows, n;
  const float* gamma;  // n values each, or null for 1 and 0
  const float* beta;
  float* mean;  // rows values each, or null
  float* inverse_deviation;
  float epsilon;
  int32_t root_mean_square;  // 1: x / sqrt(mean of squares + epsilon) * gamma
};

// s8 codes of `rows` rows of n floats that are row_stride apart: q = rint(x / scale) within +-127,
// rows q_stride apart; sums: those of each row's codes, or null.
struct CodeRowsArgs {
  const float* x;
  int64_t row_stride, rows, n;
  float scale;
  int8_t* q;
  int64_t q_stride;
  int32_t* sums;
};

// y = (x - shift[c]) * scale[c] + offset[c]; rows of n, c = row % channels or, with channels_last,
// the position in the row (n = channels).
struct ScaleShiftArgs {
  const float* x;
  float* y;
  int64_t rows, n, channels;
  const float *shift, *scale, *offset;
  int32_t channels_last;
};

// q = quantize((x - shift[c]) * scale[c] + offset[c], code_scale), c the position in the row; rows
// of x are x_row apart, those of q follow each other.
struct ScaleShiftCodesArgs {
  const float* x;
  uint8_t* q;
  int64_t rows, n, x_row;
  const float *shift, *scale, *offset;
  float code_scale;
  int32_t zero_point;
};

// ---- windows over channels-last images; taps outside of the image are skipped ----
struct PoolArgs {
  const void* src;
  void* dst;
  int64_t images, height, width, channels;
  int64_t out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  // Average only: what is divided by. Taps inside the image widened by these pads count.
  int32_t count_padding;
  int64_t pad_bottom, pad_right;
};

// ---- conversions of n elements (impl/convert.inl: codes; impl/casts.inl: floats) ----
enum ConversionCode : int32_t {
  F32_TO_BF16,
  BF16_TO_F32,
  F32_TO_F16,
  F16_TO_F32,
  F32_TO_TF32,
  F32_TO_E4M3,  // e4m3fn: no infinity, one NaN
  E4M3_TO_F32,
  F32_TO_E5M2,
  E5M2_TO_F32,
  QUANTIZE_U8,  // f32 -> codes
  QUANTIZE_S8,
  QUANTIZE_U16,
  QUANTIZE_S16,
  DEQUANTIZE_U8,  // codes -> f32
  DEQUANTIZE_S8,
  DEQUANTIZE_U16,
  DEQUANTIZE_S16,
  REQUANTIZE_U8,  // s32 -> codes
  REQUANTIZE_S8,
  REQUANTIZE_U16,
  REQUANTIZE_S16,
  CONVERSION_COUNT
};
struct ConvertArgs {
  const void* x;
  void* y;  // x itself only where the elements have the same size
  int64_t n;
  const float* scale;         // of codes; REQUANTIZE: the multiplier
  const int32_t* zero_point;  // a value that the codes have
  int32_t each;               // scale and zero_point hold 1: n values, 0: one
  int32_t saturate;           // to E4M3, E5M2; 1: what is too large becomes the largest
                              // number, 0: infinity (E4M3: NaN)
  int32_t streaming;          // 1: past the caches; y is aligned to its own elements
};
// Bins of equal width between two borders, but for rounding: `edges` decides.
struct BinEdges {
  const float* edges;  // bins + 1, strictly increasing
  int64_t bins;
  float inverse_width;
  float doubt;  // (x - edges[0]) * inverse_width is off by less; further from a whole number, the
                // bin is certain
};
constexpr int64_t MOMENT_BLOCK = 4096;

using Convert = void (*)(const ConvertArgs*);

using Product = void (*)(const ProductArgs*, const Piece*);
using Depthwise = void (*)(const DepthwiseArgs*, const Piece*);

inline Piece whole(const ProductArgs& args) {
  return {0, args.images * args.rows * args.cols, 0, args.n};
}
inline Piece whole(const DepthwiseArgs& args) {
  return {0, args.images * args.rows, 0, args.channels};
}

struct Kernels {
  const char* name;  // of the instruction set: cpu_x86.cpp

  // Products (impl/product_*.inl, impl/depthwise.inl).
  Product product_u8s8;
  Product product_s8s8;
  Product product_f32;
  Product product_bf16;
  Product product_f16;
  Depthwise depthwise_u8s8;
  Depthwise depthwise_f32;
  Depthwise depthwise_bf16;  // bf16 pixels, f32 weights: depthwise_f32 of the pixels widened

  // Weights of one byte, row-major [k][n], to panels of 64 columns (pack.h) with the sums of their
  // columns (impl/pack.inl). flip: 0 for s8; 0x80 makes s8 of u8, 128 less. Padding is zeros.
  void (*pack_rows_s8)(const void* b, int64_t row_stride, int64_t k, int64_t n, int32_t flip,
                       int8_t* packed, int32_t* sums);

  // Rows of k floats, row_stride apart, to panels of 64 columns (pack.h), each element times
  // `factor`: column j of the packed weights is row j of x (impl/pack_f32.inl). Padding is zeros.
  void (*pack_turned_f32)(const float* x, int64_t row_stride, int64_t n, int64_t k, float factor,
                          float* packed);

  // Conversions: all of them by ConversionCode; the most common also as functions.
  Convert convert[CONVERSION_COUNT];
  void (*quantize_u8)(const float* x, uint8_t* q, int64_t n, float scale, int32_t zero_point);
  void (*quantize_s8)(const float* x, int8_t* q, int64_t n, float scale, int32_t zero_point);
  void (*dequantize_u8)(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point);
  void (*dequantize_s8)(const int8_t* q, float* x, int64_t n, float scale, int32_t zero_point);
  void (*requantize_u8)(const int32_t* acc, uint8_t* q, int64_t n, float multiplier,
                        int32_t zero_point);
  void (*requantize_s8)(const int32_t* acc, int8_t* q, int64_t n, float multiplier,
                        int32_t zero_point);
  void (*f32_to_bf16)(const float* x, uint16_t* y, int64_t n);
  void (*bf16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_f16)(const float* x, uint16_t* y, int64_t n);
  void (*f16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_tf32)(const float* x, float* y, int64_t n);

  // Statistics (impl/histogram.inl). `range` skips non-finite values and counts them; it widens
  // *minimum and *maximum, which the caller has initialised.
  void (*range)(const float* x, int64_t n, float* minimum, float* maximum, int64_t* nonfinite);
  // counts[floor(x * inverse_width) - origin] += 1 for every finite x; inverse_width is a power
  // of 2.
  void (*histogram)(const float* x, int64_t n, float inverse_width, int64_t origin, int64_t bins,
                    int64_t* counts);
  // counts[i] += 1 for every x in [edges[i], edges[i + 1]), the last bin with its end; finite
  // values outside are counted in outside[0] (below) and outside[1] (above).
  void (*edge_histogram)(const float* x, int64_t n, const BinEdges*, int64_t* counts,
                         int64_t* outside);
  // Exact sums of at most MOMENT_BLOCK values (impl/moments.inl): of those with magnitudes in
  // [upper / 2^16, upper), upper a power of two up to 2^128, sums[0] = the sum of x and sums[1] +
  // sums[2] = that of x^2. What lies below that window and is not zero goes to rest, which may be x
  // itself; returns how many.
  int64_t (*moments)(const float* x, int64_t n, double upper, double* sums, float* rest);

  // Element-wise (impl/unary.inl, impl/elementwise.inl). Strides are 1, or 0 for a repeated
  // operand.
  void (*unary)(const UnaryOp* ops, int32_t n_ops, const float* x, float* y, int64_t n);
  void (*binary)(int32_t code, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                 float* y, int64_t n);
  void (*binary_rows)(int32_t code, const BinaryArgs*);
  void (*qbinary_rows)(int32_t code, const QBinaryArgs*);
  void (*look_up)(const LookUpArgs*);  // impl/byte_table.inl

  // Rows (impl/rows.inl).
  void (*reduce)(int32_t code, const float* x, float* y, int64_t outer, int64_t depth,
                 int64_t inner);
  void (*sum_codes)(const SumCodesArgs*);
  // Over depth of x [outer][depth][inner]; with `logarithm`, its log.
  void (*softmax)(int32_t logarithm, const float* x, float* y, int64_t outer, int64_t depth,
                  int64_t inner);
  void (*normalize_rows)(const NormArgs*);
  void (*scale_shift)(const ScaleShiftArgs*);
  void (*scale_shift_u8)(const ScaleShiftCodesArgs*);  // impl/convert.inl

  // Attention in codes (impl/attention.inl). The largest magnitude in rows, NaN where there is one;
  // rows of scores [rows][n] to u8 weights, within 0.52 of 255 * exp(x - largest), zeros up to a
  // multiple of 4, and 1 / the sum of a row's codes. A row whose scores are all minus infinity
  // is zeros and 0; one with NaN or infinity zeros and NaN.
  float (*largest_of_rows)(const float* x, int64_t row_stride, int64_t rows, int64_t n);
  void (*quantize_code_rows)(const CodeRowsArgs*);
  void (*softmax_codes)(const float* x, int64_t rows, int64_t n, uint8_t* q, int64_t q_stride,
                        float* inverse_sums);

  // Windows (impl/pool.inl). bf16: in f32, the result rounded.
  void (*max_pool_f32)(const PoolArgs*);
  void (*max_pool_bf16)(const PoolArgs*);
  void (*max_pool_u8)(const PoolArgs*);
  void (*max_pool_s8)(const PoolArgs*);
  void (*average_pool_f32)(const PoolArgs*);
  void (*average_pool_bf16)(const PoolArgs*);
  // y[i] = sum over t, in order, of weights[t] * src[t][i], fused multiply-adds from +0.
  void (*blend)(const float* const* src, const float* weights, int64_t taps, float* y, int64_t n);
};

// Tables with every kernel; and what some sets replace in a copy of a smaller set's (cpu.cpp).
const Kernels* kernels_scalar();
#if defined(__x86_64__)
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
void add_avxvnni(Kernels*);
void add_avx512vnni(Kernels*);
void add_avx512bf16(Kernels*);
void add_amx(Kernels*);
void add_avxvnni_evex(Kernels*);  // for tests
void add_amx_model(Kernels*);
#elif defined(__aarch64__)
const Kernels* kernels_neon();
void add_dotprod(Kernels*);
void add_i8mm(Kernels*);
#endif

}  // namespace lp
