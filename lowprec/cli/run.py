"""`lowprec run`: a model on data, outputs to a file."""

from __future__ import annotations

import click
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="X.npz", help="Inputs: an .npz file or folder.")
@click.option("-o", "--output", required=True, metavar="Y.npz", help="Where the outputs go.")
def run(model: str, data: str, output: str) -> None:
    """Run MODEL on every sample of the data and write its outputs.

    Outputs of samples of one size are stacked along axis 0 under the output's name; ragged ones are
    written as NAME/00000, NAME/00001, ...
    """
    from lowprec.atomic import output_errors, resolve_target, sync_folder, temporary_file
    from lowprec.cli.opening import open_model, read_feeds

    target = resolve_target(output)
    opened = open_model(model)
    names = [info.name for info in opened.compiled.outputs]
    results: dict[str, list[Array]] = {name: [] for name in names}
    count = 0
    for feed in read_feeds(data, opened.captured):
        for name, array in zip(names, opened.compiled.run(feed), strict=True):
            results[name].append(array)
        count += 1
    with output_errors(target), temporary_file(target) as temporary:
        np.savez(temporary.file, **_stacked(results))  # type: ignore[arg-type]  # its stub: bool
        temporary.move_to(target)
        sync_folder(target.parent)
    click.echo(f"ran {count} samples, wrote {', '.join(names)} to {output}")


def _stacked(results: dict[str, list[Array]]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, parts in results.items():
        shapes = {part.shape for part in parts}
        parts = [part.astype("U") if part.dtype == object else part for part in parts]
        if len(shapes) > 1:
            arrays |= {f"{name}/{number:05d}": part for number, part in enumerate(parts)}
        elif parts[0].ndim and parts[0].shape[0] == 1:
            arrays[name] = np.concatenate(parts)
        else:
            arrays[name] = np.stack(parts)
    return arrays
