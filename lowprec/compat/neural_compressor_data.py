"""Data loaders and metrics of a Neural Compressor file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowprec.compat import neural_compressor_words as its
from lowprec.compat.neural_compressor_values import Values
from lowprec.config_text import Path, did_you_mean, dotted, word
from lowprec.data import check_data
from lowprec.data.specification import DATASETS
from lowprec.metrics import check_metric
from lowprec.metrics.evaluate import METRICS


class DataTranslation:
    """Reads into a Values."""

    def __init__(self, values: Values, framework: str) -> None:
        self.values = values
        self.framework = framework

    def loader(self, value: Any, path: Path) -> dict[str, Any] | None:
        """Return a data loader in our form, checked; None when there is a mistake in it."""
        values = self.values
        options = dict(values.section(value, path))
        if options.pop("distributed", False):
            values.mistakes.add((*path, "distributed"), f"{dotted(path)}.distributed: not here")
        if options.pop("filter", None):
            values.mistakes.add(
                (*path, "filter"),
                f"{dotted(path)}.filter: not here; name a file that holds only what is wanted",
            )
        if "dataset" not in options:
            values.mistakes.add(path, f"{dotted(path)} has no 'dataset'; add one: MNIST: root: ...")
            return None
        known = self._dataset(options["dataset"], (*path, "dataset"))
        if known is None:
            return None
        options["dataset"] = known
        if "transform" in options:
            place = (*path, "transform")
            steps = values.section(options["transform"], place)
            options["transform"] = self._transforms(steps, place)
        before = len(values.mistakes.found)
        check_data(options, path, values.mistakes)
        return options if len(values.mistakes.found) == before else None

    def _dataset(self, value: Any, path: Path) -> dict[str, Any] | None:
        values = self.values
        section = values.section({value: {}} if isinstance(value, str) else value, path)
        found = {}
        for name, options in section.items():
            if str(name).lower() not in {known.lower() for known in DATASETS}:
                kind = (
                    "is not read here"
                    if name in its.OTHER_DATASETS
                    else f"is not known; {did_you_mean(str(name), DATASETS)}"
                )
                values.mistakes.add(
                    (*path, str(name)),
                    f"{dotted(path)}: {name} {kind}; accepted are {', '.join(DATASETS)}, and in "
                    "lowprec's own configuration module:function",
                )
                continue
            kept = dict(values.section(options, (*path, str(name))))
            if kept.pop("download", None):
                values.note((*path, str(name), "download"), "nothing is downloaded")
            found[str(name)] = kept
        return found or None

    def _transforms(self, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
        found = {}
        for name, options in values.items():
            if name in its.IDLE_TRANSFORMS:
                self.values.note((*path, str(name)), "does nothing here")
                continue
            found[str(name)] = self._transform(str(name), options)
        return found

    def _transform(self, name: str, options: Any) -> Any:
        """Return the options of a transform with its framework's meaning written out."""
        if not isinstance(options, Mapping):
            return options
        if name == "ResizeCropImagenet" and self.framework.startswith("onnxrt"):
            return {**its.ONNX_IMAGENET, **options, "data_format": "channels_first"}
        if name not in its.SQUARE_SIZES:
            return options
        if not self.framework.startswith(("onnxrt", "tensorflow")):
            return options
        size = options.get("size")
        if isinstance(size, int):
            size = [size, size]
        elif isinstance(size, (list, tuple)) and len(size) == 1:
            size = [size[0], size[0]]
        return {"antialias": False, **options, **({} if size is None else {"size": size})}

    def postprocess(self, value: Any, path: Path) -> None:
        """Add what comes after the model to the evaluation data: only labels can be shifted."""
        values = self.values
        section = values.section(value, path)
        for key in section:
            if key != "transform":
                values.mistakes.add_unknown((*path, str(key)), ["transform"])
        place = (*path, "transform")
        for name, options in values.section(section.get("transform"), place).items():
            if name != "LabelShift":
                values.mistakes.add(
                    (*place, str(name)),
                    f"{dotted(place)}: {name} is not here; accepted is LabelShift",
                )
                continue
            shift = options.get("label_shift", 0) if isinstance(options, Mapping) else options
            if isinstance(shift, bool) or not isinstance(shift, int):
                values.mistakes.add(
                    (*place, str(name)),
                    f"{dotted(place)}.LabelShift is {word(shift)}; give a whole number",
                )
                continue
            data = values.result.get("data", {}).get("evaluation")
            if data is not None:
                transforms = dict(data.get("transform") or {})
                data["transform"] = {**transforms, "LabelShift": {"label_shift": shift}}

    def iteration(self, value: Any, path: Path) -> None:
        """Limit the evaluation data to a number of batches; -1 takes all."""
        values = self.values
        if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != -1):
            values.mistakes.add(
                path, f"{dotted(path)} is {word(value)}; give a number of batches, -1 for all"
            )
            return
        data = values.result.get("data", {}).get("evaluation")
        if value != -1 and data is not None:
            data["limit"] = value * data.get("batch_size", 1)

    # ---- metrics ----

    def metric(self, value: Any, path: Path) -> None:
        """Set evaluation.metric."""
        section = self.values.section({value: {}} if isinstance(value, str) else value, path)
        found = self._metrics(section, path)
        if found:
            self.values.put(found, "evaluation", "metric")

    def multi_metrics(self, value: Any, path: Path) -> None:
        """Set evaluation.metric, and tuning.metrics from weights and directions."""
        values = self.values
        section = dict(values.section(value, path))
        lists = {
            "weight": section.pop("weight", None),
            "higher_is_better": section.pop("higher_is_better", None),
        }
        found = self._metrics(section, path)
        if not found:
            return
        values.put(found, "evaluation", "metric")
        goals: dict[str, dict[str, Any]] = {}
        for key, items in lists.items():
            if items is None:
                continue
            several = items if isinstance(items, (list, tuple)) else values.texts(items)
            if len(several) != len(found):
                values.mistakes.add(
                    (*path, key),
                    f"{dotted((*path, key))} has {len(several)} entries for {len(found)} metrics",
                )
                continue
            for name, item in zip(found, several, strict=True):
                good: Any = item
                if key == "weight":
                    good = values.share(item, (*path, key))
                elif not values.is_switch(item, (*path, key)):
                    good = None
                if good is not None:
                    goals.setdefault(name, {})[key] = good
        if goals:
            values.put(goals, "tuning", "metrics")

    def _metrics(self, section: Mapping[str, Any], path: Path) -> dict[str, Any]:
        values = self.values
        found = {}
        for given, options in section.items():
            place = (*path, str(given))
            name = its.METRIC_NAMES.get(given, given) if isinstance(given, str) else given
            if str(name).lower() not in {known.lower() for known in METRICS}:
                kind = "is not here" if name in its.OTHER_METRICS else "is not known"
                values.mistakes.add(
                    place,
                    f"{dotted(path)}: {name} {kind}; {did_you_mean(str(name), METRICS)}accepted "
                    f"are {', '.join(METRICS)}, and in lowprec's own configuration module:function",
                )
                continue
            found[str(name)] = self._metric_options(options, place)
        check_metric(found, path, values.mistakes)
        return found

    def _metric_options(self, options: Any, path: Path) -> Any:
        if not isinstance(options, Mapping):
            return options
        kept = dict(options)
        if not kept.pop("compare_label", True):
            self.values.mistakes.add(
                (*path, "compare_label"),
                f"{dotted(path)}.compare_label: false compares with the float model, which the "
                "report of every quantisation does by itself; take the metric out",
            )
        if "task" in kept:
            self.values.note((*path, "task"), f"{kept.pop('task')}: means nothing here")
        mapping = kept.pop("output_index_mapping", None)
        for name, number in self.values.section(mapping, (*path, "output_index_mapping")).items():
            kept[its.OUTPUT_NAMES.get(str(name), str(name))] = None if number == -1 else number
        if "anno_path" in kept:
            kept.pop("anno_path")
            self.values.note((*path, "anno_path"), "labels come with the data set")
        return kept
