"""The configuration: one set of names in YAML, in dicts and in `Config`; nothing unknown passes.

    version: 1
    precision: int8
    calibration: {method: auto, samples: 128, bins: 2048, percentile: 99.99}
    activations: {dtype: u8, scheme: asymmetric, granularity: per_tensor}
    weights: {dtype: s8, scheme: symmetric, granularity: per_channel}
    algorithms: {equalization: auto, bias_correction: auto, smoothing: auto, rounding: auto}
    layers: [{match: "head.*", precision: f32}, {op_type: Softmax, precision: f32}]
    tuning: {strategy: basic, accuracy: {relative: 0.01, higher_is_better: true}, seed: 0}
    model: model.onnx
    data: {calibration: samples.npz, evaluation: {dataset: {ImageFolder: {root: photos}}}}
    evaluation: {metric: {topk: {k: 1}}}

Every key is optional, and every one that is accepted is acted upon.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta

from lowprec.config_text import (
    CHECK,
    Mistakes,
    Path,
    Source,
    convert,
    parse_yaml,
    read_yaml,
    word,
    words,
)
from lowprec.errors import ConfigError

Precision = Literal["int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only", "auto"]
LayerPrecision = Literal[
    "int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only", "f32"
]
Scheme = Literal["asymmetric", "symmetric", "auto"]
Granularity = Literal["per_channel", "per_tensor"]
Objective = Literal["latency", "size"]
METHODS = ("auto", "minmax", "moving-average", "percentile", "entropy", "mse", "l2")
Switch = Union[Literal["auto"], bool]  # noqa: UP007 (msgspec reads it at run time on 3.10)


def _check_method(method: str) -> None:
    if method not in METHODS and "." not in method:
        raise ValueError(
            f".method is {word(method)}; accepted are {words(METHODS)}, or PLUGIN.NAME for a "
            "plugin's method"
        )


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of keys."""


class Calibration(_Section, frozen=True, kw_only=True):
    """How ranges are found from data.

    Attributes:
        method: Rule that turns what was observed into a range; auto takes, tensor by tensor, the
            candidate with the least quantisation error. A plugin's rule is named PLUGIN.NAME.
        preset: Another tool's settings for `method`: what it leaves open is as that tool has it.
        samples: Feeds to consume, at most.
        bins: Histogram resolution per tensor.
        percentile: Share of values that the percentile method keeps, in percent.
        levels: Codes that the entropy method counts on; null: as many as the dtype has.
        window: Narrowest candidate of the entropy method, in bins; null: as many as `levels`.
        smoothing: Mass that the entropy method gives to empty bins.
        momentum: Weight of the range so far in a moving average.
        n_jobs: Workers that share the samples; -1: one per processor.
        backend: joblib's backend for them, for example loky, threading or dask; null: joblib's own
            choice.
    """

    method: str = "auto"
    preset: Literal["ort", "tensorrt", "mxnet", "torch"] | None = None
    samples: Annotated[int, Meta(ge=1)] = 128
    bins: Annotated[int, Meta(ge=512, le=65536)] = 2048
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.99
    levels: Annotated[int, Meta(ge=2, le=256)] | None = None
    window: Annotated[int, Meta(ge=1)] | None = None
    smoothing: Annotated[float, Meta(ge=0, lt=1)] = 1e-4
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    n_jobs: int = 1
    backend: str | None = None

    def __post_init__(self) -> None:
        _check_method(self.method)


class Activations(_Section, frozen=True, kw_only=True):
    """The integer form of activations.

    Attributes:
        dtype: Of the codes.
        scheme: Whether the zero point is the middle of the codes; auto: tensor by tensor, where
            that costs next to nothing in expected error.
        granularity: One scale for a tensor.
        reduce_range: Use seven of the eight bits: 0 to 127, or -64 to 63.
    """

    dtype: Literal["u8", "s8"] = "u8"
    scheme: Scheme = "asymmetric"
    granularity: Literal["per_tensor"] = "per_tensor"
    reduce_range: bool = False


