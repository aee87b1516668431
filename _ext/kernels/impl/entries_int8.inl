// entries_int8.inl: the int8 products of this translation unit, as a table of kernels has them.

namespace {

static void product_u8s8(const lp::ProductArgs* args, const lp::Piece* piece) {
  product_int8<MicroInt8<uint8_t>>(*args, *piece);
}
static void product_s8s8(const lp::ProductArgs* args, const lp::Piece* piece) {
  product_int8<MicroInt8<int8_t>>(*args, *piece);
}

}  // namespace
