// pack_f32.inl: rows of floats to panels of 64 columns (pack.h), turned and multiplied on the way:
// the keys of attention, which change from call to call.
//
//   x [n][k], rows row_stride apart   ──►   packed [n / 64][k][64] = x * factor
//
// Columns past the last row are zeros.

namespace {

#if defined(LP_ISA_AVX512)

// 16 rows of 16 floats, transposed.
LP_INLINE void transpose_floats(__m512 (&v)[16]) {
  __m512i a[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m512 low = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    const __m512 high = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    a[2 * i] = _mm512_castps_si512(low);
    a[2 * i + 1] = _mm512_castps_si512(high);
  }
  // Row r of block g: column 4 * (lane / 4) + r of rows 4 * g ..
  __m512i b[4][4];
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    b[0][g] = _mm512_unpacklo_epi64(a[4 * g], a[4 * g + 2]);
    b[1][g] = _mm512_unpackhi_epi64(a[4 * g], a[4 * g + 2]);
    b[2][g] = _mm512_unpacklo_epi64(a[4 * g + 1], a[4 * g + 3]);
    b[3][g] = _mm512_unpackhi_epi64(a[4 * g + 1], a[4 * g + 3]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    transpose_blocks(b[r]);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) v[4 * q + r] = _mm512_castsi512_ps(b[r][q]);
  }
}

static void pack_turned_f32(const float* x, int64_t row_stride, int64_t n, int64_t k, float factor,
                            float* packed) {
  const __m512 times = _mm512_set1_ps(factor);
  for (int64_t n0 = 0; n0 < n; n0 += 64, packed += 64 * k) {
    for (int64_t group = 0; group < 64; group += 16) {
      const int64_t left = n - n0 - group;
      const float* source = x + (n0 + group) * row_stride;
      for (int64_t k0 = 0; k0 < k; k0 += 16) {
        const __mmask16 mask = float_lanes(static_cast<int>(k - k0 < 16 ? k - k0 : 16));
        __m512 v[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
          v[i] = i < left ? _mm512_maskz_loadu_ps(mask, source + i * row_stride + k0)
                          : _mm512_setzero_ps();
          v[i] = i < left ? _mm512_mul_ps(v[i], times) : v[i];
        }
        transpose_floats(v);
        float* to = packed + k0 * 64 + group;
        if (k - k0 >= 16) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + 64 * i, v[i]);
          continue;
        }
        alignas(64) float rest[16][16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) _mm512_store_ps(rest[i], v[i]);
        for (int64_t i = 0; i < k - k0; ++i) {
          _mm512_storeu_ps(to + 64 * i, _mm512_load_ps(rest[i]));
        }
      }
    }
  }
}

#else

static void pack_turned_f32(const float* x, int64_t row_stride, int64_t n, int64_t k, float factor,
                            float* packed) {
  for (int64_t n0 = 0; n0 < n; n0 += 64, packed += 64 * k) {
    for (int64_t column = 0; column < 64; ++column) {
      const float* source = x + (n0 + column) * row_stride;
      const bool inside = n0 + column < n;
      for (int64_t i = 0; i < k; ++i) packed[i * 64 + column] = inside ? source[i] * factor : 0.0f;
    }
  }
}

#endif

}  // namespace
