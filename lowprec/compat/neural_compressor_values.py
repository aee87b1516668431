"""How a foreign file's values are taken, checked and put: shared by all sections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lowprec.config_text import Mistakes, Path, Source, dotted, word, words

Handler = Callable[[Any, Path], None]


class Values:
    """The dict of a Config being made in `result`, with `mistakes` and `notes`.

    Null stands for an empty section, a text with commas or blanks for a list, "1%" for 0.01.
    """

    def __init__(self, source: Source) -> None:
        self.mistakes = Mistakes(source)
        self.notes: list[str] = []
        self.result: dict[str, Any] = {}
        self.rules: list[dict[str, Any]] = []
        self.result["layers"] = self.rules

    def put(self, value: Any, *path: str) -> None:
        """Set a key of the Config."""
        section = self.result
        for step in path[:-1]:
            section = section.setdefault(step, {})
        section[path[-1]] = value

    def note(self, path: Path, text: str) -> None:
        """Say how a key was understood."""
        line = self.mistakes.source.line(path)
        where = "" if line is None else f"line {line}: "
        full = f"{where}{dotted(path)}: {text}"
        if full not in self.notes:
            self.notes.append(full)

    def once(self, path: Path, text: str) -> None:
        """Note a mistake that several readers of a key would find."""
        if all(mistake.path != path for mistake in self.mistakes.found):
            self.mistakes.add(path, text)

    def section(self, value: Any, path: Path) -> Mapping[str, Any]:
        """Return a mapping; null is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.once(path, f"{dotted(path) or 'the file'} is {word(value)}; give a mapping")
            return {}
        return value

    def each(self, value: Any, path: Path, handlers: Mapping[str, Handler]) -> None:
        """Call the handler of every key; a key without one is a mistake."""
        for key, item in self.section(value, path).items():
            place = (*path, str(key))
            if key in handlers:
                handlers[key](item, place)
            else:
                self.mistakes.add_unknown(place, handlers)

    def texts(self, value: Any) -> list[str]:
        """Return a list of texts."""
        if isinstance(value, str):
            return value.replace(",", " ").split()
        return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]

    def numbers(self, value: Any, path: Path) -> list[int]:
        """Return a list of whole numbers above 0."""
        try:
            found = [int(text) for text in self.texts(value)]
        except ValueError:
            found = []
        if not found or min(found) < 1:
            self.mistakes.add(
                path, f"{dotted(path)} is {word(value)}; give whole numbers of at least 1"
            )
            return []
        return found

    def one_of(self, value: Any, choices: tuple[str, ...], path: Path) -> bool:
        """Return whether a value is one of the accepted ones."""
        if value in choices:
            return True
        self.once(path, f"{dotted(path)} is {word(value)}; accepted are {words(choices)}")
        return False

    def is_switch(self, value: Any, path: Path) -> bool:
        """Return whether a value is true or false."""
        if isinstance(value, bool):
            return True
        self.mistakes.add(path, f"{dotted(path)} is {word(value)}; accepted are true and false")
        return False

    def number(self, value: Any, path: Path, *target: str, least: int | None = None) -> None:
        """Set a key of the Config to a whole number."""
        if isinstance(value, bool) or not isinstance(value, int) or (
            least is not None and value < least
        ):  # fmt: skip
            bound = "" if least is None else f" of at least {least}"
            self.mistakes.add(path, f"{dotted(path)} is {word(value)}; give a whole number{bound}")
            return
        self.put(value, *target)

    def positive(self, value: Any, path: Path, *, least: float) -> float | None:
        """Return a finite number of at least `least`."""
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or value < least:
            self.mistakes.add(
                path, f"{dotted(path)} is {word(value)}; give a number of at least {least:g}"
            )
            return None
        return float(value)

    def share(self, value: Any, path: Path) -> float | None:
        """Return 0.01 for 0.01, "0.01" and "1%"."""
        number: Any = value
        if isinstance(value, str):
            text = value.strip()
            try:
                number = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
            except ValueError:
                number = None
        return self.positive(number if number is not None else value, path, least=0)

    def idle(self, reason: str) -> Handler:
        """Return a handler that notes why a key means nothing here."""

        def note(item: Any, path: Path) -> None:
            self.note(path, reason)

        return note

    def refused(self, reason: str) -> Handler:
        """Return a handler that says why a key cannot stay."""

        def refuse(item: Any, path: Path) -> None:
            self.mistakes.add(path, f"{dotted(path)}: {reason}; take it out")

        return refuse
