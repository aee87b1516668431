"""Neural Compressor 2.x's Python configuration, by the names of its attributes.

The package is not imported: whatever has the attributes, or a dict of them, will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowprec.compat.neural_compressor_yaml import Translation
from lowprec.config import Config
from lowprec.config_text import Source, word

QUANTIZATION = (
    "device",
    "backend",
    "domain",
    "recipes",
    "quant_format",
    "inputs",
    "outputs",
    "approach",
    "calibration_sampling_size",
    "op_type_dict",
    "op_name_dict",
    "reduce_range",
    "excluded_precisions",
    "quant_level",
    "precisions",
    "precision",
    "accuracy_criterion",
    "tuning_criterion",
    "diagnosis",
    "example_inputs",
    "ni_workload_name",
    "model_name",
    "framework",
)
CRITERION = ("higher_is_better", "criterion", "tolerable_loss")
TUNING = ("strategy", "strategy_kwargs", "timeout", "max_trials", "objective", "quant_level")
APPROACHES = {
    "static": "post_training_static_quant",
    "dynamic": "post_training_dynamic_quant",
    "auto": "post_training_auto_quant",
}
CPU_BACKENDS = (None, "default", "itex", "ipex", "onnxrt_cpu", "onnxrt_dnnl_ep", "NA")


def from_python(
    conf: object, *, accuracy_criterion: object = None, tuning_criterion: object = None
) -> tuple[Config, list[str]]:
    """Return the Config that a configuration of Neural Compressor 2.x stands for, and notes on it.

    Args:
        conf: A PostTrainingQuantConfig or MixedPrecisionConfig, or a dict of their arguments.
        accuracy_criterion: An AccuracyCriterion, or a dict; None takes conf's own.
        tuning_criterion: A TuningCriterion, or a dict; None takes conf's own.

    Raises:
        ConfigError: with every argument that is unknown or has no counterpart here.

    Example:
        >>> config, notes = from_python({"approach": "dynamic", "calibration_sampling_size": [50]})
        >>> config.precision, config.calibration.samples
        ('int8-dynamic', 50)
    """
    name = "dict" if isinstance(conf, Mapping) else type(conf).__name__
    translation = Translation(Source(None, name))
    values = _attributes(conf, QUANTIZATION, (), translation)
    if accuracy_criterion is not None:
        values["accuracy_criterion"] = accuracy_criterion
    if tuning_criterion is not None:
        values["tuning_criterion"] = tuning_criterion
    _translate(values, translation)
    translation.mistakes.raise_any()
    return Config.from_dict(translation.result), translation.notes


def _translate(values: dict[str, Any], translation: Translation) -> None:
    mistakes = translation.mistakes
    content: dict[str, Any] = {"model": {"name": "model"}}
    approach = values.get("approach")
    precisions = values.get("precisions", values.get("precision"))
    if precisions:
        content["mixed_precision"] = {"precisions": precisions}
    else:
        quantization = content["quantization"] = _quantization(values)
        if approach == "weight_only":
            quantization.pop("approach")
    content["tuning"] = tuning = _tuning(values, translation)
    if values.get("device") not in (None, "cpu"):
        content["device"] = values["device"]
    level = values.get("quant_level", "auto")
    if level == 0 and "strategy" not in tuning:
        tuning["strategy"] = "conservative"
    elif level not in (0, 1, "auto"):
        mistakes.add(("quant_level",), f"quant_level is {word(level)}; accepted are 0, 1, auto")
    if values.get("backend") not in CPU_BACKENDS:
        mistakes.add(("backend",), f"backend is {word(values['backend'])}; lowprec runs on its own")
    if values.get("quant_format") not in (None, "default", "QDQ"):
        translation.note(("quant_format",), "what is saved is always in the form QDQ")
    if values.get("excluded_precisions"):
        translation.note(("excluded_precisions",), "bf16 is only used where it is asked for")
    translation.read(content)
    del translation.result["model"]
    if approach == "weight_only" and not precisions:
        translation.put("int8-weight-only", "precision")
    if values.get("reduce_range"):
        translation.put(True, "activations", "reduce_range")
        translation.put(True, "weights", "reduce_range")


def _quantization(values: Mapping[str, Any]) -> dict[str, Any]:
    approach = values.get("approach", "static")
    quantization: dict[str, Any] = {
        "approach": APPROACHES.get(approach, approach),
        "calibration": {"sampling_size": values.get("calibration_sampling_size") or [100]},
    }
    recipes = {key: item for key, item in (values.get("recipes") or {}).items() if item is not None}
    for key, target in (
        ("recipes", recipes),
        ("optype_wise", values.get("op_type_dict")),
        ("op_wise", values.get("op_name_dict")),
    ):
        if target:
            quantization[key] = target
    return quantization


def _tuning(values: Mapping[str, Any], translation: Translation) -> dict[str, Any]:
    tuning: dict[str, Any] = {}
    criterion = values.get("accuracy_criterion")
    if criterion is not None:
        options = _attributes(criterion, CRITERION, ("accuracy_criterion",), translation)
        kind = options.get("criterion", "relative")
        section: dict[str, Any] = {}
        if kind in ("relative", "absolute"):
            section[kind] = options.get("tolerable_loss", 0.01)
        else:
            translation.mistakes.add(
                ("accuracy_criterion", "criterion"),
                f"accuracy_criterion.criterion is {word(kind)}; accepted are relative, absolute",
            )
        section["higher_is_better"] = options.get("higher_is_better", True)
        tuning["accuracy_criterion"] = section
    search = values.get("tuning_criterion")
    if search is not None:
        options = _attributes(search, TUNING, ("tuning_criterion",), translation)
        strategy = options.get("strategy", "basic")
        tuning["strategy"] = "basic" if strategy == "auto" else strategy
        tuning["exit_policy"] = {
            key: options[key] for key in ("timeout", "max_trials") if key in options
        }
        objective = options.get("objective", "performance")
        several = not isinstance(objective, str)
        tuning["multi_objectives" if several else "objective"] = (
            {"objective": objective} if isinstance(objective, (list, tuple)) else objective
        )
        if options.get("strategy_kwargs"):
            translation.note(("tuning_criterion", "strategy_kwargs"), "means nothing here")
    return tuning


def _attributes(
    source: object, names: tuple[str, ...], path: tuple[str, ...], translation: Translation
) -> dict[str, Any]:
    """Return the named attributes, or keys, that there are; an unknown key is a mistake."""
    if isinstance(source, Mapping):
        for key in source:
            if key not in names:
                translation.mistakes.add_unknown((*path, str(key)), names)
        return {key: item for key, item in source.items() if key in names and item is not None}
    found = {name: getattr(source, name, None) for name in names}
    found = {name: item for name, item in found.items() if item is not None}
    if not found:
        translation.mistakes.add(
            path,
            f"{'.'.join(path) or 'the configuration'} is a {type(source).__name__} without any of "
            f"{', '.join(names[:6])} ...",
        )
    return found
