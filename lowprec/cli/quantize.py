"""`lowprec quantize`: a float model and data in, an int8 or bf16 model out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from lowprec.errors import DataError


@click.command()
@click.argument("model")
@click.option(
    "--calibration",
    metavar="DATA",
    help="An .npz file, a folder of them, or module:function returning an iterable of feeds; "
    "bf16 needs none.",
)
@click.option("--precision", default="int8", help="int8 (the default) or bf16.")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="The model made.")
@click.option("-c", "--config", metavar="CONF.yaml", help="Configuration.")
@click.option("--report", metavar="REPORT.json", help="Write the full report too.")
def quantize(
    model: str,
    calibration: str | None,
    precision: str,
    output: str,
    config: str | None,
    report: str | None,
) -> None:
    """Quantise MODEL to int8 with typical data, or to bf16, and save it as one ONNX file."""
    from lowprec import api
    from lowprec.atomic import resolve_target, write_atomically
    from lowprec.cli.display import megabytes
    from lowprec.config import Config
    from lowprec.progress import progress_bar

    # What cannot be written or read is said before the work, not after it.
    for target in filter(None, (output, report)):
        resolve_target(target)
    settings = Config.of(config)
    data = None if calibration is None else find_data(calibration)
    with progress_bar("calibrating") as progress:
        quantized = api.quantize(
            model, data, precision=precision, config=settings, progress=progress
        )
    quantized.save(output)
    if report is not None:
        write_atomically(report, quantized.report.to_json().encode())
    click.echo(str(quantized.report))
    click.echo(f"wrote {output}: {megabytes(Path(output).stat().st_size)}")


def find_data(text: str) -> str | Callable[[], Any]:
    """Return the path, or the function that `module:function` names.

    Raises:
        DataError: the module cannot be imported or has no such function.
    """
    if Path(text).exists() or ":" not in text or text.endswith(".npz"):
        return text
    module_name, _, function_name = text.rpartition(":")
    sys.path.insert(0, "")  # a module in the working directory, as `python -m` finds it
    try:
        function = getattr(import_module(module_name), function_name)
    except ImportError as error:
        raise DataError(
            f"--calibration {text}: module '{module_name}' cannot be imported: {error}"
        ) from None
    except AttributeError:
        raise DataError(
            f"--calibration {text}: module '{module_name}' has no '{function_name}'"
        ) from None
    finally:
        sys.path.remove("")
    if not callable(function):
        raise DataError(f"--calibration {text}: it is not a function; name one without arguments")
    return function  # type: ignore[no-any-return]
