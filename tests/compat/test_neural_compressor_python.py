"""2.x's Python objects are read by their attributes; the package is not needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from refusals import refused

from lowprec.compat.neural_compressor import from_python
from lowprec.errors import ConfigError


class AccuracyCriterion:
    """As in Neural Compressor 2.x: values behind properties."""

    def __init__(self, criterion="relative", tolerable_loss=0.01, higher_is_better=True):
        self._values = (criterion, tolerable_loss, higher_is_better)

    criterion = property(lambda self: self._values[0])
    tolerable_loss = property(lambda self: self._values[1])
    higher_is_better = property(lambda self: self._values[2])


def test_objects_with_attributes():
    fp32 = {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["fp32"]}}
    conf = SimpleNamespace(
        approach="post_training_static_quant",
        device="cpu",
        backend="default",
        domain="auto",
        calibration_sampling_size=[64],
        op_type_dict={"Softmax": fp32},
        op_name_dict={"layer1.*": fp32},
        recipes={"smooth_quant": True, "fast_bias_correction": None},
        reduce_range=True,
        excluded_precisions=["bf16"],
        quant_level="auto",
        quant_format="QOperator",
        accuracy_criterion=AccuracyCriterion("absolute", 0.5, False),
        tuning_criterion=SimpleNamespace(
            strategy="auto", timeout=0, max_trials=30, objective="performance", strategy_kwargs=None
        ),
    )
    config, notes = from_python(conf)
    assert (config.precision, config.calibration.samples) == ("int8", 64)
    assert config.layer_precision("x", "Softmax") == "f32"
    assert config.layer_precision("layer1.conv", "Conv") == "f32"
    assert config.algorithms.smoothing is True
    assert config.weights.reduce_range
    assert config.activations.reduce_range
    assert (config.tuning.accuracy.absolute, config.tuning.accuracy.higher_is_better) == (
        0.5,
        False,
    )
    assert (config.tuning.strategy, config.tuning.max_trials) == ("basic", 30)
    assert config.tuning.timeout is None
    assert config.model is None
    assert any("QDQ" in note for note in notes)
    assert any("bf16" in note for note in notes)


@pytest.mark.parametrize(
    ("conf", "precision"),
    [
        ({}, "int8"),
        ({"approach": "static"}, "int8"),
        ({"approach": "dynamic"}, "int8-dynamic"),
        ({"approach": "auto"}, "auto"),
        ({"approach": "weight_only"}, "int8-weight-only"),
        ({"precisions": "bf16"}, "bf16"),
        ({"precision": ["bf16", "fp32"]}, "bf16"),
    ],
)
def test_approaches(conf, precision):
    assert from_python(conf)[0].precision == precision


def test_levels_and_separate_criteria():
    assert from_python({"quant_level": 0})[0].tuning.strategy == "conservative"
    config, _ = from_python(
        {"quant_level": 1},
        accuracy_criterion={"tolerable_loss": 0.02},
        tuning_criterion={"strategy": "mse", "objective": ["performance", "modelsize"]},
    )
    assert config.tuning.accuracy.relative == 0.02
    assert (config.tuning.strategy, config.tuning.objective) == ("mse", ("latency", "size"))


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"aproach": "static"}, ["'aproach'", "did you mean 'approach'"]),
        ({"device": "gpu"}, ["gpu", "cpu only"]),
        ({"backend": "onnxrt_cuda_ep"}, ["onnxrt_cuda_ep"]),
        ({"approach": "magic"}, ["magic"]),
        ({"quant_level": 7}, ["quant_level is 7"]),
        ({"accuracy_criterion": {"criterion": "both"}}, ["'both'", "relative, absolute"]),
        ({"tuning_criterion": {"strategy": "hawq_v2"}}, ["hawq_v2", "accepted are basic"]),
        ({"tuning_criterion": object()}, ["tuning_criterion is a object"]),
        (object(), ["the configuration is a object", "device"]),
        ({"device": "gpu", "backend": "x", "precisions": "fp16"}, ["3 mistakes"]),
    ],
)
def test_what_has_no_counterpart_is_told(conf, words):
    with refused(ConfigError, *words):
        from_python(conf)
