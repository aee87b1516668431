"""Turn what a person wrote into a struct, or into a list of all that is wrong and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from lowprec.errors import ConfigError

if TYPE_CHECKING:
    import yaml

S = TypeVar("S", bound=msgspec.Struct)
Path = tuple["str | int", ...]
# What a field's annotation may carry: Meta(extra={CHECK: function}), called with the value.
Check = Callable[[object, Path, "Mistakes"], object]

CHECK = "check"
MAX_VALUES = 1_000_000  # in one file, anchors written out
MAX_SHOWN = 40  # mistakes in one message; a file of garbage needs no more


def parse_yaml(text: str, name: str, kind: type[S]) -> S:
    """Return the struct of type `kind` that YAML `text` describes.

    Args:
        text: YAML; nothing in it can run code.
        name: What the text is called in messages, usually a file.
        kind: A msgspec.Struct all of whose fields have defaults.

    Raises:
        ConfigError: naming `name`, and for every mistake the line, the key, and what is accepted.
    """
    values, source = read_yaml(text, name)
    return convert({} if values is None else values, kind, source)


def read_yaml(text: str, name: str, loader: type[Any] | None = None) -> tuple[Any, Source]:
    """Return what YAML `text` holds, and where its keys stand.

    Args:
        text: YAML.
        name: What the text is called in messages.
        loader: A safe loader of yaml's; None takes yaml.SafeLoader.

    Raises:
        ConfigError: it is not YAML, or nested so deeply that it cannot be read.
    """
    import yaml

    loader = loader or yaml.SafeLoader
    try:
        root = yaml.compose(text, Loader=loader)
        _check_anchors(root, name)
        values = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    return values, Source(root, name, text)


def _check_anchors(root: yaml.Node | None, name: str) -> None:
    """Raise ConfigError where anchors hold themselves, or stand for very many values."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        key = id(node)
        if key in open_nodes:
            line = node.start_mark.line + 1
            raise ConfigError(f"{name}, line {line}: an anchor holds itself; write it out")
        if key not in sizes:
            open_nodes.add(key)
            parts = [] if node.id == "scalar" else node.value
            inner = [part for pair in parts for part in (pair if node.id == "mapping" else [pair])]
            sizes[key] = 1 + sum(size(part) for part in inner)
            open_nodes.discard(key)
        return sizes[key]

    if root is not None and size(root) > MAX_VALUES:
        raise ConfigError(f"{name}: its anchors stand for more than {MAX_VALUES} values")


def convert(values: object, kind: type[S], source: Source) -> S:
    """Return `values` as a struct of type `kind`.

    Raises:
        ConfigError: with every mistake in `values`.
    """
    mistakes = Mistakes(source)
    result = convert_value(values, kind, (), mistakes)
    mistakes.raise_any()
    return result  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: the key's path, its line (None: unknown), and what to do."""

    path: Path
    line: int | None
    text: str


