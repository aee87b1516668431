"""The page: sections in order, style and script inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from lowprec.report_html.markup import Html, element, finite, significant
from lowprec.report_html.pictures import (
    Point,
    Series,
    layer_bars,
    layer_lines,
    pareto_picture,
)
from lowprec.report_html.summary import cards, notes, shade, verdict
from lowprec.report_html.tables import (
    algorithm_table,
    layer_table,
    other_operators,
    plain_pairs,
    trial_table,
)
from lowprec.report_html.values import Values, items, layers, mapping, mappings, pair, precision


def render(values: Values) -> str:
    """Return the page for a report's plain data.

    Args:
        values: `Report.to_dict(times=True)`, or what a JSON file of it holds. What is missing or of
            the wrong kind is left out.
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    name = values.get("model") or "model"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{name}: lowprec report"),
        Html(f"<style>{style}</style>"),
    )
    body = element(
        "body",
        element("a", "Skip to the layers", href="#layer-section", class_="skip"),
        element(
            "header",
            element("p", "lowprec report", class_="brand"),
            element("h1", name),
            verdict(values),
        ),
        element(
            "main",
            cards(values),
            _advice(mapping(values.get("advice"))),
            notes(values),
            _trials(values),
            _charts(values),
            _layers(values),
            _algorithms(values),
            _origin(values),
        ),
        Html(f"<script>{script}</script>"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


@cache
def _asset(name: str) -> str:
    return files("lowprec.report_html").joinpath(name).read_text(encoding="utf-8").strip()


def _section(title: str, *content: object, id_: str) -> Html:
    return element("section", element("h2", title), *content, id=id_)


def _layers(values: Values) -> Html:
    hint = element(
        "p",
        "Each layer's precision and why, what it reads, and its time before and after. "
        "Click a column's name to sort.",
        class_="hint",
    )
    controls = element(
        "div",
        element(
            "label",
            "Find ",
            element("input", type="search", id="find", placeholder="layer, operator, reason"),
        ),
        element("label", "Sort by ", element("select", id="sort")),
        element("span", "", id="count", class_="hint", role="status"),
        class_="controls",
        hidden=True,
    )
    return _section(
        "Layers", hint, controls, layer_table(values), other_operators(values), id_="layer-section"
    )


def _charts(values: Values) -> Html:
    rows = layers(values)
    if not rows:
        return Html("")
    names = [str(row.get("name", "")) for row in rows]
    low = precision(values)
    times = mapping(values.get("times"))
    found = {str(layer.get("name")): layer for layer in mappings(values.get("sensitivity"))}
    made = []
    before, after = ([pair(times.get(name), low)[which] for name in names] for which in (0, 1))
    if any(before) or any(after):
        series = [Series("float", "f32", before), Series(low, shade(low), after)]
        made.append(("Time of each layer", layer_bars("Time of each layer", "ms", names, series)))

    def column(key: str, source: Sequence[Values]) -> list[float | None]:
        return [finite(row.get(key)) for row in source]

    noise = [
        Series("what it reads", "a", column("activation_sqnr", rows)),
        Series("its weights", "b", column("weight_sqnr", rows)),
    ]
    if any(value is not None for each in noise for value in each.values):
        title = "Signal to quantisation noise"
        made.append((title, layer_lines(title, "dB", names, noise)))
    measured = [found.get(name, {}) for name in names]
    effects = [
        Series("this layer alone", "a", column("isolated", measured)),
        Series("up to this layer", "b", column("accumulated", measured)),
    ]
    if any(value is not None for each in effects for value in each.values):
        title = "What quantising costs"
        made.append((title, layer_lines(title, "dB", names, effects)))
    gains = Series("won when it goes back", "a", column("gain", measured))
    if any(value is not None for value in gains.values):
        title = "What each layer would win"
        made.append((title, layer_bars(title, "dB", names, [gains])))
    figures = [element("figure", element("figcaption", title), picture) for title, picture in made]
    if not figures:
        return Html("")
    return _section("Along the model", element("div", *figures, class_="figures"), id_="charts")


def _algorithms(values: Values) -> Html:
    if not mappings(values.get("algorithms")):
        return Html("")
    return _section("Algorithms", algorithm_table(values), id_="algorithm-section")


# ---- Trials --------------------------------------------------------------------------------------


def _trials(values: Values) -> Html:
    rows = mappings(values.get("trials"))
    if not rows:
        return Html("")
    best = _best(rows)
    picture = _pareto(values, rows, best)
    keys = [
        element("span", element("b", sign, class_=f"sign {class_}"), word, class_="legend")
        for sign, class_, word in (
            ("★", "best", "best"),
            ("●", "met", "criterion met"),
            ("✕", "missed", "missed"),
            ("▼", "missed", "far below"),
            ("◆", "original", "float"),
            ("╌", "limit", "criterion"),
        )
    ]
    figure = element(
        "figure",
        element("figcaption", "What each trial keeps and costs"),
        picture,
        element("p", *keys, class_="legends", aria_hidden="true"),
        class_="wide",
    )
    return _section(
        "Trials", figure if picture else "", trial_table(values, best), id_="trial-section"
    )


def _best(rows: Sequence[Values]) -> object:
    """Return the number of the trial that was chosen: as marked, else the fastest that met it."""
    tried = [row for row in rows if row.get("number")]
    marked = [row for row in tried if row.get("best")]
    if marked:
        return marked[0].get("number")
    met = [row for row in tried if row.get("met")]
    if met:
        return min(met, key=lambda row: _or_infinite(_cost(row))).get("number")
    lost = [row for row in tried if finite(row.get("loss")) is not None]
    return min(lost, key=lambda row: finite(row.get("loss")) or 0.0).get("number") if lost else None


def _or_infinite(value: float | None) -> float:
    return float("inf") if value is None else value


def _cost(row: Values) -> float | None:
    """Return the latency as percent of float's, both measured in turns; None when not measured."""
    latency, original = finite(row.get("latency_ms")), finite(row.get("float_latency_ms"))
    return 100 * latency / original if latency is not None and original else None


def _pareto(values: Values, rows: Sequence[Values], best: object) -> Html:
    metrics = list(dict.fromkeys(name for row in rows for name in mapping(row.get("scores"))))
    single = metrics[0] if len(metrics) == 1 and _higher_is_better(values) else None
    has_times = any(_cost(row) is not None for row in rows if row.get("number"))
    original = None if single is None else pair(mapping(values.get("accuracy")).get(single), "")[0]

    def quality(row: Values) -> float | None:
        if single is not None:
            return finite(mapping(row.get("scores")).get(single))
        loss = finite(row.get("loss"))
        return None if loss is None else -100 * loss

    def cost(row: Values) -> float | None:
        if has_times:
            return _cost(row)
        bytes_ = finite(row.get("size"))
        return None if bytes_ is None else bytes_ / 1e6

    placed = [
        (row, x, y)
        for row in rows
        if row.get("number") and (x := cost(row)) is not None and (y := quality(row)) is not None
    ]
    if not placed:
        return Html("")
    cost_name = "latency, % of float" if has_times else "size, MB"
    quality_name = single if single is not None else "loss, % (negated)"
    points = []
    for row, x, y in placed:
        efficient = not any((a <= x and b >= y and (a < x or b > y)) for _, a, b in placed)
        is_best = row.get("number") == best
        points.append(
            Point(
                x,
                y,
                f"trial {row.get('number')}: {row.get('change') or ''} "
                f"({quality_name} {significant(y, 4)}, {cost_name} {significant(x)})",
                "best" if is_best else "met" if row.get("met") else "missed",
                efficient,
                str(row.get("number")) if efficient or is_best else "",
            )
        )
    reference = original if single is not None else 0.0
    whole = 100.0 if has_times else (finite(values.get("float_bytes")) or 0.0) / 1e6
    if reference is not None and whole:
        points.append(Point(whole, reference, "float model", "original"))
    return pareto_picture(
        "Trials: quality against cost",
        cost_name,
        quality_name,
        points,
        _limit(values, reference) if reference is not None else None,
    )


def _higher_is_better(values: Values) -> bool:
    accuracy = mapping(mapping(mapping(values.get("config")).get("tuning")).get("accuracy"))
    return accuracy.get("higher_is_better", True) is not False


def _limit(values: Values, reference: float) -> float | None:
    """Return the quality that the criterion asks for, where it is one number."""
    accuracy = mapping(mapping(mapping(values.get("config")).get("tuning")).get("accuracy"))
    relative, absolute = finite(accuracy.get("relative")), finite(accuracy.get("absolute"))
    if reference == 0.0:
        return None if relative is None or absolute is not None else -100 * relative
    if absolute is not None:
        return reference - absolute
    return None if relative is None else reference - relative * abs(reference)


# ---- Advice, origin ------------------------------------------------------------------------------


def _advice(advice: Values) -> Html:
    """Return what an analysis advises, with what was measured of it."""
    if not advice:
        return Html("")
    named = [str(name) for name in items(advice.get("layers"))]
    listed = element("ul", *(element("li", element("code", name)) for name in named))
    others = [element("p", f"Or {line}") for line in items(advice.get("lines"))[1:]]
    many = len(named) > 2  # fewer stand in the sentence
    return element(
        "section",
        element("h2", "Advice"),
        element("p", advice.get("sentence", ""), class_="large-text"),
        *others,
        element("details", element("summary", f"The {len(named)} layers"), listed) if many else "",
        element("pre", advice.get("yaml", "")) if advice.get("yaml") else "",
        id="advice",
        class_="callout",
    )


def _origin(values: Values) -> Html:
    """Return versions and the configuration in full, folded away."""
    versions = mapping(values.get("versions"))
    config = mapping(values.get("config"))
    parts = []
    if versions:
        parts.append(plain_pairs(versions, "pairs"))
    if config:
        shown = json.dumps(config, indent=1, ensure_ascii=False, default=str)
        parts.append(element("details", element("summary", "Configuration"), element("pre", shown)))
    return _section("Made with", *parts, id_="origin") if parts else Html("")


__all__ = ["render"]
