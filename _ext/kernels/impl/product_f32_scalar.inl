// product_f32_scalar.inl: f32 products without vector instructions; the same packed weights.

namespace {

struct MicroF32 {
  using Element = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }
  static void rows(const lp::ProductArgs& args, const Panel<float>& panel,
                   const Rows<float>& rows) {
    for (int i = 0; i < rows.count; ++i) {
      float acc[PANEL] = {0};
      const float* b = panel.weights;
      for (int64_t r = 0; r < args.runs; ++r) {
        const float* run = rows.source[i] + args.run_offset[r];
        for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
          for (int64_t j = 0; j < panel.columns; ++j) {
            acc[j] = __builtin_fmaf(run[k], b[j], acc[j]);
          }
        }
      }
      for (int64_t j = 0; j < panel.columns; ++j) acc[j] += panel.bias[j];
      finish_reals(args.epilogue, rows, i, 1, panel.n0, panel.columns, acc, PANEL);
    }
  }
};

}  // namespace
