# What calibration learns from one tensor, for lowprec.numerics and the engine.

from libc.stdint cimport uintptr_t


cdef extern from "observer.h" namespace "lp" nogil:
    cdef struct Extremes:
        float minimum
        float maximum

    cdef cppclass CTensorObserver "lp::TensorObserver":
        CTensorObserver(int64_t, const Kernels*, bint, const float*) except +
        void observe(FloatType, const Strided&) except +
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
        int64_t nan()
        int64_t below()
        int64_t above()
        int exponent()
        int64_t origin()
        void counts(int64_t*)
        void sums(int64_t*, int64_t*)
        int64_t state_size()
        void state(int64_t*)
        void set_state(const int64_t*)

    void c_observe_channels "lp::observe_channels"(
        const vector[CTensorObserver*]&, FloatType, void*, int64_t, int, int, const int64_t*,
        const int64_t*) except +

cdef extern from "exact_sum.h" namespace "lp" nogil:
    const int LIMBS "lp::ExactSum::LIMBS"
    const int C_LOWEST "lp::ExactSum::LOWEST"


cdef cnp.ndarray native_floats(x):
    """An array that FloatType describes: as it is, or converted to float32."""
    cdef cnp.ndarray array = np.asarray(x)
    if array.dtype.isnative and array.dtype.name in ("float32", "float16", "float64", "bfloat16"):
        return array
    return np.ascontiguousarray(x, np.float32)


cdef whole_number(limbs):
    """The number that ExactSum::limbs wrote, in units of 2**LOWEST."""
    low = int.from_bytes(limbs[:LIMBS - 1].astype("<u4").tobytes(), "little")
    return low + (int(limbs[LIMBS - 1]) << 32 * (LIMBS - 1))


cdef class TensorObserver:
    """Extremes, counts and a histogram of one float tensor, fed inside a run; see observer.h.

    Constant memory; nothing depends on the order or the cutting of the data, nor on threads.
    `edges`, float32 of shape (bins + 1,), fixes the bins; `moments` adds exact sums.
    """

    MIN_BINS = 16
    MAX_BINS = 65536
    OPERATOR = "Observe"

    cdef CTensorObserver* observer
    cdef readonly str isa

    def __cinit__(
        self, int64_t bins=2048, *, bint moments=False, cnp.ndarray edges=None, isa=None
    ):
        cdef const float* borders = NULL
        if edges is not None:
            borders = <const float*>cnp.PyArray_DATA(edges)
        if not (16 if edges is None else 1) <= bins <= 65536:
            raise ValueError(f"bins is {bins}; expected 16 (with edges: 1) to 65536")
        cdef const Kernels* kernels = kernels_for(isa)
        self.observer = new CTensorObserver(bins, kernels, moments, borders)
        self.isa = kernels.name.decode()

    def __dealloc__(self):
        del self.observer

    @property
    def engine_address(self):
        """Where the C++ object lives: what a program's node is given (Program.add_node)."""
        return <uintptr_t>self.observer

    def update(self, x):
        """Count the values of a float array, any shape and strides."""
        cdef cnp.ndarray array = native_floats(x)
        cdef FloatType kind = float_type(array)
        cdef Strided* source = strided(array)
        try:
            with nogil:
                self.observer.observe(kind, source[0])
        finally:
            del source

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
        """Number of NaN and infinite values."""
        return self.observer.nonfinite()

    @property
    def nan(self):
        """Number of NaN."""
        return self.observer.nan()

    @property
    def below(self):
        """Number of finite values below the first edge; 0 without edges."""
        return self.observer.below()

    @property
    def above(self):
        """Number of finite values above the last edge; 0 without edges."""
        return self.observer.above()

    def sums(self):
        """Return the exact sums of the finite values and of their squares, in units of 2**LOWEST.

        Two ints; 0 without `moments`.
        """
        limbs = np.empty((2, LIMBS), np.int64)
        cdef int64_t* target = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>limbs)
        self.observer.sums(target, target + LIMBS)
        return whole_number(limbs[0]), whole_number(limbs[1])

    LOWEST = C_LOWEST

    def state(self):
        """Return everything that was seen as an int64 array, for set_state of another process."""
        state = np.empty(self.observer.state_size(), np.int64)
        self.observer.state(<int64_t*>cnp.PyArray_DATA(<cnp.ndarray>state))
        return state

    def set_state(self, cnp.ndarray state not None):
        """Hold what state() of an observer with the same bins and edges returned."""
        if state.dtype != np.int64 or state.shape[0] != self.observer.state_size():
            raise ValueError("the state is of an observer with other bins")
        self.observer.set_state(<const int64_t*>cnp.PyArray_DATA(state))

    def histogram(self):
        """Return (counts, first, width): counts[i] values in [(first + i) * width, ... + width).

        counts is int64 of shape (bins,); first, an int, is never above 0; width is a power of two
        in real units.
        """
        counts = np.empty(self.observer.bins(), np.int64)
        cdef int64_t* target = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>counts)
        self.observer.counts(target)
        return counts, self.observer.origin(), 2.0 ** self.observer.exponent()


