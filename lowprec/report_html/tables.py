"""The tables: layers (to be sorted and searched), other operators, algorithms, trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowprec.report_html.markup import (
    Html,
    decibels,
    element,
    finite,
    gained,
    joined,
    number,
    score,
    significant,
    size,
)
from lowprec.report_html.pictures import range_picture
from lowprec.report_html.summary import shade
from lowprec.report_html.values import Values, is_layer, layers, mapping, mappings, pair, precision


@dataclass(frozen=True)
class Column:
    """A column of a table that can be sorted.

    Attributes:
        head: Its name.
        cell: Makes the content of a row's cell; empty where there is nothing to say.
        key: Makes what rows are sorted by; None sorts by the text.
        class_: For the style sheet.
        help: Longer explanation of the name.
    """

    head: str
    cell: Callable[[Values], object]
    key: Callable[[Values], float | None] | None = None
    class_: str = ""
    help: str = ""


def table(columns: Sequence[Column], rows: Sequence[Values], *, caption: str, name: str) -> Html:
    """Return a table; columns without any content are left out."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    shown = [index for index in range(len(columns)) if any(str(row[index]) for row in cells)]
    heads = [
        element(
            "th",
            element("span", columns[index].head),
            scope="col",
            role="columnheader",
            class_=columns[index].class_ or None,
            title=columns[index].help or None,
        )
        for index in shown
    ]
    body = []
    for row, contents in zip(rows, cells, strict=True):
        made = []
        for position, index in enumerate(shown):
            column = columns[index]
            key = None if column.key is None else column.key(row)
            made.append(
                element(
                    "td" if position else "th",
                    contents[index],
                    scope=None if position else "row",
                    role="cell" if position else "rowheader",
                    class_=column.class_ or None,
                    data_label=column.head,
                    data_key=None if column.key is None else "" if key is None else f"{key:.9g}",
                )
            )
        body.append(element("tr", *made, role="row", data_precision=row.get("precision")))
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *heads, role="row"), role="rowgroup"),
            element("tbody", *body, role="rowgroup"),
            id=name,
            role="table",
            class_="sortable",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


# ---- Layers --------------------------------------------------------------------------------------


def layer_table(values: Values) -> Html:
    """Return a row per layer: precision, why, range, error, time before and after."""
    rows = layers(values)
    if not rows:
        return element("p", "The model has no layers with multiply-adds.")
    order = {id(row): position for position, row in enumerate(rows, 1)}
    total = finite(values.get("total_macs")) or 0.0
    low = precision(values)
    times, histograms = mapping(values.get("times")), mapping(values.get("histograms"))
    found = {str(layer.get("name")): layer for layer in mappings(values.get("sensitivity"))}

    def sensitivity(row: Values, key: str) -> Any:
        return found.get(str(row.get("name")), {}).get(key)

    def time(row: Values, which: int) -> float | None:
        return pair(times.get(str(row.get("name"))), low)[which]

    slowest = max((time(row, which) or 0.0 for row in rows for which in (0, 1)), default=0.0)

    def time_cell(row: Values, which: int) -> object:
        value = time(row, which)
        if value is None:
            return ""
        tone = "f32" if which == 0 else shade(low)
        return joined([significant(value, 2), _bar(value / slowest if slowest else 0, tone)])

    def share_cell(row: Values) -> object:
        macs = finite(row.get("macs"))
        if macs is None:
            return ""
        share = macs / total if total else 0.0
        return joined([f"{100 * share:.1f} %", _bar(share, shade(row.get("precision")))])

    def decibel_column(head: str, key: str, help_: str) -> Column:
        return Column(
            head,
            lambda row: decibels(row.get(key)),
            lambda row: number(row.get(key)),
            "number",
            help_,
        )

    def sensitivity_column(head: str, key: str, help_: str) -> Column:
        def cell(row: Values) -> object:
            value = number(sensitivity(row, key))
            if value is None:
                return ""
            return gained(value) if key == "gain" else decibels(value)

        return Column(head, cell, lambda row: number(sensitivity(row, key)), "number", help_)

    columns = [
        Column("#", lambda row: order[id(row)], lambda row: order[id(row)], "number place"),
        Column("layer", lambda row: _name(row), None, "name"),
        Column("precision", lambda row: _chip(row.get("precision")), None, "chips"),
        Column(
            "share",
            share_cell,
            lambda row: finite(row.get("macs")),
            "number",
            "share of the model's multiply-adds",
        ),
        Column(
            "range",
            lambda row: _range_cell(row, mapping(histograms.get(str(row.get("tensor"))))),
            lambda row: _width(row),
            "ranges",
            "what the layer reads: histogram (logarithmic) and the range that its codes hold",
        ),
        Column(
            "clipped",
            lambda row: _clipped(row),
            lambda row: finite(row.get("clipped")),
            "number",
            "share of the observed values outside the range",
        ),
        decibel_column("dB act.", "activation_sqnr", "signal to noise of what the layer reads"),
        decibel_column("dB weights", "weight_sqnr", "signal to noise of the weights"),
        sensitivity_column(
            "dB alone", "isolated", "output signal to noise when only this layer is quantised"
        ),
        sensitivity_column(
            "dB so far", "accumulated", "signal to noise of this layer's output in the whole model"
        ),
        sensitivity_column(
            "dB to win", "gain", "output signal to noise won when this layer goes back"
        ),
        Column("ms float", lambda row: time_cell(row, 0), lambda row: time(row, 0), "number"),
        Column(f"ms {low}", lambda row: time_cell(row, 1), lambda row: time(row, 1), "number"),
        Column("why", _why, None, "why"),
    ]
    return joined([_meanings(columns, rows), table(columns, rows, caption="Layers", name="layers")])


