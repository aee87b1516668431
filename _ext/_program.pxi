# Programs and plans (engine/program.h) for lowprec.engine.

from libcpp.memory cimport shared_ptr
from libcpp.map cimport map as cppmap
from cython.operator cimport dereference

cimport numpy as cnp
import numpy as np

cnp.import_array()


cdef extern from "python_errors.h":
    void raise_engine_error()
    void lp_set_error_types(object, object)

cdef extern from "engine/engine.h" namespace "lp" nogil:
    cdef enum class DType(int):
        F32
    ctypedef vector[int64_t] Shape
    cdef cppclass Attribute:
        Attribute()
        vector[int64_t] ints
        vector[float] floats
        string text
    cdef cppclass Node:
        Node()
        string op
        string name
        vector[int] inputs
        vector[int] outputs
        cppmap[string, Attribute] attributes
    cdef cppclass Tensor:
        DType dtype
        Shape shape
    vector[string] operator_names() except +
    const void* find_operator(const string&) except +

cdef extern from "engine/program.h" namespace "lp" nogil:
    cdef cppclass Row "lp::Plan::Row":
        string op
        string name
        string kernel
        string refused
        string shape
        double macs
        int64_t bytes
    cdef cppclass CPlan "lp::Plan":
        void run(const uint8_t**, uint8_t**, int64_t*) except +raise_engine_error
        vector[Row] rows() except +
        const vector[Tensor]& outputs()
        int64_t arena_bytes()
        bint output_needs_slack(size_t)
        size_t steps()
    cdef cppclass CProgram "lp::Program":
        CProgram(const Kernels*)
        int add_value(const string&, DType) except +
        int add_constant(const string&, DType, const Shape&, const uint8_t*) except +
        void add_node(Node) except +raise_engine_error
        void set_inputs(const vector[int]&)
        void set_outputs(const vector[int]&)
        shared_ptr[CPlan] plan(
            const vector[Shape]&, const vector[const uint8_t*]&
        ) except +raise_engine_error
        int failed_node()


class EngineError(Exception):
    """A program that cannot run on the given shapes."""


class Unsupported(EngineError):
    """Valid, but not native: the node runs through the fall-back."""


lp_set_error_types(Unsupported, EngineError)

# Values of ONNX's TensorProto.DataType. bf16 is added by who brings a dtype for it (hold_dtype).
_NUMPY_OF = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}
_CODE_OF = {np.dtype(kind): code for code, kind in _NUMPY_OF.items()}

# Byte products read a little past their source.
cdef Py_ssize_t SLACK = 128


def native_operators():
    """Return the names of the operators that have a native kernel."""
    return [name.decode() for name in operator_names()]


def held_dtypes():
    """Return the element types that the engine holds, as values of ONNX's TensorProto.DataType."""
    return frozenset(_NUMPY_OF)


def hold_dtype(int code, dtype):
    """Say which NumPy dtype stands for element type `code`; for types that NumPy itself lacks."""
    _NUMPY_OF[code] = dtype
    _CODE_OF[np.dtype(dtype)] = code


cdef Shape shape_of(shape):
    cdef Shape result
    for extent in shape:
        result.push_back(extent)
    return result


def empty_with_slack(shape, dtype):
    """Return an uninitialised array whose memory goes on a little past its end."""
    dtype = np.dtype(dtype)
    count = 1
    for extent in shape:
        count *= extent
    nbytes = count * dtype.itemsize
    return np.empty(nbytes + SLACK, np.uint8)[:nbytes].view(dtype).reshape(shape)


cdef class Plan:
    """A program for one set of input shapes: run() walks its steps without the GIL."""

    cdef shared_ptr[CPlan] plan
    cdef readonly tuple output_shapes, output_dtypes
    cdef object program  # keeps constants alive

    @property
    def arena_bytes(self):
        """Bytes of memory that one run needs for what is between inputs and outputs."""
        return dereference(self.plan).arena_bytes()

    def run(self, list inputs, list outputs=None, bint timed=False):
        """Run once; return (outputs, nanoseconds per step or None).

        Args:
            inputs: C-contiguous arrays in program order, of the shapes and dtypes planned for.
            outputs: C-contiguous arrays to fill instead of allocating, in program order; None
                for one that is to be allocated.
            timed: Whether to time each step.
        """
        cdef CPlan* plan = self.plan.get()
        cdef vector[const uint8_t*] sources
        cdef vector[uint8_t*] targets
        cdef vector[int64_t] times
        cdef int64_t* clock = NULL
        cdef cnp.ndarray array
        for array in inputs:
            sources.push_back(<const uint8_t*> cnp.PyArray_DATA(array))
        if outputs is None:
            outputs = [None] * len(self.output_shapes)
        outputs = [
            empty_with_slack(shape, dtype) if array is None else array
            for array, shape, dtype in zip(outputs, self.output_shapes, self.output_dtypes)
        ]
        for array in outputs:
            targets.push_back(<uint8_t*> cnp.PyArray_DATA(array))
        if timed:
            times.resize(plan.steps())
            clock = times.data()
        with nogil:
            plan.run(sources.data(), targets.data(), clock)
        return outputs, (list(times) if timed else None)

    def output_needs_slack(self, size_t index):
        """Return whether steps of the plan read a little past the end of output `index`."""
        return dereference(self.plan).output_needs_slack(index)

    def rows(self):
        """Return one dict per step: op, name, kernel, refused, shape, macs, bytes."""
        cdef Row row
        return [
            {
                "op": row.op.decode(), "name": row.name.decode(), "kernel": row.kernel.decode(),
                "refused": row.refused.decode(), "shape": row.shape.decode(), "macs": row.macs,
                "bytes": row.bytes,
            }
            for row in dereference(self.plan).rows()
        ]


