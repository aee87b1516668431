// product_int8_avx512vnni.inl: int8 products with AVX-512 VNNI.
//
// Microkernel  MR x (16 * NV): 4 x 64 (NV = 4), 8 x 32 (NV <= 2); K in groups of 4 bytes
// Inner loop   per K group: NV loads of B (64 B each), MR broadcasts of A (4 B), MR * NV vpdpbusd
// Instruction  vpdpbusd zmm on Zen 4: 1 a cycle, latency 4, so 16 accumulators are ample. It sums
//              four u8 x s8 products into s32 without saturating (vpdpbusds would); written as asm
//              because GCC 12 rotates the accumulators of the intrinsic through copies
// Epilogue     tile_avx512.inl

namespace {

LP_INLINE void dot4(__m512i& acc, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
}

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = SIGNED;
  using Block = NoBlock;

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args, const CodePanel& panel,
                                             const CodeRows& rows, int first) {
    const int64_t groups = (args.run_length + 3) / 4;
    const uint8_t* const* a = rows.source + first;
    const int8_t* b = panel.weights;
    __m512i acc[MR][NV];
    start_tile<MR, NV>(panel, rows, first, acc);
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint8_t* run[MR];
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) run[i] = a[i] + args.run_offset[r];
      for (int64_t k = 0; k < 4 * groups; k += 4, b += PANEL * 4) {
        __m512i w[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) w[j] = _mm512_loadu_si512(b + 64 * j);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          int32_t four;
          memcpy(&four, run[i] + k, 4);
          __m512i x = _mm512_set1_epi32(four);
          if (FLIPS) x = _mm512_xor_si512(x, flip);
#pragma GCC unroll 4
          for (int j = 0; j < NV; ++j) dot4(acc[i][j], x, w[j]);
        }
      }
    }
    store_tile<MR, NV>(args.epilogue, panel, rows, first, acc);
  }

  template <int MR, int NV>
  static void all_rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows) {
    int i = 0;
    for (; i + MR <= rows.count; i += MR) tile<MR, NV>(args, panel, rows, i);
    if constexpr (MR > 4) {
      if (i + 4 <= rows.count) {
        tile<4, NV>(args, panel, rows, i);
        i += 4;
      }
    }
    if (i + 2 <= rows.count) {
      tile<2, NV>(args, panel, rows, i);
      i += 2;
    }
    if (i < rows.count) tile<1, NV>(args, panel, rows, i);
  }

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    switch ((panel.columns + 15) / 16) {
      case 1:
        all_rows<8, 1>(args, panel, rows);
        break;
      case 2:
        all_rows<8, 2>(args, panel, rows);
        break;
      case 3:
        all_rows<4, 3>(args, panel, rows);
        break;
      default:
        all_rows<4, 4>(args, panel, rows);
    }
  }
};

}  // namespace
