"""The finite space that random, bayesian and exhaustive search in; never materialised.

    tuning:
      options:
        space:
          calibration.method: [auto, mse]
          precision.MatMul: [int8, int8-dynamic]
          fallback: [0, 2, 4]

A point is one value per dimension: keys of the configuration, `precision.OPERATOR` (the precision
of all low-precision layers of an operator type), and `fallback`: how many layers, the most
sensitive first, are f32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product

from lowprec.config import Config
from lowprec.errors import ConfigError
from lowprec.tuning.changes import with_layers, with_types, with_values
from lowprec.tuning.problem import Problem
from lowprec.tuning.strategies.ranking import by_gain, growing_counts

FALLBACK, PRECISION = "fallback", "precision."

Point = tuple[int, ...]  # an index into each dimension's values


class Space:
    """Dimensions with a few values each, and what a point in them means."""

    def __init__(self, problem: Problem) -> None:
        """Read the dimensions from `tuning.options.space`, or take the usual ones.

        Raises:
            ConfigError: `tuning.options.space` is no mapping of keys to lists of values.
        """
        self._config = problem.config
        self._names = [layer.name for layer in by_gain(problem)]
        given = problem.options.get("space")
        self.dimensions = _usual(problem) if given is None else _checked(given)
        self.point((0,) * len(self.dimensions))  # a key that the configuration lacks is told now

    @property
    def size(self) -> int:
        """The number of points, which may be more than a list could hold."""
        return math.prod(map(len, self.dimensions.values()))

    def points(self) -> Iterator[Point]:
        """Yield all points, one at a time, the first values first."""
        ranges = [range(len(values)) for values in reversed(self.dimensions.values())]
        for point in product(*ranges):  # which holds the ranges, not their product
            yield tuple(reversed(point))

    def point(self, indices: Point) -> Config:
        """Return the configuration at a point."""
        values = {
            key: choices[index]
            for (key, choices), index in zip(self.dimensions.items(), indices, strict=True)
        }
        plain = {k: v for k, v in values.items() if k != FALLBACK and not k.startswith(PRECISION)}
        config = with_values(self._config, plain)
        for key, value in values.items():
            if key.startswith(PRECISION) and value is not None:
                config = with_types(config, [key.removeprefix(PRECISION)], str(value))
        count = values.get(FALLBACK, 0)
        return with_layers(config, self._names[: int(str(count))], "f32")


def _usual(problem: Problem) -> dict[str, list[object]]:
    config, layers = problem.config, problem.layers()
    dimensions: dict[str, list[object]] = {
        "calibration.method": ["auto", "mse", "entropy", "percentile", "minmax"],
        "algorithms.equalization": ["auto", True, False],
        "algorithms.smoothing": ["auto", True],
        "algorithms.bias_correction": ["auto", True],
        "algorithms.rounding": ["auto", "adaptive", "nearest"],
        "activations.scheme": ["asymmetric", "auto"],
    }
    tree = config.to_dict()
    for key, values in dimensions.items():
        section, name = key.split(".")
        present = tree[section][name]
        # What the user gave comes first: it is where every search starts.
        values.sort(key=lambda value: value != present)
        if present not in values:
            values.insert(0, present)
    dimensions = {key: values for key, values in dimensions.items() if key not in problem.fixed}
    if any(layer.op_type == "MatMul" for layer in layers) and "layers" not in problem.fixed:
        dimensions[PRECISION + "MatMul"] = [None, "int8-dynamic"]
    dimensions[FALLBACK] = [0, *growing_counts(len(layers))]
    return dimensions


def _checked(given: object) -> dict[str, list[object]]:
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            "tuning.options.space must map keys of the configuration to lists of values, for "
            "example {calibration.method: [auto, mse], fallback: [0, 1, 2]}"
        )
    for key, values in given.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(
                f"tuning.options.space: '{key}' has no list of values; give at least one"
            )
        if key == FALLBACK and not all(isinstance(v, int) and v >= 0 for v in values):
            raise ConfigError("tuning.options.space: 'fallback' holds numbers of layers, 0 or more")
    return {str(key): list(values) for key, values in given.items()}
