"""A segment as plain data: what a Program is filled from, without the hub that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from lowprec._ext import _core

BFLOAT16 = 16  # ONNX's TensorProto.DataType
_SMALL = {
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
}
_core.hold_dtype(BFLOAT16, ml_dtypes.bfloat16)
for _code, _name in _SMALL.items():
    if hasattr(ml_dtypes, _name):  # the oldest release that we allow lacks some
        _core.hold_dtype(_code, getattr(ml_dtypes, _name))

Array = npt.NDArray[Any]
Attribute = Any  # int, float, str, list[int], list[float], or an object that the engine may address


@dataclass
class NodeForm:
    """One node; operands and results are numbers of values, -1 where there is none."""

    op: str
    name: str
    inputs: list[int]
    outputs: list[int]
    attributes: dict[str, Attribute]


@dataclass
class ProgramForm:
    """What runs in one call.

    Attributes:
        inputs: Names of the values it is fed with, in order; they are the first values.
        keyed: Those inputs whose contents are part of what a plan is made for.
        outputs: Names of the values that others read.
        names: Of all values.
        constants: Number of a value -> its contents.
        nodes: In order of execution.
        results: Numbers of the outputs.
    """

    inputs: list[str]
    keyed: set[str]
    outputs: list[str]
    names: list[str] = field(default_factory=list)
    constants: dict[int, Array] = field(default_factory=dict)
    nodes: list[NodeForm] = field(default_factory=list)
    results: list[int] = field(default_factory=list)

    def add(self, name: str) -> int:
        """Add a value and return its number."""
        self.names.append(name)
        return len(self.names) - 1

    def release(self) -> None:
        """Give back what constants take that are packed now, where they can be had again."""

    def program(self, dtypes: Sequence[np.dtype[Any]]) -> _core.Program:
        """Return a new Program for inputs of these dtypes."""
        program = _core.Program()
        for number, name in enumerate(self.names):
            constant = self.constants.get(number)
            if constant is not None:
                program.add_constant(name, constant)
            else:
                # The engine works out dtypes; those of results are placeholders.
                known = number < len(dtypes)
                program.add_value(name, dtypes[number] if known else np.dtype(np.float32))
        for node in self.nodes:
            program.add_node(node.op, node.name, node.inputs, node.outputs, node.attributes)
        program.set_io(list(range(len(self.inputs))), self.results)
        return program
