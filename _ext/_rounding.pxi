# Weights to codes whose sums keep their values, for lowprec.numerics.

cdef extern from "round_rows.h" namespace "lp" nogil:
    void c_upper_factor "lp::upper_factor"(double*, int64_t) except +
    void c_round_rows "lp::round_rows"(
        const double*, const double*, int64_t, int64_t, double, int8_t*) except +


def upper_factor(matrix):
    """Put U above the diagonal of `matrix`, (n, n) C-contiguous float64, in place."""
    cdef double* data = <double*>cnp.PyArray_DATA(<cnp.ndarray>matrix)
    cdef int64_t n = len(matrix)
    with nogil:
        c_upper_factor(data, n)


def round_rows(weights, factor, double limit, out):
    """Write codes of `weights` (rows, n) float64 to `out`, int8; all C-contiguous."""
    cdef const double* source = <const double*>cnp.PyArray_DATA(<cnp.ndarray>weights)
    cdef const double* upper = <const double*>cnp.PyArray_DATA(<cnp.ndarray>factor)
    cdef int8_t* codes = <int8_t*>cnp.PyArray_DATA(<cnp.ndarray>out)
    cdef int64_t rows = len(weights), n = len(factor)
    with nogil:
        c_round_rows(source, upper, rows, n, limit, codes)