class Mistakes:
    """What is wrong with a configuration, collected before anything is raised."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[Mistake] = [
            Mistake((), line, text) for line, text in source.repeated_keys()
        ]

    def add(self, path: Path, text: str) -> None:
        """Note that the key at `path` is wrong; `text` names it, what is accepted, the remedy."""
        self.found.append(Mistake(path, self.source.line(path), text))

    def add_unknown(self, path: Path, known: Iterable[str]) -> None:
        """Note that the last key of `path` is none of the `known` ones."""
        names = list(known)
        hint = did_you_mean(str(path[-1]), names)
        accepted = f"accepted are {', '.join(names)}" if names else "no key is accepted here"
        self.add(path, f"unknown key '{dotted(path)}'; {hint}{accepted}")

    def raise_any(self) -> None:
        """Raise one ConfigError with all that was found, in the order of the lines, if any."""
        if not self.found:
            return
        name = self.source.name
        ordered = sorted(self.found, key=lambda mistake: mistake.line or 0)
        if len(ordered) == 1:
            (only,) = ordered
            where = name if only.line is None else f"{name}, line {only.line}"
            raise ConfigError(f"{where}: {only.text}")
        parts = [
            item.text if item.line is None else f"line {item.line}: {item.text}"
            for item in ordered[:MAX_SHOWN]
        ]
        if len(ordered) > MAX_SHOWN:
            parts.append(f"and {len(ordered) - MAX_SHOWN} more")
        raise ConfigError(f"{name}: {len(ordered)} mistakes", details=parts)


class Source:
    """Where a configuration came from, to name the line of a key."""

    def __init__(self, root: yaml.Node | None, name: str, text: str = "") -> None:
        self.root = root
        self.name = name
        self._text = text

    def digest(self) -> str:
        """Return eight letters that tell this text from others."""
        from hashlib import sha256

        return sha256(self._text.encode()).hexdigest()[:8]

    def line(self, path: Path) -> int | None:
        """Return the line of the key at `path`, counted from 1; None when there is no text."""
        if self.root is None:
            return None
        node: Any = self.root
        line = node.start_mark.line
        for step in path:
            if node.id == "sequence":
                if not isinstance(step, int) or step >= len(node.value):
                    break
                node = node.value[step]
                line = node.start_mark.line
                continue
            if node.id != "mapping":
                break
            pairs = [pair for pair in node.value if pair[0].value == str(step)]
            if not pairs:  # merged in from elsewhere (`<<`), or missing
                break
            line = pairs[0][0].start_mark.line
            node = pairs[0][1]
        return int(line) + 1

    def repeated_keys(self) -> list[tuple[int, str]]:
        """Return line and message of each key given twice: YAML would drop the first."""
        waiting: list[Any] = [self.root] if self.root is not None else []
        visited: set[int] = set()
        found = []
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
                if key.id == "scalar" and key.value in seen:
                    line = key.start_mark.line + 1
                    found.append((line, f"'{key.value}' is given twice; keep one of them"))
                elif key.id == "scalar":
                    seen.add(key.value)
                waiting.append(item)
        return found


def convert_value(value: object, kind: Any, path: Path, mistakes: Mistakes) -> Any:
    """Return `value` as `kind`; what is wrong with it, and with all below it, is noted.

    The result is only meaningful when nothing was noted.
    """
    if _is_struct(kind):
        return _convert_struct(value, kind, path, mistakes)
    check = _check_of(kind)
    if check is not None:
        return check(value, path, mistakes)
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, (list, tuple)) and get_args(kind)[1:] == (...,):
        element = get_args(kind)[0]
        return tuple(
            convert_value(item, element, (*path, number), mistakes)
            for number, item in enumerate(value)
        )
    if origin is dict and isinstance(value, Mapping):
        element = get_args(kind)[1]
        for key in value:
            if not isinstance(key, str):
                mistakes.add((*path, str(key)), f"{dotted((*path, str(key)))}: a name is a text")
        return {
            str(key): convert_value(item, element, (*path, str(key)), mistakes)
            for key, item in value.items()
        }
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        name = dotted(path) or "the configuration"
        mistakes.add(path, f"{name} is {word(value)}; accepted is {accepted(kind)}")
        return None


def _convert_struct(value: object, kind: Any, path: Path, mistakes: Mistakes) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        name = dotted(path) or "the configuration"
        mistakes.add(path, f"{name} is {word(value)}; accepted is {accepted(kind)}")
        return None
    before = len(mistakes.found)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    arguments = {}
    for key, item in value.items():
        if key not in fields:
            mistakes.add_unknown((*path, str(key)), fields)
            continue
        field, found = fields[key], len(mistakes.found)
        argument = convert_value(item, field.type, (*path, key), mistakes)
        if len(mistakes.found) == found:
            arguments[field.name] = argument
    for key, field in fields.items():
        if field.required and key not in value:
            mistakes.add(path, f"{dotted(path) or 'the configuration'} has no '{key}'; add it")
    if any(field.required and field.name not in arguments for field in fields.values()):
        return None
    try:
        return kind(**arguments)
    except ValueError as error:  # a struct's own complaint, about itself or a field
        about = re.match(r"\.(\w+)", str(error))
        # About the whole: it may follow from what was noted before.
        if about or len(mistakes.found) == before:
            place = (*path, about.group(1)) if about else path
            mistakes.add(place, f"{dotted(path)}{error}".lstrip(". "))
        return None


def named(
    value: object, kinds: Mapping[str, Any], what: str, path: Path, mistakes: Mistakes
) -> list[tuple[str, Any]]:
    """Return (NAME, struct) for each NAME or {NAME: options} in `value`, in order.

    Options may be one plain value where the struct says with `shorthand` which field it is.

    Args:
        value: A name, a mapping of names to options, or a list of either.
        kinds: Struct by name; names are compared without regard to case.
        what: What they are, with an article.
        path: Where `value` stands.
        mistakes: What is wrong is noted here.
    """
    items: list[tuple[str, object, Path]] = []
    for number, part in enumerate(value if isinstance(value, (list, tuple)) else [value]):
        place = (*path, number) if isinstance(value, (list, tuple)) else path
        if isinstance(part, str):
            items.append((part, {}, place))
        elif isinstance(part, Mapping):
            items += [(str(key), options, (*place, str(key))) for key, options in part.items()]
        else:
            mistakes.add(
                place, f"{dotted(place)} is {word(part)}; give the name of {what}, or NAME: options"
            )
    found = []
    by_lower = {name.lower(): kind for name, kind in kinds.items()}
    for name, options, place in items:
        kind = by_lower.get(name.lower())
        if kind is None:
            mistakes.add(
                place,
                f"{dotted(path)}: '{name}' is not the name of {what}; {did_you_mean(name, kinds)}"
                f"accepted are {', '.join(kinds)}",
            )
            continue
        shorthand = getattr(kind, "shorthand", None)
        if shorthand and options is not None and not isinstance(options, Mapping):
            options = {shorthand: options}
        struct = convert_value({} if options is None else options, kind, place, mistakes)
        found.append((name, struct))
    return found


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _check_of(kind: Any) -> Check | None:
    if get_origin(kind) is Annotated:
        for note in get_args(kind)[1:]:
            if isinstance(note, msgspec.Meta) and note.extra and CHECK in note.extra:
                return note.extra[CHECK]  # type: ignore[no-any-return]
    return None


def accepted(kind: Any) -> str:
    """Return what a value of type `kind` may be, for people."""
    origin = get_origin(kind)
    if origin is Literal:
        return words(get_args(kind))
    if origin is Annotated:
        base, *notes = get_args(kind)
        bounds = [
            f"{sign} {bound:g}"
            for limits in notes
            for sign, bound in (
                (">=", limits.ge),
                (">", limits.gt),
                ("<=", limits.le),
                ("<", limits.lt),
            )
            if bound is not None
        ]
        return " ".join(filter(None, (accepted(base), " and ".join(bounds))))
    if origin in (tuple, list):
        inner = [argument for argument in get_args(kind) if argument is not ...]
        simple = len(set(inner)) == 1 and not _is_struct(inner[0])
        return f"a list of {_plural(accepted(inner[0]))}" if simple else "a list"
    if origin is dict:
        return "a mapping"
    if origin is not None:
        return " or ".join(accepted(option) for option in get_args(kind))
    if _is_struct(kind):
        return f"a mapping with the keys {', '.join(kind.__struct_fields__)}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind, "null")


def _plural(text: str) -> str:
    plurals = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}
    return plurals.get(text, text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return 'did you mean 'x'? ' for the known name that is closest, '' when none is close."""
    by_lower = {item.lower(): item for item in known}
    near = get_close_matches(name.lower(), by_lower, 1)
    return f"did you mean '{by_lower[near[0]]}'? " if near else ""


def dotted(path: Path) -> str:
    """Return 'layers[0].match' for ('layers', 0, 'match')."""
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


def words(values: Iterable[object]) -> str:
    """Return the accepted `values` as a list for people."""
    return ", ".join(
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for value in values
    )
