// exact_sum.h: a sum of doubles without any rounding: one wide fixed-point number.
//
// So the order of what is added does not matter, nor how it was cut, nor in which thread: sums of
// parts merge into the sum of the whole, bit for bit.
#pragma once
#include <math.h>
#include <stdint.h>

namespace lp {

// Holds multiples of 2^LOWEST below 2^(32 * LIMBS + LOWEST - 1) in magnitude: sums of 2^63 f32
// values or of 2^63 squares of them.
class ExactSum {
 public:
  static constexpr int LOWEST = -320, LIMBS = 24;

  // A multiple of 2^LOWEST, finite.
  void add(double value) {
    if (value == 0) return;
    int exponent = 0;
    // 53 bits: whole.
    const int64_t mantissa = static_cast<int64_t>(ldexp(frexp(value, &exponent), 53));
    const int shift = exponent - 53 - LOWEST;
    if (shift < 0) return add_whole(mantissa / (int64_t{1} << -shift), 0);  // zeros fall off
    add_whole(mantissa, shift);
  }

  void merge(const ExactSum& other) {
    ExactSum added = other;  // `other` may be this one
    added.carry();
    carry();
    for (int i = 0; i < LIMBS; ++i) limbs_[i] += added.limbs_[i];
    carry();
  }

  // The sum is that of out[i] * 2^(32 * i + LOWEST); out[LIMBS] in [0, 2^32) but for the last.
  void limbs(int64_t* out) const {
    ExactSum normal = *this;
    normal.carry();
    for (int i = 0; i < LIMBS; ++i) out[i] = normal.limbs_[i];
  }
  void set_limbs(const int64_t* limbs) {
    for (int i = 0; i < LIMBS; ++i) limbs_[i] = limbs[i];
    added_ = 0;
  }

 private:
  void add_whole(int64_t mantissa, int shift) {
    if (++added_ == (1 << 30)) carry();  // each addition moves a limb by less than 2^32
    const int limb = shift / 32;
    __extension__ const __int128 wide =
        static_cast<__int128>(mantissa) * (int64_t{1} << shift % 32);
    limbs_[limb] += static_cast<int64_t>(wide & 0xFFFFFFFF);
    limbs_[limb + 1] += static_cast<int64_t>(wide >> 32 & 0xFFFFFFFF);
    limbs_[limb + 2] += static_cast<int64_t>(wide >> 64);
  }

  void carry() {
    for (int i = 0; i + 1 < LIMBS; ++i) {
      limbs_[i + 1] += limbs_[i] >> 32;
      limbs_[i] &= 0xFFFFFFFF;
    }
    added_ = 0;
  }

  int64_t limbs_[LIMBS] = {0};
  int added_ = 0;
};

}  // namespace lp
