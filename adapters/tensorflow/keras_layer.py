"""The layer that runs a whole model, and holds it: what returned Keras models are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.adapters.tensorflow import operator, programs
from lowprec.adapters.tensorflow import signature as signatures
from lowprec.adapters.tensorflow.content import Bytes
from lowprec.adapters.tensorflow.programs import Program
from lowprec.errors import InputError, ModelError
from lowprec.graph.save import EXTERNAL_LIMIT

WEIGHT = "lowprec_model"

Shape = tuple["int | None", ...]


@keras.saving.register_keras_serializable(package="lowprec")
class Run(keras.layers.Layer):  # type: ignore[misc]
    """A model on the engine as a layer: a list of tensors in, a list of tensors out.

    Its only weight is the bytes of an ONNX file; whoever builds it knows by the digest in
    `signature` which these are, so Keras may keep, copy and load them like any weight.
    """

    def __init__(
        self, signature: str, size: int, results: Sequence[Shape | None], **kwargs: Any
    ) -> None:
        """Make the layer without the bytes; Keras loads them, or `fill` does.

        Args:
            signature: From `programs.signature_of`.
            size: How many bytes there are.
            results: Shapes of the outputs as the original had them, None where a size is open.
            **kwargs: Of keras.layers.Layer.

        Raises:
            ModelError: an argument is damaged.
        """
        # Nothing is to be cast on the way, whatever the policy: the inputs say their dtypes.
        kwargs.update(dtype="float32", autocast=False, trainable=False)
        super().__init__(**kwargs)
        if not isinstance(size, int) or not 0 < size <= EXTERNAL_LIMIT + (1 << 28):
            raise ModelError(f"a model of {size} bytes is damaged; save it again")
        self.supports_jit = False
        self._signature = str(signature)
        self._specs = signatures.read(programs.shapes_in(self._signature))
        self._results = [None if shape is None else tuple(shape) for shape in results]
        if len(self._results) != len(self._specs[1]):
            raise ModelError("the description of the model's results is damaged; save it again")
        self._program: Program | None = None
        self._content = self.add_weight(
            name=WEIGHT, shape=(size,), dtype="uint8", initializer="zeros", trainable=False
        )
        self.built = True

    def fill(self, content: bytes, compiled: Any = None) -> None:
        """Take the bytes, and what is compiled from them already."""
        self._content.assign(np.frombuffer(content, np.uint8))
        if compiled is not None:
            self._program = programs.added(self._view(), compiled, self._signature)

    @property
    def program(self) -> Program:
        """What runs, compiled from the bytes if need be.

        Raises:
            InputError: the weights are others, or none were loaded.
            ModelError: the bytes are not a usable model.
        """
        return self._program_of(self._view())

    def _program_of(self, content: Bytes) -> Program:
        program = self._program
        if program is None or not program.is_in(content, content.__array_interface__["data"][0]):
            if not content.any():  # as Keras makes weights
                raise InputError(
                    "the model has no weights yet; give it those of the original: "
                    "q.set_weights(original.get_weights()), or load_weights(path)"
                )
            program = self._program = programs.program_for(content, self._signature)
        return program

    @property
    def content(self) -> bytes:
        """The ONNX file."""
        return self._view().tobytes()

    def _view(self) -> Bytes:
        """Return the bytes where TensorFlow holds them."""
        return _bytes_of(tf.convert_to_tensor(self._content.value))

    def call(self, inputs: Any, training: Any = None) -> list[tf.Tensor]:
        """Return the outputs; `training` makes no difference, a model on the engine is fixed."""
        model = tf.convert_to_tensor(self._content.value)
        if tf.executing_eagerly():
            self._program_of(_bytes_of(model))  # held as long as the layer is
            return operator.run(inputs, model, self._signature)
        results = operator.run(inputs, model, self._signature)
        for result, shape in zip(results, self._results, strict=True):
            if shape is not None:
                result.set_shape(shape)
        return results

    def compute_output_spec(self, inputs: Any, training: Any = None) -> list[keras.KerasTensor]:
        """Return shapes and dtypes of the outputs as far as those of the inputs tell them."""
        shapes = signatures.output_shapes(
            programs.shapes_in(self._signature), [tensor.shape for tensor in inputs]
        )
        found = []
        for spec, shape, known in zip(self._specs[1], shapes, self._results, strict=True):
            merged = tf.TensorShape(shape).merge_with(known)
            if merged.rank is None:
                raise ModelError("the number of axes of an output is not known; Keras needs it")
            found.append(keras.KerasTensor(merged.as_list(), spec.dtype.name))
        return found

    def load_own_variables(self, store: Any) -> None:
        """Take the bytes from a saved file.

        Raises:
            ModelError: they are those of another model.
        """
        keys = list(store.keys())
        found = np.asarray(store[keys[0]]) if len(keys) == 1 else None
        if found is None or found.dtype != np.uint8 or found.shape != tuple(self._content.shape):
            raise ModelError(
                "these are not the weights of this model: it holds one ONNX file of "
                f"{self._content.shape[0]} bytes; load the whole file of the other with "
                "keras.models.load_model"
            )
        if not self._signature.startswith(programs.digest_of(found) + " "):
            raise ModelError(
                "these weights are of another model, or damaged; load the whole file with "
                "keras.models.load_model"
            )
        self._content.assign(found)

    def get_config(self) -> dict[str, Any]:
        """Return all but the bytes."""
        return {
            "name": self.name,
            "signature": self._signature,
            "size": int(self._content.shape[0]),
            "results": [None if shape is None else list(shape) for shape in self._results],
        }


def _bytes_of(tensor: tf.Tensor) -> Bytes:
    view: NDArray[np.uint8] = np.asarray(memoryview(tensor))
    return view
