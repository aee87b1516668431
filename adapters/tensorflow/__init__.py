"""TensorFlow and Keras 3: models, SavedModels and frozen graphs.

Importing this package imports TensorFlow, and registers the operator and the Keras classes that
saved models hold. The plugin is `lowprec.adapters.tensorflow_hooks`, which imports neither.
"""

from lowprec.adapters.tensorflow import operator as _operator  # noqa: F401 (registers)
from lowprec.adapters.tensorflow.given import graph, saved_model

__all__ = ["graph", "saved_model"]