def observe_channels(list observers, cnp.ndarray first, int64_t step):
    """Let observer c count the values c * `step` bytes behind those of the float array `first`."""
    cdef vector[CTensorObserver*] all_of_them
    cdef TensorObserver observer
    for observer in observers:
        all_of_them.push_back(observer.observer)
    cdef FloatType kind = float_type(first)
    cdef void* data = cnp.PyArray_DATA(first)
    cdef int item = cnp.PyArray_ITEMSIZE(first)
    cdef int ndim = cnp.PyArray_NDIM(first)
    cdef const int64_t* shape = <const int64_t*>cnp.PyArray_DIMS(first)
    cdef const int64_t* strides = <const int64_t*>cnp.PyArray_STRIDES(first)
    with nogil:
        c_observe_channels(all_of_them, kind, data, step, item, ndim, shape, strides)


cdef extern from "channel_observer.h" namespace "lp" nogil:
    cdef cppclass CChannelObserver "lp::ChannelObserver":
        CChannelObserver(int64_t, int64_t, const Kernels*) except +
        bint observe(const float*, int64_t, int64_t, int64_t) except +
        bint merge(const CChannelObserver&) except +
        void reset()
        int64_t axis()
        int64_t bins()
        int64_t channels()
        int64_t count()
        int64_t nonfinite()
        void extremes(float*, float*)
        void sums(int64_t, int64_t*, int64_t*)
        const CTensorObserver* histogram(int64_t)


cdef class ChannelObserver:
    """Extremes, sums and, with `bins`, a histogram of every channel of one float tensor.

    Fed inside a run as TensorObserver is; see channel_observer.h. Memory does
    not depend on the data; observers of parts merge into the observer of all of them, bit for bit.
    """

    OPERATOR = "ObserveChannels"

    cdef CChannelObserver* observer

    def __cinit__(self, int64_t axis, *, int64_t bins=0, isa=None):
        if bins != 0 and not 16 <= bins <= 65536:
            raise ValueError(f"bins is {bins}; expected 0, or 16 to 65536")
        self.observer = new CChannelObserver(axis, bins, kernels_for(isa))

    def __dealloc__(self):
        del self.observer

    @property
    def engine_address(self):
        """Where the C++ object lives: what a program's node is given (Program.add_node)."""
        return <uintptr_t>self.observer

    def update(self, x):
        """Count the values of a float array that has the channel axis."""
        cdef cnp.ndarray array = np.ascontiguousarray(x, np.float32)
        cdef int64_t axis = self.observer.axis()
        axis = axis + array.ndim if axis < 0 else axis
        if not 0 <= axis < array.ndim:
            raise ValueError(f"the array has {array.ndim} axes; axis {axis} is none of them")
        cdef int64_t outer = 1, channels = array.shape[axis], inner = 1
        cdef int i
        for i in range(array.ndim):
            if i < axis:
                outer *= array.shape[i]
            elif i > axis:
                inner *= array.shape[i]
        cdef const float* data = <const float*>cnp.PyArray_DATA(array)
        cdef bint fits
        with nogil:
            fits = self.observer.observe(data, outer, channels, inner)
        if not fits:
            raise ValueError(
                f"the array has {channels} channels; expected {self.observer.channels()}"
            )

    def merge(self, ChannelObserver other not None):
        """Count what `other`, of the same axis and bins, has counted."""
        if other is self or (other.axis, other.bins) != (self.axis, self.bins):
            raise ValueError("the other observer has another axis or other bins, or is this one")
        cdef bint fits
        with nogil:
            fits = self.observer.merge(other.observer[0])
        if not fits:
            raise ValueError(
                f"the other observer has {other.channels} channels; expected {self.channels}"
            )

    def reset(self):
        """Forget everything, the number of channels too."""
        self.observer.reset()

    @property
    def axis(self):
        """The channel axis, as it was given."""
        return self.observer.axis()

    @property
    def bins(self):
        """Number of bins of each channel's histogram; 0 without histograms."""
        return self.observer.bins()

    @property
    def channels(self):
        """Number of channels; 0 before the first array."""
        return self.observer.channels()

    @property
    def count(self):
        """Number of values per channel, those that are not finite too."""
        return self.observer.count()

    @property
    def nonfinite(self):
        """Number of NaN and infinite values in all channels."""
        return self.observer.nonfinite()

    def extremes(self):
        """Return the smallest and the largest finite value of each channel, float32 (channels,)."""
        bounds = np.empty((2, self.observer.channels()), np.float32)
        cdef float* target = <float*>cnp.PyArray_DATA(<cnp.ndarray>bounds)
        self.observer.extremes(target, target + self.observer.channels())
        return bounds[0], bounds[1]

    def sums(self, int64_t channel):
        """Return the sums of the channel's finite values and of their squares."""
        if not 0 <= channel < self.observer.channels():
            raise ValueError(f"channel {channel} is none of {self.observer.channels()}")
        limbs = np.empty((2, LIMBS), np.int64)
        cdef int64_t* target = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>limbs)
        self.observer.sums(channel, target, target + LIMBS)
        return whole_number(limbs[0]), whole_number(limbs[1])

    def histogram(self, int64_t channel):
        """Return (counts, first, width) of one channel, as TensorObserver does."""
        if not 0 <= channel < self.observer.channels() or not self.observer.bins():
            raise ValueError("there is no such channel, or there are no histograms")
        cdef const CTensorObserver* one = self.observer.histogram(channel)
        counts = np.empty(one.bins(), np.int64)
        one.counts(<int64_t*>cnp.PyArray_DATA(<cnp.ndarray>counts))
        return counts, one.origin(), 2.0 ** one.exponent()
