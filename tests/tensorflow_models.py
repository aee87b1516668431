"""Small models of TensorFlow without Keras: modules, frozen graphs, SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Pair(tf.Module):
    """Two inputs of unequal dtypes, two outputs of unequal shapes, an inner function."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.first = tf.Variable(random.standard_normal((4, 16)).astype(np.float32))
        self.second = tf.Variable(random.standard_normal((16, 3)).astype(np.float32))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4], name="x"),
            tf.TensorSpec([None, 3], tf.int32, name="y"),
        ]
    )
    def __call__(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = self.inner(x)
        scores = hidden @ self.second + tf.cast(y, tf.float32)
        return {"scores": tf.nn.softmax(scores), "hidden": hidden}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def embed(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": tf.nn.tanh(x @ self.first)}

    @tf.function
    def inner(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x @ self.first)


def pair_feeds(count: int = 4, batch: int = 5) -> list[dict[str, NDArray[Any]]]:
    """Return feeds of `Pair`."""
    random = np.random.default_rng(1)
    return [
        {
            "x": random.standard_normal((batch, 4)).astype(np.float32),
            "y": random.integers(-3, 3, (batch, 3)).astype(np.int32),
        }
        for _ in range(count)
    ]


def frozen_images(channels: int = 8) -> Any:
    """Return the GraphDef of a small network of images: "input" and "scores", weights inside."""
    random = np.random.default_rng(2)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 9, 8, 3], name="input")
        kernel = random.standard_normal((3, 3, 3, channels)).astype(np.float32) / 3
        y = tf.nn.conv2d(x, kernel, 2, "SAME", name="conv")
        y = tf.nn.relu(tf.nn.bias_add(y, np.arange(channels, dtype=np.float32) / 9))
        y = tf.reduce_mean(y, [1, 2])
        weights = random.standard_normal((channels, 5)).astype(np.float32)
        tf.nn.softmax(y @ weights, name="scores")
    return graph.as_graph_def()


def image_feeds(count: int = 4, batch: int = 2) -> list[Array]:
    """Return feeds of `frozen_images`."""
    random = np.random.default_rng(3)
    return [random.standard_normal((batch, 9, 8, 3)).astype(np.float32) for _ in range(count)]


def run_graph(definition: Any, fetches: Any, feeds: dict[str, NDArray[Any]]) -> Any:
    """Return what TensorFlow's own Session makes of a GraphDef."""
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(fetches, feeds)


def write_graph(definition: Any, path: Path) -> Path:
    """Write a GraphDef as a .pb file."""
    path.write_bytes(definition.SerializeToString())
    return path


def read_graph_def(path: Path) -> Any:
    """Return the GraphDef in a .pb file."""
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    return definition
