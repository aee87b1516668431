"""`lowprec inspect`: a model's graph as a table, or what quantising each of its layers costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lowprec.cli.opening import shape_option

if TYPE_CHECKING:
    import onnx_ir as ir

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_SHORT = {"FLOAT": "f32", "FLOAT16": "f16", "BFLOAT16": "bf16", "DOUBLE": "f64"}


@click.command()
@click.argument("model")
@shape_option
@click.option("--sensitivity", is_flag=True, help="Measure what quantising each layer costs.")
@click.option(
    "--calibration",
    metavar="DATA",
    help="With --sensitivity: an .npz file, a folder of them, or module:function.",
)
@click.option("-c", "--config", metavar="CONF.yaml", help="With --sensitivity: configuration.")
@click.option("--precision", default="int8", help="With --sensitivity: of the whole model.")
@click.option("--feeds", type=click.IntRange(min=1), default=8, help="Samples to measure on (8).")
@click.option(
    "--evaluate",
    metavar="MODULE:FUNCTION",
    help="With --sensitivity: a function from a model to a score, or a dict of them: the advice "
    "says what it wins.",
)
@click.option("--html", metavar="OUT.html", help="With --sensitivity: write the page.")
@click.option("--json", "as_json", is_flag=True, help="With --sensitivity: print JSON only.")
def inspect(
    model: str,
    shapes: tuple[str, ...],
    sensitivity: bool,
    calibration: str | None,
    config: str | None,
    precision: str,
    feeds: int,
    evaluate: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Draw the graph of MODEL: operator, precision, output shape, multiply-adds, weights per layer.

    Sizes that the model leaves open count as 1 unless --shape gives them.

    With --sensitivity: what quantising each layer costs, the most harmful first, and which layers
    are best put in a higher precision. The same model, data and configuration are not analysed
    twice.
    """
    if sensitivity:
        from lowprec.cli.sensitivity import Question, print_sensitivity

        print_sensitivity(
            Question(model, calibration, config, precision, feeds, evaluate), html, as_json
        )
        return
    given_too: dict[str, object] = {
        "--calibration": calibration,
        "--config": config,
        "--evaluate": evaluate,
        "--html": html,
        "--json": as_json,
    }
    for option, given in given_too.items():
        if given:
            raise click.UsageError(f"{option} goes with --sensitivity.")
    from lowprec.api import capture
    from lowprec.cli.display import print_table, shape_text
    from lowprec.cli.opening import parse_shapes

    hub = capture(model).graph
    inputs = list(hub.graph.inputs)
    sizes_given = parse_shapes(shapes, (str(value.name) for value in inputs))
    rows = describe_layers(hub, sizes_given)
    for value in inputs:
        sizes = sizes_given.get(str(value.name)) or _declared(value)
        click.echo(f"input {value.name}: {_dtype_name(value.dtype)} {shape_text(sizes)}")
    for value in hub.graph.outputs:
        click.echo(
            f"output {value.name}: {_dtype_name(value.dtype)} {shape_text(_declared(value))}"
        )
    print_table(
        ("#", "layer", "operator", "precision", "output", "Mmac", "weights"),
        (
            (
                number,
                row.name,
                row.operator,
                row.precision,
                "?" if row.shape is None else shape_text(row.shape),
                "?" if row.macs is None else f"{row.macs / 1e6:.3f}" if row.macs else "",
                row.weights or "",
            )
            for number, row in enumerate(rows)
        ),
        numbers=("#", "Mmac", "weights"),
    )
    _print_totals(hub, rows)


@dataclass(frozen=True)
class LayerRow:
    """One operator of a graph.

    Attributes:
        name: The node's name.
        operator: ONNX operator.
        precision: 'int8' where it reads dequantised codes, else the type that it computes with.
        shape: Of its first output; None when not known.
        macs: Multiply-adds; None when not known.
        weights: Elements of its constant inputs.
    """

    name: str
    operator: str
    precision: str
    shape: tuple[int, ...] | None
    macs: int | None
    weights: int


def describe_layers(hub: ir.Model, input_shapes: Mapping[str, tuple[int, ...]]) -> list[LayerRow]:
    """Return a row per node of the main graph; Q/DQ pairs show as their neighbours' precision."""
    from lowprec.quantization.macs import concrete_shapes, count_macs

    shapes = concrete_shapes(hub, input_shapes)
    dtypes = _dtypes(hub)
    return [
        LayerRow(
            name=str(node.name),
            operator=node.op_type,
            precision=_precision(node, dtypes),
            shape=shapes.get(str(node.outputs[0].name)) if node.outputs else None,
            macs=count_macs(node, shapes),
            weights=sum(_constant_size(value) for value in node.inputs),
        )
        for node in hub.graph
        if node.op_type not in _QUANTIZERS
    ]


def _dtypes(hub: ir.Model) -> dict[str, ir.DataType]:
    from onnx_ir.passes.common import ShapeInferencePass

    copy = hub.clone()
    ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    return {
        str(value.name): value.dtype
        for node in copy.graph
        for value in node.outputs
        if value.dtype is not None
    }


def _precision(node: ir.Node, dtypes: Mapping[str, ir.DataType]) -> str:
    producers = [value.producer() for value in node.inputs if value is not None]
    if node.op_type in _INTEGER or any(
        producer is not None and producer.op_type == "DequantizeLinear" for producer in producers
    ):
        return "int8"
    return _dtype_name(dtypes.get(str(node.outputs[0].name)) if node.outputs else None)


def _dtype_name(dtype: ir.DataType | None) -> str:
    if dtype is None:
        return "?"
    return _SHORT.get(dtype.name, dtype.name.lower())


def _constant_size(value: ir.Value | None) -> int:
    """Return the elements of a constant, also of one behind a DequantizeLinear."""
    if value is None:
        return 0
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return _constant_size(producer.inputs[0])
    return 0 if value.const_value is None else int(value.const_value.size)


def _declared(value: ir.Value) -> list[object] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _print_totals(hub: ir.Model, rows: list[LayerRow]) -> None:
    from lowprec.cli.display import megabytes, percent
    from lowprec.graph import constant_bytes

    total = sum(row.macs or 0 for row in rows)
    int8 = sum(row.macs or 0 for row in rows if row.precision == "int8")
    size = constant_bytes(hub)
    counts = Counter(row.operator for row in rows)
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    click.echo(f"{len(rows)} operators: {listed}")
    click.echo(
        f"{total / 1e6:.1f} million multiply-adds, {percent(int8 / total if total else 0.0)} of "
        f"them in int8; constants {megabytes(size)}; opset {hub.graph.opset_imports.get('')}"
    )
