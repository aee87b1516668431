"""The sections of a Neural Compressor 1.x YAML file, one method each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowprec.compat import neural_compressor_words as its
from lowprec.compat.neural_compressor_data import DataTranslation
from lowprec.compat.neural_compressor_tuning import TuningTranslation
from lowprec.compat.neural_compressor_values import Handler
from lowprec.config_text import Path, dotted, word, words


class Translation(TuningTranslation):
    """What a file says, as the dict of a Config in `result`; see Values for how it is collected."""

    def read(self, values: Mapping[str, Any]) -> None:
        """Translate the whole file."""
        model = values.get("model")
        self.framework = str(model.get("framework", "")) if isinstance(model, Mapping) else ""
        if "model" not in values:
            self.mistakes.add((), "'model' is missing; give it with its name and framework")
        for name, reason in its.OTHER_SECTIONS.items():
            if name in values:
                self.mistakes.add((name,), f"{name}: {reason}; take the section out")
        self.each(
            {key: item for key, item in values.items() if key not in its.OTHER_SECTIONS},
            (),
            {
                "version": self._version,
                "model": self._model,
                "device": self._device,
                "quantization": self._quantization,
                "mixed_precision": self._mixed_precision,
                "graph_optimization": self._mixed_precision,
                "evaluation": self._evaluation,
                "tuning": self.tuning,
            },
        )

    def _version(self, value: Any, path: Path) -> None:
        if str(value).partition(".")[0] != "1":
            self.mistakes.add(path, f"version is {word(value)}; read are files of version 1.x")

    def _model(self, value: Any, path: Path) -> None:
        if "name" not in self.section(value, path):
            self.mistakes.add(path, "model has no 'name'; add it")
        self.each(
            value,
            path,
            {
                "name": self._name,
                "framework": self._framework,
                "inputs": self.idle("the model itself says so"),
                "outputs": self.idle("the model itself says so"),
            },
        )

    def _name(self, value: Any, path: Path) -> None:
        if isinstance(value, str) and value:
            self.put(value, "model")
        else:
            self.mistakes.add(path, f"{dotted(path)} is {word(value)}; give a text")

    def _framework(self, value: Any, path: Path) -> None:
        self.one_of(value, its.FRAMEWORKS, path)

    def _device(self, value: Any, path: Path) -> None:
        if value != "cpu":
            self.mistakes.add(path, f"device is {word(value)}; lowprec works on cpu only")

    # ---- quantization ----

    def _quantization(self, value: Any, path: Path) -> None:
        self.each(
            value,
            path,
            {
                "approach": self._approach,
                "calibration": self._calibration,
                "recipes": self._recipes,
                "advance": self._advance,
                "model_wise": self._model_wise,
                "optype_wise": self._optype_wise,
                "op_wise": self._op_wise,
                "train": self.refused("lowprec does not train; quantise the trained model"),
            },
        )

    def _approach(self, value: Any, path: Path) -> None:
        if value == "quant_aware_training":
            self.mistakes.add(
                path,
                f"{dotted(path)}: lowprec does not train; accepted are {words(its.APPROACHES)} (a "
                "model that was trained with Q/DQ operators runs as it is)",
            )
        elif self.one_of(value, tuple(its.APPROACHES), path):
            self.put(its.APPROACHES[value], "precision")

    def _calibration(self, value: Any, path: Path) -> None:
        values = self.section(value, path)
        sizes = self.numbers(values.get("sampling_size", 100), (*path, "sampling_size"))
        if len(sizes) > 1:
            self.note(
                (*path, "sampling_size"),
                f"the first of several sizes, {sizes[0]}, is used: calibration here does not get "
                "better by chance",
            )
        loader = values.get("dataloader")
        batch = loader.get("batch_size", 1) if isinstance(loader, Mapping) else 1
        if sizes and isinstance(batch, int) and batch > 0:
            self.put(max(1, -(-sizes[0] // batch)), "calibration", "samples")
        self.each(
            values,
            path,
            {
                "sampling_size": lambda item, place: None,
                "dataloader": lambda item, place: self._data("calibration", item, place),
            },
        )

    def _data(self, role: str, value: Any, path: Path) -> None:
        loader = DataTranslation(self, self.framework).loader(value, path)
        if loader is not None:
            self.put(loader, "data", role)

    def _recipes(self, value: Any, path: Path) -> None:
        def layer(key: str) -> Handler:
            def put(item: Any, place: Path) -> None:
                if self.is_switch(item, place) and not item:
                    self.put("f32", "algorithms", key)

            return put

        def bias_correction(item: Any, place: Path) -> None:
            if self.is_switch(item, place) and item:
                self.put(True, "algorithms", "bias_correction")

        def smoothing(item: Any, place: Path) -> None:
            if self.is_switch(item, place):
                self.put(item, "algorithms", "smoothing")

        def always(item: Any, place: Path) -> None:
            if self.is_switch(item, place) and not item:
                self.note(place, "cannot be switched off: it costs no accuracy here")

        def never(item: Any, place: Path) -> None:
            if self.is_switch(item, place) and item:
                self.mistakes.add(
                    place,
                    f"{dotted(place)}: not here; algorithms.bias_correction and "
                    "algorithms.rounding: adaptive of lowprec's own configuration correct weights",
                )

        self.each(
            value,
            path,
            {
                "scale_propagation_max_pooling": always,
                "scale_propagation_concat": always,
                "pre_post_process_quantization": always,
                "ffn_matmul_quantization": always,
                "first_conv_or_matmul_quantization": layer("first_layer"),
                "last_conv_or_matmul_quantization": layer("last_layer"),
                "fast_bias_correction": bias_correction,
                "weight_correction": never,
                "smooth_quant": smoothing,
                "smooth_quant_args": self.idle("the migration strength is found by measurement"),
            },
        )

    def _advance(self, value: Any, path: Path) -> None:
        def bias_correction(item: Any, place: Path) -> None:
            if self.one_of(item, ("weight_empirical",), place):
                self.put(True, "algorithms", "bias_correction")

        self.each(value, path, {"bias_correction": bias_correction})

    # ---- what layers use ----

    def _model_wise(self, value: Any, path: Path) -> None:
        weight, place = self.section(value, path).get("weight"), (*path, "weight")
        self._weight_wise(self.section(weight, place), place)
        activation, place = self._options(value, path, "activation"), (*path, "activation")
        if "algorithm" in activation:
            methods = self._methods(activation["algorithm"], (*place, "algorithm"))
            if methods:
                self.put(methods, "calibration", "method")
        if "scheme" in activation:
            self.put(self._scheme(activation["scheme"]), "activations", "scheme")
        dtypes = [item for item in activation.get("dtype", ()) if item in ("uint8", "int8")]
        if dtypes:
            self.put("u8" if "uint8" in dtypes else "s8", "activations", "dtype")
        chosen = self._precision(value, path)
        if chosen == "bf16":
            self.put("bf16", "precision")
        elif chosen == "f32":
            self.mistakes.add(path, f"{dotted(path)}: dtype fp32 alone leaves nothing to quantise")
        self.each(value, path, {"weight": _done, "activation": _done})

    def _weight_wise(self, values: Mapping[str, Any], path: Path) -> None:
        options = self._checked(values, path)
        if "granularity" in options:
            self.put(options["granularity"][0], "weights", "granularity")
        if options.get("scheme") and "sym" not in options["scheme"]:
            self.note((*path, "scheme"), "weights are symmetric here")
        bits = values.get("bit")
        if bits is not None:
            if bits not in (7, 7.0, 8, 8.0):
                place = (*path, "bit")
                self.mistakes.add(place, f"{dotted(place)} is {word(bits)}; accepted are 7 and 8")
            elif bits == 7:
                self.put(True, "weights", "reduce_range")

    def _optype_wise(self, value: Any, path: Path) -> None:
        for name, options in self.section(value, path).items():
            rule = self._rule(options, (*path, str(name)))
            for op_type in its.OPERATORS.get(str(name), (str(name),)):
                if rule:
                    self.rules.append({"op_type": op_type, **rule})

    def _op_wise(self, value: Any, path: Path) -> None:
        values = self.section(value, path)
        default = self._precision(values.get("default_qconfig"), (*path, "default_qconfig"))
        if default is not None:
            self.rules.insert(0, {"match": "*", "precision": default})
        for name, options in values.items():
            if name == "default_qconfig":
                self._rule(options, (*path, "default_qconfig"))
                continue
            rule = self._rule(options, (*path, str(name)))
            if default is not None:
                rule.setdefault("precision", "int8")
            # Names stand for regular expressions there, and are often written like file names.
            pattern = str(name).replace(".*?", "*").replace(".*", "*").replace("[", "[[]")
            if rule:
                self.rules.append({"match": pattern, **rule})

    def _rule(self, value: Any, path: Path) -> dict[str, Any]:
        """Return what one operator or type asks for, as a layer rule without its pattern."""
        activation = self._options(value, path, "activation")
        weight = self._options(value, path, "weight")
        rule: dict[str, Any] = {}
        precision = self._precision(value, path)
        if precision is not None:
            rule["precision"] = precision
        if "algorithm" in activation:
            method = self._methods(activation["algorithm"], (*path, "activation", "algorithm"))
            rule.update({"method": method} if method else {})
        if "scheme" in activation:
            rule["scheme"] = self._scheme(activation["scheme"])
        if "granularity" in weight:
            rule["granularity"] = weight["granularity"][0]
        self.each(value, path, {"weight": _done, "activation": _done})
        return {"precision": precision} if precision else rule

    def _options(self, value: Any, path: Path, part: str) -> dict[str, list[str]]:
        place = (*path, part)
        return self._checked(self.section(self.section(value, path).get(part), place), place)

    def _checked(self, values: Mapping[str, Any], path: Path) -> dict[str, list[str]]:
        """Return the options as lists; what no version accepts is noted once."""
        is_weight = path[-1] == "weight"
        allowed: dict[str, tuple[str, ...]] = {
            "granularity": ("per_channel", "per_tensor") if is_weight else ("per_tensor",),
            "scheme": ("asym", "sym", "asym_float"),
            "dtype": ("int8", "uint8", "fp32", "bf16"),
            "algorithm": ("minmax",) if is_weight else ("minmax", "kl", "placeholder"),
        }
        found = {}
        for key, item in values.items():
            place = (*path, str(key))
            if key in allowed:
                items = self.texts(item)
                wrong = [text for text in items if text not in allowed[key]]
                if wrong:
                    self.once(
                        place,
                        f"{dotted(place)} is {word(wrong[0])}; accepted are {words(allowed[key])}",
                    )
                elif items:
                    found[key] = items
            elif key == "compute_dtype" and not is_weight:
                self.note(place, "means nothing here")
            elif not (key == "bit" and is_weight):
                self.once(place, f"unknown key '{dotted(place)}'; accepted are {words(allowed)}")
        return found

    def _precision(self, value: Any, path: Path) -> str | None:
        """Return the float precision that is the only one allowed, if that is so."""
        parts = [self._options(value, path, part) for part in ("weight", "activation")]
        kinds = [set(part["dtype"]) for part in parts if "dtype" in part]
        if any(dtypes == {"fp32"} for dtypes in kinds):
            return "f32"
        if any(dtypes <= {"bf16", "fp32"} for dtypes in kinds):
            return "bf16"
        return None

    def _methods(self, names: list[str], path: Path) -> str | None:
        known = [its.METHODS[name] for name in names if name in its.METHODS]
        if len(known) > 1:
            self.note(path, "of several, auto takes the one with the least error, tensor by tensor")
            return "auto"
        return known[0] if known else None

    def _scheme(self, names: list[str]) -> str:
        known = {its.SCHEMES[name] for name in names if name in its.SCHEMES}
        return "auto" if len(known) > 1 else next(iter(known), "asymmetric")

    def _mixed_precision(self, value: Any, path: Path) -> None:
        def precisions(item: Any, place: Path) -> None:
            names = self.texts(item)
            wrong = [name for name in names if name not in ("fp32", "bf16")]
            if wrong:
                self.mistakes.add(
                    place, f"{dotted(place)} is {word(wrong[0])}; accepted are fp32, bf16"
                )
            elif "bf16" in names:
                self.put("bf16", "precision")
            else:
                self.mistakes.add(place, f"{dotted(place)}: fp32 alone changes nothing; add bf16")

        if "precisions" not in self.section(value, path):
            self.mistakes.add(path, f"{dotted(path)} has no 'precisions'; add bf16")
        self.each(value, path, {"precisions": precisions, "op_wise": self._op_wise})

    # ---- evaluation ----

    def _evaluation(self, value: Any, path: Path) -> None:
        bench = self.idle("lowprec bench measures speed, with --threads")
        self.each(
            value,
            path,
            {
                "accuracy": self._accuracy,
                "performance": bench,
                "diagnosis": self.idle("the report holds it"),
            },
        )

    def _accuracy(self, value: Any, path: Path) -> None:
        values = self.section(value, path)
        if "metric" in values and "multi_metrics" in values:
            self.mistakes.add(path, f"{dotted(path)} has metric and multi_metrics; keep one")
        data = DataTranslation(self, self.framework)
        self.each(
            values,
            path,
            {
                "metric": data.metric,
                "multi_metrics": data.multi_metrics,
                "dataloader": lambda item, place: self._data("evaluation", item, place),
                "postprocess": _done,
                "iteration": _done,
                "configs": self.idle("LOWPREC_NUM_THREADS sets the number of threads"),
            },
        )
        data.postprocess(values.get("postprocess"), (*path, "postprocess"))
        data.iteration(values.get("iteration", -1), (*path, "iteration"))


def _done(item: Any, path: Path) -> None:
    """For keys that are read elsewhere."""
