"""One network in every precision: float, bf16, int8, int8 but for named layers, and automatic.

    python precisions.py [--images 4000]

The network sorts pictures of stripes by direction. Channels of very different size go into its
second layer, `body.1`, which is what eight bits suffer from. Needs lowprec[torch].
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import torch
from torch import nn

import lowprec

CLASSES = 16


def draw_stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    angle = labels * torch.pi / CLASSES
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    wave = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    shift = torch.rand(count, 1, 1, generator=random) * 6
    noise = torch.randn(count, 24, 24, generator=random)
    return (torch.sin(wave + shift) + 0.8 * noise)[:, None], labels


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 5, padding=2)
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)
        )
        self.head = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, CLASSES))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(pictures)).relu().mean((2, 3)))


def train(network: Network, count: int) -> None:
    pictures, labels = draw_stripes(count, 1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(2):
        for chosen in torch.randperm(count).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(pictures[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
    with torch.no_grad():  # the same function, in numbers that are hard on eight bits
        factor = torch.logspace(-1.5, 1.5, 32)
        network.stem.weight *= factor[:, None, None, None]
        network.stem.bias *= factor
        network.body[1].weight /= factor[None, :, None, None]


def milliseconds(call: Callable[[], object]) -> float:
    call()
    return 1e3 * min(timeit.repeat(call, number=1, repeat=20))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000, help="to train with")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    network = Network()
    train(network, options.images)
    network.eval()
    pictures, labels = draw_stripes(max(options.images // 4, 64), 2)

    def accuracy(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(pictures).argmax(1) == labels).float().mean())

    samples = [draw_stripes(16, seed)[0] for seed in range(10, 14)]
    modules = {
        "torch": network,
        # Float, its layers fused, its weights laid out for the processor.
        "compiled": lowprec.compile(network, example_inputs=samples[0]),
        "bf16": lowprec.quantize(network, samples, precision="bf16"),
        "int8": lowprec.quantize(network, samples),
        # Layers are named as in the module: patterns take whole parts of it.
        "by name": lowprec.quantize(
            network,
            samples,
            config={
                "layers": [
                    {"match": "body.1", "precision": "bf16"},
                    {"match": "head.*", "precision": "f32"},
                ]
            },
        ),
        # Each layer the lowest precision that keeps the score and wins time on this machine.
        "auto": lowprec.quantize(
            network,
            samples,
            precision="auto",
            evaluate=accuracy,
            config={"tuning": {"max_trials": 6}},
        ),
    }
    print(f"{'':10}{'accuracy':>10}{'16 pictures':>14}   layers")
    with torch.no_grad():
        for name, module in modules.items():
            time = milliseconds(lambda module=module: module(samples[0]))
            layers = module.report.layers if hasattr(module, "report") else []
            precisions = ", ".join(f"{layer.name} {layer.precision}" for layer in layers)
            print(f"{name:10}{accuracy(module):10.3f}{time:11.3f} ms   {precisions}")


if __name__ == "__main__":
    main()
