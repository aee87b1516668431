// depthwise.cpp: one filter per channel.
#include "epilogues.h"
#include "pack.h"
#include "shapes.h"

namespace lp::check {
namespace {

// Sources of u8 codes, or of s8 codes that are read as 128 more.
void depthwise_codes(Case& c) {
  const Shape s = draw_depthwise_shape(c);
  Random& random = c.random;
  const int64_t wide = padded_channels(s.n), taps = s.count();
  const Guarded<uint8_t> a(s.src_extent(), random.side(), 63);
  random.fill_codes(a);
  const Guarded<int8_t> drawn(taps * s.n, Against::END);
  random.fill_codes(drawn);
  const Guarded<int8_t> w(taps * wide, random.side());
  for (int64_t i = 0; i < w.size(); ++i) {
    w[i] = i % wide < s.n ? drawn[i / wide * s.n + i % wide] : int8_t{0};
  }
  const Guarded<int8_t> by_four(wide * ((taps + 3) / 4) * 4, random.side());
  pack_depthwise_by_four(w.data(), s.n, taps, by_four.data());
  const bool columns = has_columns(s.kernel_h, s.kernel_w) && !random.chance(8);
  const Guarded<int8_t> by_columns(columns ? depthwise_columns_bytes(s.n, s.kernel_h) : 1,
                                   random.side());
  if (columns) pack_depthwise_by_columns(w.data(), s.n, s.kernel_h, by_columns.data());
  const bool is_signed = random.chance(3);
  c.describe(", %d x %d%s", static_cast<int>(s.kernel_h), static_cast<int>(s.kernel_w),
             is_signed ? ", signed" : "");
  const Guarded<int32_t> bias(wide, random.side());
  for (int64_t i = 0; i < wide; ++i) bias[i] = static_cast<int32_t>(random.between(-90000, 90000));
  EpilogueDraw epilogue(c, true, s, 255.0f * 64.0f * static_cast<float>(taps));
  epilogue.settle_fast(c, 9e4 + 255.0 * 128.0 * static_cast<double>(taps));

  DepthwiseArgs args = depthwise_arguments(s, epilogue.get());
  args.src = a.data();
  args.weights = w.data();
  args.weights_by_four = by_four.data();
  args.weights_by_columns = columns ? by_columns.data() : nullptr;
  args.is_signed = is_signed ? 1 : 0;
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_rows(s, args.epilogue, [&](const Row& row) {
    for (int64_t n = 0; n < s.n; ++n) {
      int32_t acc = bias[n];
      for (int64_t t = 0; t < taps; ++t) {
        const uint8_t code = a[row.src + s.offsets[static_cast<size_t>(t)] + n];
        acc += (is_signed ? static_cast<int8_t>(code) + 128 : code) * w[t * wide + n];
      }
      plain_finish_s32(c.scalar(), acc, {row.m, n, row.residual + n}, args.epilogue,
                       expected.data() + (row.dst + n) * out);
    }
  });
  run_tables(c, &Kernels::depthwise_u8s8, args, expected);
}

// T: the pixels' type; bf16 ones as their bits. Denormals count: they are not flushed here.
template <class T, Depthwise Kernels::* entry>
void depthwise_reals(Case& c) {
  const Shape s = draw_depthwise_shape(c);
  Random& random = c.random;
  const int64_t wide = padded_channels(s.n), taps = s.count();
  const Guarded<T> a(s.src_extent(), random.side());
  const Guarded<float> drawn(s.src_extent(), random.side()), w(taps * wide, random.side());
  const Guarded<float> bias(wide, random.side());
  const int odd = random.chance(4) ? 200 : 0;
  random.fill(drawn, 2.0f, odd);
  for (int64_t i = 0; i < a.size(); ++i) {
    if constexpr (sizeof(T) == 2) {
      uint32_t bits;
      memcpy(&bits, &drawn[i], sizeof(bits));
      a[i] = static_cast<T>(bits >> 16);
      bits &= 0xFFFF0000u;
      memcpy(&drawn[i], &bits, sizeof(bits));
    } else {
      a[i] = drawn[i];
    }
  }
  random.fill(w, 2.0f, odd);
  random.fill(bias, 2.0f, odd);
  EpilogueDraw epilogue(c, false, s, 1.0f);

  DepthwiseArgs args = depthwise_arguments(s, epilogue.get());
  args.src = a.data();
  args.weights = w.data();
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_rows(s, args.epilogue, [&](const Row& row) {
    for (int64_t n = 0; n < s.n; ++n) {
      float acc = 0.0f;
      for (int64_t t = 0; t < taps; ++t) {
        acc = fmaf(drawn[row.src + s.offsets[static_cast<size_t>(t)] + n], w[t * wide + n], acc);
      }
      plain_finish_f32(c.scalar(), acc + bias[n], {row.m, n, row.residual + n}, args.epilogue,
                       expected.data() + (row.dst + n) * out);
    }
  });
  run_tables(c, entry, args, expected);
}

}  // namespace

std::vector<Check> depthwise_checks() {
  return {{"depthwise_u8s8", depthwise_codes, 240, {LP_ENTRY(depthwise_u8s8)}},
          {"depthwise_f32",
           depthwise_reals<float, &Kernels::depthwise_f32>,
           80,
           {LP_ENTRY(depthwise_f32)}},
          {"depthwise_bf16",
           depthwise_reals<uint16_t, &Kernels::depthwise_bf16>,
           80,
           {LP_ENTRY(depthwise_bf16)}}};
}

}  // namespace lp::check
