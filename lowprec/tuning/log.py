"""The trial log: a text file with one JSON value a line, from which a killed search goes on.

    {"lowprec_trials": 1, "lowprec": "0.1.0", "key": ..., "config": ..., ...}    what it is a log of
    {"record": "baseline", ...}   {"record": "fact", ...}   {"record": "trial", ...}

A line is written by one call, and is on the disk before the next trial starts. What a run that was
killed left half written, a last line without its end, is cut off. Everything else that is not as
it was written is an error: a search must not go on from numbers that nobody measured.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowprec.atomic import resolve_target, sync_folder
from lowprec.errors import ConfigError, OutputError

FORMAT = 1
MARK = "lowprec_trials"
BEGINNING = f'{{"{MARK}"'.encode()

WORDS = {
    "lowprec": "was written by lowprec {there}, this is {here}",
    "key": "is of another model or other calibration data",
    "config": "is of another configuration",
    "strategy": "is of strategy '{there}', this search's is '{here}'",
    "metrics": "holds the metrics {there}, this search's are {here}",
    "evaluate": "is of another evaluation function",
}


class TrialLog:
    """An open log: `records` is what it held, `append` adds to it.

    Without a path nothing is written, and nothing was there.
    """

    def __init__(self, path: str | os.PathLike[str] | None, header: Mapping[str, Any]) -> None:
        """Open `path`, or start it.

        Args:
            path: The file; None keeps no log.
            header: What the search is: lowprec version, key, config, strategy, metrics, evaluate.

        Raises:
            ConfigError: the file is no log, is damaged, or is the log of another search.
            OutputError: it cannot be written, or another search is writing it.
        """
        self.records: list[dict[str, Any]] = []
        self.path = None if path is None else resolve_target(path)
        self._descriptor: int | None = None
        if self.path is None:
            return
        with _output_errors(self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        try:
            self._lock()
            self._read(dict(header))
        except BaseException:
            self.close()
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record and wait until it is on the disk.

        Raises:
            OutputError: the disk is full, or the file system fails; what was there is unharmed.
        """
        if self._descriptor is None or self.path is None:
            return
        line = json.dumps(_storable(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with _output_errors(self.path):
            end = os.fstat(self._descriptor).st_size
            try:
                written = 0
                while written < len(line):  # a signal or a full disk may cut a write short
                    written += os.write(self._descriptor, line[written:])
                os.fsync(self._descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            return
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"trial log '{self.path}' is being written by another search; wait for it, or give "
                "another tuning.log"
            ) from None
        except OSError:  # a file system without locks
            return

    def _read(self, header: dict[str, Any]) -> None:
        assert self.path is not None
        assert self._descriptor is not None
        with _output_errors(self.path):
            content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not content.startswith(BEGINNING[: len(content)]):
            raise ConfigError(
                f"'{self.path}' is not a trial log; give tuning.log the name of a new file"
            )
        header = {MARK: FORMAT, **json.loads(json.dumps(_storable(header)))}
        if not lines:
            self._truncate(0)
            self.append(header)
            with _output_errors(self.path):
                sync_folder(self.path.parent)
            return
        values = [self._parse(line, number) for number, line in enumerate(lines, 1)]
        self._check(values[0], header)
        self._truncate(len(whole))
        self.records = values[1:]

    def _truncate(self, size: int) -> None:
        assert self.path is not None
        assert self._descriptor is not None
        with _output_errors(self.path):
            if os.fstat(self._descriptor).st_size != size:
                os.ftruncate(self._descriptor, size)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ConfigError(
                f"trial log '{self.path}', line {number}: it is damaged; delete the file to start "
                "the search afresh, or give another tuning.log"
            )
        return value

    def _check(self, there: dict[str, Any], here: dict[str, Any]) -> None:
        if there.get(MARK) != FORMAT:
            difference = f"has format {there.get(MARK)}, this lowprec reads {FORMAT}"
        else:
            differing = [key for key in here if there.get(key) != here[key]]
            if not differing:
                return
            key = differing[0]
            text = WORDS.get(key, "differs in '" + key + "'")
            difference = text.format(there=there.get(key), here=here[key])
        raise ConfigError(
            f"trial log '{self.path}' {difference}; give another tuning.log, or delete the file to "
            "start the search afresh"
        )


def _storable(value: Any) -> Any:
    """Return `value` with the numbers that JSON lacks as text; `float` reads them back."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return value


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"trial log '{path}' cannot be written: {error.strerror or error}; free some space or "
            "give another tuning.log (what it holds is unchanged)"
        ) from error
