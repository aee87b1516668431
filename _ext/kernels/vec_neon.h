// vec_neon.h: the vectors of vec.h for Advanced SIMD on aarch64: four lanes. Included by vec.h,
// inside its unnamed namespace.
//
// FMIN and FMAX give NaN where an operand is one: vmin and vmax compare and select instead. FCVTNS
// saturates where x86 gives INT_MIN, which nothing may depend on (|x| < 2^31 is the contract).

constexpr int W = 4;
struct VF {
  float32x4_t v;
};
struct VI {
  int32x4_t v;
};
struct VM {
  uint32x4_t v;
};
LP_INLINE uint32x4_t lanes(int n) {
  static const int32_t order[4] = {0, 1, 2, 3};
  return vcgtq_s32(vdupq_n_s32(n), vld1q_s32(order));
}
// The first n of four 32-bit elements, 0 <= n <= 4, the others 0; nothing past them is touched.
LP_INLINE uint32x4_t load_words(const void* p, int n) {
  const uint32_t* words = static_cast<const uint32_t*>(p);
  const uint32x2_t none = vdup_n_u32(0);
  switch (n) {
    case 0:
      return vcombine_u32(none, none);
    case 1:
      return vcombine_u32(vld1_lane_u32(words, none, 0), none);
    case 2:
      return vcombine_u32(vld1_u32(words), none);
    case 3:
      return vcombine_u32(vld1_u32(words), vld1_lane_u32(words + 2, none, 0));
    default:
      return vld1q_u32(words);
  }
}
LP_INLINE void store_words(void* p, uint32x4_t a, int n) {
  uint32_t* words = static_cast<uint32_t*>(p);
  if (n >= 4) return vst1q_u32(words, a);
  if (n >= 2) vst1_u32(words, vget_low_u32(a));
  if (n == 1) vst1q_lane_u32(words, a, 0);
  if (n == 3) vst1q_lane_u32(words + 2, a, 2);
}
LP_INLINE VF vload(const float* p) { return {vld1q_f32(p)}; }
LP_INLINE VF vload_n(const float* p, int n) { return {vreinterpretq_f32_u32(load_words(p, n))}; }
LP_INLINE void vstore(float* p, VF a) { vst1q_f32(p, a.v); }
LP_INLINE void vstore_n(float* p, VF a, int n) { store_words(p, vreinterpretq_u32_f32(a.v), n); }
LP_INLINE VF vset(float x) { return {vdupq_n_f32(x)}; }
LP_INLINE VF operator+(VF a, VF b) { return {vaddq_f32(a.v, b.v)}; }
LP_INLINE VF operator-(VF a, VF b) { return {vsubq_f32(a.v, b.v)}; }
LP_INLINE VF operator*(VF a, VF b) { return {vmulq_f32(a.v, b.v)}; }
LP_INLINE VF operator/(VF a, VF b) { return {vdivq_f32(a.v, b.v)}; }
LP_INLINE VF fma(VF a, VF b, VF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
LP_INLINE VF vmin(VF a, VF b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
LP_INLINE VF vmax(VF a, VF b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
LP_INLINE VF vsqrt(VF a) { return {vsqrtq_f32(a.v)}; }
template <int K>
LP_INLINE VF swap_lanes(VF a) {
  if constexpr (K == 2) return {vextq_f32(a.v, a.v, 2)};
  return {vrev64q_f32(a.v)};
}
LP_INLINE float first_lane(VF a) { return vgetq_lane_f32(a.v, 0); }
LP_INLINE VF vrint(VF a) { return {vrndnq_f32(a.v)}; }
LP_INLINE VF vfloor(VF a) { return {vrndmq_f32(a.v)}; }
LP_INLINE VF vceil(VF a) { return {vrndpq_f32(a.v)}; }
LP_INLINE VM operator<(VF a, VF b) { return {vcltq_f32(a.v, b.v)}; }
LP_INLINE VM operator<=(VF a, VF b) { return {vcleq_f32(a.v, b.v)}; }
LP_INLINE VM operator==(VF a, VF b) { return {vceqq_f32(a.v, b.v)}; }
LP_INLINE VM is_nan(VF a) { return {vmvnq_u32(vceqq_f32(a.v, a.v))}; }
LP_INLINE VM first_lanes(int n) { return {lanes(n)}; }
LP_INLINE VF select(VM m, VF yes, VF no) { return {vbslq_f32(m.v, yes.v, no.v)}; }
LP_INLINE VI select(VM m, VI yes, VI no) { return {vbslq_s32(m.v, yes.v, no.v)}; }
LP_INLINE VM operator&(VM a, VM b) { return {vandq_u32(a.v, b.v)}; }
LP_INLINE VM operator|(VM a, VM b) { return {vorrq_u32(a.v, b.v)}; }
LP_INLINE int mask_bits(VM m) {
  static const uint32_t weight[4] = {1, 2, 4, 8};
  return static_cast<int>(vaddvq_u32(vandq_u32(m.v, vld1q_u32(weight))));
}
LP_INLINE VI vload(const int32_t* p) { return {vld1q_s32(p)}; }
LP_INLINE VI vload_n(const int32_t* p, int n) { return {vreinterpretq_s32_u32(load_words(p, n))}; }
LP_INLINE void vstore(int32_t* p, VI a) { vst1q_s32(p, a.v); }
LP_INLINE void vstore_n(int32_t* p, VI a, int n) { store_words(p, vreinterpretq_u32_s32(a.v), n); }
LP_INLINE VI vset_s32(int32_t x) { return {vdupq_n_s32(x)}; }
LP_INLINE VI operator+(VI a, VI b) { return {vaddq_s32(a.v, b.v)}; }
LP_INLINE VI operator-(VI a, VI b) { return {vsubq_s32(a.v, b.v)}; }
LP_INLINE VI operator&(VI a, VI b) { return {vandq_s32(a.v, b.v)}; }
LP_INLINE VI operator|(VI a, VI b) { return {vorrq_s32(a.v, b.v)}; }
LP_INLINE VI operator^(VI a, VI b) { return {veorq_s32(a.v, b.v)}; }
LP_INLINE VM operator==(VI a, VI b) { return {vceqq_s32(a.v, b.v)}; }
LP_INLINE VM operator>(VI a, VI b) { return {vcgtq_s32(a.v, b.v)}; }
LP_INLINE VI vmin(VI a, VI b) { return {vminq_s32(a.v, b.v)}; }
LP_INLINE VI vmax(VI a, VI b) { return {vmaxq_s32(a.v, b.v)}; }
template <int S>
LP_INLINE VI shift_left(VI a) {
  return {vshlq_n_s32(a.v, S)};
}
template <int S>
LP_INLINE VI shift_right(VI a) {  // logical
  return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), S))};
}
template <int S>
LP_INLINE VI shift_right_signed(VI a) {
  return {vshrq_n_s32(a.v, S)};
}
LP_INLINE VI cvt_s32(VF a) { return {vcvtnq_s32_f32(a.v)}; }
LP_INLINE VF cvt_f32(VI a) { return {vcvtq_f32_s32(a.v)}; }
LP_INLINE VI as_s32(VF a) { return {vreinterpretq_s32_f32(a.v)}; }
LP_INLINE VF as_f32(VI a) { return {vreinterpretq_f32_s32(a.v)}; }

