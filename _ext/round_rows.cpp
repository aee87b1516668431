// round_rows.cpp: see round_rows.h.
#include "round_rows.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "threads.h"

namespace lp {
namespace {

constexpr int64_t PANEL = 32;  // columns that are taken off the rest of the matrix in one go
constexpr int64_t ROWS = 8;    // of weights that share what is read of the factor

// Half to even, for |x| < 2^51.
double nearest(double x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  return (x + magic) - magic;
}

// row[j] -= factor * column[j]
void take_off(double* row, double factor, const double* column, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) row[j] -= factor * column[j];
}

void round_some(const double* weights, const double* factor, int64_t rows, int64_t n, double limit,
                int8_t* codes) {
  std::vector<double> memory(static_cast<size_t>(rows * n));
  double* wanted = memory.data();
  memcpy(wanted, weights, memory.size() * sizeof(double));
  for (int64_t k = 0; k < n; ++k) {
    const double* line = factor + k * n;
    for (int64_t r = 0; r < rows; ++r) {
      double* row = wanted + r * n;
      // NaN becomes the lowest code.
      const double code = nearest(row[k] > -limit ? std::min(row[k], limit) : -limit);
      codes[r * n + k] = static_cast<int8_t>(code);
      const double error = weights[r * n + k] - code;
      for (int64_t j = k + 1; j < n; ++j) row[j] += error * line[j];
    }
  }
}

}  // namespace

void upper_factor(double* matrix, int64_t n) {
  std::vector<double> columns(static_cast<size_t>(PANEL * n)), factors(columns.size());
  for (int64_t end = n; end > 0;) {
    const int64_t begin = std::max<int64_t>(0, end - PANEL);
    // The panel's own columns, last one first: each is taken off those before it in the panel.
    for (int64_t k = end - 1; k >= begin; --k) {
      double* column = columns.data() + (k - begin) * n;
      double* factor = factors.data() + (k - begin) * n;
      const double diagonal = matrix[k * n + k];
      for (int64_t i = 0; i < k; ++i) {
        column[i] = matrix[i * n + k];
        factor[i] = column[i] / diagonal;
        matrix[i * n + k] = factor[i];
      }
      for (int64_t i = 0; i < k; ++i) {
        take_off(matrix + i * n, factor[i], column, std::max(i, begin), k);
      }
    }
    // The rest of the matrix, with all of them in the same order.
    parallel_rows(begin, 1 + VECTOR_GRAIN / (PANEL * n), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        for (int64_t k = end - 1; k >= begin; --k) {
          const int64_t at = (k - begin) * n;
          take_off(matrix + i * n, factors[static_cast<size_t>(at + i)], columns.data() + at, i,
                   begin);
        }
      }
    });
    end = begin;
  }
}

void round_rows(const double* weights, const double* factor, int64_t rows, int64_t n, double limit,
                int8_t* codes) {
  if (n == 0) return;
  const int64_t blocks = (rows + ROWS - 1) / ROWS;
  parallel_rows(blocks, 1 + VECTOR_GRAIN / (ROWS * n * n), [&](int64_t from, int64_t to) {
    for (int64_t block = from; block < to; ++block) {
      const int64_t first = block * ROWS, count = std::min(ROWS, rows - first);
      round_some(weights + first * n, factor, count, n, limit, codes + first * n);
    }
  });
}

}  // namespace lp
