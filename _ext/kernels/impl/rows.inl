// rows.inl: reductions, softmax and normalisation.
//
// Element i of a sum goes to the partial sum i % 16, whatever the layout and the vector length: one
// 16-lane group along a contiguous row, or 16 accumulators when lanes run over `inner`.
// Included inside a per-ISA translation unit, after unary.inl.
#pragma once
#include "kernels/impl/elements.inl"
#include "kernels/impl/unary.inl"

namespace {

constexpr int GROUP = 16;

// How elements combine: `first` fills the partial results, `load` sees each element once.
struct Sum {
  static constexpr float first = 0.0f, absent = 0.0f;
  LP_INLINE VF load(VF x) { return x; }
  LP_INLINE VF join(VF a, VF b) { return a + b; }
};
struct SumSquare : Sum {
  LP_INLINE VF load(VF x) { return x * x; }
};
struct SumAbs : Sum {
  LP_INLINE VF load(VF x) { return vabs(x); }
};
struct SumExp : Sum {
  static constexpr float absent = -__builtin_inff();
  LP_INLINE VF load(VF x) { return vexp(x); }
};
struct Prod : Sum {
  static constexpr float first = 1.0f, absent = 1.0f;
  LP_INLINE VF join(VF a, VF b) { return a * b; }
};
struct Max : Sum {
  static constexpr float first = -__builtin_inff(), absent = first;
  LP_INLINE VF join(VF a, VF b) { return select(is_nan(a), a, vmax(a, b)); }
};
struct Min : Sum {
  static constexpr float first = __builtin_inff(), absent = first;
  LP_INLINE VF join(VF a, VF b) { return select(is_nan(a), a, vmin(a, b)); }
};

// The partial results of one row, 16 of them in 16 / W vectors.
template <class R>
struct Partial {
  VF p[GROUP / W];

  Partial() {
    for (VF& v : p) v = vset(R::first);
  }
  // The next 16 loaded elements.
  void add(const VF* x) {
    for (int k = 0; k < GROUP / W; ++k) p[k] = R::join(p[k], x[k]);
  }
  // Halves of the 16 join, then halves of those.
  float result() const {
    VF s[GROUP / W];
    for (int k = 0; k < GROUP / W; ++k) s[k] = p[k];
    for (int half = GROUP / W / 2; half >= 1; half /= 2) {
      for (int k = 0; k < half; ++k) s[k] = R::join(s[k], s[k + half]);
    }
    return first_lane(joined_lanes<W / 2>(s[0]));
  }

