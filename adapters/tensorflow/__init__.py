"""TensorFlow and Keras 3: models, SavedModels and frozen graphs.

Importing this package imports TensorFlow, and registers the operator and the Keras classes that
saved models hold. The plugin is `lowprec.adapters.tensorflow_hooks`, which imports neither.
"""

from lowprec.adapters.tensorflow.function_model import CompiledFunction, QuantizedFunction
from lowprec.adapters.tensorflow.given import graph, saved_model
from lowprec.adapters.tensorflow.keras_model import CompiledModel, QuantizedModel
from lowprec.adapters.tensorflow.loading import load

__all__ = [
    "CompiledFunction",
    "CompiledModel",
    "QuantizedFunction",
    "QuantizedModel",
    "graph",
    "load",
    "saved_model",
]
