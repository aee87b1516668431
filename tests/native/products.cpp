// products.cpp: matrix products and convolutions by runs, whole and in pieces.
#include <algorithm>

#include "case.h"
#include "epilogues.h"
#include "pack.h"
#include "plain.h"

namespace lp::check {
namespace {

struct Shape {
  int64_t images, rows, cols, n, run_length;
  int64_t src_image, src_row, src_col, dst_image, dst_row, dst_col;
  std::vector<int64_t> offsets;

  int64_t runs() const { return static_cast<int64_t>(offsets.size()); }
  int64_t m() const { return images * rows * cols; }
  int64_t src_extent() const {
    return (images - 1) * src_image + (rows - 1) * src_row + (cols - 1) * src_col +
           *std::max_element(offsets.begin(), offsets.end()) + run_length;
  }
  int64_t dst_extent() const {
    return (images - 1) * dst_image + (rows - 1) * dst_row + (cols - 1) * dst_col + n;
  }
};

void draw_matrices(Random& random, Shape& s) {
  const bool batched = random.chance(3);
  s.images = batched ? random.between(1, 3) : 1;
  s.rows = 1;
  s.cols = random.chance(4) ? random.between(1, 4) : random.size(140);
  s.run_length = random.chance(12) ? random.between(200, 700) : random.size(70);
  s.offsets = {random.chance(8) ? random.between(1, 9) : 0};
  s.src_col = s.run_length + (random.chance(2) ? 0 : random.between(1, 9));
  s.src_row = random.between(0, 100);
  s.src_image = random.chance(4) ? 0 : s.cols * s.src_col + random.between(0, 5);
}

void draw_convolution(Random& random, Shape& s) {
  const int64_t channels = random.size(40), kh = random.between(1, 4), kw = random.between(1, 4);
  const int64_t stride = random.between(1, 2), dilation = random.chance(4) ? 2 : 1;
  s.images = random.between(1, 2);
  s.rows = random.between(1, 5);
  s.cols = random.between(1, 12);
  const int64_t width = (s.cols - 1) * stride + (kw - 1) * dilation + 1 + random.between(0, 2);
  const int64_t line = width * channels + random.between(0, 5);
  const bool together = dilation == 1;
  s.run_length = together ? kw * channels : channels;
  for (int64_t y = 0; y < kh; ++y) {
    for (int64_t x = 0; x < (together ? 1 : kw); ++x) {
      s.offsets.push_back(y * line * dilation + x * dilation * channels);
    }
  }
  s.src_col = stride * channels;
  s.src_row = stride * line;
  s.src_image = (s.rows * stride + kh * dilation) * line;
}

Shape draw_shape(Case& c) {
  Random& random = c.random;
  Shape s;
  if (random.chance(3)) {
    draw_convolution(random, s);
  } else {
    draw_matrices(random, s);
  }
  s.n = random.chance(8) ? random.between(129, 300) : random.size(130);
  s.dst_col = s.n + (random.chance(2) ? 0 : random.between(1, 70));
  s.dst_row = s.cols * s.dst_col + random.between(0, 3);
  s.dst_image = s.rows * s.dst_row + random.between(0, 3);
  c.describe("images %d rows %d cols %d n %d runs %d x %d, src strides %d %d %d, dst %d %d %d",
             static_cast<int>(s.images), static_cast<int>(s.rows), static_cast<int>(s.cols),
             static_cast<int>(s.n), static_cast<int>(s.runs()), static_cast<int>(s.run_length),
             static_cast<int>(s.src_image), static_cast<int>(s.src_row),
             static_cast<int>(s.src_col), static_cast<int>(s.dst_image),
             static_cast<int>(s.dst_row), static_cast<int>(s.dst_col));
  return s;
}

ProductArgs arguments(const Shape& s, const Epilogue& e) {
  ProductArgs args{};
  args.images = s.images, args.rows = s.rows, args.cols = s.cols;
  args.src_image = s.src_image, args.src_row = s.src_row, args.src_col = s.src_col;
  args.dst_image = s.dst_image, args.dst_row = s.dst_row, args.dst_col = s.dst_col;
  args.run_offset = s.offsets.data();
  args.runs = s.runs();
  args.run_length = s.run_length;
  args.n = s.n;
  args.epilogue = e;
  return args;
}

// Pieces that together are the whole product.
std::vector<Piece> draw_pieces(Random& random, const ProductArgs& args) {
  const Piece all = whole(args);
  if (random.chance(2)) return {all};
  std::vector<Piece> pieces;
  for (int64_t row = 0; row < all.row_end;) {
    const int64_t row_end = std::min(all.row_end, row + random.size(all.row_end));
    for (int64_t n = 0; n < all.n_end;) {
      const int64_t n_end = std::min(all.n_end, n + PACK_PANEL * random.between(1, 3));
      pieces.push_back({row, row_end, n, n_end});
      n = n_end;
    }
    row = row_end;
  }
  return pieces;
}

// Calls visit(row, source offset, destination offset) for every row.
template <class Visit>
void for_rows(const Shape& s, Visit visit) {
  int64_t m = 0;
  for (int64_t image = 0; image < s.images; ++image) {
    for (int64_t y = 0; y < s.rows; ++y) {
      for (int64_t x = 0; x < s.cols; ++x, ++m) {
        visit(m, image * s.src_image + y * s.src_row + x * s.src_col,
              image * s.dst_image + y * s.dst_row + x * s.dst_col);
      }
    }
  }
}

void run_tables(Case& c, Product Kernels::* entry, ProductArgs args, const Shape& s,
                const Guarded<uint8_t>& expected) {
  const std::vector<Piece> pieces = draw_pieces(c.random, args);
  const Against side = c.random.side();
  c.describe(", %d pieces", static_cast<int>(pieces.size()));
  c.each_table([&](const Kernels& table) {
    const Guarded<uint8_t> dst(expected.size(), side);
    args.dst = dst.data();
    for (const Piece& piece : pieces) (table.*entry)(&args, &piece);
    if (args.epilogue.kind != OUT_F32) return c.same("dst", expected, dst);
    c.same_floats("dst", reinterpret_cast<const float*>(expected.data()),
                  reinterpret_cast<const float*>(dst.data()), s.dst_extent());
  });
}

// Weights of s8 or u8, packed, with the sums and zero points that go with them.
template <class Weight>
struct CodeWeights {
  CodeWeights(Random& random, const Shape& s)
      : depth(s.runs() * s.run_length),
        codes(s.n * depth, Against::END),
        packed(packed_s8_bytes(s.n, s.runs(), s.run_length), random.side()),
        sums(padded_channels(s.n), random.side()),
        zero_points(padded_channels(s.n), random.side()) {
    constexpr bool is_signed = static_cast<Weight>(-1) < 0;
    random.fill_codes(codes);
    const WeightStrides strides = {depth, s.run_length, 1};  // [n][runs][run]
    if constexpr (is_signed) {
      pack_s8(codes.data(), strides, s.n, s.runs(), s.run_length, packed.data(), sums.data());
    } else {
      pack_u8(codes.data(), strides, s.n, s.runs(), s.run_length, packed.data(), sums.data());
    }
    has_zero_points = !is_signed || random.chance(3);
    for (int64_t n = 0; n < zero_points.size(); ++n) {
      const int64_t drawn = random.between(is_signed ? -128 : 0, is_signed ? 127 : 255);
      zero_points[n] = has_zero_points ? static_cast<int32_t>(drawn) : 0;
    }
  }
  // As the kernels want them; `stored` keeps them.
  const int32_t* for_kernels(std::vector<int32_t>& stored) const {
    if (!has_zero_points) return nullptr;
    for (int64_t n = 0; n < zero_points.size(); ++n) {
      const bool is_signed = static_cast<Weight>(-1) < 0;
      stored.push_back(is_signed ? zero_points[n] : u8_zero_point(zero_points[n]));
    }
    return stored.data();
  }

