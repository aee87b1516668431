"""Fourier transforms of real signals, as matrix products; complex numbers as two tensors.

The value of a complex tensor is its real part; `IMAGINARY` of its `meta` is the other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.arithmetic import angle_of
from lowprec.adapters.tensorflow.operations.numbers import affordable, vector
from lowprec.adapters.tensorflow.translator import COMPLEX, Translator, translates
from lowprec.errors import UnsupportedError

IMAGINARY = "lowprec.imaginary"
COMPLEX.update({"RFFT", "IRFFT", "Real", "Imag", "ComplexAbs", "Angle", "Complex", "Conj"})
COMPLEX.add("Identity")


def _parts(translator: Translator, node: Node) -> tuple[ir.Value, ir.Value]:
    real = translator.value(node, 0)
    other = real.meta.get(IMAGINARY)
    if not isinstance(other, ir.Value):
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) reads complex numbers of no transform"
        )
    return real, other


def _paired(translator: Translator, real: ir.Value, other: ir.Value, name: str) -> ir.Value:
    made = translator.emit("Identity", [real], name=name)
    made.meta[IMAGINARY] = other
    return made


@translates("RFFT")
def _transform(translator: Translator, node: Node) -> ir.Value:
    """x -> sum x[n] exp(-2 pi i n k / length), for k up to length / 2."""
    shape = translator.shape(node.inputs[0])
    length = int(translator.constant(node, 1).reshape(()))
    size = None if not shape else shape[-1]
    if size is None:
        raise UnsupportedError(f"node '{node.name}' transforms signals whose length is open")
    used = min(size, length)
    affordable(node, [used, length])
    value = translator.value(node, 0)
    if used < size:
        bounds = [vector(translator, [number], f"{node.name}/cut") for number in (0, used, -1)]
        value = translator.emit("Slice", [value, *bounds], name=f"{node.name}/cut")
    angles = np.outer(np.arange(used), np.arange(length // 2 + 1)) * (2 * np.pi / length)
    real, other = (
        translator.emit(
            "MatMul",
            [value, translator.new_constant(matrix.astype(np.float32), f"{node.name}/{name}")],
            name=f"{node.name}/{name}",
        )
        for name, matrix in (("cos", np.cos(angles)), ("sin", -np.sin(angles)))
    )
    return _paired(translator, real, other, node.name)


@translates("IRFFT")
def _back(translator: Translator, node: Node) -> ir.Value:
    shape = translator.shape(node.inputs[0])
    length = int(translator.constant(node, 1).reshape(()))
    size = None if not shape else shape[-1]
    if size is None or size < length // 2 + 1:
        raise UnsupportedError(f"node '{node.name}': the number of its frequencies is open or low")
    count = length // 2 + 1
    affordable(node, [count, length])
    real, other = _parts(translator, node)
    if size > count:
        bounds = [vector(translator, [number], f"{node.name}/cut") for number in (0, count, -1)]
        real, other = (
            translator.emit("Slice", [value, *bounds], name=f"{node.name}/cut")
            for value in (real, other)
        )
    twice = np.full((count, 1), 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    angles = np.outer(np.arange(count), np.arange(length)) * (2 * np.pi / length)
    parts = [
        translator.emit(
            "MatMul",
            [part, translator.new_constant((matrix * twice / length).astype(np.float32), "wave")],
            name=f"{node.name}/part",
        )
        for part, matrix in ((real, np.cos(angles)), (other, -np.sin(angles)))
    ]
    return translator.emit("Add", parts, name=node.name)


@translates("Real")
def _real(translator: Translator, node: Node) -> ir.Value:
    return translator.emit("Identity", [_parts(translator, node)[0]], name=node.name)


@translates("Imag")
def _imaginary(translator: Translator, node: Node) -> ir.Value:
    return _parts(translator, node)[1]


@translates("Conj")
def _conjugate(translator: Translator, node: Node) -> ir.Value:
    real, other = _parts(translator, node)
    negative = translator.emit("Neg", [other], name=f"{node.name}/negative")
    return _paired(translator, real, negative, node.name)


@translates("Complex")
def _complex(translator: Translator, node: Node) -> ir.Value:
    return _paired(translator, translator.value(node, 0), translator.value(node, 1), node.name)


@translates("ComplexAbs")
def _size(translator: Translator, node: Node) -> ir.Value:
    squares = [
        translator.emit("Mul", [part, part], name=f"{node.name}/square")
        for part in _parts(translator, node)
    ]
    total = translator.emit("Add", squares, name=f"{node.name}/sum")
    return translator.emit("Sqrt", [total], name=node.name)


@translates("Angle")
def _angle(translator: Translator, node: Node) -> ir.Value:
    real, other = _parts(translator, node)
    return angle_of(translator, node, other, real, np.dtype(np.float32))
