"""Stream samples out of .npz archives without reading a whole array into memory.

What all adapters' calibration data have in common: archives, folders of them, and functions.

An array named like an input holds samples along axis 0. `input/00000`, `input/00001` ... are whole
feeds. Pickled arrays are refused: they run code when they are read.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Member:
    """One .npy file of an archive, as its header declares it."""

    archive: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    start: int  # bytes of header before the data

    @property
    def sample_bytes(self) -> int:
        """Bytes of one entry along axis 0."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, archive: zipfile.ZipFile) -> Array:
        """Return the whole array."""
        with archive.open(f"{self.name}.npy") as file:
            _skip(file, self.start)
            content = _read(file, math.prod(self.shape) * self.dtype.itemsize, self)
        array = np.frombuffer(content, self.dtype)
        return array.reshape(self.shape, order="F" if self.fortran else "C")

    def samples(self, archive: zipfile.ZipFile) -> Iterator[Array]:
        """Yield the entries along axis 0 one by one, each of shape `self.shape[1:]`."""
        if self.fortran and len(self.shape) > 1:  # entries are not contiguous in the file
            yield from self.read(archive)
            return
        with archive.open(f"{self.name}.npy") as file:
            _skip(file, self.start)
            for _ in range(self.shape[0]):
                content = _read(file, self.sample_bytes, self)
                yield np.frombuffer(content, self.dtype).reshape(self.shape[1:])


def archives_at(path: Path) -> list[Path]:
    """Return the .npz files that `path` stands for: itself, or those of a folder, sorted.

    Raises:
        DataError: the folder holds none, or the file is another kind. One that does not exist is
            the reader's to refuse.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise DataError(f"the folder '{path}' holds no .npz files; give one that does")
        return files
    if path.suffix == ".npz" or not path.exists():
        return [path]
    raise DataError(f"data file '{path}' is not an .npz file; write it with numpy.savez")


def called(function: Callable[[], object]) -> object:
    """Return what a function that was given as calibration data returns.

    Raises:
        DataError: it wants arguments. What it raises itself is handed on.
    """
    try:
        return function()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise DataError(
                f"the calibration function cannot be called without arguments: {error}"
            ) from None
        raise


def read_members(path: Path) -> dict[str, Member]:
    """Return the arrays of the archive at `path` by name; only headers are read.

    Raises:
        DataError: it is missing, not an .npz archive, damaged, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    member = _read_header(path, archive, info)
                    members[member.name] = member
            return members
    except FileNotFoundError:
        raise DataError(
            f"data file '{path}' does not exist; give the path of an .npz file"
        ) from None
    except zipfile.BadZipFile:
        raise DataError(
            f"data file '{path}' is not an .npz archive; write it with numpy.savez(path, "
            f"name=array)"
        ) from None
    except (OSError, NotImplementedError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"data file '{path}' cannot be read: {reason}") from None


def _read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.filename.removesuffix(".npy")
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = readers[version](file)
        except (ValueError, KeyError) as error:
            raise DataError(f"array '{name}' in '{path}' has a damaged header: {error}") from None
        start = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"array '{name}' in '{path}' holds pickled objects, which can run code and are not "
            f"read; save numbers, ragged feeds as '{name}/00000', '{name}/00001', ..."
        )
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start + needed != info.file_size:
        raise DataError(
            f"array '{name}' in '{path}' of shape {list(shape)} needs {needed} bytes but the "
            f"archive holds {info.file_size - start}; write the file again"
        )
    return Member(path, name, shape, dtype, fortran, start)


def _skip(file: IO[bytes], count: int) -> None:
    file.read(count)


def _read(file: IO[bytes], count: int, member: Member) -> bytes:
    try:
        content = file.read(count)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"array '{member.name}' in '{member.archive}' is damaged: {error}; write the file again"
        ) from None
    if len(content) != count:
        raise DataError(
            f"array '{member.name}' in '{member.archive}' ends too early; write the file again"
        )
    return content


class Archive:
    """The feeds in one .npz file for inputs of given names and ranks."""

    def __init__(self, path: Path, names: Sequence[str], ranks: Sequence[int | None]) -> None:
        """Check that every input has data.

        Args:
            path: The .npz file.
            names: Input names of the model.
            ranks: Their ranks, None where unknown.

        Raises:
            DataError: an input has no array, or the arrays do not fit together.
        """
        self.path = path
        members = read_members(path)
        self.surplus = [key for key in members if _input_of(key) not in names and key not in names]
        self._constant: dict[str, Member] = {}
        self._stacked: dict[str, Member] = {}
        self._whole: dict[str, list[Member]] = {}
        self._has_batch_axis: dict[str, bool] = {}
        for name, rank in zip(names, ranks, strict=True):
            if name in members:
                self._add_stacked(members[name], rank)
                continue
            numbered = sorted((key for key in members if _input_of(key) == name), key=_feed_number)
            whole = [members[key] for key in numbered]
            if not whole:
                raise DataError(
                    f"data file '{path}' has no array for the input '{name}'; it holds "
                    f"{', '.join(members) or 'nothing'}: name arrays like the inputs "
                    f"({', '.join(names)}), or '{name}/00000', '{name}/00001', ..."
                )
            self._whole[name] = whole
        self._length = self._common_length()

    def _add_stacked(self, member: Member, rank: int | None) -> None:
        dims = len(member.shape)
        if dims == 0 and rank in (0, None):
            self._constant[member.name] = member
            return
        if dims == 0 or (rank is not None and dims not in (rank, rank + 1)):
            raise DataError(
                f"array '{member.name}' in '{self.path}' has shape {list(member.shape)}, the "
                f"input has {rank} dimensions; give samples along axis 0"
            )
        self._stacked[member.name] = member
        self._has_batch_axis[member.name] = rank is None or dims == rank

    def _common_length(self) -> int:
        lengths = {name: member.shape[0] for name, member in self._stacked.items()}
        lengths |= {name: len(members) for name, members in self._whole.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name}: {count}" for name, count in lengths.items())
            raise DataError(
                f"data file '{self.path}' holds different numbers of samples ({counts}); "
                "every input needs as many"
            )
        return next(iter(lengths.values()), 1)

    def __len__(self) -> int:
        """Return the number of feeds."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Yield the feeds in order; memory holds one feed at a time."""
        with zipfile.ZipFile(self.path) as archive:
            constant = {name: member.read(archive) for name, member in self._constant.items()}
            streams = {name: member.samples(archive) for name, member in self._stacked.items()}
            for number in range(self._length):
                feed = dict(constant)
                for name, stream in streams.items():
                    sample = next(stream)
                    feed[name] = sample[None] if self._has_batch_axis[name] else sample
                for name, members in self._whole.items():
                    feed[name] = members[number].read(archive)
                yield feed


def _input_of(key: str) -> str | None:
    match = re.fullmatch(r"(.+)/(\d+)", key)
    return match.group(1) if match else None


def _feed_number(key: str) -> int:
    match = re.fullmatch(r".+/(\d+)", key)
    return int(match.group(1)) if match else -1
