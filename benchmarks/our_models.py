"""Our own runners for bench_models.py; a quantised file is kept while its makers are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peer_models import CALIBRATION, FOLDER, digest, kept, slug
from real_models import Feeds, Outputs, RealModel

import lowprec

Run = Callable[[Feeds], Outputs]
DECIDING = ("quantization", "calibration", "graph", "numerics", "passes")  # what a hub is made by


def our_float(source: Path) -> Run:
    run: Run = lowprec.compile(str(source)).run
    return run


def our_bf16(source: Path) -> Run:
    """Return the model in bf16.

    Raises:
        lowprec.errors.LowprecError: this version has no bf16 models.
    """
    run: Run = lowprec.quantize(str(source), precision="bf16").run
    return run


def int8_file(model: RealModel, source: Path) -> Path:
    """Return the file that lowprec.quantize() makes of `source`."""
    package = Path(lowprec.__file__).parent
    files = (path for name in DECIDING for path in sorted((package / name).glob("*.py")))
    code = [path.read_bytes() for path in files]
    key = digest(source.read_bytes(), str(CALIBRATION), *code)
    path = FOLDER / f"{slug(model.name)}-lowprec-{key}.onnx"
    for old in FOLDER.glob(f"{slug(model.name)}-lowprec-*.onnx"):
        if old != path:
            old.unlink()

    def make(partial: Path) -> None:
        lowprec.quantize(str(source), model.feeds(CALIBRATION, 1)).save(partial)

    return kept(path, make)


def our_int8(model: RealModel, source: Path) -> Run:
    run: Run = lowprec.load(int8_file(model, source)).run
    return run
