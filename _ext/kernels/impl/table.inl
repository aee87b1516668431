// table.inl: the table of this translation unit.

namespace {

static void product_bf16(const lp::ProductArgs* args, const lp::Piece* piece) {
  product<MicroBF16>(*args, *piece);
}
static void product_f16(const lp::ProductArgs* args, const lp::Piece* piece) {
  product<MicroF16>(*args, *piece);
}
static void product_f32(const lp::ProductArgs* args, const lp::Piece* piece) {
  product<MicroF32>(*args, *piece);
}

constexpr lp::Kernels kernel_table(const char* name) {
  lp::Kernels k{};
  k.name = name;
  k.product_u8s8 = product_u8s8;
  k.product_s8s8 = product_s8s8;
  k.product_bf16 = product_bf16;
  k.product_f16 = product_f16;
  k.product_f32 = product_f32;
  k.depthwise_u8s8 = depthwise_u8s8;
  k.depthwise_f32 = depthwise_f32;
  k.depthwise_bf16 = depthwise_bf16;
  k.pack_rows_s8 = pack_rows_s8;
  k.pack_turned_f32 = pack_turned_f32;
  add_conversions(k);
  k.range = range;
  k.histogram = histogram;
  k.edge_histogram = edge_histogram;
  k.moments = moments;
  k.unary = unary;
  k.binary = binary;
  k.binary_rows = binary_rows;
  k.qbinary_rows = qbinary_rows;
  k.look_up = look_up;
  k.reduce = reduce;
  k.sum_codes = sum_codes;
  k.softmax = softmax;
  k.normalize_rows = normalize_rows;
  k.largest_of_rows = largest_of_rows;
  k.quantize_code_rows = quantize_code_rows;
  k.softmax_codes = softmax_codes;
  k.scale_shift = scale_shift;
  k.scale_shift_u8 = scale_shift_u8;
  k.max_pool_f32 = max_pool_f32;
  k.max_pool_bf16 = max_pool_bf16;
  k.max_pool_u8 = max_pool_u8;
  k.max_pool_s8 = max_pool_s8;
  k.average_pool_f32 = average_pool_f32;
  k.average_pool_bf16 = average_pool_bf16;
  k.blend = blend;
  return k;
}

}  // namespace
