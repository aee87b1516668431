// product_int8_avx512vnni.inl: int8 products with AVX-512 VNNI.
//
// Microkernel  MR x (16 * NV): up to 6 x 64 (NV = 4) or 8 rows of 48, 32 or 16 columns. The rows of
//              a block are split evenly over the fewest tiles, so no tile is left with one row.
// Inner loop   per group of 4 k: NV loads of B (64 B each), MR broadcasts of A, MR * NV vpdpbusd
// Instruction  vpdpbusd zmm on Zen 4: 1 a cycle, latency 4. It sums four u8 x s8 products into s32
//              without saturating (vpdpbusds would). Written as asm because GCC 12 rotates the
//              accumulators of the intrinsic through copies
// Few rows     are limited by the loads of B and by latency: K is unrolled over several sets of
//              accumulators. No prefetch: it made one row slower (18 to 25 us, 2048 x 1000)
// Epilogue     tile_avx512.inl

namespace {

LP_INLINE void dot4(__m512i& acc, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
}
LP_INLINE void dot4(__m512i& acc, __m512i u8, const int8_t* s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "m"(*reinterpret_cast<const __m512i*>(s8)));
}

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = SIGNED;
  using Block = TileForm;

  // Four codes of A at k, in every lane, as u8.
  static LP_MEMBER __m512i broadcast(const uint8_t* a) {
    int32_t four;
    memcpy(&four, a, 4);
    const __m512i codes = _mm512_set1_epi32(four);
    return FLIPS ? _mm512_xor_si512(codes, _mm512_set1_epi32(static_cast<int>(0x80808080))) : codes;
  }

  template <int MR, int NV>
  static LP_MEMBER void step(const uint8_t* const* run, int64_t k, const int8_t* b,
                             __m512i (&acc)[MR][NV]) {
    if constexpr (MR == 1) {
      const __m512i x = broadcast(run[0] + k);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) dot4(acc[0][j], x, b + 64 * j);
    } else {
      __m512i w[NV];
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        w[j] = _mm512_loadu_si512(b + 64 * j);
        __asm__("" : "+v"(w[j]));  // or GCC loads it again for every row
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const __m512i x = broadcast(run[i] + k);
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) dot4(acc[i][j], x, w[j]);
      }
    }
  }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const CodePanel& panel,
                                             const CodeRows& rows, int first, const Block& form) {
    constexpr int SETS = MR * NV >= 8 ? 1 : MR * NV >= 3 ? 2 : 4;
    const int64_t depth = (args.run_length + 3) / 4 * 4;
    const int8_t* b = panel.weights;
    __m512i acc[SETS][MR][NV];
    start_tile<MR, NV>(panel, rows, first, acc[0]);
    fetch_target<MR>(args.epilogue, rows, first, panel.n0, panel.columns);
#pragma GCC unroll 4
    for (int s = 1; s < SETS; ++s)
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) acc[s][i][j] = _mm512_setzero_si512();
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run[MR];
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) run[i] = rows.source[first + i] + args.run_offset[r];
      int64_t k = 0;
      if constexpr (SETS > 1) {
        for (; k + 4 * SETS <= depth; k += 4 * SETS, b += PANEL * 4 * SETS) {
#pragma GCC unroll 4
          for (int s = 0; s < SETS; ++s) {
            step<MR, NV>(run, k + 4 * s, b + PANEL * 4 * s, acc[s]);
          }
        }
      }
      for (; k < depth; k += 4, b += PANEL * 4) step<MR, NV>(run, k, b, acc[0]);
    }
#pragma GCC unroll 4
    for (int s = 1; s < SETS; ++s)
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) acc[0][i][j] = _mm512_add_epi32(acc[0][i][j], acc[s][i][j]);
    if (store_form<MR, NV>(form, args.epilogue, panel, rows, first, acc[0])) return;
    store_tile<MR, NV>(args.epilogue, panel, rows, first, acc[0]);
  }

  // All rows, in tiles of at most MOST whose sizes differ by at most one.
  template <int NV, int MOST>
  static void split(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                    const Block& form) {
    int first = 0;
    for (int left = (rows.count + MOST - 1) / MOST; left > 0; --left) {
      const int count = (rows.count - first + left - 1) / left;
      switch (count) {
        case 1:
          tile<1, NV>(args, panel, rows, first, form);
          break;
        case 2:
          tile<2, NV>(args, panel, rows, first, form);
          break;
        case 3:
          tile<3, NV>(args, panel, rows, first, form);
          break;
        case 4:
          tile<4, NV>(args, panel, rows, first, form);
          break;
        case 5:
          tile<5, NV>(args, panel, rows, first, form);
          break;
        case 6:
          tile<6, NV>(args, panel, rows, first, form);
          break;
        case 7:
          if constexpr (MOST >= 7) tile<7, NV>(args, panel, rows, first, form);
          break;
        default:
          if constexpr (MOST >= 8) tile<8, NV>(args, panel, rows, first, form);
      }
      first += count;
    }
  }

  // One row times four panels: four streams of B keep more of the memory busy than one, and 16
  // accumulators hide the latency.
  static constexpr bool FOUR_PANELS = true;
  static __attribute__((noinline)) void four_panels(const lp::ProductArgs& args,
                                                    const CodePanel (&panels)[4],
                                                    const CodeRows& rows) {
    const int64_t depth = (args.run_length + 3) / 4 * 4;
    const int8_t* b[4];
    __m512i acc[4][1][4];
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      b[p] = panels[p].weights;
      start_tile<1, 4>(panels[p], rows, 0, acc[p]);
    }
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run = rows.source[0] + args.run_offset[r];
      for (int64_t k = 0; k < depth; k += 4) {
        const __m512i x = broadcast(run + k);
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) dot4(acc[p][0][j], x, b[p] + 64 * j);
          b[p] += PANEL * 4;
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) store_tile<1, 4>(args.epilogue, panels[p], rows, 0, acc[p]);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block& form) {
    switch ((panel.columns + 15) / 16) {
      case 1:
        split<1, 8>(args, panel, rows, form);
        break;
      case 2:
        split<2, 8>(args, panel, rows, form);
        break;
      case 3:
        split<3, 8>(args, panel, rows, form);
        break;
      default:
        split<4, 6>(args, panel, rows, form);
    }
  }
};

}  // namespace