 private:
  template <int K>
  static LP_MEMBER VF joined_lanes(VF x) {
    if constexpr (K >= 1) {
      return joined_lanes<K / 2>(R::join(x, swap_lanes<K>(x)));
    } else {
      return x;
    }
  }
};

// How many lanes of vector k hold some of the first `count` elements of a group.
LP_INLINE int lanes_in(int count, int k) {
  const int left = count - k * W;
  return left < 0 ? 0 : left > W ? W : left;
}

// Calls visit(x) with the 16 / W vectors of each group of 16 elements; the last group is filled up.
template <class Visit>
LP_INLINE void for_groups(const float* x, int64_t n, float filler, Visit visit) {
  VF group[GROUP / W];
  int64_t i = 0;
  for (; i + GROUP <= n; i += GROUP) {
    for (int k = 0; k < GROUP / W; ++k) group[k] = vload(x + i + k * W);
    visit(i, group, GROUP);
  }
  if (i < n) {
    const int count = static_cast<int>(n - i);
    for (int k = 0; k < GROUP / W; ++k) {
      const int used = lanes_in(count, k);
      const VF some = used > 0 ? vload_n(x + i + k * W, used) : vset(filler);
      group[k] = select(first_lanes(used), some, vset(filler));
    }
    visit(i, group, count);
  }
}

// Lanes past `count` become 0.
LP_INLINE void clear_rest(VF* group, int count) {
  for (int k = 0; k < GROUP / W; ++k) {
    group[k] = select(first_lanes(lanes_in(count, k)), group[k], vset(0.0f));
  }
}

LP_INLINE void store_group(float* y, const VF* group, int count) {
  for (int k = 0; k < GROUP / W; ++k) {
    const int used = lanes_in(count, k);
    if (used == W) {
      vstore(y + k * W, group[k]);
    } else if (used > 0) {
      vstore_n(y + k * W, group[k], used);
    }
  }
}

template <class R>
static float reduce_row(const float* x, int64_t n) {
  Partial<R> partial;
  for_groups(x, n, R::absent, [&](int64_t, const VF* group, int) {
    VF loaded[GROUP / W];
    for (int k = 0; k < GROUP / W; ++k) loaded[k] = R::load(group[k]);
    partial.add(loaded);
  });
  return partial.result();
}

// The same over `depth` rows `stride` apart, for up to W neighbouring columns at once. `get(i)` is
// the i-th row's vector.
template <class R, class Get>
LP_INLINE VF reduce_columns(int64_t depth, Get get) {
  VF p[GROUP];
  for (VF& v : p) v = vset(R::first);
  int64_t i = 0;
  for (; i + GROUP <= depth; i += GROUP) {
#pragma GCC unroll 16
    for (int j = 0; j < GROUP; ++j) p[j] = R::join(p[j], R::load(get(i + j)));
  }
  for (int j = 0; i + j < depth; ++j) p[j] = R::join(p[j], R::load(get(i + j)));
  for (int half = GROUP / 2; half >= 1; half /= 2) {
    for (int j = 0; j < half; ++j) p[j] = R::join(p[j], p[j + half]);
  }
  return p[0];
}

// Short rows, many at a time: lanes run over the rows.
template <class R>
static void reduce_short_rows(const float* x, float* y, int64_t rows, int64_t depth) {
  constexpr int64_t BLOCK = 64;
  float turned[GROUP * BLOCK];
  for (int64_t first = 0; first < rows; first += BLOCK) {
    const int64_t block = rows - first < BLOCK ? rows - first : BLOCK;
    for (int64_t r = 0; r < block; ++r) {
      for (int64_t i = 0; i < depth; ++i) turned[i * BLOCK + r] = x[(first + r) * depth + i];
    }
    for_lanes(block, [&](int64_t c, int n) {
      const VF value =
          reduce_columns<R>(depth, [&](int64_t i) { return vload_any(turned + i * BLOCK + c, n); });
      vstore_any(y + first + c, value, n);
    });
  }
}

template <class R>
static void reduce_as(const float* x, float* y, int64_t outer, int64_t depth, int64_t inner) {
  if (inner == 1 && depth < GROUP && outer > 1) {
    return reduce_short_rows<R>(x, y, outer, depth);
  }
  if (inner == 1) {
    for (int64_t o = 0; o < outer; ++o) y[o] = reduce_row<R>(x + o * depth, depth);
    return;
  }
  for (int64_t o = 0; o < outer; ++o) {
    const float* block = x + o * depth * inner;
    for_lanes(inner, [&](int64_t c, int n) {
      const VF value =
          reduce_columns<R>(depth, [=](int64_t i) { return vload_any(block + i * inner + c, n); });
      vstore_any(y + o * inner + c, value, n);
    });
  }
}

static void reduce(int32_t code, const float* x, float* y, int64_t outer, int64_t depth,
                   int64_t inner) {
  switch (code) {
    case lp::REDUCE_SUM:
      return reduce_as<Sum>(x, y, outer, depth, inner);
    case lp::REDUCE_SUM_SQUARE:
      return reduce_as<SumSquare>(x, y, outer, depth, inner);
    case lp::REDUCE_SUM_ABS:
      return reduce_as<SumAbs>(x, y, outer, depth, inner);
    case lp::REDUCE_SUM_EXP:
      return reduce_as<SumExp>(x, y, outer, depth, inner);
    case lp::REDUCE_PROD:
      return reduce_as<Prod>(x, y, outer, depth, inner);
    case lp::REDUCE_MAX:
      return reduce_as<Max>(x, y, outer, depth, inner);
    case lp::REDUCE_MIN:
      return reduce_as<Min>(x, y, outer, depth, inner);
    default:
      return;
  }
}

template <class Code>
static void sum_codes_of(const lp::SumCodesArgs& args) {
  const Code* x = static_cast<const Code*>(args.x);
  const VI zero_point = vset_s32(args.zero_point);
  const VF scale = vset(args.scale);
  for_lanes(args.n, [&](int64_t c, int n) {
    const VF sum = reduce_columns<Sum>(args.depth, [&](int64_t i) {
      return cvt_f32(load_codes(x + i * args.stride + c, n) - zero_point) * scale;
    });
    vstore_any(args.y + c, sum, n);
  });
}
static void sum_codes(const lp::SumCodesArgs* args) {
  args->is_signed ? sum_codes_of<int8_t>(*args) : sum_codes_of<uint8_t>(*args);
}

// ------------------------------------------------------------------------------------ softmax

// exp(x - max) / sum, or (x - max) - log(sum).
static void softmax_row(bool logarithm, const float* x, float* y, int64_t n) {
  const VF most = vset(reduce_row<Max>(x, n));
  Partial<Sum> partial;
  for_groups(x, n, -__builtin_inff(), [&](int64_t i, const VF* group, int count) {
    VF shifted[GROUP / W], grown[GROUP / W];
    for (int k = 0; k < GROUP / W; ++k) {
      shifted[k] = group[k] - most;
      grown[k] = vexp(shifted[k]);
    }
    if (count < GROUP) clear_rest(grown, count);  // also beside an infinite maximum
    partial.add(grown);
    store_group(y + i, logarithm ? shifted : grown, count);
  });
  float total = partial.result();
  if (logarithm) {
    const lp::UnaryOp log_op = {lp::UNARY_LOG, 0.0f, 0.0f};
    apply_one(log_op, &total, &total, 1);
    for_lanes(n,
              [&](int64_t i, int c) { vstore_any(y + i, vload_any(y + i, c) - vset(total), c); });
    return;
  }
  for_lanes(n, [&](int64_t i, int c) { vstore_any(y + i, vload_any(y + i, c) / vset(total), c); });
}

static void softmax_columns(bool logarithm, const float* x, float* y, int64_t depth,
                            int64_t inner) {
  for_lanes(inner, [&](int64_t c, int n) {
    const VF most =
        reduce_columns<Max>(depth, [=](int64_t i) { return vload_any(x + i * inner + c, n); });
    VF total = reduce_columns<Sum>(depth, [=](int64_t i) {
      const VF shifted = vload_any(x + i * inner + c, n) - most;
      const VF grown = vexp(shifted);
      vstore_any(y + i * inner + c, logarithm ? shifted : grown, n);
      return grown;
    });
    if (logarithm) total = vlog(total);
    for (int64_t i = 0; i < depth; ++i) {
      float* p = y + i * inner + c;
      const VF value = vload_any(p, n);
      vstore_any(p, logarithm ? value - total : value / total, n);
    }
  });
}

static void softmax(int32_t logarithm, const float* x, float* y, int64_t outer, int64_t depth,
                    int64_t inner) {
  for (int64_t o = 0; o < outer; ++o) {
    const int64_t at = o * depth * inner;
    if (inner == 1) {
      softmax_row(logarithm != 0, x + at, y + at, depth);
    } else {
      softmax_columns(logarithm != 0, x + at, y + at, depth, inner);
    }
  }
}

// -------------------------------------------------------------------------------------- norms

static float sum_of_squared_differences(const float* x, int64_t n, VF mean) {
  Partial<Sum> partial;
  for_groups(x, n, 0.0f, [&](int64_t, const VF* group, int count) {
    VF square[GROUP / W];
    for (int k = 0; k < GROUP / W; ++k) {
      const VF difference = group[k] - mean;
      square[k] = difference * difference;
    }
    if (count < GROUP) clear_rest(square, count);
    partial.add(square);
  });
  return partial.result();
}

static void normalize_rows(const lp::NormArgs* args) {
  const int64_t n = args->n;
  const float size = static_cast<float>(n);
  for (int64_t row = 0; row < args->rows; ++row) {
    const float* x = args->x + row * n;
    float* y = args->y + row * n;
    float mean = 0.0f, squares;
    if (args->root_mean_square != 0) {
      squares = reduce_row<SumSquare>(x, n);
    } else {
      mean = reduce_row<Sum>(x, n) / size;
      squares = sum_of_squared_differences(x, n, vset(mean));
    }
    const float deviation = __builtin_sqrtf(squares / size + args->epsilon);
    const float inverse = 1.0f / deviation;
    if (args->mean != nullptr) args->mean[row] = mean;
    if (args->inverse_deviation != nullptr) args->inverse_deviation[row] = inverse;
    for_lanes(n, [&](int64_t i, int c) {
      const VF value = vload_any(x + i, c);
      VF result = args->root_mean_square != 0 ? value / vset(deviation)
                                              : (value - vset(mean)) * vset(inverse);
      if (args->gamma != nullptr) result = result * vload_any(args->gamma + i, c);
      if (args->beta != nullptr) result = result + vload_any(args->beta + i, c);
      vstore_any(y + i, result, c);
    });
  }
}

static void scale_shift(const lp::ScaleShiftArgs* args) {
  const int64_t n = args->n;
  for (int64_t row = 0; row < args->rows; ++row) {
    const float* x = args->x + row * n;
    float* y = args->y + row * n;
    if (args->channels_last != 0) {
      for_lanes(n, [&](int64_t i, int c) {
        const VF value =
            (vload_any(x + i, c) - vload_any(args->shift + i, c)) * vload_any(args->scale + i, c) +
            vload_any(args->offset + i, c);
        vstore_any(y + i, value, c);
      });
      continue;
    }
    const int64_t channel = row % args->channels;
    const VF shift = vset(args->shift[channel]), scale = vset(args->scale[channel]);
    const VF offset = vset(args->offset[channel]);
    for_lanes(n, [&](int64_t i, int c) {
      vstore_any(y + i, (vload_any(x + i, c) - shift) * scale + offset, c);
    });
  }
}

}  // namespace
