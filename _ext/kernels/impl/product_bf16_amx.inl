// product_bf16_amx.inl: bf16 products with AMX, all rows in tiles (product_amx.inl).
//
// tdpbf16ps does not round as the other kernels do (amx_tiles.h): per 32 elements of k, two chains
// of FMAs that are added to the sum so far (numerics/reference.py, gemm_bf16_amx). So the last
// rows, fewer than 16, must not be left to another kernel: how threads share out rows would show.

namespace {

struct MicroBF16Amx {
  using Element = uint16_t;
  static int64_t padded_depth(const lp::ProductArgs& args) {
    return args.runs * ((args.run_length + 1) / 2) * 2;
  }

  static void rows(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                   const Rows<uint16_t>& rows) {
    Tiles tiles;
    alignas(64) float sums[2 * TILE_ROWS][PANEL];
    for (int first = 0; first < rows.count; first += 2 * TILE_ROWS) {
      const int left = rows.count - first, count = left < 2 * TILE_ROWS ? left : 2 * TILE_ROWS;
      const uint8_t* source[2 * TILE_ROWS];
      for (int i = 0; i < count; ++i) {
        source[i] = reinterpret_cast<const uint8_t*>(rows.source[first + i]);
      }
      memset(sums, 0, sizeof(sums));
      sum_rows<Bf16>(tiles, args, 2, source, count, panel.weights, panel.columns, sums);
      for (int i = 0; i < count; ++i) {
        for (int j = 0; j < PANEL; j += W) {
          vstore(sums[i] + j, vload(sums[i] + j) + vload(panel.bias + j));
        }
      }
      finish_reals(args.epilogue, rows, first, count, panel.n0, panel.columns, sums[0], PANEL);
    }
  }
};

}  // namespace