def _meanings(columns: Sequence[Column], rows: Sequence[Values]) -> Html:
    """Return what the heads of the columns shown mean, folded away: a phone shows no tooltips."""
    helped = {
        column.head: column.help
        for column in columns
        if column.help and any(str(column.cell(row)) for row in rows)
    }
    if not helped:
        return Html("")
    summary = element("summary", "What the columns mean")
    return element("details", summary, plain_pairs(helped, "meanings"), class_="meanings")


def _name(row: Values) -> Html:
    return joined(
        [
            element("span", row.get("name", ""), class_="node"),
            element("span", row.get("op_type", ""), class_="op"),
        ]
    )


def _chip(name: object) -> Html:
    return element("span", name or "?", class_=f"chip {shade(name)}")


def _bar(share: float, class_: str) -> Html:
    width = f"width:{100 * min(max(share, 0.0), 1.0):.1f}%"
    bar = element("i", style=width, class_=f"shade {class_}")
    return element("span", bar, class_="meter", aria_hidden="true")


def _range_cell(row: Values, histogram: Values) -> object:
    rmin, rmax = finite(row.get("rmin")), finite(row.get("rmax"))
    if rmin is None or rmax is None:
        return ""
    ends = f"{significant(rmin)} … {significant(rmax)}"
    method = element("span", row.get("method") or "", class_="method")
    return joined([range_picture(row, histogram), element("span", ends, class_="ends"), method])


def _width(row: Values) -> float | None:
    rmin, rmax = finite(row.get("rmin")), finite(row.get("rmax"))
    return None if rmin is None or rmax is None else rmax - rmin


def _clipped(row: Values) -> str:
    share = finite(row.get("clipped"))
    if share is None:
        return ""
    return "0" if share == 0 else f"{significant(100 * share, 2).rstrip('0').rstrip('.')} %"


def _why(row: Values) -> str:
    raised = finite(row.get("raised_channels"))
    extra = f"{raised:.0f} channels' scales raised for the bias" if raised else ""
    return "; ".join(part for part in (str(row.get("reason") or ""), extra) if part)


