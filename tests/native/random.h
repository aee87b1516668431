// random.h: seeded values: the same program draws the same cases again.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#include "guarded.h"

namespace lp::check {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {  // splitmix64
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // low..high, both included.
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int one_in) { return between(1, one_in) == 1; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
  }
  Against side() { return chance(3) ? Against::BEGIN : Against::END; }

  // Often an edge of a tile or of a vector, plus or minus one.
  int64_t size(int64_t limit) {
    if (chance(2)) return between(1, limit);
    const int64_t edge = one_of<int64_t>({1, 4, 8, 16, 32, 48, 64, 128, 192}) + between(-1, 1);
    return edge < 1 || edge > limit ? between(1, limit) : edge;
  }

  float uniform(float low, float high) {  // one rounding: the same everywhere
    const double unit = static_cast<double>(bits() >> 11) * 0x1p-53;
    return static_cast<float>(low + unit * (static_cast<double>(high) - low));
  }
  float any_bits() {
    const uint32_t word = static_cast<uint32_t>(bits());
    float x;
    memcpy(&x, &word, 4);
    return x;
  }
  // Zeros, infinities, NaN (quiet and signalling), denormals, ties of several formats, limits.
  float special() {
    static const uint32_t words[] = {
        0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001,
        0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x477FEFFF,
        0x477FF000, 0x33000000, 0x33000001, 0x387FE000, 0x3F000000, 0x3FC00000, 0x40200000,
        0xBF000000, 0xC0200000, 0x3F808000, 0x3F818000, 0x3F801000, 0x3F803000, 0x42B17218,
        0xC2CFF1B5, 0x4F000000, 0xCF000000, 0x4B000000, 0x3F800000, 0xBF800000};
    const uint32_t word = words[between(0, sizeof(words) / sizeof(words[0]) - 1)];
    float x;
    memcpy(&x, &word, 4);
    return x;
  }
  // `reach`: the size of ordinary values; 1 in `odd` is special or has random bits (0: none).
  float value(float reach, int odd) {
    if (odd > 0 && chance(odd)) return chance(2) ? special() : any_bits();
    return uniform(-reach, reach);
  }
  void fill(const Guarded<float>& x, float reach, int odd) {
    for (int64_t i = 0; i < x.size(); ++i) x[i] = value(reach, odd);
  }
  // Codes; sometimes only the extremes, where a saturating instruction shows.
  template <class T>
  void fill_codes(const Guarded<T>& q) {
    const bool extremes = chance(4);
    for (int64_t i = 0; i < q.size(); ++i) {
      const uint64_t word = bits();
      q[i] = static_cast<T>(extremes ? (word & 1                 ? 0x80
                                        : sizeof(T) && T(-1) < 0 ? 0x7F
                                                                 : 0xFF)
                                     : static_cast<int64_t>(word));
    }
  }

 private:
  uint64_t state_;
};

}  // namespace lp::check