class Weights(_Section, frozen=True, kw_only=True):
    """The integer form of weights.

    Attributes:
        dtype: Of the codes.
        scheme: Their zero point is 0.
        granularity: One scale per output channel, or one for all.
        reduce_range: Use -64 to 64, so that pairs of products fit 16 bits in other runtimes.
    """

    dtype: Literal["s8"] = "s8"
    scheme: Literal["symmetric"] = "symmetric"
    granularity: Granularity = "per_channel"
    reduce_range: bool = False


class Algorithms(_Section, frozen=True, kw_only=True):
    """Corrections around the rounding; auto means: where it is cheap and expected to help.

    Attributes:
        equalization: Channels get equal ranges, at the cost of the layer before.
        bias_absorption: Large biases before a Relu move into the next layer.
        smoothing: Ranges of channels move from activations into the weights that they meet.
        bias_correction: The mean error of each output channel is taken off its bias.
        rounding: Of weights: to the nearest code, or to the code that keeps the layer's output.
        first_layer: Precision of the layers that read an input; null: as any other's.
        last_layer: Precision of the layers that make an output; null: as any other's.
    """

    equalization: Switch = "auto"
    bias_absorption: Switch = "auto"
    smoothing: Switch = "auto"
    bias_correction: Switch = "auto"
    rounding: Literal["nearest", "adaptive", "auto"] = "auto"
    first_layer: LayerPrecision | None = None
    last_layer: LayerPrecision | None = None


class LayerRule(_Section, frozen=True, kw_only=True):
    """What the layers that it matches use; of several matching rules the last one wins.

    Attributes:
        match: Pattern on the node's name, in the shell's manner (`*`, `?`, `[a-z]`).
        op_type: ONNX operator name, for example Softmax.
        precision: Of matching layers; null leaves it to other rules.
        method: Calibration method of what matching layers read; null: `calibration.method`.
        scheme: The same for `activations.scheme`.
        granularity: The same for `weights.granularity`.
    """

    match: str | None = None
    op_type: str | None = None
    precision: LayerPrecision | None = None
    method: str | None = None
    scheme: Scheme | None = None
    granularity: Granularity | None = None

    def __post_init__(self) -> None:
        if self.match is None and self.op_type is None:
            raise ValueError(
                " matches nothing in particular; give match (a pattern on layer names) or op_type"
            )
        if all(value is None for value in (self.precision, *self._settings())):
            raise ValueError(" asks for nothing; give precision, method, scheme or granularity")
        if self.method is not None:
            _check_method(self.method)

    def _settings(self) -> tuple[str | None, ...]:
        return (self.method, self.scheme, self.granularity)

    def applies_to(self, name: str, op_type: str) -> bool:
        """Return whether the node `name` of type `op_type` is meant: every given condition "
        "holds."""
        return (self.match is None or fnmatchcase(name, self.match)) and (
            self.op_type is None or self.op_type == op_type
        )


class Accuracy(_Section, frozen=True, kw_only=True):
    """The accuracy that must be kept, against the original model.

    Attributes:
        relative: Largest loss as a fraction of the original's score (0.01 = one percent).
        absolute: Largest loss in the metric's own unit; used instead of `relative` when given.
        higher_is_better: False for error rates and losses.
    """

    relative: Annotated[float, Meta(ge=0)] = 0.01
    absolute: Annotated[float, Meta(ge=0)] | None = None
    higher_is_better: bool = True


class MetricGoal(_Section, frozen=True, kw_only=True):
    """What one of several metrics has to keep; what is left open is as in `tuning.accuracy`.

    Attributes:
        weight: Share in the weighted mean; when no metric has one, each must hold by itself.
        relative: As in `Accuracy`.
        absolute: As in `Accuracy`.
        higher_is_better: As in `Accuracy`.
    """

    weight: Annotated[float, Meta(ge=0)] | None = None
    relative: Annotated[float, Meta(ge=0)] | None = None
    absolute: Annotated[float, Meta(ge=0)] | None = None
    higher_is_better: bool | None = None


