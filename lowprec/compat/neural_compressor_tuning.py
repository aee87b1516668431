"""The section `tuning` of a Neural Compressor 1.x YAML file."""

from __future__ import annotations

from typing import Any

from lowprec.compat import neural_compressor_words as its
from lowprec.compat.neural_compressor_values import Handler, Values
from lowprec.config_text import Path, dotted, word, words


class TuningTranslation(Values):
    """Strategy, criterion, objective, exit policy, workspace."""

    def tuning(self, value: Any, path: Path) -> None:
        """Translate the section."""
        self.each(
            value,
            path,
            {
                "strategy": self._strategy,
                "accuracy_criterion": self._criterion,
                "objective": self._objective,
                "multi_objectives": self._objectives,
                "exit_policy": self._exit_policy,
                "random_seed": lambda item, place: self.number(item, place, "tuning", "seed"),
                "tensorboard": self.idle("the report holds ranges and errors"),
                "workspace": self._workspace,
                "diagnosis": self.idle("the report holds it"),
            },
        )

    def _strategy(self, value: Any, path: Path) -> None:
        values = {"name": value} if isinstance(value, str) else self.section(value, path)

        def name(item: Any, place: Path) -> None:
            if item == "auto_mixed_precision":
                self.note(place, "basic, among the precisions that the file allows")
            elif item in its.STRATEGIES:
                self.put(item, "tuning", "strategy")
            else:
                self.mistakes.add(
                    place,
                    f"{dotted(place)} is {word(item)}, which is not here; accepted are "
                    f"{words(its.STRATEGIES)}",
                )

        weights = self.idle("the criterion is kept, then the objective counts")
        token = self.idle("no strategy here needs it")
        keys: dict[str, Handler] = {
            "name": name,
            "accuracy_weight": weights,
            "latency_weight": weights,
            "confidence_batches": token,
            "hawq_v2_loss": token,
        }
        keys |= {str(key): token for key in values if str(key).startswith("sigopt_")}
        self.each(values, path, keys)

    def _criterion(self, value: Any, path: Path) -> None:
        values = self.section(value, path)
        if "relative" in values and "absolute" in values:
            self.mistakes.add(path, f"{dotted(path)} has relative and absolute; keep one")

        def limit(key: str) -> Handler:
            def put(item: Any, place: Path) -> None:
                share = self.share(item, place)
                if share is not None:
                    self.put(share, "tuning", "accuracy", key)

            return put

        def direction(item: Any, place: Path) -> None:
            if self.is_switch(item, place):
                self.put(item, "tuning", "accuracy", "higher_is_better")

        self.each(
            values,
            path,
            {
                "relative": limit("relative"),
                "absolute": limit("absolute"),
                "higher_is_better": direction,
            },
        )

    def _objective(self, value: Any, path: Path) -> None:
        if self.one_of(value, tuple(its.OBJECTIVES), path):
            self.put(its.OBJECTIVES[value], "tuning", "objective")

    def _objectives(self, value: Any, path: Path) -> None:
        def several(item: Any, place: Path) -> None:
            names = [name for name in self.texts(item) if name != "accuracy"]
            found = [
                its.OBJECTIVES[n] for n in names if self.one_of(n, tuple(its.OBJECTIVES), place)
            ]
            if found:
                self.put(found if len(found) > 1 else found[0], "tuning", "objective")

        weights = self.idle("all of the best compromises are listed instead")
        self.each(
            value,
            path,
            {"objective": several, "weight": weights, "higher_is_better": weights},
        )

    def _exit_policy(self, value: Any, path: Path) -> None:
        def timeout(item: Any, place: Path) -> None:
            seconds = self.positive(item, place, least=0)
            if seconds:
                self.put(seconds, "tuning", "timeout")
                self.put("exhausted", "tuning", "stop")

        def trials(item: Any, place: Path) -> None:
            self.number(item, place, "tuning", "max_trials", least=1)

        def first(item: Any, place: Path) -> None:
            if self.is_switch(item, place) and item:
                self.put(1, "tuning", "max_trials")

        values = self.section(value, path)
        ordered = {key: values[key] for key in sorted(values, key=str)}  # performance_only wins
        self.each(
            ordered,
            path,
            {"timeout": timeout, "max_trials": trials, "performance_only": first},
        )

    def _workspace(self, value: Any, path: Path) -> None:
        def folder(item: Any, place: Path) -> None:
            if not isinstance(item, str):
                self.mistakes.add(place, f"{dotted(place)} is {word(item)}; give a folder")
                return
            # An edited file is another search; the same one goes on.
            name = f"trials-{self.mistakes.source.digest()}.jsonl"
            self.put(f"{item.rstrip('/')}/{name}", "tuning", "log")

        self.each(
            value,
            path,
            {
                "path": folder,
                "resume": self.refused(
                    "its snapshots are pickled, which runs code when they are read; a search of "
                    "lowprec's goes on from its log by itself"
                ),
            },
        )
