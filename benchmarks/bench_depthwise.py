"""Depthwise int8 layers beside onnxruntime's: time of the layer alone, within a small QDQ model.

    python benchmarks/bench_depthwise.py [--only TEXT] [--type u8|s8] [--threads 1] [--rounds 5]
                                         [--json FILE] [--no-peer]

The model is a 1x1 convolution of 16 channels to those of the layer, then the layer: so that what
comes before it is another layer, as in a network, and neither side pays for a change of layout in
the time that counts. Ours is the step of Session.profile(), onnxruntime's the node of its own
profile; both the minimum over the runs of all rounds, which alternate. GOP/s counts two operations
a tap.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lowprec

RUNS = 12  # of each side in a round


@dataclass(frozen=True)
class Layer:
    model: str
    height: int
    width: int
    channels: int
    kernel: int
    strides: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        return (
            f"{self.height}x{self.width}x{self.channels} {self.kernel}x{self.kernel} "
            f"s{self.strides[0]},{self.strides[1]}"
        )

    @property
    def output_pixels(self) -> int:
        return -(-self.height // self.strides[0]) * -(-self.width // self.strides[1])

    @property
    def operations(self) -> int:
        return 2 * self.output_pixels * self.channels * self.kernel**2


def _layers() -> list[Layer]:
    two = (2, 2)
    layers = [
        Layer("lite0", 112, 112, 32, 3),
        Layer("lite0", 112, 112, 96, 3, two),
        Layer("lite0", 56, 56, 144, 3),
        Layer("lite0", 56, 56, 144, 5, two),
        Layer("lite0", 28, 28, 240, 5),
        Layer("lite0", 28, 28, 240, 3, two),
        Layer("lite0", 14, 14, 480, 3),
        Layer("lite0", 14, 14, 480, 5),
        Layer("lite0", 14, 14, 672, 5),
        Layer("lite0", 14, 14, 672, 5, two),
        Layer("lite0", 7, 7, 1152, 5),
        Layer("lite0", 7, 7, 1152, 3),
        Layer("mobilenet", 112, 112, 64, 3, two),
        Layer("mobilenet", 56, 56, 128, 3),
        Layer("mobilenet", 56, 56, 128, 3, two),
        Layer("mobilenet", 28, 28, 256, 3),
        Layer("mobilenet", 28, 28, 256, 3, two),
        Layer("mobilenet", 14, 14, 512, 3),
        Layer("mobilenet", 14, 14, 512, 3, two),
        Layer("mobilenet", 7, 7, 1024, 3),
        Layer("efficientdet", 128, 128, 144, 3),
        Layer("efficientdet", 128, 128, 144, 5, two),
        Layer("efficientdet", 64, 64, 240, 5),
        Layer("ocr det", 320, 320, 16, 3),
        Layer("ocr det", 320, 320, 24, 3, two),
        Layer("ocr det", 160, 160, 48, 3),
        Layer("ocr det", 80, 80, 96, 3, two),
        Layer("ocr det", 40, 40, 192, 5),
        Layer("ocr rec", 24, 160, 16, 3),
        Layer("ocr rec", 24, 160, 32, 3, (2, 1)),
        Layer("ocr rec", 24, 160, 32, 3, (1, 2)),
        Layer("ocr rec", 12, 160, 48, 3, (2, 1)),
        Layer("ocr rec", 6, 80, 240, 5),
        Layer("ocr rec", 6, 80, 240, 5, (2, 1)),
        Layer("ocr rec", 3, 80, 480, 5),
    ]
    return layers


def one_layer(layer: Layer, code: str) -> onnx.ModelProto:
    """Return Dequantize -> Conv 1x1 -> codes -> depthwise Conv -> codes."""
    rng = np.random.default_rng(layer.channels)
    dtype = np.uint8 if code == "u8" else np.int8
    zero_point = 3 if code == "u8" else 0
    initializers, nodes = [], []

    def add(name: str, array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(array, name))
        return name

    for name, scale in (("x", 0.02), ("m", 0.05), ("y", 0.05)):
        add(f"{name}_scale", np.float32(scale))
        add(f"{name}_zero", dtype(zero_point))

    def layer_nodes(source: str, target: str, weights: np.ndarray, **attributes: object) -> None:
        w, n = f"{target}_w", weights.shape[0]
        scales = np.full(n, 0.01, np.float32)
        add(w, weights)
        add(f"{w}_scale", scales)
        add(f"{w}_zero", np.zeros(n, np.int8))
        source_scale = numpy_helper.to_array(
            next(i for i in initializers if i.name == f"{source}_scale")
        )
        add(f"{target}_b", rng.integers(-1000, 1000, n).astype(np.int32))
        add(f"{target}_b_scale", (source_scale * scales).astype(np.float32))
        add(f"{target}_b_zero", np.zeros(n, np.int32))
        nodes.extend(
            [
                helper.make_node(
                    "DequantizeLinear",
                    [f"{source}", f"{source}_scale", f"{source}_zero"],
                    [f"{source}_f"],
                ),
                helper.make_node(
                    "DequantizeLinear", [w, f"{w}_scale", f"{w}_zero"], [f"{w}_f"], axis=0
                ),
                helper.make_node(
                    "DequantizeLinear",
                    [f"{target}_b", f"{target}_b_scale", f"{target}_b_zero"],
                    [f"{target}_b_f"],
                    axis=0,
                ),
                helper.make_node(
                    "Conv",
                    [f"{source}_f", f"{w}_f", f"{target}_b_f"],
                    [f"{target}_f32"],
                    name=f"conv_{target}",
                    **attributes,
                ),
                helper.make_node(
                    "QuantizeLinear",
                    [f"{target}_f32", f"{target}_scale", f"{target}_zero"],
                    [target],
                ),
            ]
        )

    codes = lambda *shape: rng.integers(-127, 128, shape).astype(np.int8)  # noqa: E731
    pad = layer.kernel // 2
    layer_nodes("x", "m", codes(layer.channels, 16, 1, 1))
    layer_nodes(
        "m",
        "y",
        codes(layer.channels, 1, layer.kernel, layer.kernel),
        group=layer.channels,
        strides=list(layer.strides),
        pads=[pad] * 4,
        kernel_shape=[layer.kernel] * 2,
    )
    kind = TensorProto.UINT8 if code == "u8" else TensorProto.INT8
    graph = helper.make_graph(
        nodes,
        "depthwise",
        [helper.make_tensor_value_info("x", kind, [1, 16, layer.height, layer.width])],
        [helper.make_tensor_value_info("y", kind, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


class Peer:
    """onnxruntime's time of the node, read from the profiles that it writes."""

    def __init__(self, model: onnx.ModelProto, feeds: dict[str, np.ndarray], threads: int) -> None:
        self._model, self._feeds, self._threads = model.SerializeToString(), feeds, threads

    def best(self) -> float:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            session = onnxruntime.InferenceSession(
                self._model, options, providers=["CPUExecutionProvider"]
            )
            for _ in range(RUNS):
                session.run(None, self._feeds)
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
        times = [
            event["dur"]
            for event in events
            if event.get("cat") == "Node"
            and "conv_y" in event["name"]
            and event["name"].endswith("kernel_time")
        ]
        if not times:
            raise SystemExit("onnxruntime's profile does not name the layer")
        return min(times) * 1e-6


