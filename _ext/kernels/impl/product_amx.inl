// product_amx.inl: products of any type with AMX tiles, down to 32-bit sums.
//
//             B0    B1       16 output channels each: 16 groups of 4 bytes of k, as packed
//             (pack.h),
//                            64 output channels or 256 bytes apart
//   A0       C00   C01
//   A1       C10   C11       16 rows, 64 bytes of k
//
// Tiles        C00 C01 C10 C11 = 0..3, A0 A1 = 4 5, B0 B1 = 6 7: four dot products for four loads
// K            in chunks of 64 bytes, run by run (a chunk never holds bytes of two runs)
// A            straight from memory where 16 rows lie at equal distances and the chunk is whole,
//              else through a copy filled up with zeros
// B            straight from memory where the chunk is whole, else through such a copy: the tile
//              would read past the run, in the end past the weights; and 0 * NaN is no 0

namespace {

struct CodesU8S8 {
  template <int C, int A, int B>
  static LP_MEMBER void dot(Tiles& tiles) {
    tiles.dot_u8s8<C, A, B>();
  }
};
struct CodesS8S8 {
  template <int C, int A, int B>
  static LP_MEMBER void dot(Tiles& tiles) {
    tiles.dot_s8s8<C, A, B>();
  }
};
struct Bf16 {
  template <int C, int A, int B>
  static LP_MEMBER void dot(Tiles& tiles) {
    tiles.dot_bf16<C, A, B>();
  }
};

// Up to 16 rows of A. `stride`: their distance in bytes, 0 where there are fewer or they lie
// unevenly.
struct TileRows {
  static TileRows at(const uint8_t* const* source, int count) {
    const int64_t stride = count > 1 ? source[1] - source[0] : 0;
    bool even = count == TILE_ROWS;
    for (int i = 2; i < count && even; ++i) even = source[i] - source[i - 1] == stride;
    return {source, count, even ? stride : 0};
  }
  const uint8_t* const* source;
  int count;
  int64_t stride;
};

struct alignas(64) TileCopy {
  uint8_t row[TILE_ROWS][TILE_BYTES];
};

template <int T>
LP_INLINE void load_a(Tiles& tiles, const TileRows& rows, int64_t offset, int64_t bytes) {
  if (rows.stride != 0 && bytes == TILE_BYTES) {
    tiles.load<T>(rows.source[0] + offset, rows.stride);
    return;
  }
  TileCopy copy;
  memset(&copy, 0, sizeof(copy));
  for (int i = 0; i < rows.count; ++i) {
    memcpy(copy.row[i], rows.source[i] + offset, static_cast<size_t>(bytes));
  }
  tiles.load<T>(&copy, TILE_BYTES);
}

template <int T>
LP_INLINE void load_b(Tiles& tiles, const uint8_t* packed, int64_t groups) {
  if (groups == TILE_ROWS) {
    tiles.load<T>(packed, PANEL * 4);
    return;
  }
  TileCopy copy;
  memset(&copy, 0, sizeof(copy));
  for (int64_t g = 0; g < groups; ++g) memcpy(copy.row[g], packed + g * PANEL * 4, TILE_BYTES);
  tiles.load<T>(&copy, TILE_BYTES);
}

// sums[16 * MT][64], columns 0 .. 16 * NT - 1 of it, += A * B. `packed` points at the first column.
template <class Kind, int MT, int NT>
static __attribute__((noinline)) void sum_tiles(Tiles& tiles, const lp::ProductArgs& args,
                                                int64_t element_bytes, const TileRows* rows,
                                                const uint8_t* packed, void* sums) {
  constexpr int64_t ROW = PANEL * 4;
  char* c = static_cast<char*>(sums);
  tiles.load<0>(c, ROW);
  if constexpr (NT > 1) tiles.load<1>(c + TILE_BYTES, ROW);
  if constexpr (MT > 1) tiles.load<2>(c + TILE_ROWS * ROW, ROW);
  if constexpr (MT > 1 && NT > 1) tiles.load<3>(c + TILE_ROWS * ROW + TILE_BYTES, ROW);
  const int64_t run_bytes = args.run_length * element_bytes;
  for (int64_t r = 0; r < args.runs; ++r) {
    const int64_t offset = args.run_offset[r] * element_bytes;
    for (int64_t k = 0; k < run_bytes; k += TILE_BYTES) {
      const int64_t bytes = run_bytes - k < TILE_BYTES ? run_bytes - k : TILE_BYTES;
      const int64_t groups = (bytes + 3) / 4;
      load_a<4>(tiles, rows[0], offset + k, bytes);
      load_b<6>(tiles, packed, groups);
      Kind::template dot<0, 4, 6>(tiles);
      if constexpr (NT > 1) {
        load_b<7>(tiles, packed + TILE_BYTES, groups);
        Kind::template dot<1, 4, 7>(tiles);
      }
      if constexpr (MT > 1) {
        load_a<5>(tiles, rows[1], offset + k, bytes);
        Kind::template dot<2, 5, 6>(tiles);
      }
      if constexpr (MT > 1 && NT > 1) Kind::template dot<3, 5, 7>(tiles);
      packed += groups * ROW;
    }
  }
  tiles.store<0>(c, ROW);
  if constexpr (NT > 1) tiles.store<1>(c + TILE_BYTES, ROW);
  if constexpr (MT > 1) tiles.store<2>(c + TILE_ROWS * ROW, ROW);
  if constexpr (MT > 1 && NT > 1) tiles.store<3>(c + TILE_ROWS * ROW + TILE_BYTES, ROW);
}

template <class Kind, int MT>
LP_INLINE void sum_panel(Tiles& tiles, const lp::ProductArgs& args, int64_t element_bytes,
                         const TileRows* rows, const void* weights, int columns, void* sums) {
  for (int n = 0; n < columns; n += 32) {
    const uint8_t* packed = static_cast<const uint8_t*>(weights) + 4 * n;
    char* c = static_cast<char*>(sums) + 4 * n;
    if (n + 16 < columns) {
      sum_tiles<Kind, MT, 2>(tiles, args, element_bytes, rows, packed, c);
    } else {
      sum_tiles<Kind, MT, 1>(tiles, args, element_bytes, rows, packed, c);
    }
  }
}

// sums[rows][64] += A * B for up to 32 rows; the rest of 16 or 32 rows of sums are written too.
template <class Kind>
LP_INLINE void sum_rows(Tiles& tiles, const lp::ProductArgs& args, int64_t element_bytes,
                        const uint8_t* const* source, int count, const void* weights, int columns,
                        void* sums) {
  const int first = count < TILE_ROWS ? count : TILE_ROWS;
  const TileRows rows[2] = {TileRows::at(source, first),
                            TileRows::at(source + first, count - first)};
  if (count > TILE_ROWS) {
    sum_panel<Kind, 2>(tiles, args, element_bytes, rows, weights, columns, sums);
  } else {
    sum_panel<Kind, 1>(tiles, args, element_bytes, rows, weights, columns, sums);
  }
}

}  // namespace
