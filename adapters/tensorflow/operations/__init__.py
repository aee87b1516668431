"""The translations of TensorFlow's operations: importing this registers them."""

from lowprec.adapters.tensorflow.operations import (
    convolutions,
    elementwise,
    functions,
    normalizations,
    products,
    reductions,
    resizing,
    shapes,
)

__all__ = [
    "convolutions",
    "elementwise",
    "functions",
    "normalizations",
    "products",
    "reductions",
    "resizing",
    "shapes",
]