  int64_t depth;
  Guarded<Weight> codes;
  Guarded<int8_t> packed;
  Guarded<int32_t> sums, zero_points;
  bool has_zero_points;
};

template <class Code, class Weight, Product Kernels::* entry>
void product_codes(Case& c) {
  constexpr bool is_signed = static_cast<Code>(-1) < 0;
  const Shape s = draw_shape(c);
  Random& random = c.random;
  const Guarded<Code> a(s.src_extent(), random.side(), 3);
  random.fill_codes(a);
  for (int64_t i = 0; i < 3; ++i) a[a.size() + i] = static_cast<Code>(random.bits());
  const CodeWeights<Weight> w(random, s);
  const Guarded<int32_t> bias(padded_channels(s.n), random.side());
  for (int64_t n = 0; n < bias.size(); ++n) {
    bias[n] = static_cast<int32_t>(random.between(-1000000, 1000000));
  }
  const auto draw_zero_point = [&] {
    return static_cast<int32_t>(random.between(is_signed ? -128 : 0, is_signed ? 127 : 255));
  };
  const int32_t zero_point = random.chance(3) ? 0 : draw_zero_point();
  const bool by_row = random.chance(4);
  const Guarded<int32_t> row_zero_points(s.m(), random.side());
  for (int64_t m = 0; m < s.m(); ++m) row_zero_points[m] = by_row ? draw_zero_point() : zero_point;
  c.describe(", zero points: a %d%s, weights %s", zero_point, by_row ? " by row" : "",
             w.has_zero_points ? "some" : "none");
  EpilogueDraw epilogue(c, true, s.n, 255.0f * 64.0f * static_cast<float>(w.depth));
  epilogue.settle_fast(c, 1e6 + 255.0 * 255.0 * static_cast<double>(w.depth));

  ProductArgs args = arguments(s, epilogue.get());
  std::vector<int32_t> stored;
  args.src = a.data();
  args.packed = w.packed.data();
  args.bias = bias.data();
  args.sums = w.sums.data();
  args.zero_point = zero_point;
  args.row_zero_points = by_row ? row_zero_points.data() : nullptr;
  args.weight_zero_points = w.for_kernels(stored);
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_rows(s, [&](int64_t m, int64_t src, int64_t dst) {
    for (int64_t n = 0; n < s.n; ++n) {
      int64_t acc = bias[n];
      const Weight* weight = w.codes.data() + n * w.depth;
      for (const int64_t offset : s.offsets) {
        for (int64_t k = 0; k < s.run_length; ++k) {
          acc += (a[src + offset + k] - row_zero_points[m]) * (*weight++ - w.zero_points[n]);
        }
      }
      plain_finish_s32(c.scalar(), static_cast<int32_t>(acc), n, m, args.epilogue,
                       expected.data() + (dst + n) * out);
    }
  });
  run_tables(c, entry, args, s, expected);
}

void product_f32(Case& c) {
  const Shape s = draw_shape(c);
  Random& random = c.random;
  const int64_t depth = s.runs() * s.run_length;
  const int odd = random.chance(4) ? 200 : 0;
  const Guarded<float> a(s.src_extent(), random.side());
  random.fill(a, 2.0f, odd);
  const Guarded<float> w(s.n * depth, Against::END);
  random.fill(w, 2.0f, odd);
  const Guarded<float> packed(padded_channels(s.n) * depth, random.side());
  pack_f32(w.data(), {depth, s.run_length, 1}, s.n, s.runs(), s.run_length, packed.data());
  const Guarded<float> bias(padded_channels(s.n), random.side());
  random.fill(bias, 4.0f, odd);
  EpilogueDraw epilogue(c, false, s.n, 1.0f);

  ProductArgs args = arguments(s, epilogue.get());
  args.src = a.data();
  args.packed = packed.data();
  args.bias = bias.data();
  const int64_t out = bytes_of(args.epilogue.kind);
  const Guarded<uint8_t> expected(s.dst_extent() * out, Against::END);
  for_rows(s, [&](int64_t m, int64_t src, int64_t dst) {
    for (int64_t n = 0; n < s.n; ++n) {
      float acc = 0.0f;
      const float* weight = &w[n * depth];
      for (const int64_t offset : s.offsets) {
        for (int64_t k = 0; k < s.run_length; ++k) acc = fmaf(a[src + offset + k], *weight++, acc);
      }
      plain_finish_f32(c.scalar(), acc + bias[n], n, m, args.epilogue,
                       expected.data() + (dst + n) * out);
    }
  });
  run_tables(c, &Kernels::product_f32, args, s, expected);
}

}  // namespace

std::vector<Check> product_checks() {
  using K = Kernels;
  const std::vector<size_t> u8 = {LP_ENTRY(product_u8s8)}, s8 = {LP_ENTRY(product_s8s8)};
  return {{"product_u8s8", product_codes<uint8_t, int8_t, &K::product_u8s8>, 200, u8},
          {"product_s8s8", product_codes<int8_t, int8_t, &K::product_s8s8>, 200, s8},
          {"product_u8u8", product_codes<uint8_t, uint8_t, &K::product_u8s8>, 80, u8},
          {"product_s8u8", product_codes<int8_t, uint8_t, &K::product_s8s8>, 80, s8},
          {"product_f32", product_f32, 150, {LP_ENTRY(product_f32)}}};
}

}  // namespace lp::check
