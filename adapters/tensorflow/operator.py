"""The operator that stands for a whole model in TensorFlow's graphs: LowprecRun.

Its model is an input, the bytes of an ONNX file as a vector of uint8: what TensorFlow saves is
complete. The attribute `signature` is the digest of these bytes, by which compiled models are
found, and the dtypes and shapes of inputs and outputs.

Importing this file registers the operator: graphs that hold it can be loaded and run from then on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import op_def_library

from lowprec._ext import _tensorflow
from lowprec.adapters.tensorflow import signature as signatures
from lowprec.adapters.tensorflow.programs import open_kernel, shapes_in
from lowprec.errors import InputError, LowprecError, UnsupportedError

NAME = "LowprecRun"

# Error codes of TensorFlow by what is raised; the first that fits.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (InputError, tf.errors.INVALID_ARGUMENT),
    (UnsupportedError, tf.errors.UNIMPLEMENTED),
    (MemoryError, tf.errors.RESOURCE_EXHAUSTED),
    (LowprecError, tf.errors.INVALID_ARGUMENT),
)


def run(
    inputs: Sequence[Any], model: tf.Tensor, signature: str, name: str | None = None
) -> list[tf.Tensor]:
    """Return the outputs of a model: computed at once, or as part of a graph.

    Args:
        inputs: Tensors in the order of the model's inputs, of their dtypes.
        model: The bytes of its ONNX file: uint8 of rank 1.
        signature: From `programs.signature_of`.
        name: Of the operation in a graph.

    Returns:
        Tensors in the order of the model's outputs; in a graph their shapes are known as far as
        those of the inputs tell them.

    Raises:
        InputError: there are too few or too many inputs.
        tf.errors.InvalidArgumentError: an input or the bytes do not fit; eagerly.
    """
    call = _call(signature)
    if len(inputs) != len(call.takes):
        raise InputError(f"the model takes {len(call.takes)} inputs, {len(inputs)} were given")
    given = [_tensor(value, dtype) for value, dtype in zip(inputs, call.takes, strict=True)]
    model = _tensor(model, tf.uint8)
    eager = tf.executing_eagerly()
    results: list[tf.Tensor]
    if eager:
        results = execute.execute(
            NAME.encode(),
            len(call.makes),
            [*given, model],
            call.attributes,
            context.context(),
            name,
        )
    else:
        results = op_def_library.apply_op(
            NAME,
            name=name,
            args=given,
            model=model,
            Tout=call.makes,
            signature=signature,
            keep=True,
        )
    if execute.must_record_gradient():
        execute.record_gradient(NAME, [*given, model], call.attributes, results)
    if eager:
        return results
    shapes = signatures.output_shapes(
        shapes_in(signature),
        [None if t.shape.rank is None else t.shape.as_list() for t in given],
    )
    # An operation of its own, so that the shapes are there in saved graphs, too.
    return [
        result if shape is None else tf.ensure_shape(result, shape)
        for result, shape in zip(results, shapes, strict=True)
    ]


@dataclass(frozen=True)
class _Call:
    takes: tuple[tf.DType, ...]
    makes: tuple[tf.DType, ...]
    attributes: tuple[Any, ...]  # names and values of an eager call


@lru_cache(maxsize=256)
def _call(signature: str) -> _Call:
    takes, makes = (
        tuple(tf.as_dtype(spec.dtype) for spec in specs)
        for specs in signatures.read(shapes_in(signature))
    )
    numbers = (tuple(dtype.as_datatype_enum for dtype in dtypes) for dtypes in (takes, makes))
    attributes = zip(
        ("Tin", "Tout", "signature", "keep"), (*numbers, signature, False), strict=True
    )
    return _Call(takes, makes, tuple(part for pair in attributes for part in pair))


def _tensor(value: Any, dtype: tf.DType) -> tf.Tensor:
    if isinstance(value, tf.Tensor) and value.dtype == dtype:
        return value
    return tf.convert_to_tensor(value, dtype)


def _explained(error: BaseException) -> tuple[int, str]:
    """Return TensorFlow's code and the message for what a computation raised."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, f"lowprec: {error}"
    return tf.errors.INTERNAL, f"lowprec: {type(error).__name__}: {error}"


def _libraries() -> list[str]:
    folder = tf.sysconfig.get_lib()
    return [
        *sorted(glob(os.path.join(folder, "libtensorflow_framework.*"))),
        *sorted(glob(os.path.join(folder, "libtensorflow_cc.*"))),
        *sorted(glob(os.path.join(folder, "python", "_pywrap_tensorflow_internal.*"))),
    ]


def _register() -> None:
    """Register the operator, once in a process.

    Raises:
        UnsupportedError: this TensorFlow lacks the functions that it takes.
    """
    dtypes = {tf.as_dtype(dtype).as_datatype_enum: dtype for dtype in signatures.DTYPES.values()}
    wrong = _tensorflow.register(_libraries(), dtypes, open_kernel, _explained)
    if wrong:
        raise UnsupportedError(
            f"lowprec cannot add its operator to TensorFlow {tf.__version__}: {wrong}; install "
            "tensorflow >= 2.16 from PyPI, or save the model as .onnx and run it without TensorFlow"
        )


@tf.RegisterGradient(NAME)  # type: ignore[untyped-decorator]
def _gradient(operation: Any, *gradients: tf.Tensor) -> None:
    raise UnsupportedError(
        "a lowprec model is for inference, it has no gradient; train the original and quantise it "
        "again, or stop the gradient before it: tf.stop_gradient(x)"
    )


_register()
