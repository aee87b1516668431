"""The translations of TensorFlow's operations: importing this registers them."""

from lowprec.adapters.tensorflow.operations import (
    control_flow,
    convolutions,
    elementwise,
    functions,
    lists,
    normalizations,
    products,
    reductions,
    resizing,
    shapes,
)

__all__ = [
    "control_flow",
    "convolutions",
    "elementwise",
    "functions",
    "lists",
    "normalizations",
    "products",
    "reductions",
    "resizing",
    "shapes",
]
