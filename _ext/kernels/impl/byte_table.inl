// byte_table.inl: codes[i] = table[codes[i]], a table of 256 bytes: an operator on 8-bit codes.
//
// AVX-512  128 words in four registers: two two-register permutations by bits 1-6 of the code, bit
// 7
//          chooses between them, bit 0 chooses the byte of the word (needs BW only, not VBMI)
// AVX2     16 shuffles of 16 bytes, one for each value of the upper four bits
// Included inside a per-ISA translation unit, after vec.h.
#pragma once
#include "kernels/kernels.h"
#include "kernels/vec.h"

namespace {

#if defined(LP_ISA_AVX512)
class ByteTable {
 public:
  static LP_MEMBER void load(const uint8_t* table, __m512i (&parts)[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) parts[i] = _mm512_loadu_si512(table + 64 * i);
  }
  static LP_MEMBER __m512i look_up(const __m512i (&parts)[4], __m512i codes) {
    const __m512i low = _mm512_and_si512(codes, _mm512_set1_epi16(0xFF));
    const __m512i even = byte_of(parts, low), odd = byte_of(parts, _mm512_srli_epi16(codes, 8));
    return _mm512_or_si512(even, _mm512_slli_epi16(odd, 8));
  }

  explicit LP_MEMBER ByteTable(const uint8_t* table) { load(table, parts_); }
  static constexpr int WIDTH = 64;
  LP_MEMBER void apply(const uint8_t* codes, uint8_t* y, int n) const {
    const __mmask64 mask = byte_lanes(n);
    const __m512i found = look_up(parts_, _mm512_maskz_loadu_epi8(mask, codes));
    _mm512_mask_storeu_epi8(y, mask, found);
  }

 private:
  // Codes in words, 0..255; the results, too.
  static LP_MEMBER __m512i byte_of(const __m512i (&parts)[4], __m512i code) {
    const __m512i index = _mm512_srli_epi16(code, 1);
    const __m512i first = _mm512_permutex2var_epi16(parts[0], index, parts[1]);
    const __m512i second = _mm512_permutex2var_epi16(parts[2], index, parts[3]);
    const __mmask32 upper = _mm512_test_epi16_mask(code, _mm512_set1_epi16(0x80));
    const __m512i word = _mm512_mask_blend_epi16(upper, first, second);
    const __mmask32 odd = _mm512_test_epi16_mask(code, _mm512_set1_epi16(1));
    const __m512i byte = _mm512_mask_srli_epi16(word, odd, word, 8);
    return _mm512_and_si512(byte, _mm512_set1_epi16(0xFF));
  }
  __m512i parts_[4];
};
#elif defined(LP_ISA_AVX2)
class ByteTable {
 public:
  explicit LP_MEMBER ByteTable(const uint8_t* table) : table_(table) {}
  static constexpr int WIDTH = 32;
  LP_MEMBER void apply(const uint8_t* codes, uint8_t* y, int n) const {
    if (n < WIDTH) {
      for (int i = 0; i < n; ++i) y[i] = table_[codes[i]];
      return;
    }
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    __m256i result = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (int upper = 0; upper < 16; ++upper) {
      const __m256i part = _mm256_broadcastsi128_si256(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(table_ + 16 * upper)));
      // 0x70..0x7F where the upper bits match; above, where a shuffle gives 0.
      const __m256i index =
          _mm256_adds_epu8(_mm256_xor_si256(x, _mm256_set1_epi8(static_cast<char>(upper << 4))),
                           _mm256_set1_epi8(0x70));
      result = _mm256_or_si256(result, _mm256_shuffle_epi8(part, index));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), result);
  }

 private:
  const uint8_t* table_;
};
#else
class ByteTable {
 public:
  explicit LP_MEMBER ByteTable(const uint8_t* table) : table_(table) {}
  static constexpr int WIDTH = 1;
  LP_MEMBER void apply(const uint8_t* codes, uint8_t* y, int) const { *y = table_[*codes]; }

 private:
  const uint8_t* table_;
};
#endif

[[maybe_unused]] static void apply_table(const uint8_t* table, uint8_t* codes, int64_t count) {
  const ByteTable bytes(table);
  for (int64_t i = 0; i < count; i += ByteTable::WIDTH) {
    const int64_t left = count - i;
    bytes.apply(codes + i, codes + i,
                left < ByteTable::WIDTH ? static_cast<int>(left) : ByteTable::WIDTH);
  }
}

[[maybe_unused]] static void look_up(const lp::LookUpArgs* args) {
  const ByteTable bytes(args->table);
  for (int64_t r = 0; r < args->rows; ++r) {
    const uint8_t* x = args->x + r * args->x_row;
    uint8_t* y = args->y + r * args->y_row;
    for (int64_t i = 0; i < args->n; i += ByteTable::WIDTH) {
      const int64_t left = args->n - i;
      bytes.apply(x + i, y + i,
                  left < ByteTable::WIDTH ? static_cast<int>(left) : ByteTable::WIDTH);
    }
  }
}

}  // namespace
