# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The operator LowprecRun in TensorFlow: its tensors as arrays over the same memory.

`register` puts it into the registry of the TensorFlow that this process has loaded; what runs is a
Python object that lowprec.adapters.tensorflow.operator makes for each kernel.
"""

import threading

from cpython.ref cimport PyObject, Py_INCREF
from libc.stdint cimport int64_t
from libcpp cimport bool as cppbool
from libcpp.string cimport string
from libcpp.vector cimport vector

cimport numpy as cnp
import numpy as np

cnp.import_array()


cdef extern from "tensorflow/operator.h" namespace "lp::tensorflow" nogil:
    cdef cppclass Tensor
    cdef cppclass Context
    cdef cppclass Kernel:
        string signature
        cppbool keep
        void* state
    cdef enum Code:
        kInternal
    ctypedef void (*Compute)(Kernel*, Context*) noexcept nogil
    ctypedef void (*Release)(void*) noexcept nogil
    string register_operator(const vector[string]&, Compute, Release) except +
    int input_count(Context*)
    int output_count(Context*)
    int output_dtype(Context*, int)
    Tensor* input(Context*, int, string&)
    Tensor* allocate_output(Context*, int, int, const vector[int64_t]&, size_t, string&)
    void fail(Context*, int, const string&)
    int dtype_of(const Tensor*)
    vector[int64_t] shape_of(const Tensor*)
    void* data_of(const Tensor*)
    void delete_tensor(Tensor*)

cdef extern from "tensorflow/python_objects.h" namespace "lp::tensorflow" nogil:
    cppbool is_python_running()
    void release_later(void*)
    void release_now()

cdef object _open = None  # (signature, keep) -> function(arrays, model, address, outputs)
cdef object _explained = None  # exception -> (TF_Code, message)
cdef dict _descr_of = {}  # TF_DataType -> dtype
cdef dict _code_of = {}
cdef object _registered = None
_lock = threading.Lock()


def register(list libraries, dict dtypes, open_kernel, explained):
    """Register the operator LowprecRun and its kernel; a second call changes nothing.

    Args:
        libraries: Paths of TensorFlow's libraries; those that are not loaded are passed over.
        dtypes: NumPy's dtype by TensorFlow's number of it.
        open_kernel: Called as open_kernel(signature, keep) when a kernel runs first; returns a
            function of the inputs, the model, its address, and the `Outputs`, which it fills.
        explained: Called with an exception, returns TensorFlow's error code and a message.

    Returns:
        None, or what went wrong.
    """
    global _open, _explained, _registered
    cdef vector[string] paths
    with _lock:
        if _registered is not None:
            return None
        _descr_of.update(dtypes)
        _code_of.update({descr: code for code, descr in dtypes.items()})
        _open, _explained = open_kernel, explained
        for path in libraries:
            paths.push_back(path.encode())
        wrong = register_operator(paths, compute, release_later).decode(errors="replace")
        if wrong:
            return wrong
        _registered = True
    return None


cdef class _Owner:
    """A tensor of TensorFlow that an array shows."""

    cdef Tensor* tensor

    def __dealloc__(self):
        if self.tensor is not NULL:
            delete_tensor(self.tensor)


cdef cnp.ndarray _array(Tensor* tensor, bint writable):
    """Return an array over a tensor's memory, and own the tensor."""
    cdef _Owner owner = _Owner()
    owner.tensor = tensor
    cdef int code = dtype_of(tensor)
    cdef vector[int64_t] shape = shape_of(tensor)
    cdef vector[cnp.npy_intp] extents
    for extent in shape:
        extents.push_back(extent)
    if extents.size() > 64:
        raise ValueError(f"a tensor has {extents.size()} axes")
    cdef cnp.dtype descr = _descr_of[code]
    cdef void* data = data_of(tensor)
    cdef int flags = cnp.NPY_ARRAY_C_CONTIGUOUS | (cnp.NPY_ARRAY_WRITEABLE if writable else 0)
    cdef cnp.ndarray array = cnp.PyArray_New(
        np.ndarray, <int> extents.size(), extents.data(), descr.type_num, NULL, data, 0, flags,
        None)
    if data is not NULL:
        cnp.PyArray_UpdateFlags(array, cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_F_CONTIGUOUS)
        cnp.set_array_base(array, owner)
    return array


cdef class Outputs:
    """The outputs of one computation."""

    cdef Context* context  # NULL once the computation is over

    cdef int _check(self) except -1:
        if self.context is NULL:
            raise RuntimeError("the computation is over")
        return 0

    def allocate(self, int index, tuple shape, dtype):
        """Return an array over output `index`'s new memory, to be filled."""
        self._check()
        cdef vector[int64_t] extents
        cdef string error
        cdef size_t size = dtype.itemsize
        for extent in shape:
            extents.push_back(extent)
            size *= <size_t> extent
        cdef int code = _code_of[dtype]
        cdef Tensor* tensor = allocate_output(self.context, index, code, extents, size, error)
        if tensor is NULL:
            raise MemoryError(error.decode(errors="replace"))
        return _array(tensor, True)

    def count(self):
        """Return how many outputs are expected."""
        self._check()
        return output_count(self.context)

    def dtype(self, int index):
        """Return what dtype is expected of output `index`."""
        self._check()
        return _descr_of[output_dtype(self.context, index)]


cdef void compute(Kernel* kernel, Context* context) noexcept nogil:
    if not is_python_running():
        fail(context, kInternal, string(b"lowprec: Python is shutting down"))
        return
    with gil:
        _compute_guarded(kernel, context)


cdef void _compute_guarded(Kernel* kernel, Context* context) noexcept:
    cdef Outputs outputs = Outputs()
    outputs.context = context
    release_now()
    try:
        _compute(kernel, context, outputs)
    except BaseException as error:
        try:
            code, message = _explained(error)
            fail(context, code, message.encode(errors="replace"))
        except BaseException:
            fail(context, kInternal, string(b"lowprec: the model cannot run"))
    finally:
        outputs.context = NULL


cdef object _compute(Kernel* kernel, Context* context, Outputs outputs):
    cdef string error
    cdef Tensor* tensor
    cdef int index
    cdef list arrays = []
    for index in range(input_count(context)):
        tensor = input(context, index, error)
        if tensor is NULL:
            raise RuntimeError(error.decode(errors="replace"))
        arrays.append(_array(tensor, False))
    cdef object run
    if kernel.state is NULL:
        run = _open(kernel.signature.decode(errors="replace"), kernel.keep)
        if kernel.state is NULL:  # no other thread was faster
            Py_INCREF(run)
            kernel.state = <void*> <PyObject*> run
    run = <object> <PyObject*> kernel.state
    cdef cnp.ndarray model = arrays.pop()
    run(arrays, model, <size_t> cnp.PyArray_DATA(model), outputs)
