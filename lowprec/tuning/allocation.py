"""Which layer gets which precision: the least time within a budget of noise.

Layer by layer, each precision costs time and adds noise to the outputs. Rounding errors of
different layers are nearly independent, so their powers add up, and the choice is a knapsack:

    minimise  sum_l seconds[l][p_l]    subject to    sum_l noise[l][p_l] <= budget

It is solved greedily, by the time that a unit of noise costs; the tests compare with the best of
all choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIN = 0.8
"""A layer leaves int8 for speed when another precision takes at most this share of its time: where
precisions meet, numbers are converted, which no layer's own time shows."""


@dataclass(frozen=True)
class LayerCost:
    """What each precision of one layer costs.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        macs: Multiply-adds; None when not known.
        seconds: Time of the layer by precision; every precision that it can have is a key.
        noise: Power of the noise that it brings into the outputs by precision, as a share of their
            power; what is missing counts as 0.
    """

    name: str
    op_type: str
    macs: int | None
    seconds: Mapping[str, float]
    noise: Mapping[str, float] = field(default_factory=dict)

    def noise_of(self, precision: str) -> float:
        """Return the noise that `precision` brings."""
        return self.noise.get(precision, 0.0)

    def fastest(self) -> str:
        """Return int8 where the layer has it and no other wins clearly, else the least time."""
        least = min(self.seconds, key=lambda p: (self.seconds[p], self.noise_of(p)))
        if "int8" in self.seconds and self.seconds[least] > WIN * self.seconds["int8"]:
            return "int8"
        return least


def allocate(layers: Sequence[LayerCost], budget: float) -> dict[str, str]:
    """Return a precision by layer name: little time, total noise within `budget`.

    Every layer starts with its fastest precision. While there is too much noise, the step that
    costs the least time for the noise it takes away is made; then steps that turned out not to be
    needed are taken back, the most rewarding first.

    Args:
        layers: Their costs; names are unique.
        budget: Noise allowed, as a share of the outputs' power. When even the quietest choice has
            more, that one is returned.
    """
    chosen = {layer.name: layer.fastest() for layer in layers}
    total = sum(layer.noise_of(chosen[layer.name]) for layer in layers)
    while total > budget:
        best: tuple[float, LayerCost, str] | None = None
        for layer in layers:
            now = chosen[layer.name]
            for precision in layer.seconds:
                quieter = layer.noise_of(now) - layer.noise_of(precision)
                if quieter <= 0:
                    continue
                price = (layer.seconds[precision] - layer.seconds[now]) / quieter
                if best is None or price < best[0]:
                    best = (price, layer, precision)
        if best is None:
            return chosen
        _, layer, precision = best
        total += layer.noise_of(precision) - layer.noise_of(chosen[layer.name])
        chosen[layer.name] = precision
    by_gain = sorted(
        layers,
        key=lambda layer: layer.seconds[chosen[layer.name]] - layer.seconds[layer.fastest()],
        reverse=True,
    )
    for layer in by_gain:
        fastest = layer.fastest()
        more = layer.noise_of(fastest) - layer.noise_of(chosen[layer.name])
        if total + more <= budget:
            total += more
            chosen[layer.name] = fastest
    return chosen


def total_noise(layers: Sequence[LayerCost], chosen: Mapping[str, str]) -> float:
    """Return the noise of a choice, as a share of the outputs' power."""
    return sum(layer.noise_of(chosen[layer.name]) for layer in layers)


def why(layer: LayerCost, precision: str) -> str:
    """Return why `layer` got `precision`, for a report; empty where nothing needs saying."""
    lowest = layer.fastest()
    times = ", ".join(
        f"{name} {1e3 * seconds:.3g} ms" for name, seconds in sorted(layer.seconds.items())
    )
    if precision == lowest:
        return "" if precision.startswith("int8") else f"fastest here ({times})"
    share = layer.noise_of(lowest)
    return f"{lowest} is faster ({times}) but adds {share:.2g} of the outputs' power in noise"