// Four bytes in the low half; the rest 0.
LP_INLINE uint8x8_t four_bytes(const void* p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return vreinterpret_u8_u32(vset_lane_u32(word, vdup_n_u32(0), 0));
}
LP_INLINE VI load_u8(const uint8_t* p) {
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four_bytes(p)))))};
}
LP_INLINE VI load_s8(const int8_t* p) {
  return {vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes(p)))))};
}
LP_INLINE VI load_u8_n(const uint8_t* p, int n) {
  uint8_t buffer[4] = {0};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load_u8(buffer);
}
LP_INLINE VI load_s8_n(const int8_t* p, int n) {
  int8_t buffer[4] = {0};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load_s8(buffer);
}
// Stores the low byte of each lane.
LP_INLINE void store_b8(void* p, VI a) {
  const int16x4_t words = vmovn_s32(a.v);
  const uint32_t bytes =
      vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  memcpy(p, &bytes, 4);
}
LP_INLINE void store_b8_n(void* p, VI a, int n) {
  uint8_t buffer[4];
  store_b8(buffer, a);
  for (int i = 0; i < n; ++i) static_cast<uint8_t*>(p)[i] = buffer[i];
}
LP_INLINE VI load_u16(const uint16_t* p) { return {vreinterpretq_s32_u32(vmovl_u16(vld1_u16(p)))}; }
LP_INLINE void store_b16(void* p, VI a) {  // low 16 bits of each lane
  vst1_s16(static_cast<int16_t*>(p), vmovn_s32(a.v));
}
