// product_u8s8_scalar.inl: products without vector instructions; the same packed weights.

namespace {

struct MicroU8S8 {
  using Element = uint8_t;
  using Weight = int8_t;
  using Bias = int32_t;
  static int64_t padded_depth(const lp::ProductArgs& args) {
    return args.runs * ((args.run_length + 3) / 4) * 4;
  }
  static void rows(const lp::ProductArgs& args, const Panel& panel, const uint8_t* const* a,
                   uint8_t* const* dst, int rows) {
    const int64_t groups = (args.run_length + 3) / 4;
    float scratch[PANEL];
    for (int i = 0; i < rows; ++i) {
      int32_t acc[PANEL];
      memcpy(acc, panel.bias, sizeof(acc));
      const int8_t* b = static_cast<const int8_t*>(panel.weights);
      for (int64_t r = 0; r < args.runs; ++r) {
        const uint8_t* run = a[i] + args.run_offset[r];
        for (int64_t g = 0; g < groups; ++g, run += 4, b += PANEL * 4) {
          for (int64_t j = 0; j < panel.columns; ++j) {
            const int8_t* w = b + j * 4;
            acc[j] += run[0] * w[0] + run[1] * w[1] + run[2] * w[2] + run[3] * w[3];
          }
        }
      }
      finish_s32(acc, panel.n0, panel.columns, args.epilogue, dst[i], scratch);
    }
  }
};

}  // namespace
