"""Turn what a person wrote into a struct, or into one line that says what is wrong and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from lowprec.errors import ConfigError

if TYPE_CHECKING:
    import yaml

S = TypeVar("S", bound=msgspec.Struct)


def parse_yaml(text: str, name: str, kind: type[S]) -> S:
    """Return the struct of type `kind` that YAML `text` describes.

    Args:
        text: YAML; nothing in it can run code.
        name: What the text is called in messages, usually a file.
        kind: A msgspec.Struct all of whose fields have defaults.

    Raises:
        ConfigError: naming `name`, the line, the key, and what is accepted.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    source = Source(root, name)
    source.check_duplicates()
    return convert({} if values is None else values, kind, source)


def convert(values: object, kind: type[S], source: Source) -> S:
    """Return `values` as a struct of type `kind`; raise ConfigError at the first mistake."""
    _check_keys(values, kind, (), source)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), values, kind, source)) from None


class Source:
    """Where a configuration came from, to name the line of a key."""

    def __init__(self, root: yaml.Node | None, name: str) -> None:
        self.root = root
        self.name = name

    def place(self, path: tuple[str | int, ...]) -> str:
        """Return 'conf.yaml, line 3' for the key at `path`, or just the source's name."""
        line = self._line(path)
        return self.name if line is None else f"{self.name}, line {line}"

    def _line(self, path: tuple[str | int, ...]) -> int | None:
        if self.root is None:
            return None
        node: Any = self.root
        line = node.start_mark.line
        for step in path:
            if node.id == "sequence":
                node = node.value[step]
                line = node.start_mark.line
                continue
            pairs = [pair for pair in node.value if pair[0].value == str(step)]
            if not pairs:  # merged in from elsewhere (`<<`)
                break
            line = pairs[0][0].start_mark.line
            node = pairs[0][1]
        return int(line) + 1

    def check_duplicates(self) -> None:
        """Raise ConfigError when a mapping gives the same key twice: YAML would drop the first."""
        waiting: list[Any] = [self.root] if self.root is not None else []
        visited: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) in visited or node.id == "scalar":
                continue
            visited.add(id(node))
            if node.id == "sequence":
                waiting.extend(node.value)
                continue
            seen: set[str] = set()
            for key, item in node.value:
                if key.value in seen:
                    raise ConfigError(
                        f"{self.name}, line {key.start_mark.line + 1}: '{key.value}' is given "
                        "twice; keep one of them"
                    )
                if key.id == "scalar":
                    seen.add(key.value)
                waiting.append(item)


def _check_keys(values: object, kind: Any, path: tuple[str | int, ...], source: Source) -> None:
    """Raise ConfigError at the first key, in depth, that the struct `kind` does not have."""
    if get_origin(kind) is tuple and isinstance(values, (list, tuple)):
        for number, item in enumerate(values):
            _check_keys(item, get_args(kind)[0], (*path, number), source)
        return
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return
    if not isinstance(values, Mapping):
        return  # msgspec says what is wrong with it
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, item in values.items():
        if key not in fields:
            known = ", ".join(fields)
            near = get_close_matches(str(key), fields, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            place = (*path, str(key))
            raise ConfigError(
                f"{source.place(place)}: unknown key '{_dotted(place)}'; {hint}accepted are {known}"
            )
        _check_keys(item, fields[key], (*path, key), source)


def _explain(message: str, values: object, kind: Any, source: Source) -> str:
    """Return one line for msgspec's complaint `Expected ..., got ... - at `$.a.b[0]``."""
    match = re.fullmatch(r"(.*?)(?: - at `\$(.*)`)?", message)
    problem, location = (match.group(1), match.group(2)) if match else (message, None)
    path = tuple(
        int(number) if number else name
        for name, number in re.findall(r"\.?([A-Za-z_]\w*)|\[(\d+)\]", location or "")
    )
    value: Any = values
    for step in path:
        value = value[step]
        if isinstance(step, int):
            kind = get_args(kind)[0]
        else:
            kind = {field.name: field.type for field in msgspec.structs.fields(kind)}[step]
    name = _dotted(path) or "the configuration"
    if problem.startswith("Object missing required field"):
        missing = problem.split("`")[1]
        return f"{source.place(path)}: {name} has no '{missing}'; add it"
    if not problem.startswith(("Expected", "Invalid")):  # a struct's own, about itself or a field
        field = re.match(r"\.(\w+)", problem)
        place = source.place((*path, field.group(1)) if field else path)
        return f"{place}: {name}{problem}"
    return f"{source.place(path)}: {name} is {word(value)}; accepted is {_accepted(kind)}"


def _accepted(kind: Any) -> str:
    """Return what a value of type `kind` may be, for people."""
    origin = get_origin(kind)
    if origin is Literal:
        return words(get_args(kind))
    if origin is Annotated:
        base, limits = get_args(kind)
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in (
                (">=", limits.ge),
                (">", limits.gt),
                ("<=", limits.le),
                ("<", limits.lt),
            )
            if bound is not None
        ]
        return f"{_accepted(base)} {' and '.join(bounds)}"
    if origin is tuple:
        return "a list"
    if origin is not None:
        return " or ".join(_accepted(option) for option in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"a mapping with the keys {', '.join(kind.__struct_fields__)}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind, "null")


def _dotted(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".")


def word(value: object) -> str:
    """Return `value` as YAML would have it, on one short line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return " ".join(text.split())[:80]


def words(values: tuple[object, ...]) -> str:
    """Return the accepted `values` as a list for people."""
    return ", ".join(
        str(value).lower() if isinstance(value, bool) else str(value) for value in values
    )
