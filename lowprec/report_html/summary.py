"""The top of the page: what was won, what was lost, in one glance."""

from __future__ import annotations

from collections import Counter

from lowprec.report_html.markup import (
    Html,
    decibels,
    element,
    finite,
    joined,
    number,
    score,
    signed,
    significant,
    size,
    times_fast,
)
from lowprec.report_html.values import Values, items, layers, mapping, mappings, pair, precision

SHADES = {"int8": "int8", "bf16": "bf16", "f32": "f32", "f16": "f16"}


def shade(name: object) -> str:
    """Return the class that gives a precision its colour: int8-dynamic has int8's."""
    return next((SHADES[key] for key in SHADES if str(name).startswith(key)), "other")


def verdict(values: Values) -> Html:
    """Return one sentence or two: how much runs in low precision, and what it keeps."""
    every = mappings(values.get("layers"))
    rows = layers(values)
    low = [layer for layer in rows if layer.get("precision") != "f32"]
    total = finite(values.get("total_macs")) or 0.0
    macs = sum(finite(layer.get("macs")) or 0.0 for layer in low)
    kinds = Counter(str(layer.get("precision")) for layer in low)
    words = " and ".join(name for name, _ in kinds.most_common()) or precision(values)
    parts = [f"{len(low)} of {len(rows)} layers"]
    if total:
        parts.append(f"{100 * macs / total:.1f} % of {total / 1e6:,.1f} million multiply-adds")
    sentence = f"{' and '.join(parts)} run in {words}."
    if every and not low:
        sentence = "Nothing runs in lower precision; the table says why."
    samples = finite(values.get("samples"))
    if samples:
        sentence += f" Calibrated on {samples:.0f} samples."
    return element("p", sentence, class_="verdict")


def cards(values: Values) -> Html:
    """Return a card each for accuracy, outputs, latency, size and where the work is done."""
    name = precision(values)
    made = [
        *_accuracy(values, name),
        *_speed(values, name),
        *_size(values, name),
        *_agreement(values),
        *_shares(values),
    ]
    return element("div", *made, class_="cards") if made else Html("")


def _card(title: str, large: object, small: object, *more: object, tone: str = "") -> Html:
    return element(
        "section",
        element("h3", title),
        element("p", large, class_="large"),
        element("p", small, class_="small"),
        *more,
        class_=f"card {tone}".strip(),
    )


def _accuracy(values: Values, name: str) -> list[Html]:
    made = []
    for metric, both in mapping(values.get("accuracy")).items():
        before, after = pair(both, name)
        if before is None or after is None:
            continue
        change = after - before
        relative = f" ({signed(100 * change / abs(before), 2)} %)" if before and change else ""
        shown = signed(change, 2) if change else "no change"
        small = joined([f"float {score(before)}, ", element("b", shown), relative])
        made.append(_card(str(metric), score(after), small, _bars(before, after, score, name)))
    return made


def _speed(values: Values, name: str) -> list[Html]:
    made = []
    for what, both in mapping(values.get("speed")).items():
        before, after = pair(both, name)
        if before is None or after is None:
            continue
        tone = "good" if after < 0.95 * before else "bad" if after > 1.05 * before else ""
        made.append(
            _card(
                _capital(str(what).removesuffix(", ms")),
                f"{significant(after)} ms",
                joined(
                    [f"float {significant(before)} ms, ", element("b", times_fast(before, after))]
                ),
                _bars(before, after, significant, name),
                tone=tone,
            )
        )
    return made


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _size(values: Values, name: str) -> list[Html]:
    before, after = finite(values.get("float_bytes")), finite(values.get("int8_bytes"))
    if not before or after is None:
        return []
    small = joined(
        [f"float {size(int(before))}, ", element("b", f"{100 * after / before:.0f} % of it")]
    )
    return [
        _card("Size of the constants", size(int(after)), small, _bars(before, after, None, name))
    ]


def _agreement(values: Values) -> list[Html]:
    made = []
    for output in mappings(values.get("agreement"))[:6]:
        sqnr = number(output.get("sqnr"))
        argmax = finite(output.get("argmax"))
        parts = [f"on {output.get('samples', '?')} calibration samples"]
        if argmax is not None:
            parts.insert(0, f"the same largest entry in {100 * argmax:.1f} %")
        made.append(
            _card(
                f"Output {output.get('name', '')} against float",
                "equal" if sqnr is None else f"{decibels(sqnr)} dB",
                ", ".join(parts),
                tone="bad" if sqnr is not None and sqnr < 10 else "",
            )
        )
    return made


def _shares(values: Values) -> list[Html]:
    total = finite(values.get("total_macs"))
    if not total:
        return []
    shares: Counter[str] = Counter()
    for layer in mappings(values.get("layers")):
        shares[str(layer.get("precision"))] += int(finite(layer.get("macs")) or 0)
    named = [(name, macs / total) for name, macs in shares.most_common() if macs]
    if not named:
        return []
    label = ", ".join(f"{name} {100 * share:.1f} %" for name, share in named)
    bar = element(
        "div",
        *(
            element("i", style=f"width:{100 * share:.2f}%", class_=f"shade {shade(name)}")
            for name, share in named
        ),
        class_="stack",
        role="img",
        aria_label=label,
    )
    keys = [
        element(
            "span", element("i", class_=f"key shade {shade(name)}"), f"{name} {100 * share:.1f} %"
        )
        for name, share in named
    ]
    return [
        _card(
            "Multiply-adds",
            f"{100 * named[0][1]:.1f} % {named[0][0]}",
            joined(keys, " "),
            bar,
        )
    ]


def _bars(before: float, after: float, form: object, name: str) -> Html:
    """Return two bars, one above the other: float and the other precision."""
    most = max(abs(before), abs(after)) or 1.0
    return element(
        "div",
        element("i", style=f"width:{100 * abs(before) / most:.1f}%", class_="shade f32"),
        element("i", style=f"width:{100 * abs(after) / most:.1f}%", class_=f"shade {shade(name)}"),
        class_="pair",
        aria_hidden="true",
    )


def notes(values: Values) -> Html:
    """Return what concerns the whole model, one sentence each."""
    found = [element("li", note) for note in items(values.get("notes"))]
    if not found:
        return Html("")
    return element(
        "section", element("h2", "Notes"), element("ul", *found, class_="notes"), id="notes"
    )
