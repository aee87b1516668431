"""Compiled models by the digest of their bytes, and how the operator runs them.

A `Program` lives as long as a Keras model, a graph or a session that runs it; what is only called
eagerly is kept for a few models.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowprec.adapters.tensorflow import signature as signatures
from lowprec.adapters.tensorflow.content import Bytes, compiled_from, proto_of
from lowprec.errors import InputError, ModelError

if TYPE_CHECKING:
    from lowprec import CompiledModel
    from lowprec._ext._tensorflow import Outputs

Array = NDArray[Any]

KEPT = 4  # programs that nothing holds, of the most recent eager calls
LARGEST_STAND_IN = 1 << 28  # elements
PLACES = 8  # tensors with a program's bytes that need not be looked at again

_lock = threading.RLock()
_programs: weakref.WeakValueDictionary[str, Program] = weakref.WeakValueDictionary()
_recent: OrderedDict[str, Program] = OrderedDict()
_latest: Program | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Program:
    """A compiled model and the bytes that it was compiled from."""

    def __init__(self, signature: str, compiled: CompiledModel, content: Bytes) -> None:
        """Take a compiled model and its bytes, an array that nobody writes into."""
        self.signature = signature
        self._content = content
        # Their memory is held, so nothing else can come to be at the same address.
        self._places: OrderedDict[int, Bytes] = OrderedDict()
        self.note(content)
        reference = weakref.ref(self)

        def read() -> Any:
            from lowprec.graph import load

            program = reference()
            if program is None:
                raise ModelError("the model was let go while it ran; run it again")
            return load(proto_of(program._content))

        self.compiled = compiled.without_hub(read)
        self._names = [info.name for info in self.compiled.inputs]
        self._dtypes = [info.dtype for info in self.compiled.inputs]

    def note(self, content: Bytes) -> None:
        """Remember that an array holds this program's bytes."""
        while len(self._places) >= PLACES:
            self._places.popitem(last=False)
        self._places[content.ctypes.data] = content

    def is_in(self, content: Bytes, address: int) -> bool:
        """Return whether an array at an address is known to hold this program's bytes."""
        known = self._places.get(address)
        return known is not None and known.size == content.size

    def check(self, arrays: list[Array], outputs: Outputs) -> None:
        """Check that a kernel's inputs and outputs, whose dtypes never change, are the model's.

        Raises:
            InputError: they are others.
        """
        infos = self.compiled.outputs
        if len(arrays) != len(self._names) or outputs.count() != len(infos):
            raise InputError(
                f"the model takes {len(self._names)} inputs and has {len(infos)} outputs, the "
                f"graph gives {len(arrays)} and wants {outputs.count()}; save it again"
            )
        for name, dtype, array in zip(self._names, self._dtypes, arrays, strict=True):
            if array.dtype != dtype:
                raise InputError(f"input '{name}' is {array.dtype}; it must be {dtype}")
        for index, info in enumerate(infos):
            if outputs.dtype(index) != info.dtype:
                raise InputError(
                    f"output '{info.name}' is {info.dtype}, the graph wants "
                    f"{outputs.dtype(index)}; save it again"
                )

    def run(self, arrays: list[Array], outputs: Outputs) -> None:
        """Fill `outputs` for `arrays`, in the order of the model's inputs.

        Raises:
            InputError: an array does not fit its input.
        """
        given: dict[int, Array] = {}

        def allocate(index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
            array = given[index] = outputs.allocate(index, shape, dtype)
            return array

        results = None
        if all(array.flags.aligned for array in arrays):
            results = self.compiled.session.run_ordered(arrays, allocate)
        if results is None:
            results = self._run_carefully(arrays)
        for index, result in enumerate(results):
            if result is not given.get(index):
                np.copyto(outputs.allocate(index, result.shape, result.dtype), result)

    def _run_carefully(self, arrays: list[Array]) -> list[Array]:
        if any(array.size == 0 for array in arrays):
            empty = self._empty_results(arrays)
            if empty is not None:
                return empty
        return self.compiled.run(dict(zip(self._names, arrays, strict=True)))

    def _empty_results(self, arrays: list[Array]) -> list[Array] | None:
        """Return results without an element where inputs without one make such; None elsewhere.

        How each size of the results depends on what is empty, runs on one and two rows show.
        """
        for info, array in zip(self.compiled.inputs, arrays, strict=True):
            if info.shape is None or len(info.shape) != array.ndim:
                return None
            sizes = zip(info.shape, array.shape, strict=True)
            if any(isinstance(size, int) and size != given for size, given in sizes):
                return None
            if math.prod(size or 2 for size in array.shape) > LARGEST_STAND_IN:
                return None
        rounds = []
        for rows in (1, 2):
            stand_ins = {
                name: np.zeros([size or rows for size in array.shape], array.dtype)
                for name, array in zip(self._names, arrays, strict=True)
            }
            rounds.append(self.compiled.run(stand_ins))
        results: list[Array] = []
        for one, two in zip(*rounds, strict=True):
            shape = [2 * a - b for a, b in zip(one.shape, two.shape, strict=True)]
            if 0 not in shape or min(shape) < 0:
                return None
            results.append(np.zeros(shape, one.dtype))
        return results


def signature_of(content: Bytes | bytes, compiled: CompiledModel) -> str:
    """Return what finds `compiled` again: the digest of its bytes, and its inputs and outputs."""
    return f"{digest_of(content)} {signatures.written(compiled.inputs, compiled.outputs)}"


def shapes_in(signature: str) -> str:
    """Return the part of an operator's signature that tells dtypes and shapes."""
    return signature.partition(" ")[2]


def added(content: Bytes, compiled: CompiledModel, signature: str | None = None) -> Program:
    """Return `compiled` as the program that runs for these bytes as long as it is held.

    Args:
        content: An array that nobody writes into.
        compiled: What it compiles to.
        signature: From `signature_of`, where it is known.
    """
    signature = signature or signature_of(content, compiled)
    with _lock:
        program = _programs.get(signature)
        if program is None:
            program = _programs[signature] = Program(signature, compiled, content)
        else:
            program.note(content)
    return program


def program_for(content: Bytes, signature: str) -> Program:
    """Return the program for `signature`, compiled from the bytes if need be.

    Raises:
        InputError: the bytes are others than those that the graph was made with.
        ModelError: the bytes are not a usable model.
    """
    with _lock:
        if digest_of(content) != signature.partition(" ")[0]:
            raise InputError(
                "the model's bytes are not those that the graph was made with; save it again"
            )
        program = _programs.get(signature)
        if program is not None:
            program.note(content)
            return program
        program = added(content, compiled_from(content))
        if program.signature != signature:
            raise InputError(
                "the model has other inputs and outputs than the graph that runs it; save it again"
            )
    return program


def open_kernel(signature: str, keep: bool) -> Any:
    """Return what one kernel of the operator calls: a function of arrays and Outputs."""
    held: list[Program] = []
    checked: list[weakref.ref[Program]] = []

    def run(arrays: list[Array], content: Bytes, address: int, outputs: Outputs) -> None:
        program = held[0] if held else _programs.get(signature)
        if program is None or not program.is_in(content, address):
            program = program_for(content, signature)
        if not checked or checked[0]() is not program:
            program.check(arrays, outputs)
            checked[:] = [weakref.ref(program)]
            if keep:
                held[:] = [program]
        if not keep and program is not _latest:
            _use(program)
        program.run(arrays, outputs)

    return run


def _use(program: Program) -> None:
    """Hold a program for eager calls to come."""
    global _latest
    with _lock:
        _latest = program
        _recent[program.signature] = program
        _recent.move_to_end(program.signature)
        if len(_recent) > KEPT:
            _recent.popitem(last=False)


def digest_of(content: Bytes | bytes) -> str:
    """Return the digest of a model's bytes."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.blake2b(data, digest_size=16).hexdigest()
