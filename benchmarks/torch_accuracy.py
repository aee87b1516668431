"""What int8 and bf16 make of the trained modules of bench_torch.py, by what they are for.

The measures and criteria of EfficientNet-Lite0 and MiniLM are bench_accuracy.py's; the network of
Fashion-MNIST is measured on all 10,000 test pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accuracy_pictures import picture_tasks
from accuracy_tasks import Answers, Criterion, Feeds, Missing, Run, signal_to_noise
from accuracy_texts import text_tasks
from peer_models import first_line, quiet
from torch import nn
from torch_networks import Arguments, Network, networks
from torch_ours import our_runner
from torch_peers import INT8, TORCH, TORCHAO, arrays_of, openvino_run, torchao_converted
from torch_report import OURS
from torch_vision import fashion

import lowprec

TOGETHER = 100  # pictures of Fashion-MNIST in one call


@dataclass(frozen=True)
class Purpose:
    """What a network is for.

    Attributes:
        calibration: Feeds that nothing is measured on.
        answer: Run the network on everything that is measured on.
        measure: (answers, the float network's) -> measures by name, larger is better.
        criteria: What int8 has to hold.
    """

    calibration: Callable[[], list[Feeds]]
    answer: Callable[[Run], Answers]
    measure: Callable[[Answers, Answers], dict[str, float]]
    criteria: tuple[Criterion, ...]


def purposes() -> dict[str, Purpose]:
    """Return them by the network's name."""
    tasks = {task.key: task for task in (*picture_tasks(), *text_tasks())}
    named = {"EfficientNet-Lite0": tasks["lite0"], "MiniLM": tasks["minilm"]}
    found = {
        name: Purpose(task.calibration, task.answer, task.measure, task.criteria)
        for name, task in named.items()
    }
    found["Fashion-MNIST CNN"] = Purpose(
        lambda: [{"x": one.numpy()} for one in fashion("train", 64)[0].split(1)],
        classify_clothes,
        measure_clothes,
        (Criterion("accuracy", within=0.003), Criterion("agreement", at_least=0.99)),
    )
    return found


def classify_clothes(run: Run) -> Answers:
    images = fashion("t10k", 10_000)[0].numpy()
    starts = range(0, len(images), TOGETHER)
    scores = [np.array(run({"x": images[start : start + TOGETHER]})[0]) for start in starts]
    return {"scores": np.concatenate(scores)}


def measure_clothes(answers: Answers, exact: Answers) -> dict[str, float]:
    best, expected = (given["scores"].argmax(axis=1) for given in (answers, exact))
    return {
        "accuracy": float(np.mean(best == fashion("t10k", len(best))[1].numpy())),
        "agreement": float(np.mean(best == expected)),
        "SQNR": signal_to_noise(exact["scores"], answers["scores"]),
    }


def run_of(made: Callable[..., Any]) -> Run:
    """Return a run that takes arrays by name, in the order of the module's arguments."""

    def run(feed: Feeds) -> Any:
        with torch.inference_mode():
            return arrays_of(made(*map(torch.from_numpy, feed.values())))

    return run


def dims(network: Network) -> Any:
    """Return the network's free axes as torch.export takes them."""
    made: dict[str, Any] = {}
    for name in {name for axes in network.axes for name in axes.values()}:
        made[name] = torch.export.Dim(name, min=1 if name == "batch" else 2, max=256)
    return tuple({axis: made[name] for axis, name in axes.items()} for axes in network.axes)


def makers(
    network: Network, module: nn.Module, feeds: Sequence[Feeds], precisions: Sequence[str]
) -> dict[str, Callable[[], Callable[..., Any]]]:
    """Return how to make everybody's module; each takes any batch and any length."""
    calibration: list[Arguments] = [tuple(map(torch.from_numpy, f.values())) for f in feeds]
    example = network.batch(2, 1)
    threads = torch.get_num_threads()
    found: dict[str, Callable[[], Callable[..., Any]]] = {
        OURS + precision: lambda precision=precision: (  # type: ignore[misc]
            our_runner(module, calibration, precision).run
        )
        for precision in precisions
    }
    found[TORCHAO] = lambda: torchao_converted(module, calibration, example, dims(network))
    found[INT8] = lambda: openvino_run(
        INT8, network, module, example, calibration, threads, fixed=False
    )
    return found


def accuracy_part(models: Sequence[str], precisions: Sequence[str], peers: Sequence[str]) -> str:
    """Return the table of what everybody's modules are worth; prints it line by line."""
    by_name = {network.name: network for network in networks()}
    lines = ["| model | runner | measures | |", "|---|---|---|---|"]
    for name, purpose in purposes().items():
        if name not in models:
            continue
        network = by_name[name]
        with quiet():
            module = network.make()
        try:
            feeds = purpose.calibration()
            exact = purpose.answer(run_of(module))
        except Missing as missing:
            print(f"left out: {name}: {missing}")
            continue
        floats = purpose.measure(exact, exact)
        lines.append(line(name, TORCH, floats, ""))
        print(lines[-1], flush=True)
        for who, make in makers(network, module, feeds, precisions).items():
            if not who.startswith(OURS) and who not in peers:
                continue
            try:
                with quiet(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    measures = purpose.measure(purpose.answer(run_of(make())), exact)
            except lowprec.LowprecError as error:
                lines.append(f"| {name} | {who} | {error} | |")
            except Exception as error:  # other tools' errors have no common base
                lines.append(f"| {name} | {who} | {first_line(error)} | |")
            else:
                missed = [str(c) for c in purpose.criteria if not c.is_met(floats, measures)]
                verdict = f"MISSED: {'; '.join(missed)}" if missed else "holds"
                lines.append(line(name, who, measures, verdict))
            print(lines[-1], flush=True)
    return "\n".join(lines)


def line(name: str, who: str, measures: dict[str, float], verdict: str) -> str:
    values = ", ".join(
        f"{metric} {value:.1f} dB" if metric.startswith("SQNR") else f"{metric} {value:.4f}"
        for metric, value in measures.items()
    )
    return f"| {name} | {who} | {values} | {verdict} |"
