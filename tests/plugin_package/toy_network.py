"""A framework that lowprec has never heard of: dense layers with ReLU between them."""

import numpy as np


class Network:
    """y = w2 @ relu(w1 @ x + b1) + b2 ..., one sample at a time: x (inputs,), y (outputs,)."""

    def __init__(self, layers):
        """Take [(weights (outputs, inputs), bias (outputs,)), ...]."""
        self.layers = layers

    def __call__(self, x):
        """Return the outputs for one sample."""
        for number, (weights, bias) in enumerate(self.layers):
            x = weights @ (np.maximum(x, 0) if number else x) + bias
        return x


class Recording:
    """Samples as this framework holds them: not an iterable."""

    def __init__(self, samples):
        """Take samples of shape (count, inputs)."""
        self.samples = samples
