"""Keys of Neural Compressor 1.x's YAML become what docs/neural_compressor.md says, or errors."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from lowprec.compat import neural_compressor, read_config
from lowprec.config import Config
from lowprec.config_text import Source
from lowprec.errors import ConfigError

MODEL = {"name": "net", "framework": "onnxrt_qlinearops"}
LOADER = {"dataset": {"dummy": {"shape": [4, 3]}}}


def translated(**sections) -> Config:
    return neural_compressor.translate({"model": MODEL, **sections}, Source(None, "conf"))[0]


def notes(**sections) -> str:
    return "\n".join(
        neural_compressor.translate({"model": MODEL, **sections}, Source(None, "c"))[1]
    )


def quantization(**sections) -> Config:
    return translated(quantization=sections)


FULL = """\
model: {name: resnet50, framework: onnxrt_qlinearops}
quantization:
  approach: post_training_static_quant
  calibration:
    sampling_size: "100, 500"
    dataloader:
      batch_size: 10
      last_batch: discard
      dataset: {ImageFolder: {root: /d}}
      transform:
        Resize: {size: 256}
        CenterCrop: {size: 224}
        ToTensor: {}
        Normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
  model_wise:
    weight: {granularity: per_channel, scheme: sym, dtype: int8, algorithm: minmax}
    activation: {granularity: per_tensor, scheme: asym, dtype: uint8, algorithm: "minmax, kl"}
  op_wise: {conv1: {activation: {dtype: [fp32]}, weight: {dtype: [fp32]}}}
evaluation:
  accuracy: {metric: {topk: 1}, dataloader: {batch_size: 32, dataset: {ImageFolder: {root: /v}}}}
  performance: {warmup: 10, iteration: 100, configs: {cores_per_instance: 4, num_of_instance: 7}}
tuning:
  strategy: {name: basic}
  accuracy_criterion: {relative: 1%}
  objective: performance
  exit_policy: {timeout: 0, max_trials: 100}
  random_seed: 9527
  workspace: {path: ./ws}
