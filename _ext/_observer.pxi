# What calibration learns from one tensor, for lowprec.numerics and the engine.

from libc.stdint cimport uintptr_t


cdef extern from "observer.h" namespace "lp" nogil:
    cdef struct Extremes:
        float minimum
        float maximum

    cdef cppclass CTensorObserver "lp::TensorObserver":
        CTensorObserver(int64_t, const Kernels*) except +
        void observe(const float*, int64_t)
        void begin_batch()
        void end_batch()
        void merge(const CTensorObserver&)
        void reset()
        int64_t bins()
        Extremes total()
        Extremes batch()
        int64_t batches()
        int64_t count()
        int64_t nonfinite()
        int exponent()
        int64_t origin()
        void counts(int64_t*)


cdef class TensorObserver:
    """Extremes, counts and a histogram of one float tensor, fed inside a run; see observer.h.

    Constant memory; nothing depends on the order or the cutting of the data.
    """

    MIN_BINS = 16
    MAX_BINS = 65536

    cdef CTensorObserver* observer
    cdef readonly str isa

    def __cinit__(self, int64_t bins=2048, *, isa=None):
        if not 16 <= bins <= 65536:
            raise ValueError(f"bins is {bins}; expected 16 to 65536")
        cdef const Kernels* kernels = kernels_for(isa)
        self.observer = new CTensorObserver(bins, kernels)
        self.isa = kernels.name.decode()

    def __dealloc__(self):
        del self.observer

    @property
    def engine_address(self):
        """Where the C++ object lives: what a program's node is given (Program.add_node)."""
        return <uintptr_t>self.observer

    def update(self, x):
        """Count the values of a float32 array, any shape and strides."""
        cdef cnp.ndarray array = np.ascontiguousarray(x, np.float32)
        cdef const float* source = <const float*>cnp.PyArray_DATA(array)
        cdef int64_t n = cnp.PyArray_SIZE(array)
        with nogil:
            self.observer.observe(source, n)

    def begin_batch(self):
        """Start the extremes of a batch anew."""
        self.observer.begin_batch()

    def end_batch(self):
        """Close the batch; its extremes stay readable until the next one begins."""
        self.observer.end_batch()

    def merge(self, TensorObserver other not None):
        """Count what `other`, of as many bins, has counted."""
        if other.observer.bins() != self.observer.bins():
            raise ValueError(
                f"the other observer has {other.observer.bins()} bins; "
                f"expected {self.observer.bins()}"
            )
        with nogil:
            self.observer.merge(other.observer[0])

    def reset(self):
        """Forget everything."""
        self.observer.reset()

    @property
    def bins(self):
        """Number of bins."""
        return self.observer.bins()

    @property
    def minimum(self):
        """Smallest finite value; +inf before the first."""
        return self.observer.total().minimum

    @property
    def maximum(self):
        """Largest finite value; -inf before the first."""
        return self.observer.total().maximum

    @property
    def batch_minimum(self):
        """Smallest finite value of the open, or last closed, batch; +inf before the first."""
        return self.observer.batch().minimum

    @property
    def batch_maximum(self):
        """Largest finite value of the open, or last closed, batch; -inf before the first."""
        return self.observer.batch().maximum

    @property
    def batches(self):
        """Number of batches closed."""
        return self.observer.batches()

    @property
    def count(self):
        """Number of finite values."""
        return self.observer.count()

    @property
    def nonfinite(self):
        """Number of NaN and infinite values; they are in no other number."""
        return self.observer.nonfinite()

    def histogram(self):
        """Return (counts, first, width): counts[i] values in [(first + i) * width, ... + width).

        counts is int64 of shape (bins,); first, an int, is never above 0; width is a power of two
        in real units.
        """
        counts = np.empty(self.observer.bins(), np.int64)
        cdef int64_t* target = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>counts)
        self.observer.counts(target)
        return counts, self.observer.origin(), 2.0 ** self.observer.exponent()
