"""A model that was given as a file, as something to call: what scores compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.calls import arguments_of, result_of
from lowprec.adapters.tensorflow.source import Source


class Original:
    """TensorFlow's own model with the members of a quantised one that scores use."""

    def __init__(self, source: Source, binding: Binding) -> None:
        """Take the source and how it is called."""
        self._source = source
        self._binding = binding

    def run(self, feeds: Mapping[str, ArrayLike]) -> list[NDArray[Any]]:
        """Return the outputs in order for a dict of arrays by input name."""
        return self._source.run([np.asarray(feeds[name]) for name in self._source.inputs])

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what TensorFlow computes, called as the quantised model is."""
        given = arguments_of(self._binding, args, kwargs)
        tensors = [
            tf.convert_to_tensor(value, tensor.dtype)
            for value, tensor in zip(given, self._source.inputs.values(), strict=True)
        ]
        results = self._source.run([tensor.numpy() for tensor in tensors])
        return result_of(self._binding, [tf.convert_to_tensor(array) for array in results])

    def __repr__(self) -> str:
        return f"<TensorFlow's own model '{self._binding.name}'>"
