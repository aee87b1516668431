"""What quantize() and compile() return for SavedModels, graphs and functions of TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from lowprec import CompiledModel, QuantizedModel
from lowprec.adapters.tensorflow import operator
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.calls import arguments_of, result_of
from lowprec.adapters.tensorflow.content import compiled_from, content_of
from lowprec.adapters.tensorflow.programs import Program, added
from lowprec.adapters.tensorflow.saving import save_as
from lowprec.adapters.tensorflow.stock_files import is_stock, save_stock
from lowprec.compiled_members import CompiledMembers
from lowprec.errors import InputError
from lowprec.graph import load as hub_of
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    import onnx

    from lowprec.config import Config
    from lowprec.engine import TensorInfo
    from lowprec.report import Report


class CompiledFunction(CompiledMembers):
    """A captured model on the engine, called like the original: tensors in, tensors out.

    A SavedModel's is called like its signature: tensors by name, a dict of tensors. A function's
    like the function. A graph's with tensors or arrays in the order of its inputs or by name.
    """

    def __init__(self, program: Program, content: bytes, binding: Binding) -> None:
        """Take what `function_of` puts together."""
        self._program = program
        self._content = content
        self._binding = binding
        self._model = tf.constant(np.frombuffer(content, np.uint8))

    # ---- Calls ----

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original returns for these arguments; also inside a tf.function.

        Raises:
            InputError: they do not fit what was captured.
        """
        given = arguments_of(self._binding, args, kwargs)
        if self._binding.form == "graph" and not any(map(tf.is_tensor, given)):
            results: Sequence[Any] = self.run(dict(zip(self._binding.inputs, given, strict=True)))
        else:
            results = self.compute(given)
        return result_of(self._binding, results)

    def compute(self, given: Sequence[Any]) -> list[tf.Tensor]:
        """Return the outputs for tensors in the order of the inputs; symbolic ones too.

        Raises:
            InputError: a tensor's dtype or rank does not fit.
        """
        tensors = [_tensor(value, info) for value, info in zip(given, self.inputs, strict=True)]
        return operator.run(tensors, self._model, self._program.signature)

    # ---- Files ----

    def save(self, path: str | os.PathLike[str], target: str = "lowprec") -> None:
        """Write the model, in the form that the path says; an old file or folder is safe.

        Args:
            path: A folder for a SavedModel with the original's signatures, .pb (or .pbtxt) for a
                frozen graph with the original's tensor names, .onnx for a QDQ file that onnxruntime
                and OpenVINO open too.
            target: "lowprec": the graph holds one operation of lowprec, which a fresh process knows
                after `import lowprec.adapters.tensorflow`. "tensorflow": TensorFlow's own int8
                operators, which need no lowprec.

        Raises:
            OutputError: it cannot be written there.
            UnsupportedError: this model has no such form.
        """
        if is_stock(target):
            save_stock(hub_of(self.to_onnx()), self._binding, path)
            return
        dtypes = [info.dtype for info in self.inputs]
        save_as(self._content, self._program.signature, self._binding, dtypes, path, target)

    # ---- As what quantize() and compile() return for ONNX ----

    def _runs_on(self) -> CompiledModel:
        return self._program.compiled

    @property
    def session(self) -> Any:
        """What runs it."""
        return self._runs_on().session

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each input."""
        return self._runs_on().inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each output, in the order of `run`'s result."""
        return self._runs_on().outputs

    def to_onnx(self) -> onnx.ModelProto:
        """Return the model as an onnx.ModelProto, as `save` writes it to .onnx."""
        from lowprec.adapters.tensorflow.content import proto_of

        return proto_of(self._content)

    def __repr__(self) -> str:
        inside = repr(self._runs_on()).partition(" ")[2].removesuffix(">")
        name = f"{type(self).__module__.rpartition('.')[0]}.{type(self).__name__}"
        return f"<{name} {self._binding.form} '{self._binding.name}' {inside}>"


class QuantizedFunction(CompiledFunction):
    """A quantised model, called like the original, with its report."""

    @property
    def _quantized(self) -> QuantizedModel:
        compiled = self._runs_on()
        assert isinstance(compiled, QuantizedModel)
        return compiled

    @property
    def config(self) -> Config:
        """The configuration that the model was quantised with."""
        return self._quantized.config

    @property
    def report(self) -> Report:
        """Per layer: precision, range, error and why; for the whole: agreement, size, speed."""
        return self._quantized.report

    @property
    def hub(self) -> Any:
        """The QDQ hub; must not be changed."""
        return self._quantized.hub


def function_of(compiled: CompiledModel, captured: Captured) -> CompiledFunction:
    """Return a quantised or compiled model as what is called like the original."""
    content = content_of(compiled, captured)
    program = added(np.frombuffer(content, np.uint8), compiled)
    binding = captured.binding[KEY]
    assert isinstance(binding, Binding)
    kind = QuantizedFunction if isinstance(program.compiled, QuantizedModel) else CompiledFunction
    return kind(program, content, binding)


def from_content(content: bytes, binding: Binding) -> CompiledFunction:
    """Return the model in the bytes that `content_of` made.

    Raises:
        ModelError: they are not a usable model.
    """
    program = added(np.frombuffer(content, np.uint8), compiled_from(content))
    kind = QuantizedFunction if isinstance(program.compiled, QuantizedModel) else CompiledFunction
    return kind(program, content, binding)


def _tensor(value: Any, info: TensorInfo) -> tf.Tensor:
    """Return what is given for an input as a tensor of its dtype."""
    dtype = tf.as_dtype(info.dtype)
    try:
        tensor = value if tf.is_tensor(value) else tf.convert_to_tensor(value, dtype)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"input '{info.name}' is not a tensor of {dtype.name}: {' '.join(str(error).split())}"
        ) from None
    if tensor.dtype != dtype:
        raise InputError(
            f"input '{info.name}' is {tensor.dtype.name}; it must be {dtype.name}: cast it"
        )
    if info.shape is not None and tensor.shape.rank not in (None, len(info.shape)):
        raise InputError(
            f"input '{info.name}' has {tensor.shape.rank} dimensions; it must have "
            f"{len(info.shape)}"
        )
    return tensor
