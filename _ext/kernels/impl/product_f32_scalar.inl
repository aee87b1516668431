// product_f32_scalar.inl: f32 products without vector instructions; the same packed weights.

namespace {

struct MicroF32 {
  using Element = float;
  using Weight = float;
  using Bias = float;
  static int64_t padded_depth(const lp::ProductArgs& args) { return args.runs * args.run_length; }
  static void rows(const lp::ProductArgs& args, const Panel& panel, const float* const* a,
                   uint8_t* const* dst, int rows) {
    for (int i = 0; i < rows; ++i) {
      float acc[PANEL] = {0};
      const float* b = static_cast<const float*>(panel.weights);
      for (int64_t r = 0; r < args.runs; ++r) {
        const float* run = a[i] + args.run_offset[r];
        for (int64_t k = 0; k < args.run_length; ++k, b += PANEL) {
          for (int64_t j = 0; j < panel.columns; ++j) {
            acc[j] = __builtin_fmaf(run[k], b[j], acc[j]);
          }
        }
      }
      const float* bias = static_cast<const float*>(panel.bias);
      for (int64_t j = 0; j < panel.columns; ++j) acc[j] += bias[j];
      finish_f32(acc, panel.columns, args.epilogue, dst[i]);
    }
  }
};

}  // namespace
