"""A Neural Compressor 1.x YAML for AlexNet on MNIST runs unchanged, with nothing else to say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_alexnet

import lowprec
from lowprec.cli.application import run as command_line

CONF = """\
version: 1.0

model:                                     # mandatory. used to specify model specific information.
  name: alexnet
  framework: onnxrt_qlinearops             # mandatory. supported values are tensorflow, pytorch ...

device: cpu

quantization:
  approach: post_training_static_quant
  recipes:
    scale_propagation_max_pooling: True
    first_conv_or_matmul_quantization: True
  calibration:
    sampling_size: 64, 128
    dataloader:
      batch_size: 8
      dataset:
        MNIST:
          root: ./data
          train: True
          download: True
      transform:
        Rescale: {}
        Transpose:
          perm: [2, 0, 1]
        Normalize:
          mean: [0.1307]
          std: !!python/tuple [0.3081]
  model_wise:
    weight:
      granularity: per_channel
      scheme: sym
      dtype: int8
      algorithm: minmax
    activation:
      granularity: per_tensor
      scheme: asym
      dtype: uint8, fp32
      algorithm: minmax
  op_wise: {
    'conv1': {
      'activation': {'dtype': ['fp32']},
      'weight': {'dtype': ['fp32']}
    }
  }

evaluation:
  accuracy:
    metric:
      topk: 1
    dataloader:
      batch_size: 100
      dataset:
        MNIST:
          root: ./data
      transform:
        Rescale:
        Transpose:
          perm: [2, 0, 1]
        Normalize:
          mean: [0.1307]
          std: [0.3081]
  performance:
    warmup: 10
    iteration: 100
    configs:
      cores_per_instance: 4
      num_of_instance: 7
      kmp_blocktime: 1

tuning:
  strategy:
    name: basic
  accuracy_criterion:
    relative: 1%
  objective: performance
  exit_policy:
    timeout: 0
    max_trials: 10
  random_seed: 9527
  tensorboard: True
  workspace:
    path: ./nc_workspace
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with data/MNIST/raw and alexnet.onnx."""
    folder = tmp_path_factory.mktemp("alexnet")
    small_alexnet.write_mnist(folder / "data")
    small_alexnet.make_alexnet(folder / "alexnet.onnx")
    return folder


@pytest.fixture
def folder(trained, monkeypatch) -> Path:
    monkeypatch.chdir(trained)
    (trained / "conf.yaml").write_text(CONF)
    return trained


def top_1(model) -> float:
    images, labels = small_alexnet.digits()
    inputs = (images[small_alexnet.TRAINED :, None].astype(np.float32) / 255 - 0.1307) / 0.3081
    scores = model(inputs.astype(np.float32))
    return float((scores.argmax(axis=1) == labels[small_alexnet.TRAINED :]).mean())


def test_the_file_runs_unchanged(folder, capfd):
    before = hashlib.sha256((folder / "conf.yaml").read_bytes()).digest()
    code = command_line(["quantize", "-c", "conf.yaml"])
    out, error = capfd.readouterr()
    assert (code, error) == (0, "")
    assert hashlib.sha256((folder / "conf.yaml").read_bytes()).digest() == before

    original, quantized = lowprec.compile("alexnet.onnx"), lowprec.load("alexnet.int8.onnx")
    measured = quantized.report.accuracy["topk"]
    assert measured["float"] == top_1(original) > 0.9
    assert measured["int8"] == top_1(quantized) >= 0.99 * measured["float"]
    precisions = {layer.name: layer.precision for layer in quantized.report.layers if layer.macs}
    assert precisions["conv1"] == "f32"
    assert {precisions[name] for name in ("conv2", "conv3", "conv4", "conv5")} == {"int8"}
    assert quantized.report.samples == 64 / 8
    notes = "\n".join(quantized.report.notes)
    for words in ("sampling_size", "tensorboard", "evaluation.performance", "download", "is met"):
        assert words in notes
    assert "wrote alexnet.int8.onnx" in out
    assert "QuantizeLinear" in {node.op_type for node in onnx.load("alexnet.int8.onnx").graph.node}
    assert len(list((folder / "nc_workspace").glob("trials-*.jsonl"))) == 1
    # Paths of this machine are nobody's business who gets the model.
    assert str(folder) not in Path("alexnet.int8.onnx").read_bytes().decode("latin-1")


def test_options_replace_what_the_file_says(folder, capfd):
    (folder / "conf.yaml").write_text(CONF.replace("./nc_workspace", "./another"))
    command = ["quantize", "alexnet.onnx", "-c", "conf.yaml", "-o", "other.onnx"]
    code = command_line([*command, "--metric", "Accuracy", "--report", "report.json"])
    assert (code, capfd.readouterr().err) == (0, "")
    assert set(lowprec.load("other.onnx").report.accuracy) == {"Accuracy"}
    assert (folder / "report.json").exists()


def test_a_criterion_that_is_missed_is_exit_code_1(folder, capfd):
    text = CONF.replace("relative: 1%", "absolute: -0.5").replace("max_trials: 10", "max_trials: 2")
    (folder / "conf.yaml").write_text(text)
    line = text[: text.index("absolute:")].count("\n") + 1
    assert command_line(["quantize", "-c", "conf.yaml", "-o", "never.onnx"]) == 2
    assert f"conf.yaml, line {line}: tuning.accuracy_criterion.absolute" in capfd.readouterr().err
    (folder / "own_goal.py").write_text(
        "calls = []\n"
        "def falls(outputs, labels):\n"
        "    calls.append(1)\n"
        "    return 1.0 / len(calls)\n"
    )
    command = ["quantize", "-c", "conf.yaml", "-o", "missed.onnx", "--metric", "own_goal:falls"]
    (folder / "conf.yaml").write_text(CONF.replace("max_trials: 10", "max_trials: 2"))
    assert command_line(command) == 1
    assert "NOT met" in capfd.readouterr().out
    assert (folder / "missed.onnx").exists()
    assert not (folder / "never.onnx").exists()


def test_our_own_translation_runs_and_gives_the_same_model(folder, capfd):
    assert command_line(["config", "conf.yaml"]) == 0
    printed = capfd.readouterr()
    assert "note: line" in printed.err
    (folder / "ours.yaml").write_text(printed.out)
    config = lowprec.Config.from_yaml("ours.yaml")
    assert config.data.evaluation["dataset"] == {"MNIST": {"root": "./data"}}
    for conf, out in (("conf.yaml", "one.onnx"), ("ours.yaml", "two.onnx")):
        assert command_line(["quantize", "-c", conf, "-o", out]) == 0
    one, two = (lowprec.load(name) for name in ("one.onnx", "two.onnx"))
    inputs = np.random.default_rng(0).normal(size=(4, 1, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(one(inputs), two(inputs))


def test_tune_runs_the_file_too(folder, capfd):
    (folder / "conf.yaml").write_text(CONF.replace("./nc_workspace", "./tuned"))
    assert command_line(["tune", "-c", "conf.yaml", "-o", "tuned.onnx"]) == 0
    out = capfd.readouterr().out
    assert "the criterion (1 % relative) is met" in out
    assert len(list((folder / "tuned").glob("trials-*.jsonl"))) == 1
    assert (folder / "tuned.onnx").exists()
