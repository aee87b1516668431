"""A Neural Compressor 1.x YAML for AlexNet on MNIST-like data runs unchanged.

    python benchmarks/bench_neural_compressor_yaml.py [FOLDER] [--images 6000] [--epochs 1]

FOLDER holds Fashion-MNIST's (or MNIST's) four idx files: by default those of the Debian package
dataset-fashion-mnist. A small AlexNet is trained on part of them with torch first.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lowprec
from lowprec.cli.application import run as command_line
from lowprec.data import open_data

FOLDER = "/usr/share/datasets/fashion-mnist"
CONVOLUTIONS = ((1, 32, 5, 2, True), (32, 64, 5, 2, True), (64, 96, 3, 1, False),
                (96, 96, 3, 1, False), (96, 64, 3, 1, True))  # fmt: skip  # in, out, k, pad, pool
CONF = """\
version: 1.0
model:
  name: alexnet
  framework: onnxrt_qlinearops
quantization:
  approach: post_training_static_quant
  calibration:
    sampling_size: 100, 500
    dataloader:
      batch_size: 10
      dataset:
        FashionMNIST: {{root: {folder}, train: True, download: True}}
      transform:
        Rescale: {{}}
        Transpose: {{perm: [2, 0, 1]}}
        Normalize: {{mean: [0.2860], std: [0.3530]}}
  model_wise:
    weight: {{granularity: per_channel, scheme: sym, dtype: int8, algorithm: minmax}}
    activation: {{granularity: per_tensor, scheme: asym, dtype: uint8, algorithm: "minmax, kl"}}
evaluation:
  accuracy:
    metric: {{topk: 1}}
    dataloader:
      batch_size: 100
      dataset:
        FashionMNIST: {{root: {folder}}}
      transform:
        Rescale: {{}}
        Transpose: {{perm: [2, 0, 1]}}
        Normalize: {{mean: [0.2860], std: [0.3530]}}
  performance:
    warmup: 10
    iteration: 100
    configs: {{cores_per_instance: 4, num_of_instance: 7}}
tuning:
  strategy: {{name: basic}}
  accuracy_criterion: {{relative: 0.5%}}
  objective: performance
  exit_policy: {{timeout: 0, max_trials: 20}}
  random_seed: 9527
  workspace: {{path: ./nc_workspace}}
"""


def train(folder: str, images: int, epochs: int, path: Path) -> None:
    """Train the network and write it as ONNX, by hand: no exporter is needed."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, kernel, padding, pooled in CONVOLUTIONS:
        layers += [nn.Conv2d(before, after, kernel, padding=padding), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 256), nn.ReLU(),
                          nn.Linear(256, 10))  # fmt: skip
    loader = open_data(
        {
            "dataset": {"FashionMNIST": {"root": folder, "train": True}},
            "transform": {"ToTensor": {}, "Normalize": {"mean": [0.2860], "std": [0.3530]}},
            "batch_size": 64,
            "limit": images,
        }
    )
    batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in loader]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    nodes, constants, value = [], [], "input"
    for number, layer in enumerate(model):
        result, name = f"v{number}", f"{type(layer).__name__.lower()}_{number}"
        inputs = [value]
        for key, parameter in layer.named_parameters():
            inputs.append(f"{name}.{key}")
            constants.append(numpy_helper.from_array(parameter.detach().numpy(), inputs[-1]))
        if isinstance(layer, nn.Conv2d):
            pads = [layer.padding[0]] * 4
            nodes.append(helper.make_node("Conv", inputs, [result], name, pads=pads))
        elif isinstance(layer, nn.Linear):
            nodes.append(helper.make_node("Gemm", inputs, [result], name, transB=1))
        elif isinstance(layer, nn.MaxPool2d):
            sizes = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", inputs, [result], name, **sizes))
        else:
            operator = "Relu" if isinstance(layer, nn.ReLU) else "Flatten"
            nodes.append(helper.make_node(operator, inputs, [result], name))
        value = result
    graph = helper.make_graph(
        nodes,
        "alexnet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 10])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=FOLDER)
    parser.add_argument("--images", type=int, default=6000, help="training images")
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    folder = os.path.abspath(arguments.folder)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        train(folder, arguments.images, arguments.epochs, Path("alexnet.onnx"))
        Path("conf.yaml").write_text(CONF.format(folder=folder))
        start = time.perf_counter()
        code = command_line(["quantize", "-c", "conf.yaml"])
        seconds = time.perf_counter() - start
        made = lowprec.load("alexnet.int8.onnx")
        original = lowprec.compile("alexnet.onnx")
        x = np.random.default_rng(0).normal(size=(1, 1, 28, 28)).astype(np.float32)
        times = {}
        for name, model in (("float", original), ("int8", made)) * 20:
            begin = time.perf_counter()
            for _ in range(20):
                model.run({"input": x})
            times[name] = min(times.get(name, 1.0), (time.perf_counter() - begin) / 20)
        score = made.report.accuracy["topk"]
        print(f"\nexit code {code}, {seconds:.1f} s for the whole flow")
        print(f"top-1: float {score['float']:.4f}, int8 {score['int8']:.4f} (10,000 test images)")
        print(f"latency: float {1e6 * times['float']:.0f} us, int8 {1e6 * times['int8']:.0f} us")


if __name__ == "__main__":
    main()
