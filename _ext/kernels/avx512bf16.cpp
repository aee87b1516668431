// avx512bf16.cpp: what AVX512_BF16 makes faster than the avx512vnni table. Nothing yet: its own
// unit already, so that vdpbf16ps and vcvtneps2bf16 have a place with the right flags.
#define LP_ISA_AVX512
#include "kernels/kernels.h"

namespace lp {
void add_avx512bf16(Kernels*) {}
}  // namespace lp