class Tuning(_Section, frozen=True, kw_only=True):
    """The search for a configuration that keeps the accuracy; runs when there is a metric.

    Attributes:
        strategy: Order in which configurations are tried; a plugin's is named PLUGIN.NAME.
        accuracy: What must be kept.
        metrics: Different goals by name of the metric.
        objective: What to make small among the configurations that keep it; a list: all of the
            best compromises are reported.
        max_trials: Configurations to try, at most.
        timeout: Seconds after which no new trial starts.
        seed: Of the random strategies.
        stop: first: at the first configuration that keeps the accuracy; exhausted: when the
            strategy has no more.
        n_jobs: Trials at a time; -1: one per processor.
        backend: joblib's backend for them; null: joblib's own choice.
        log: File that every trial is written to, and from which a search that was stopped goes on.
        options: What else the strategy takes.
    """

    strategy: str = "basic"
    accuracy: Accuracy = Accuracy()
    metrics: dict[str, MetricGoal] = {}
    objective: Objective | tuple[Objective, ...] = "latency"
    max_trials: Annotated[int, Meta(ge=1)] = 100
    timeout: Annotated[float, Meta(gt=0)] | None = None
    seed: int = 0
    stop: Literal["first", "exhausted"] = "first"
    n_jobs: int = 1
    backend: str | None = None
    log: str | None = None
    options: dict[str, Any] = {}


def _check_data(value: object, path: Path, mistakes: Mistakes) -> object:
    if value is None or isinstance(value, str):
        return value
    from lowprec.data import check_data

    return check_data(value, path, mistakes)


def _check_metric(value: object, path: Path, mistakes: Mistakes) -> object:
    if value is None:
        return None
    from lowprec.metrics import check_metric

    return check_metric(value, path, mistakes)


class Data(_Section, frozen=True, kw_only=True):
    """Where samples come from when a whole run is described in one file.

    Attributes:
        calibration: A path, module:function, or a mapping {dataset, transform, batch_size, ...}.
        evaluation: The same, with labels.
    """

    calibration: Annotated[Any, Meta(extra={CHECK: _check_data})] = None
    evaluation: Annotated[Any, Meta(extra={CHECK: _check_data})] = None


class Evaluation(_Section, frozen=True, kw_only=True):
    """How a model is scored on `data.evaluation`.

    Attributes:
        metric: Name of a metric, {name: options}, several of them, or module:function.
    """

    metric: Annotated[Any, Meta(extra={CHECK: _check_metric})] = None


