// product_int8_amx.inl: int8 products with AMX, 16 or 32 rows at a time (product_amx.inl).
//
// Sums start in memory, as product_int8.inl prepares them, are loaded into tiles, and come back for
// the epilogue of the other AVX-512 kernels. The last rows, fewer than 16, are left to the kernels
// that AMX replaces: the sums are exact, so nobody can tell.

namespace {

template <class Code>
struct KindOf;
template <>
struct KindOf<uint8_t> {
  using Type = CodesU8S8;
};
template <>
struct KindOf<int8_t> {
  using Type = CodesS8S8;
};

// Tiles are configured for one block of rows, all its panels.
struct TileBlock {
  LP_MEMBER TileBlock(const lp::ProductArgs&, const CodeRows&) {}
  mutable Tiles tiles;
};

template <class Code>
struct MicroInt8Amx {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = TileBlock;

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block& block) {
    alignas(64) int32_t sums[2 * TILE_ROWS][PANEL];
    for (int first = 0; first < rows.count; first += 2 * TILE_ROWS) {
      const int left = rows.count - first, count = left < 2 * TILE_ROWS ? left : 2 * TILE_ROWS;
      for (int i = 0; i < count; ++i) start_sums(panel, rows, first + i, sums[i]);
      sum_rows<typename KindOf<Code>::Type>(block.tiles, args, 1, rows.source + first, count,
                                            panel.weights, panel.columns, sums);
      for (int i = 0; i < count; i += 4) {
        __m512i acc[4][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
          for (int n = 0; n < 4; ++n) acc[j][n] = _mm512_load_si512(sums[i + j] + 16 * n);
        store_tile<4, 4>(args.epilogue, panel, rows, first + i, acc);
      }
    }
  }
};

template <class Code>
LP_INLINE void product_int8_amx(const lp::ProductArgs& args, const lp::Piece& piece,
                                lp::Product below) {
  lp::Piece tiled = piece, rest = piece;
  const int64_t rows = piece.row_end - piece.row_begin;
  tiled.row_end = rest.row_begin = piece.row_begin + rows / TILE_ROWS * TILE_ROWS;
  if (tiled.row_begin < tiled.row_end) {
    product_int8<MicroInt8Amx<Code>, 2 * TILE_ROWS>(args, tiled);
  }
  if (rest.row_begin < rest.row_end) below(&args, &rest);
}

}  // namespace
