"""The engine behind ONNX's own interface for runtimes, `onnx.backend.base` (imports onnx).

    from lowprec.engine import backend
    outputs = backend.prepare(model_proto).run([x])

`tests/onnx_backend` runs ONNX's conformance suite through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from lowprec import graph, passes
from lowprec.engine.session import Session, compile_model
from lowprec.errors import InputError, LowprecError, UnsupportedError

__all__ = [
    "PreparedModel",
    "RuntimeBackend",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]


class PreparedModel(BackendRep):
    """A model that was compiled once, for any number of runs.

    Attributes:
        session: What runs it; `session.explain()` names the kernels of the last run.
    """

    def __init__(self, session: Session):
        self.session = session
        names = [info.name for info in session.outputs]
        self._outputs = namedtupledict("Outputs", names)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs as a tuple whose members also answer to their names.

        Args:
            inputs: Arrays in the order of the model's inputs (those without an initializer), or by
                name; lists for sequences, None for an optional that is empty.
            kwargs: Accepted for the interface's sake; nothing is read.

        Raises:
            InputError: number, name, dtype, rank or size of an input do not fit the model.
        """
        expected = [info.name for info in self.session.inputs]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(given) != len(expected):
                raise InputError(
                    f"{len(given)} inputs were given, the model takes {len(expected)}: {expected}"
                )
            feeds = dict(zip(expected, given, strict=True))
        return self._outputs(*self.session.run(feeds))


class RuntimeBackend(Backend):
    """`onnx.backend.base.Backend` on the engine: class methods only, as ONNX has them."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Return whether `prepare` would accept `model` on `device`."""
        try:
            cls.prepare(model, device, **kwargs)
        except LowprecError:
            return False
        return True

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether `device` ("CPU", "CPU:0") is a processor."""
        return device.split(":")[0] == "CPU"

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        *,
        fallback: bool | None = None,
        **kwargs: Any,
    ) -> PreparedModel:
        """Return `model` loaded, simplified and compiled.

        Args:
            model: Of any opset that `lowprec.graph.load` reads.
            device: "CPU".
            fallback: As `lowprec.engine.compile_model`.
            kwargs: Accepted for the interface's sake; nothing is read.

        Raises:
            ModelError: the model cannot be used.
            UnsupportedError: the device is no CPU, or an operator cannot run.
        """
        if not cls.supports_device(device):
            raise UnsupportedError(f"the device is '{device}'; lowprec runs on 'CPU' only")
        hub = graph.load(model)
        passes.simplify(hub)
        return PreparedModel(compile_model(hub, fallback=fallback))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Return the outputs of one run of `model`: `prepare`, then `run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Return the outputs of one node.

        Args:
            node: The node.
            inputs: An array for each of its inputs that has a name, in order, or by name.
            device: "CPU".
            outputs_info: dtype and shape of every output, for an operator whose types ONNX's
                inference does not find.
            kwargs: `opset_version` (by default the newest), `fallback`.
        """
        names = list(dict.fromkeys(name for name in node.input if name))
        if not isinstance(inputs, Mapping):
            inputs = dict(zip(names, inputs, strict=True))
        outputs = [name for name in node.output if name]
        infos = [None] * len(outputs) if outputs_info is None else list(outputs_info)
        made = [
            onnx.helper.make_empty_tensor_value_info(name)
            if info is None
            else onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(info[0])), info[1]
            )
            for name, info in zip(outputs, infos, strict=True)
        ]
        fed = [_described(name, inputs[name]) for name in names]
        version = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], node.op_type, fed, made),
            opset_imports=[onnx.helper.make_opsetid(node.domain, version)],
        )
        if outputs_info is None:
            model = onnx.shape_inference.infer_shapes(model)
        return cls.prepare(model, device, **kwargs).run(inputs)


def _described(name: str, array: Any) -> onnx.ValueInfoProto:
    array = np.asarray(array)
    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, dtype, array.shape)


is_compatible = RuntimeBackend.is_compatible
supports_device = RuntimeBackend.supports_device
prepare = RuntimeBackend.prepare
run_model = RuntimeBackend.run_model
run_node = RuntimeBackend.run_node