"""


def test_the_published_shape_is_read(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(FULL)
    before = hashlib.sha256(path.read_bytes()).digest()
    config, said = read_config(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert (config.model, config.precision) == ("resnet50", "int8")
    assert (config.calibration.method, config.calibration.samples) == ("auto", 10)
    assert config.activations.dtype == "u8"
    assert config.layer_precision("conv1", "Conv") == "f32"
    assert config.layer_precision("conv2", "Conv") is None
    assert config.data.calibration["transform"]["Resize"] == {
        "antialias": False,
        "size": [256, 256],
    }
    assert config.data.evaluation == {"batch_size": 32, "dataset": {"ImageFolder": {"root": "/v"}}}
    assert config.evaluation.metric == {"topk": 1}
    assert config.tuning.accuracy.relative == 0.01
    assert (config.tuning.seed, config.tuning.max_trials, config.tuning.stop) == (
        9527,
        100,
        "first",
    )
    assert config.tuning.log.startswith("./ws/trials-")
    assert Config.from_yaml(config.to_yaml()) == config
    assert neural_compressor.read(path) == (config, said)
    assert [line.split(":")[0] for line in said] == ["line 5", "line 17", "line 21"]


def test_our_own_files_are_ours_and_the_other_way_round(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("precision: bf16\n")
    assert read_config(path) == (Config.of({"precision": "bf16"}), [])
    with refused(ConfigError, "conf.yaml", "no configuration of Neural Compressor"):
        neural_compressor.read(path)
    path.write_text(FULL)
    with refused(ConfigError, "Neural Compressor 1.x", "lowprec quantize -c", "lowprec config"):
        Config.of(path)


@pytest.mark.parametrize(
    ("approach", "precision"),
    [
        ("post_training_static_quant", "int8"),
        ("post_training_dynamic_quant", "int8-dynamic"),
        ("post_training_auto_quant", "auto"),
    ],
)
def test_approaches(approach, precision):
    assert quantization(approach=approach).precision == precision


def test_calibration_counts_batches():
    loader = {**LOADER, "batch_size": 30}
    config = quantization(calibration={"sampling_size": 100, "dataloader": loader})
    assert config.calibration.samples == 4
    assert quantization(calibration={"sampling_size": [50]}).calibration.samples == 50
    assert quantization(calibration=None).calibration.samples == 100
    with refused(ConfigError, "sampling_size is 'many'", "whole numbers"):
        quantization(calibration={"sampling_size": "many"})


def test_recipes_and_bias_correction():
    config = quantization(
        recipes={
            "first_conv_or_matmul_quantization": False,
            "last_conv_or_matmul_quantization": False,
            "fast_bias_correction": True,
            "smooth_quant": True,
            "scale_propagation_concat": True,
        }
    )
    assert (config.algorithms.first_layer, config.algorithms.last_layer) == ("f32", "f32")
    assert config.algorithms.bias_correction is True
    assert config.algorithms.smoothing is True
    corrected = quantization(advance={"bias_correction": "weight_empirical"})
    assert corrected.algorithms.bias_correction is True
    said = notes(quantization={"recipes": {"scale_propagation_concat": False}})
    assert "cannot be switched off" in said
    with refused(ConfigError, "weight_correction", "not here"):
        quantization(recipes={"weight_correction": True})


def test_model_wise():
    activation = {"dtype": "int8", "scheme": "sym", "algorithm": "kl"}
    weight = {"granularity": ["per_tensor"], "scheme": "asym", "bit": 7.0}
    config = quantization(model_wise={"activation": activation, "weight": weight})
    assert (config.activations.dtype, config.activations.scheme) == ("s8", "symmetric")
    assert config.calibration.method == "entropy"
    assert config.weights.granularity == "per_tensor"
    assert config.weights.reduce_range
    both = quantization(model_wise={"activation": {"scheme": "asym, sym", "dtype": "uint8 int8"}})
    assert (both.activations.scheme, both.activations.dtype) == ("auto", "u8")
    low = quantization(model_wise={"weight": {"dtype": "bf16"}, "activation": {"dtype": "bf16"}})
    assert low.precision == "bf16"


def test_op_wise_and_optype_wise():
    fp32 = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    config = quantization(
        optype_wise={"Conv2d": {"activation": {"algorithm": ["minmax"]}}, "Softmax": fp32},
        op_wise={
            "layer[1].conv": fp32,
            "Pre/*": fp32,
            "Gather_.*?": fp32,
            "head.*": {"activation": {"dtype": ["bf16"]}},
            "fc": {"weight": {"granularity": ["per_tensor"]}, "activation": {"scheme": ["sym"]}},
        },
    )
    assert config.layer_method("any", "Conv") == "minmax"
    assert config.layer_precision("any", "Softmax") == "f32"
    assert config.layer_precision("layer[1].conv", "Conv") == "f32"
    assert config.layer_precision("layer1.conv", "Conv") is None
    assert config.layer_precision("Pre/add", "Add") == "f32"
    assert config.layer_precision("Gather_12", "Gather") == "f32"
    assert config.layer_precision("head.fc.2", "Gemm") == "bf16"
    assert config.layer_granularity("fc", "Gemm") == "per_tensor"
    assert config.layer_scheme("fc", "Gemm") == "symmetric"


def test_default_qconfig_leaves_only_what_is_named():
    fp32 = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    int8 = {"activation": {"dtype": ["uint8"]}, "weight": {"dtype": ["int8"]}}
    config = quantization(op_wise={"conv1": int8, "default_qconfig": fp32})
    assert config.layer_precision("conv1", "Conv") == "int8"
    assert config.layer_precision("conv2", "Conv") == "f32"


@pytest.mark.parametrize("section", ["mixed_precision", "graph_optimization"])
def test_mixed_precision(section):
    fp32 = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    config = translated(**{section: {"precisions": "fp32, bf16", "op_wise": {"a": fp32}}})
    assert config.precision == "bf16"
    assert config.layer_precision("a", "Conv") == "f32"
    with refused(ConfigError, "fp16", "accepted are fp32, bf16"):
        translated(**{section: {"precisions": "fp16"}})
    with refused(ConfigError, "changes nothing"):
        translated(**{section: {"precisions": ["fp32"]}})


def test_tuning():
    config = translated(
        tuning={
            "strategy": {"name": "mse_v2", "sigopt_api_token": "x"},
            "accuracy_criterion": {"absolute": "0.5", "higher_is_better": False},
            "multi_objectives": {"objective": ["performance", "modelsize"], "weight": [0.5, 0.5]},
            "exit_policy": {"timeout": 60, "max_trials": 7},
        }
    )
    tuning = config.tuning
    assert tuning.strategy == "mse_v2"
    assert (tuning.accuracy.absolute, tuning.accuracy.higher_is_better) == (0.5, False)
    assert tuning.objective == ("latency", "size")
    assert (tuning.timeout, tuning.max_trials, tuning.stop) == (60, 7, "exhausted")
    only = translated(tuning={"exit_policy": {"performance_only": True, "max_trials": 50}})
    assert only.tuning.max_trials == 1
    assert translated(tuning={"objective": "modelsize"}).tuning.objective == "size"
    with refused(ConfigError, "relative and absolute"):
        translated(tuning={"accuracy_criterion": {"relative": 0.1, "absolute": 0.1}})


def test_several_metrics_have_weights_and_directions():
    accuracy = {
        "multi_metrics": {
            "topk": 1,
            "MSE": {"compare_label": True},
            "weight": [0.25, "75%"],
            "higher_is_better": [True, False],
        },
        "dataloader": LOADER,
        "iteration": 3,
        "postprocess": {"transform": {"LabelShift": 1}},
    }
    config = translated(evaluation={"accuracy": accuracy})
    assert config.evaluation.metric == {"topk": 1, "MSE": {}}
    goals = config.tuning.metrics
    assert (goals["topk"].weight, goals["MSE"].weight) == (0.25, 0.75)
    assert goals["MSE"].higher_is_better is False
    assert config.data.evaluation["limit"] == 3
    assert config.data.evaluation["transform"] == {"LabelShift": {"label_shift": 1}}
    with refused(ConfigError, "2 entries for 1 metrics"):
        translated(evaluation={"accuracy": {"multi_metrics": {"topk": 1, "weight": [1, 2]}}})
    with refused(ConfigError, "metric and multi_metrics"):
        translated(evaluation={"accuracy": {"metric": {"topk": 1}, "multi_metrics": {"F1": {}}}})


def test_sizes_mean_what_they_mean_in_the_framework():
    loader = {**LOADER, "transform": {"Resize": {"size": 8}, "ParseDecodeImagenet": {}}}
    values = {"quantization": {"calibration": {"dataloader": loader}}}
    ours = translated(**values).data.calibration["transform"]
    assert ours == {"Resize": {"antialias": False, "size": [8, 8]}}
    imagenet = {"height": 4, "width": 4, "mean_value": [0.4, 0.4, 0.4]}
    loader = {**LOADER, "transform": {"ResizeCropImagenet": imagenet}}
    theirs = translated(quantization={"calibration": {"dataloader": loader}})
    assert theirs.data.calibration["transform"]["ResizeCropImagenet"] == {
        **imagenet,
        "std_value": [0.229, 0.224, 0.225],
        "data_format": "channels_first",
    }
    torch = {"name": "n", "framework": "pytorch"}
    config, _ = neural_compressor.translate({"model": torch, **values}, Source(None, "c"))
    assert config.data.calibration["transform"] == {"Resize": {"size": 8}}


def test_detections_name_their_outputs():
    mapping = {"boxes": 0, "classes": 1, "scores": 2, "num_detections": 3}
    metric = {"COCOmAPv2": {"anno_path": "x", "output_index_mapping": mapping}}
    config = translated(evaluation={"accuracy": {"metric": metric}})
    assert config.evaluation.metric == {
        "COCOmAP": {"boxes": 0, "classes": 1, "scores": 2, "detections": 3}
    }


def test_what_means_nothing_is_noted():
    said = notes(
        model={**MODEL, "inputs": "x", "outputs": ["y", "z"]},
        quantization={"calibration": {"dataloader": {"dataset": {"MNIST": {"root": "a",
                                                                           "download": True}}}}},
        evaluation={"performance": {"configs": {"kmp_blocktime": 1}}},
        tuning={"tensorboard": True, "diagnosis": {"op_list": []}, "strategy": {
            "name": "auto_mixed_precision", "latency_weight": 1}},
    )  # fmt: skip
    for word in ("inputs", "outputs", "download", "performance", "tensorboard", "diagnosis",
                 "strategy.name", "latency_weight"):  # fmt: skip
        assert word in said


WRONG = """\
version: 2.0
model: {framework: mxnet}
device: gpu
quantization:
  approach: quant_aware_training
  calibraton: {}
  calibration:
    sampling_size: 0
    dataloader:
      distributed: True
      filter: {LabelBalance: {size: 1}}
      dataset: {TFRecordDataset: {root: /d}}
  train: {epoch: 1}
  model_wise:
    weight: {bit: 4, algorithm: kl}
    activation: {granularity: per_channel, foo: 1}
  op_wise: {conv1: {activation: {dtype: [int4]}}}
