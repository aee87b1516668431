"""A configuration as a page for people: every key with its meaning, and YAML all the same.

The meanings are those of the sections' docstrings, the accepted values those of their types, so
that the page cannot say something else than the code.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import msgspec

from lowprec.config import METHODS, Config
from lowprec.config_text import accepted, words

WIDTH = 100
_METHOD_KEYS = ("method",)


def commented_yaml(config: Config) -> str:
    """Return YAML text that Config.from_yaml turns back into an equal Config, keys explained."""
    values = config.to_dict()
    lines = [
        "# Every key is optional; what is left out has the value that `lowprec config` prints.",
        *_section(Config, values, ""),
    ]
    return "\n".join(lines) + "\n"


def _section(kind: Any, values: dict[str, Any], indent: str) -> list[str]:
    meanings = _meanings(kind)
    lines: list[str] = []
    for field in msgspec.structs.fields(kind):
        name, value = field.encode_name, values[field.encode_name]
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            lines += ["", *_comment(_summary(inner), indent), f"{indent}{name}:"]
            lines += _section(inner, value, f"{indent}  ")
            continue
        if not indent:
            lines.append("")
        lines += _comment(_explain(name, meanings.get(name, ""), inner), indent)
        lines += _entry(name, value, indent)
    return lines


def _entry(name: str, value: Any, indent: str) -> list[str]:
    import yaml

    if isinstance(value, (list, dict)) and value:
        text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=WIDTH)
        return [f"{indent}{name}:", *textwrap.indent(text.rstrip(), f"{indent}  ").splitlines()]
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20)
    return [f"{indent}{name}: {text.splitlines()[0]}"]


def _explain(name: str, meaning: str, kind: Any) -> str:
    if name in _METHOD_KEYS:
        choices = f"{words(METHODS)}, or PLUGIN.NAME"
    else:
        choices = accepted(kind)
    if choices in ("a text", "null", "a list", "a mapping", "true or false") and meaning:
        return meaning
    if not meaning:
        return f"Accepted: {choices}."
    return f"{meaning} Accepted: {choices}."


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


def _summary(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")


def _meanings(kind: Any) -> dict[str, str]:
    """Return what the docstring's section `Attributes` says about each key."""
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start.group(1)
            found[name] = start.group(2)
        elif line.startswith("        ") and name:
            found[name] += f" {line.strip()}"
        else:
            break
    return found
