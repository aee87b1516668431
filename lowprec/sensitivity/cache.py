"""Reports of analyses on disk: the same model, data and configuration are not analysed twice.

The key is a hash of contents, never of names or times of files. What is damaged, of another version
or another machine's instruction set counts as missing. The folder is that of compiled programs
(`LOWPREC_CACHE`, `lowprec.engine.kept`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from lowprec._ext import _core
from lowprec.atomic import write_atomically
from lowprec.engine.kept import EXTERNAL, cache_folder, code_fingerprint
from lowprec.errors import LowprecError
from lowprec.report import Report
from lowprec.threads import get_num_threads

MOST_KEPT = 100
"""Analyses on disk; the least recently used go first."""
LARGEST = 64 << 20
"""Bytes of a file that is read back."""
BLOCK = 1 << 20


def read_analysis(key: str) -> Report | None:
    """Return the report that was kept under `key`, or None."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, LowprecError):
        path = _path(key)
        if path is None or path.stat().st_size > LARGEST:
            return None
        values = json.loads(path.read_bytes())
        text = json.dumps(values["report"])
        if values["key"] != key or values["checksum"] != _checksum(text):
            return None
        report = Report.from_json(text)
        os.utime(path)
        return report
    return None


def keep_analysis(key: str, report: Report) -> bool:
    """Keep `report` under `key`; return whether that worked: a cache that does not is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, LowprecError):
        path = _path(key)
        if path is None:
            return False
        values = report.to_dict(times=True)
        entry = {"key": key, "checksum": _checksum(json.dumps(values)), "report": values}
        write_atomically(path, json.dumps(entry, allow_nan=False).encode())
        _make_room(path.parent)
        return True
    return False


def analysis_key(*parts: str) -> str:
    """Return a key made of `parts` and of what the numbers depend on besides.

    Args:
        parts: Hash of model and data, the configuration, and whatever else was asked for.
    """
    everything = [*parts, code_fingerprint(), _core.chosen_isa(), str(get_num_threads())]
    return _hash("\0".join(everything).encode())


def content_key(*paths: str | os.PathLike[str]) -> str | None:
    """Return a hash of the contents of files and of the .npz files in folders.

    None where one of them is no file, or a model whose weights lie in other files: those would not
    be seen.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in paths:
            for file in _files(Path(path)):
                digest.update(f"{file.suffix} {file.stat().st_size};".encode())
                last = b""
                for block in _blocks(file):
                    if EXTERNAL in last + block:
                        return None
                    last = block[-len(EXTERNAL) :]
                    digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.npz")) if path.is_dir() else [path]


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield block


def _path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{key}.analysis"


def _checksum(text: str) -> str:
    return _hash(text.encode())


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _make_room(folder: Path) -> None:
    kept = sorted(folder.glob("*.analysis"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-MOST_KEPT]:
        path.unlink(missing_ok=True)