evaluation:
  accuracy:
    metric: {SquadF1: {}, topk: {k: 0}}
    postprocess: {transform: {SquadV1: {}}}
    iteration: x
tuning:
  strategy: {name: tpe}
  accuracy_criterion: {relative: -3}
  objective: footprint
  exit_policy: {timeout: -1, max_trials: 0, performance_only: maybe}
  workspace: {resume: ./history.snapshot}
pruning: {approach: !Pruner {a: 1}}
"""


def test_all_that_is_wrong_is_told_at_once_with_its_line(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    lines = [int(line.split(":")[0].removeprefix("line ")) for line in caught.value.details]
    every = {number for number, text in enumerate(WRONG.splitlines(), 1) if text.strip()}
    silent = {4, 7, 9, 14, 18, 19, 23}  # the lines of sections themselves
    assert set(lines) == every - silent
    assert len(lines) == len(set(caught.value.details)) > 22


def test_tuples_are_lists_and_nothing_else_is_constructed(tmp_path):
    path = tmp_path / "conf.yaml"
    shape = FULL.replace("{size: 224}", "{size: !!python/tuple [200, 224]}")
    path.write_text(shape)
    assert read_config(path)[0].data.calibration["transform"]["CenterCrop"]["size"] == (200, 224)
    for tag in (
        "!!python/object/apply:os.getcwd []",
        "!!python/name:os.system",
        "!!python/tuple 3",
    ):
        path.write_text(f"model: {{name: {tag}}}\n")
        with refused(ConfigError, "conf.yaml, line 1", "not valid YAML"):
            read_config(path)


def test_a_translated_tuple_is_written_as_yaml(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(FULL.replace("{size: 224}", "{size: !!python/tuple [200, 224]}"))
    config, _ = read_config(path)
    assert yaml.safe_load(config.to_yaml())["data"]["calibration"]["transform"]["CenterCrop"] == {
        "size": [200, 224]
    }


KEYS = sorted(
    {word for line in (FULL + WRONG).replace("{", "\n").replace(",", "\n").splitlines()
     for word in [line.split(":")[0].strip()] if word.isidentifier()}
)  # fmt: skip
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(
        ["minmax, kl", "1%", "fp32", "int8", "sym", "", "basic", "MNIST", "x", "bf16"]
    ),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS) | st.integers(0, 3), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@given(TREES)
def test_whatever_a_file_holds_it_is_read_or_refused(tree):
    values = tree if isinstance(tree, dict) else {"model": MODEL, "quantization": tree}
    try:
        config, _ = neural_compressor.translate(values, Source(None, "conf"))
    except ConfigError:
        pass
    else:
        assert Config.from_dict(config.to_dict()) == config


@given(TREES, st.sampled_from(["quantization", "tuning", "evaluation", "mixed_precision"]))
def test_whatever_a_section_holds_it_is_read_or_refused(tree, section):
    with contextlib.suppress(ConfigError):
        neural_compressor.translate({"model": MODEL, section: tree}, Source(None, "conf"))


def test_the_page_names_every_section_and_strategy():
    from lowprec.compat import neural_compressor_words as words

    page = (Path(__file__).parents[2] / "docs" / "neural_compressor.md").read_text()
    for word in (*words.OTHER_SECTIONS, *words.STRATEGIES, *words.OBJECTIVES, *words.METHODS):
        if word != "auto_distillation":
            assert word in page