def other_operators(values: Values) -> Html:
    """Return the operators without multiply-adds, counted by reason, folded away."""
    others = Counter(
        (str(layer.get("precision")), str(layer.get("op_type")), str(layer.get("reason") or ""))
        for layer in mappings(values.get("layers"))
        if not is_layer(layer)
    )
    if not others:
        return Html("")
    rows: list[Values] = [
        {"count": count, "precision": low, "op": op, "reason": reason}
        for (low, op, reason), count in others.most_common()
    ]
    columns = [
        Column("operator", lambda row: row["op"], None, "name"),
        Column("count", lambda row: row["count"], lambda row: row["count"], "number"),
        Column("precision", lambda row: _chip(row["precision"]), None, "chips"),
        Column("why", lambda row: row["reason"], None, "why"),
    ]
    count = sum(others.values())
    return element(
        "details",
        element("summary", f"{count} other operators"),
        table(columns, rows, caption="Other operators", name="others"),
    )


# ---- Algorithms and trials -----------------------------------------------------------------------


def algorithm_table(values: Values) -> Html:
    """Return what each algorithm did and won."""
    rows = mappings(values.get("algorithms"))
    columns = [
        Column("algorithm", lambda row: row.get("name", ""), None, "name"),
        Column(
            "changed",
            lambda row: _count(row.get("changed")),
            lambda row: number(row.get("changed")),
            "number",
            "how many places",
        ),
        Column(
            "gain, dB",
            lambda row: gained(number(row.get("gain"))),
            lambda row: number(row.get("gain")),
            "number",
        ),
        Column("what", lambda row: row.get("note", ""), None, "why"),
    ]
    return table(columns, rows, caption="Algorithms", name="algorithms")


def _count(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    found = finite(value)
    return "" if found is None else f"{found:.0f}"


def trial_table(values: Values, best: object) -> Html:
    """Return the trials of a search, in order."""
    rows = mappings(values.get("trials"))
    metrics = list(dict.fromkeys(name for row in rows for name in mapping(row.get("scores"))))

    def metric_column(name: str) -> Column:
        return Column(
            name,
            lambda row: _score(mapping(row.get("scores")).get(name)),
            lambda row: finite(mapping(row.get("scores")).get(name)),
            "number",
        )

    def verdict(row: Values) -> object:
        if row.get("error"):
            return element("span", "failed", class_="chip bad")
        if not row.get("number"):
            return element("span", "float", class_="chip f32")
        word = "met" if row.get("met") else "missed"
        if row.get("number") == best:
            word = f"best, {word}"
        return element("span", word, class_=f"chip {'good' if row.get('met') else 'warn'}")

    columns = [
        Column(
            "#", lambda row: row.get("number", ""), lambda row: finite(row.get("number")), "number"
        ),
        Column("tried", _tried, None, "why"),
        Column("verdict", verdict, None, "chips"),
        *map(metric_column, metrics),
        Column(
            "loss",
            lambda row: _percent(row.get("loss")),
            lambda row: finite(row.get("loss")),
            "number",
            "relative loss of the worst metric",
        ),
        Column(
            "ms",
            lambda row: _figure(row.get("latency_ms")),
            lambda row: finite(row.get("latency_ms")),
            "number",
        ),
        Column(
            "size",
            lambda row: "" if finite(row.get("size")) is None else size(int(row["size"])),
            lambda row: finite(row.get("size")),
            "number",
        ),
    ]
    return table(columns, rows, caption="Trials", name="trials")


def _tried(row: Values) -> str:
    same = row.get("same_as")
    parts = [str(row.get("change") or ""), str(row.get("error") or "")]
    if same is not None:
        parts.append(f"the same model as trial {same}")
    return "; ".join(part for part in parts if part)


def _score(value: Any) -> str:
    found = finite(value)
    return "" if found is None else score(found)


def _percent(value: Any) -> str:
    found = finite(value)
    if found is None:
        return ""
    return f"{100 * found:+.2f} %".replace("-", "−") if found else "0"


def _figure(value: Any) -> str:
    found = finite(value)
    return "" if found is None else significant(found)


def plain_pairs(pairs: Mapping[str, object], class_: str) -> Html:
    """Return names and values, one line each."""
    rows = [
        element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()
    ]
    return element("dl", *rows, class_=class_)
