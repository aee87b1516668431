// product_int8_scalar.inl: int8 products without vector instructions; the same packed weights.

namespace {

template <class Code>
struct MicroInt8 {
  static constexpr bool SIGNED = static_cast<Code>(-1) < 0;
  static constexpr bool FLIPS = false;
  using Block = NoBlock;

  static void rows(const lp::ProductArgs& args, const CodePanel& panel, const CodeRows& rows,
                   const Block&) {
    const int64_t groups = (args.run_length + 3) / 4;
    int32_t acc[PANEL];
    for (int i = 0; i < rows.count; ++i) {
      start_sums(panel, rows, i, acc);
      const int8_t* b = panel.weights;
      for (int64_t r = 0; r < args.runs; ++r) {
        const Code* run = reinterpret_cast<const Code*>(rows.source[i]) + args.run_offset[r];
        for (int64_t g = 0; g < groups; ++g, run += 4, b += PANEL * 4) {
          for (int64_t j = 0; j < panel.columns; ++j) {
            const int8_t* w = b + j * 4;
            const int32_t four = run[0] * w[0] + run[1] * w[1] + run[2] * w[2] + run[3] * w[3];
            acc[j] =
                static_cast<int32_t>(static_cast<uint32_t>(acc[j]) + static_cast<uint32_t>(four));
          }
        }
      }
      finish_sums(args.epilogue, rows, i, 1, panel.n0, panel.columns, acc, PANEL);
    }
  }
};

}  // namespace