class Config(_Section, frozen=True, kw_only=True):
    """Everything that decides how a model is quantised.

    Attributes:
        version: Of these keys.
        precision: Of the layers that gain by it: integers with ranges from data, with ranges in
            every run, or of weights only; bf16; f16 weights; auto: layer by layer the lowest that
            keeps the accuracy and wins time on this machine.
        layers: Rules for layers; the last one that matches wins.
        model: The model's file, when a whole run is described in one file.
        output: The file to write then; null: MODEL.PRECISION.onnx in the working directory.

    Example:
        >>> Config.of({"layers": [{"op_type": "Softmax", "precision": "f32"}]}).precision
        'int8'
    """

    version: Literal[1] = 1
    precision: Precision = "int8"
    calibration: Calibration = Calibration()
    activations: Activations = Activations()
    weights: Weights = Weights()
    algorithms: Algorithms = Algorithms()
    layers: tuple[LayerRule, ...] = ()
    tuning: Tuning = Tuning()
    model: str | None = None
    output: str | None = None
    data: Data = Data()
    evaluation: Evaluation = Evaluation()

    @classmethod
    def of(cls, config: Config | Mapping[str, Any] | str | os.PathLike[str] | None) -> Config:
        """Return `config` as a Config, whichever way it was given; None gives the defaults.

        Raises:
            ConfigError: an unknown key or a value that is not accepted.
        """
        if config is None:
            return cls()
        if isinstance(config, Config):
            return config
        if isinstance(config, Mapping):
            return cls.from_dict(config)
        if isinstance(config, (str, os.PathLike)):
            return cls.from_yaml(config)
        raise ConfigError(
            f"config is a {type(config).__name__}; accepted are lowprec.Config, a dict and the "
            "path of a YAML file"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Return the Config that `values` describe; missing keys have their defaults.

        Raises:
            ConfigError: an unknown key or a value that is not accepted.
        """
        return convert(values, cls, Source(None, "config"))

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> Config:
        """Return the Config in a YAML file, or in YAML text.

        Args:
            source: A path, or text: a string with a line break or a colon followed by a space.

        Raises:
            ConfigError: the file cannot be read, is not YAML, or holds an unknown key or value; the
                message names file, line and key.
        """
        if isinstance(source, str) and _is_yaml_text(source):
            return parse_yaml(source, "config", cls)
        name = str(pathlib.Path(source))
        values, place = read_yaml(read_text(source), name)
        if isinstance(values, Mapping) and is_neural_compressor(values):
            raise ConfigError(
                f"{name}: this is a configuration of Neural Compressor 1.x; `lowprec quantize -c` "
                "runs it, lowprec.compat.read_config translates it, `lowprec config` prints the "
                "translation"
            )
        return convert({} if values is None else values, cls, place)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists that `from_dict` turns back into an equal Config."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        values["layers"] = [
            {key: item for key, item in rule.items() if item is not None}
            for rule in values["layers"]
        ]
        return values

    def to_yaml(self) -> str:
        """Return YAML text, every key written out, that `from_yaml` turns back into an equal "
        "Config."""
        import yaml

        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)
        return text

    def layer_precision(self, name: str, op_type: str) -> LayerPrecision | None:
        """Return what the last matching layer rule asks for, or None when no rule matches."""
        precision: LayerPrecision | None = self._last_rule("precision", name, op_type)
        return precision

    def layer_granularity(self, name: str, op_type: str) -> Granularity:
        """Return the granularity of a layer's weights."""
        return self._last_rule("granularity", name, op_type) or self.weights.granularity

    def layer_method(self, name: str, op_type: str) -> str:
        """Return the calibration method for what a layer reads."""
        return self._last_rule("method", name, op_type) or self.calibration.method

    def layer_scheme(self, name: str, op_type: str) -> Scheme:
        """Return the scheme of the codes that a layer reads."""
        return self._last_rule("scheme", name, op_type) or self.activations.scheme

    def _last_rule(self, key: str, name: str, op_type: str) -> Any:
        for rule in reversed(self.layers):
            value = getattr(rule, key)
            if value is not None and rule.applies_to(name, op_type):
                return value
        return None


def read_text(source: str | os.PathLike[str]) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: it cannot be read.
    """
    path = pathlib.Path(source)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"config file '{path}' does not exist; give the path of a YAML file"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"config file '{path}' cannot be read: {reason}") from None


def is_neural_compressor(values: Mapping[Any, Any]) -> bool:
    """Return whether the content of a YAML file is Neural Compressor 1.x's: it has its sections."""
    sections = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    tuning, evaluation = sections.get("tuning", {}), sections.get("evaluation", {})
    return (
        "quantization" in sections
        or "mixed_precision" in sections
        or "graph_optimization" in sections
        or "pruning" in sections
        or "distillation" in sections
        or "model" in sections
        or "accuracy_criterion" in tuning
        or "exit_policy" in tuning
        or isinstance(tuning.get("strategy"), Mapping)
        or "accuracy" in evaluation
        or "performance" in evaluation
    )


def _is_yaml_text(source: str) -> bool:
    return not source.strip() or "\n" in source or ": " in source or source.lstrip()[0] in "{["
