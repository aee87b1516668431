"""The networks of benchmarks/bench_torch.py in small: int8 stays near float, nothing falls back."""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from accuracy_tasks import signal_to_noise
from torch import nn
from torch_networks import Network, networks
from torch_vision import fashion, has_fashion, trained_fashion_net

import lowprec

# What int8 holds at least in dB, by output: a few less than it had when this was written.
LEAST = {
    "EfficientNet-Lite0": (18,),
    "ResNet-50": (23,),
    "MobileNetV2": (11,),  # narrow linear layers, random weights: every tool's int8 is like that
    "U-Net": (19,),
    "MTCNN PNet": (18, 28),
    "MTCNN RNet": (22, 21),
    "MTCNN ONet": (24, 36, 28),
    "MiniLM": (19,),
    "Translator": (31,),
    "LSTM tagger": (37,),
    "GRU tagger": (32,),
}
BY_NAME = {network.name: network for network in networks()}


def make(network: Network) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' code
        try:
            return (network.small or network.make)()
        except (metadata.PackageNotFoundError, ImportError) as missing:
            pytest.skip(f"{missing.name} is not installed (make bench-models installs it)")


def outputs_of(module: Any, calls: list[tuple[torch.Tensor, ...]]) -> list[list[Any]]:
    """Return by output the arrays of each call."""
    with torch.no_grad():
        results = [module(*arguments) for arguments in calls]
    tuples = [result if isinstance(result, tuple) else (result,) for result in results]
    return [[tensor.numpy() for tensor in column] for column in zip(*tuples, strict=True)]


@pytest.mark.parametrize("name", [*LEAST])
def test_a_network_in_int8_stays_near_float_and_runs_without_fallbacks(name: str) -> None:
    network = BY_NAME[name]
    module = make(network)
    try:
        calibration = network.samples(16, 1, True)
        calls = [network.batch(2, seed, True) for seed in (50, 52, 54)]
    except (metadata.PackageNotFoundError, ImportError) as missing:
        pytest.skip(f"{missing.name} is not installed (make bench-models installs it)")
    quantised = lowprec.quantize(module, calibration)
    exact, made = outputs_of(module, calls), outputs_of(quantised, calls)
    levels = [signal_to_noise(np.stack(a), np.stack(b)) for a, b in zip(exact, made, strict=True)]
    too_low = [
        (level, least) for level, least in zip(levels, LEAST[name], strict=True) if level < least
    ]
    assert not too_low
    assert max(levels) < 70, "int8 that is as near as float is no int8"
    assert quantised.explain().fallbacks == ()
    assert quantised.report.int8_fraction > 0.8


def test_the_zoo_and_the_levels_name_the_same_networks() -> None:
    assert {*LEAST, "Fashion-MNIST CNN"} == {*BY_NAME}


@pytest.mark.skipif(not has_fashion(), reason="Debian's dataset-fashion-mnist is not installed")
def test_a_network_trained_here_keeps_its_accuracy() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside other tests, threads that wait for one another take minutes
    try:
        network = trained_fashion_net(6_000)
    finally:
        torch.set_num_threads(threads)
    images, labels = fashion("t10k", 1_000)
    quantised = lowprec.quantize(network, list(fashion("train", 64)[0].split(8)))
    with torch.no_grad():
        exact = network(images).argmax(1)
        made = quantised(images).argmax(1)
    accuracy = float((exact == labels).float().mean())
    assert accuracy > 0.75, "the network learnt nothing: there is nothing to keep"
    assert float((made == labels).float().mean()) >= accuracy - 0.01
    assert float((made == exact).float().mean()) >= 0.98
