"""What was done to a model, layer by layer, and why: plain data as text, JSON and one HTML page.

Everything in the JSON form follows from the model, the data and the configuration, so that the same
inputs give the same file. Times do not: they stay in the report in memory (`speed`, `times`), are
shown in text and on the page, and are written where they are asked for (`to_json(times=True)`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lowprec.errors import ModelError

FORMAT = 1
MEASURED = ("speed", "times", "sensitivity", "advice")
"""What differs from run to run, or is found by looking longer: not in the plain JSON form."""
TRIAL_TIMES = ("latency_ms", "float_latency_ms", "seconds")
"""The same of one trial."""


@dataclass
class LayerRecord:
    """One operator of the simplified model: strings, numbers and None.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        precision: "int8", "bf16" or "f32".
        reason: Why it has this precision; never empty for f32.
        macs: Multiply-adds for the shapes seen in calibration; None when they are not known.
        tensor: Name of the quantised activation that the layer reads (int8 layers only).
        rmin: Smallest real number that its codes can hold.
        rmax: Largest one.
        method: Calibration method that chose the range.
        clipped: Share of the observed values outside the range, 0..1.
        range_note: What else was considered for the range, and why it was not taken.
        scale: Real units per code of the activation.
        zero_point: Code of real 0.
        weight_sqnr: Signal to quantisation noise of the weights, dB; None without weights, or when
            nothing is lost.
        activation_sqnr: The same of the activation, expected from its histogram, dB.
        raised_channels: Output channels whose weight scale was raised so that the bias fits s32.
    """

    name: str
    op_type: str
    precision: str
    reason: str
    macs: int | None = None
    tensor: str | None = None
    rmin: float | None = None
    rmax: float | None = None
    method: str | None = None
    clipped: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    weight_sqnr: float | None = None
    activation_sqnr: float | None = None
    raised_channels: int = 0
    range_note: str = ""


@dataclass
class Report:
    """The account of one quantisation.

    Attributes:
        model: Name of the model: its file or graph.
        config: `Config.to_dict()` of the configuration.
        samples: Calibration feeds that were consumed.
        versions: Package name -> version.
        layers: One record per operator that computes with floats or codes.
        int8_macs: Multiply-adds of the int8 layers, for the shapes seen in calibration.
        total_macs: Multiply-adds of the whole model.
        float_bytes: Size of the float model's constants; None when not measured.
        int8_bytes: Size of the constants of the int8 or bf16 model; None when not measured.
        notes: What concerns the whole model, one sentence each.
        agreement: Per output, how close int8 or bf16 comes to float on a few calibration samples:
            `lowprec.agreement.Agreement.to_dict()`.
        algorithms: What each algorithm did: {"name", "changed", "gain" in dB or None, "note"}.
        trials: What a search tried, in order, best configuration included.
        accuracy: Metric -> {"float": ..., "int8" or "bf16": ...}, where it was measured.
        histograms: Name of a quantised activation -> what calibration saw of it, coarsely: {"low",
            "high": smallest and largest value, "counts": values per bin, two digits of each; the
            bins are of equal width}.
        speed: As `accuracy`, for times; in memory only.
        times: Layer -> {"float": ..., "int8" or "bf16": ...}, milliseconds; in memory only.
        sensitivity: What each layer costs, where it was analysed
            (`lowprec.sensitivity.LayerSensitivity.to_dict()`); in memory only.
        advice: What an analysis advises (`lowprec.sensitivity.Advice.to_dict()`); in memory only.
    """

    model: str
    config: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    layers: list[LayerRecord] = field(default_factory=list)
    int8_macs: int = 0
    total_macs: int = 0
    float_bytes: int | None = None
    int8_bytes: int | None = None
    notes: list[str] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    algorithms: list[dict[str, Any]] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)
    times: dict[str, dict[str, float]] = field(default_factory=dict)
    sensitivity: list[dict[str, Any]] = field(default_factory=list)
    advice: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_parts(cls, reports: Mapping[str, Report], model: str, notes: Sequence[str]) -> Report:
        """Return the reports of a model's parts, by name, as that of the whole model.

        Args:
            reports: One for each part, all of one configuration; at least one.
            model: Name of the whole.
            notes: Why it is in parts; the parts' own follow.
        """
        found = list(reports.values())
        return replace(
            found[0],
            model=model,
            samples=min(report.samples for report in found),
            layers=[layer for report in found for layer in report.layers],
            int8_macs=sum(report.int8_macs for report in found),
            total_macs=sum(report.total_macs for report in found),
            float_bytes=_sum([report.float_bytes for report in found]),
            int8_bytes=_sum([report.int8_bytes for report in found]),
            notes=[
                *notes,
                *(f"{name}: {note}" for name, report in reports.items() for note in report.notes),
            ],
            agreement=[
                {**output, "name": f"{name}: {output['name']}"}
                for name, report in reports.items()
                for output in report.agreement
            ],
            algorithms=[],
            trials=[],
            histograms={},
            speed={},
            times={},
        )

    @property
    def precision(self) -> str:
        """What the configuration asked for: "int8", "bf16" or another of its precisions."""
        return str(self.config.get("precision", "int8"))

    @property
    def int8_fraction(self) -> float:
        """Share of the multiply-adds that run in int8, 0..1 (0 for a model without any)."""
        return self.int8_macs / self.total_macs if self.total_macs else 0.0

    @property
    def bf16_fraction(self) -> float:
        """Share of the multiply-adds whose operands are bf16, 0..1."""
        macs = sum(layer.macs or 0 for layer in self.layers if layer.precision == "bf16")
        return macs / self.total_macs if self.total_macs else 0.0

    def _share(self, precision: str) -> float:
        """Return the share of the multiply-adds of the layers in `precision`, 0..1."""
        if precision == "int8" and not any(x.precision == "int8-dynamic" for x in self.layers):
            return self.int8_fraction
        macs = sum(layer.macs or 0 for layer in self.layers if layer.precision == precision)
        return macs / self.total_macs if self.total_macs else 0.0

    def to_dict(self, *, times: bool = False) -> dict[str, Any]:
        """Return what is saved, as dicts and lists; what a layer leaves open is left out.

        Args:
            times: With what was measured in this very run: it differs from run to run.
        """
        values = asdict(self)
        if not times:
            for key in MEASURED:
                del values[key]
            values["trials"] = [
                {key: value for key, value in trial.items() if key not in TRIAL_TIMES}
                for trial in values["trials"]
            ]
        values["layers"] = [
            {key: value for key, value in layer.items() if value is not None}
            for layer in values["layers"]
        ]
        return {"format": FORMAT, **values}

    def to_json(self, *, times: bool = False) -> str:
        """Return JSON text that `from_json` turns back into an equal report.

        Args:
            times: With what was measured in this very run. Without, the same model, data and
                configuration give the same text.
        """
        values = self.to_dict(times=times)
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the report as one self-contained HTML page, which opens without a network.

        Args:
            path: Where to write it, too; None writes nothing.

        Raises:
            OutputError: the file cannot be written.
        """
        from lowprec.report_html import render

        page = render(self.to_dict(times=True))
        if path is not None:
            from lowprec.atomic import write_atomically

            write_atomically(path, page.encode())
        return page

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page where the file's name ends in .html or .htm, else the JSON text.

        Raises:
            OutputError: the file cannot be written.
        """
        from lowprec.atomic import write_atomically

        if os.fspath(path).lower().endswith((".html", ".htm")):
            self.to_html(path)
        else:
            write_atomically(path, self.to_json().encode())

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote. Keys of a later version are left out.

        Raises:
            ModelError: the text is no report.
        """
        try:
            values = json.loads(text)
            known = {item.name for item in fields(cls)}
            kept = {key: value for key, value in values.items() if key in known}
            kept["layers"] = [_layer_from(layer) for layer in kept.get("layers", [])]
            return cls(**kept)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the report is damaged ({error}); quantise the model again, or delete the "
                "metadata entry that holds it"
            ) from None

    def __str__(self) -> str:
        """Return a table of the layers, the other operators counted by reason."""
        lines = [f"{self.model}: {self._summary()}", *(f"note: {note}" for note in self.notes)]
        lines += [
            f"{metric}: float {values.get('float', float('nan')):.6g}, "
            f"{self.precision} {values.get(self.precision, float('nan')):.6g}"
            for metric, values in (*self.accuracy.items(), *self.speed.items())
        ]
        lines += [_agreement_line(output) for output in self.agreement]
        rows = [
            _row(layer, self.times.get(layer.name, {}), self.precision)
            for layer in self.layers
            if layer.macs or layer.tensor
        ]
        if rows:
            heads = (*_HEADER[:-3], "ms float", f"ms {self.precision}", *_HEADER[-3:])
            lines += ["", *_aligned(heads, rows)]
        others = Counter(
            (layer.precision, layer.op_type, layer.reason)
            for layer in self.layers
            if not (layer.macs or layer.tensor)
        )
        if others:
            lines += ["", "other operators:"]
            lines += [
                f"  {precision:5} {count:4} x {op_type}: {reason}"
                for (precision, op_type, reason), count in sorted(others.items())
            ]
        return "\n".join(lines)

    def _summary(self) -> str:
        precision = self.precision
        counts = Counter(layer.precision for layer in self.layers if layer.precision != "f32")
        names = sorted(counts, key=lambda name: (name != precision, name)) or [precision]
        operators = [f"{counts[name]} in {name}" for name in names]
        operators[0] = f"{counts[names[0]]} of {len(self.layers)} operators in {names[0]}"
        shares = " and ".join(f"{100 * self._share(name):.1f} %" for name in names)
        millions = f"{self.total_macs / 1e6:,.1f} million"
        parts = [*operators, f"{shares} of {millions} multiply-adds"]
        if precision != "bf16" or self.samples:
            parts.append(f"{self.samples} calibration samples")
        if self.float_bytes and self.int8_bytes:
            parts.append(
                f"{self.float_bytes:,} -> {self.int8_bytes:,} bytes "
                f"({self.int8_bytes / self.float_bytes:.2f})"
            )
        return ", ".join(parts)