cdef class Program:
    """Values and nodes, independent of shapes. Built once, then planned per set of input shapes."""

    cdef CProgram* program
    cdef list kept
    cdef list names
    cdef list results
    cdef dict makers
    cdef str refused
    cdef readonly str isa

    def __cinit__(self, str isa=None):
        cdef const Kernels* kernels = kernels_for(isa)
        self.program = new CProgram(kernels)
        self.isa = kernels.name.decode()
        self.kept = []
        self.names = []
        self.results = []
        self.makers = {}
        self.refused = None

    def __dealloc__(self):
        del self.program

    def add_value(self, str name, dtype):
        """Add a value that a node makes or a run feeds; return its id."""
        return self.program.add_value(name.encode(), <DType> <int> _CODE_OF[np.dtype(dtype)])

    def add_constant(self, str name, array):
        """Add a constant; return its id. The array is kept alive, not copied where contiguous."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        self.kept.append(array)
        return self.program.add_constant(
            name.encode(), <DType> <int> _CODE_OF[array.dtype], shape_of(array.shape),
            <const uint8_t*> cnp.PyArray_DATA(array))

    def add_node(self, str op, str name, inputs, outputs, attributes):
        """Add a node.

        Args:
            op: Operator name; Unsupported is raised where none is native.
            name: For messages and explain().
            inputs: Value ids, -1 for an absent one.
            outputs: Value ids, -1 for one that nobody reads.
            attributes: int, float, str, or a list of ints or of floats, by name. An object that has
                `engine_address` is passed by address and kept alive (observers).
        """
        cdef Node node
        cdef Attribute attribute
        node.op = op.encode()
        node.name = name.encode()
        node.inputs = inputs
        node.outputs = outputs
        for key, value in attributes.items():
            attribute = Attribute()
            if isinstance(value, str):
                attribute.text = value.encode()
            elif hasattr(value, "engine_address"):
                self.kept.append(value)
                attribute.ints.push_back(value.engine_address)
            else:
                items = value if isinstance(value, (list, tuple)) else [value]
                if any(isinstance(item, float) for item in items):
                    for item in items:
                        attribute.floats.push_back(item)
                else:
                    for item in items:
                        attribute.ints.push_back(item)
            node.attributes[key.encode()] = attribute
        self.program.add_node(node)
        self.names.append(name)
        self.makers.update((value, name) for value in outputs)

    def set_io(self, inputs, outputs):
        """Say which values a run feeds and which it returns."""
        self.results = list(outputs)
        self.program.set_inputs(inputs)
        self.program.set_outputs(outputs)

    def plan(self, shapes, known=None):
        """Return the Plan for these input shapes.

        Args:
            shapes: One shape per input.
            known: Optional list, per input an array whose contents the plan may rely on, or None.

        Raises:
            Unsupported: a node is not native for these shapes; `failed_node` is its name.
            EngineError: the shapes do not fit the program.
        """
        cdef vector[Shape] sizes
        cdef vector[const uint8_t*] contents
        cdef Plan plan = Plan()
        cdef Tensor tensor
        cdef vector[Tensor] made
        kept = []
        for i, shape in enumerate(shapes):
            sizes.push_back(shape_of(shape))
            array = None if known is None else known[i]
            if array is None:
                contents.push_back(NULL)
            else:
                array = np.ascontiguousarray(array)
                kept.append(array)
                contents.push_back(<const uint8_t*> cnp.PyArray_DATA(array))
        plan.plan = self.program.plan(sizes, contents)
        plan.program = self
        made = dereference(plan.plan).outputs()
        kinds = [<int> tensor.dtype for tensor in made]
        for kind, value in zip(kinds, self.results):
            if kind not in _NUMPY_OF:
                self.refused = self.makers[value]
                raise Unsupported(f"no NumPy dtype for element type {kind}")
        plan.output_shapes = tuple(tuple(tensor.shape) for tensor in made)
        plan.output_dtypes = tuple(np.dtype(_NUMPY_OF[kind]) for kind in kinds)
        return plan

    @property
    def failed_node(self):
        """Name of the node that the last plan() failed on, or None."""
        if self.refused is not None:
            return self.refused
        index = self.program.failed_node()
        return None if index < 0 else self.names[index]
