// round_rows.h: rows of weights to codes such that sums over a row keep their values.
//
// For rows w and a symmetric, positive definite H = E[x x^T] of what they meet, the error of the
// sums is (w - q)^T H (w - q). With H = U D U^T, U unit upper triangular, it is a sum of squares,
//
//   sum over k of D[k] * ((w[k] - q[k]) + sum over j < k of (w[j] - q[j]) * U[j][k])^2
//
// and each q[k] in turn makes its square as small as it can be. That is GPTQ (Frantar et al. 2022,
// arXiv:2210.17323) in the form of LDLQ (Chee et al. 2023, arXiv:2307.13304, theorem 1), without an
// inverse. IEEE doubles in an order that is fixed for every element, so the codes are the same on
// every machine; lowprec.numerics.reference has the definition.
#pragma once
#include <stdint.h>

namespace lp {

// Above the diagonal of `matrix` (n, n), of which only the upper triangle is read, U takes H's
// place; the rest of it means nothing then. Shared out among threads.
void upper_factor(double* matrix, int64_t n);

// codes (rows, n), in [-limit, limit], of weights (rows, n) in units of their scales.
void round_rows(const double* weights, const double* factor, int64_t rows, int64_t n, double limit,
                int8_t* codes);

}  // namespace lp
