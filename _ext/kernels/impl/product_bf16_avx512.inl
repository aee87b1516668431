// product_bf16_avx512.inl: bf16 x bf16 products with vdpbf16ps.
//
// Microkernel  MR x (16 * NV): up to 6 x 64, 12 x 32; K in pairs
// Inner loop   per pair: NV loads of B (64 B each), MR broadcasts of A (4 B), MR * NV vdpbf16ps
// Instruction  vdpbf16ps zmm on Zen 4: 1 a cycle, latency 6: from 6 accumulators on it is busy. It
//              adds the product of the odd elements, then that of the even ones, each fused, and
//              reads and flushes denormals as zero whatever MXCSR says: the definition
//              (reference.gemm_bf16). As asm: GCC 12 rotates an intrinsic's accumulators
// Order        one chain an output, so few rows mean more columns at a time instead
// Packed B     [N/64][pairs][64][2]

namespace {

LP_INLINE void dot2(__m512& acc, __m512i a, __m512i b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
}

// 32 floats to bf16. The instruction flushes denormals and keeps the payload of a NaN: rare enough
// to look for.
LP_INLINE __m512i bf16_pair(__m512 low, __m512 high) {
  constexpr int RARE = 0x01 | 0x20 | 0x80;  // quiet NaN, denormal, signalling NaN
  const __mmask16 rare = _mm512_fpclass_ps_mask(low, RARE) | _mm512_fpclass_ps_mask(high, RARE);
  if (__builtin_expect(rare != 0, 0)) {
    const __m256i a = _mm512_cvtepi32_epi16(bf16_bits({low}).v);
    const __m256i b = _mm512_cvtepi32_epi16(bf16_bits({high}).v);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
  }
  const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
  __m512i bits;
  memcpy(&bits, &both, sizeof(bits));
  return bits;
}

struct MicroBF16 {
  using Element = uint16_t;
  static int64_t padded_depth(const lp::ProductArgs& args) {
    return args.runs * ((args.run_length + 1) / 2) * 2;
  }

  template <int MR, int NV>
  static LP_MEMBER void pair(__m512 (&acc)[MR][NV], const int32_t (&a)[MR], const uint16_t* b) {
    __m512i w[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) w[j] = _mm512_loadu_si512(b + 32 * j);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const __m512i x = _mm512_set1_epi32(a[i]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) dot2(acc[i][j], x, w[j]);
    }
  }

  template <int MR, int NV>
  static __attribute__((noinline)) void tile(const lp::ProductArgs& args,
                                             const Panel<uint16_t>& panel,
                                             const Rows<uint16_t>& rows, int first) {
    const uint16_t* b = panel.weights;
    fetch_target<MR>(args.epilogue, rows, first, panel.n0, panel.columns);
    __m512 acc[MR][NV];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
    int32_t x[MR];
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint16_t* run[MR];
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) run[i] = rows.source[first + i] + args.run_offset[r];
      int64_t k = 0;
      for (; k + 2 <= args.run_length; k += 2, b += 2 * PANEL) {
#pragma GCC unroll 12
        for (int i = 0; i < MR; ++i) memcpy(&x[i], run[i] + k, 4);
        pair<MR, NV>(acc, x, b);
      }
      if (k < args.run_length) {  // with +0, whatever stands behind the run
#pragma GCC unroll 12
        for (int i = 0; i < MR; ++i) x[i] = run[i][k];
        pair<MR, NV>(acc, x, b);
        b += 2 * PANEL;
      }
    }
    store<MR, NV>(args.epilogue, panel, rows, first, acc);
  }

  // Four panels side by side: more loads of B on their way at a time, and more chains.
  template <int MR>
  static __attribute__((noinline)) void wide_tile(const lp::ProductArgs& args,
                                                  const Panel<uint16_t>& panel,
                                                  const Rows<uint16_t>& rows) {
    const int64_t step = PANEL * padded_depth(args);
    const uint16_t* b = panel.weights;
    __m512 acc[4][MR][4];
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p)
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) acc[p][i][j] = _mm512_setzero_ps();
    int32_t x[MR];
    for (int64_t r = 0; r < args.runs; ++r) {
      const uint16_t* run[MR];
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) run[i] = rows.source[i] + args.run_offset[r];
      for (int64_t k = 0; k < args.run_length; k += 2, b += 2 * PANEL) {
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i) {
          if (k + 2 <= args.run_length) {
            memcpy(&x[i], run[i] + k, 4);
          } else {
            x[i] = run[i][k];
          }
        }
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) pair<MR, 4>(acc[p], x, b + p * step);
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      store<MR, 4>(args.epilogue, part(panel, p), rows, 0, acc[p]);
    }
  }

  static constexpr int FEW_ROWS = 1;
  static void few_rows(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                       const Rows<uint16_t>& rows) {
    wide_tile<1>(args, panel, rows);
  }

  template <int MR, int NV>
  static LP_MEMBER void store(const lp::Epilogue& e, const Panel<uint16_t>& panel,
                              const Rows<uint16_t>& rows, int first, __m512 (&acc)[MR][NV]) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const __m512 bias = _mm512_loadu_ps(panel.bias + 16 * j);
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) acc[i][j] = _mm512_add_ps(acc[i][j], bias);
    }
    const int columns = panel.columns;
    const bool finished = finish_in_registers<MR, NV>(e, acc);
    if (finished && e.kind == lp::OUT_F32) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) {
        float* dst = reinterpret_cast<float*>(rows.target[first + i]) + panel.n0;
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) {
          _mm512_mask_storeu_ps(dst + 16 * j, float_lanes(columns - 16 * j), acc[i][j]);
        }
      }
      return;
    }
    if (finished && e.kind == lp::OUT_BF16) {
#pragma GCC unroll 12
      for (int i = 0; i < MR; ++i) {
        uint16_t* dst = reinterpret_cast<uint16_t*>(rows.target[first + i]) + panel.n0;
#pragma GCC unroll 4
        for (int j = 0; j < NV; j += 2) {
          const __m512 high = j + 1 < NV ? acc[i][j + 1 < NV ? j + 1 : j] : _mm512_setzero_ps();
          _mm512_mask_storeu_epi16(dst + 16 * j, word_lanes(columns - 16 * j),
                                   bf16_pair(acc[i][j], high));
        }
      }
      return;
    }
    alignas(64) float buffer[MR][16 * NV];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) _mm512_store_ps(buffer[i] + 16 * j, acc[i][j]);
    finish_reals(e, rows, first, MR, panel.n0, columns, buffer[0], 16 * NV);
  }

  template <int NV>
  static void all_rows(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                       const Rows<uint16_t>& rows) {
    constexpr int MOST = NV <= 2 ? 12 : NV == 3 ? 8 : 6;
    split_rows<MOST>(rows.count, [&](auto height, int first) __attribute__((always_inline)) {
      tile<decltype(height)::value, NV>(args, panel, rows, first);
    });
  }

  static void rows(const lp::ProductArgs& args, const Panel<uint16_t>& panel,
                   const Rows<uint16_t>& rows) {
    switch ((panel.columns + 15) / 16) {
      case 1:
        return all_rows<1>(args, panel, rows);
      case 2:
        return all_rows<2>(args, panel, rows);
      case 3:
        return all_rows<3>(args, panel, rows);
      default:
        return all_rows<4>(args, panel, rows);
    }
  }
};

}  // namespace