_HEADER = (
    "layer",
    "operator",
    "precision",
    "multiply-adds",
    "range",
    "method",
    "clipped",
    "dB act.",
    "dB weights",
    "why",
)


def _agreement_line(output: dict[str, Any]) -> str:
    sqnr, argmax = output.get("sqnr"), output.get("argmax")
    text = f"output {output['name']}: {'equal' if sqnr is None else f'SQNR {sqnr:.1f} dB'}"
    if argmax is not None:
        text += f", the same largest entry in {100 * argmax:.1f} %"
    return f"{text}, on {output['samples']} calibration samples"


def _row(layer: LayerRecord, times: dict[str, float], precision: str) -> tuple[str, ...]:
    span = ""
    if layer.rmin is not None and layer.rmax is not None:
        span = f"{layer.rmin:.4g} .. {layer.rmax:.4g}"
    reason = layer.reason
    if layer.raised_channels:
        reason = f"{reason} {layer.raised_channels} channels' scales raised for the bias".strip()
    return (
        layer.name,
        layer.op_type,
        layer.precision,
        "" if layer.macs is None else f"{layer.macs:,}",
        span,
        layer.method or "",
        "" if layer.clipped is None else f"{100 * layer.clipped:.3f} %",
        *(f"{times[key]:.3f}" if key in times else "" for key in ("float", precision)),
        "" if layer.activation_sqnr is None else f"{layer.activation_sqnr:.1f}",
        "" if layer.weight_sqnr is None else f"{layer.weight_sqnr:.1f}",
        reason,
    )


def _aligned(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a line per row below `heads`; columns that are empty throughout are left out."""
    shown = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    table = [[row[column] for column in shown] for row in (tuple(heads), *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _layer_from(values: dict[str, Any]) -> LayerRecord:
    known = {item.name for item in fields(LayerRecord)}
    return LayerRecord(**{key: value for key, value in values.items() if key in known})


def _sum(values: Sequence[int | None]) -> int | None:
    return None if any(value is None for value in values) else sum(v for v in values if v)