def measure(layer: Layer, options: argparse.Namespace) -> dict[str, object]:
    model = one_layer(layer, options.type)
    shape = (1, 16, layer.height, layer.width)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, shape).astype(np.uint8)
    feeds = {"x": x if options.type == "u8" else x.view(np.int8)}
    session = lowprec.compile(model)
    peer = None if options.no_peer else Peer(model, feeds, options.threads)
    ours = theirs = float("inf")
    kernel = ""
    for _ in range(options.rounds):
        for _ in range(RUNS):
            for step in session.profile(feeds, repeats=1):
                if step.row.name == "conv_y":
                    ours, kernel = min(ours, step.seconds), step.row.kernel
        if peer is not None:
            theirs = min(theirs, peer.best())
    speed = layer.operations / ours * 1e-9
    row = f"{layer.model:13s} {layer.name:25s} {ours * 1e6:8.1f} us {speed:7.1f} GOP/s"
    if peer is not None:
        row += f"   onnxruntime {theirs * 1e6:8.1f} us, {theirs / ours:6.2f} times ours"
    print(f"{row}   {kernel}", flush=True)
    return {**asdict(layer), "seconds": ours, "onnxruntime": theirs, "kernel": kernel}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--type", choices=("u8", "s8"), default="u8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    lowprec.set_num_threads(options.threads)
    rows = [
        measure(layer, options)
        for layer in _layers()
        if options.only in f"{layer.model} {layer.name}"
    ]
    ratios = [row["onnxruntime"] / row["seconds"] for row in rows]
    if ratios and not options.no_peer:
        print(f"geometric mean: {np.exp(np.mean(np.log(ratios))):.2f} times onnxruntime")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
