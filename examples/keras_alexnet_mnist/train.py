"""Train an AlexNet for 28 x 28 digits, and save it as .keras, SavedModel and frozen .pb.

    python train.py [--data FOLDER] [--out FOLDER] [--epochs N] [--images N]

Everything here is TensorFlow's; lowprec is needed only to find the digits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import tensorflow as tf
from digits import Digits, read_digits, write_mnist
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

HERE = Path(__file__).resolve().parent
MNIST = 60_000  # pictures to train with


def build_alexnet() -> keras.Model:
    """Return AlexNet's five convolutions and three dense layers, for pictures of 28 x 28."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Conv2D(96, 3, padding="same", activation="relu", name="conv3"),
            layers.Conv2D(96, 3, padding="same", activation="relu", name="conv4"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv5"),
            layers.MaxPooling2D(2, name="pool5"),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="fc6"),
            layers.Dropout(0.3, name="drop6"),
            layers.Dense(256, activation="relu", name="fc7"),
            layers.Dense(10, activation="softmax", name="fc8"),
        ],
        name="alexnet",
    )


def train(model: keras.Model, digits: Digits, epochs: int | None) -> float:
    """Fit the model; return its accuracy on the test pictures.

    Without `epochs` it sees as many pictures as the whole of MNIST has, however few there are.
    """
    batch = 128
    epochs = epochs or max(1, round(MNIST / len(digits.train_pictures)))
    steps = max(1, epochs * len(digits.train_pictures) // batch)
    warmup = steps // 8
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps - warmup, alpha=0.02, warmup_target=2e-3, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        digits.train_pictures, digits.train_labels, batch_size=batch, epochs=epochs, verbose=2
    )
    _, accuracy = model.evaluate(
        digits.test_pictures, digits.test_labels, batch_size=500, verbose=0
    )
    return float(accuracy)


def freeze(model: keras.Model, path: Path) -> None:
    """Write the model as a frozen graph with the tensors image:0 and probabilities:0."""

    def call(image: tf.Tensor) -> tf.Tensor:
        return tf.identity(model(image, training=False), name="probabilities")

    spec = tf.TensorSpec([None, 28, 28, 1], tf.float32, name="image")
    function = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))
    graph = tf.compat.v1.GraphDef()
    nodes = function.graph.as_graph_def().node
    graph.node.extend(node for node in nodes if node.name not in ("Identity", "NoOp"))  # returns
    path.write_bytes(graph.SerializeToString())


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder with MNIST")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder to write into")
    parser.add_argument("--epochs", type=int, help="default: as many pictures as MNIST has")
    parser.add_argument("--images", type=int, help="to train with; all by default")
    options = parser.parse_args(arguments)

    keras.utils.set_random_seed(1)
    digits = read_digits(options.data)
    print(f"digits: {digits.source}", flush=True)
    write_mnist(digits, options.out / "data")
    kept = slice(options.images)
    digits = digits._replace(
        train_pictures=digits.train_pictures[kept], train_labels=digits.train_labels[kept]
    )

    start = time.perf_counter()
    model = build_alexnet()
    accuracy = train(model, digits, options.epochs)
    seconds = time.perf_counter() - start
    print(f"float accuracy {accuracy:.4f} after {seconds:.0f} s", flush=True)

    model.save(options.out / "alexnet.keras")
    model.export(options.out / "alexnet_saved_model", verbose=False)
    freeze(model, options.out / "alexnet.pb")
    for name in ("alexnet.keras", "alexnet_saved_model", "alexnet.pb"):
        print(f"wrote {options.out / name}")


if __name__ == "__main__":
    main()
