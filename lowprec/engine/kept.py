"""Compiled programs on disk: a model file that was compiled before starts without its hub.

    file ──(first time)──► hub ──passes, lowering──► forms ──► kept file
    file ──(from then on)──────────────────────────► forms, weights mapped from the kept file

A kept file is used only for the same model file (path, inode, size, times), the same lowprec, onnx
and onnx_ir (sizes and times of their files) and the same settings. Its weights
are mapped, not read: what is packed into kernels' layouts is given back to the system after the
first plan, and comes back by itself if another shape needs it.

`LOWPREC_CACHE` names the folder; `off` keeps nothing. Kept are models that run natively throughout
and hold their weights in one file. The oldest go when all together exceed LIMIT.

Layout: MAGIC, length and CRC-32 of the header, header (JSON), then constants, each on
ALIGNMENT. The constants' CRC-32 is checked once the machine was started anew.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import stat
import sys
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lowprec._ext import _core
from lowprec.engine.buffers import in_order
from lowprec.engine.forms import NodeForm, ProgramForm
from lowprec.engine.native import engine_errors
from lowprec.engine.session import Session, falls_back, hubs_of
from lowprec.engine.tensors import TensorInfo
from lowprec.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]

MAGIC = b"lowprec program 1\n"
PREFIX = 12  # bytes: length and checksum of the header
ALIGNMENT = 64
SLACK = 4096  # bytes after the last constant: vector loads reach past an end
LARGEST = 1 << 30  # bytes of one kept file
LIMIT = 4 << 30  # bytes of all of them
EXTERNAL = b"\x08location"  # a tensor's data in another file: this key, after its length
READERS = ("onnx", "onnx_ir")  # packages that decide, too, what a file means
SETTINGS = ("LOWPREC_FALLBACK", "LOWPREC_DISABLE_ADAPTERS", "LOWPREC_ISA")


@dataclass(frozen=True)
class ConstantEntry:
    """Where a constant lies: dtype as NumPy names it, offset from the end of the header."""

    dtype: str
    shape: list[int]
    offset: int
    size: int


@dataclass(frozen=True)
class SegmentEntry:
    """A ProgramForm; constants by the number of their value."""

    inputs: list[str]
    keyed: list[str]
    outputs: list[str]
    names: list[str]
    constants: dict[int, ConstantEntry]
    nodes: list[tuple[str, str, list[int], list[int], dict[str, Any]]]
    results: list[int]


@dataclass(frozen=True)
class Header:
    """What precedes the constants of a kept file."""

    key: str
    inputs: list[tuple[str, str, list[int | str | None] | None]]
    outputs: list[tuple[str, str, list[int | str | None] | None]]
    segments: list[SegmentEntry]
    constants: dict[str, ConstantEntry]  # that segments or callers read by name
    note: str | None  # the caller's: the report in a model's metadata
    size: int  # bytes of the constants
    checksum: int  # CRC-32 of the constants
    boot: str  # which start of the machine it was written in

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decoded(cls, text: bytes) -> Header:
        """Return what `encoded` wrote; TypeError, ValueError or KeyError for anything else."""
        fields = json.loads(text)
        segments = [
            SegmentEntry(
                **{
                    **segment,
                    "constants": {
                        int(number): ConstantEntry(**entry)
                        for number, entry in segment["constants"].items()
                    },
                }
            )
            for segment in fields["segments"]
        ]
        constants = {name: ConstantEntry(**entry) for name, entry in fields["constants"].items()}
        return cls(**{**fields, "segments": segments, "constants": constants})


@dataclass(frozen=True)
class Kept:
    """A session from a kept file, the note that was kept with it, and how to load the model."""

    session: Session
    note: str | None
    load: Callable[[], ir.Model]


class SourceFile:
    """An open model file: what it held when it was opened can be read again, or an error tells.

    A file that is replaced or deleted meanwhile is still the old one; only writing into it is not.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Open `path`; OSError where that fails, or where it is not a regular file."""
        self.path = os.path.realpath(path)
        if not stat.S_ISREG(os.stat(self.path).st_mode):
            raise OSError(f"'{self.path}' is not a regular file")
        self._handle = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self.status = os.fstat(self._handle)

    def is_at(self, path: str) -> bool:
        """Return whether `path` is this file, unchanged."""
        now = os.stat(path)
        fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
        return all(getattr(now, name) == getattr(self.status, name) for name in fields)

    def has_external_data(self) -> bool:
        """Return whether tensors of the model may lie in other files, which may change, too."""
        with mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ) as content:
            return content.find(EXTERNAL) >= 0

    def load(self) -> ir.Model:
        """Return its hub.

        Raises:
            ModelError: the file was written into.
        """
        import onnx

        from lowprec.graph import load

        now = os.fstat(self._handle)
        if (now.st_mtime_ns, now.st_size) != (self.status.st_mtime_ns, self.status.st_size):
            raise ModelError(
                f"model file '{self.path}' was changed since it was loaded; load it again"
            )
        proto = onnx.ModelProto()
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            proto.ParseFromString(file.read())
        return load(proto)


class Keeper:
    """The kept file of one model file, if there is or may be one."""

    def __init__(self, path: str | os.PathLike[str], verb: str):
        """Look at the model file before it is loaded.

        Args:
            path: Of the model.
            verb: What is done with it; one file may be kept once for each.
        """
        self._folder: Path | None = None
        with contextlib.suppress(OSError, ValueError):
            self._folder = cache_folder()
            if self._folder is not None:
                self._source = SourceFile(path)
                self._key = _key(self._source, verb)
        if not hasattr(self, "_key"):
            self._folder = None

    def open(self, prepare: Callable[[ir.Model], ir.Model]) -> Kept | None:
        """Return the session that was kept, or None.

        Args:
            prepare: Makes of the loaded hub what is compiled; called only if a shape needs it.
        """
        if self._folder is None:
            return None
        path = self._folder / _name(self._key)
        try:
            mapping, header, start = _read(path, self._key)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used go first
        with engine_errors():
            _core.chosen_isa()
        source = self._source
        session = Session.from_forms(
            [_form(entry, mapping, start) for entry in header.segments],
            tuple(_info(*entry) for entry in header.inputs),
            tuple(_info(*entry) for entry in header.outputs),
            {name: _array(mapping, start, at) for name, at in header.constants.items()},
            lambda: hubs_of(prepare(source.load())),
            fallback=falls_back(None),
        )
        return Kept(session, header.note, source.load)

    def keep(self, session: Session, note: str | None = None) -> bool:
        """Keep what `session` runs; return whether it is kept now.

        Args:
            session: Compiled from the model file, with no shape refused so far.
            note: Text to keep with it.
        """
        if self._folder is None:
            return False
        content = session.forms()
        try:
            if content is None or self._source.has_external_data():
                return False
            if not self._source.is_at(self._source.path):
                return False
            forms, constants = content
            arrays = [a for form in forms for a in form.constants.values()]
            arrays += constants.values()
            chunks, size = _lay_out(arrays)
            if size > LARGEST:
                return False
            header = _header(self._key, session, content, chunks, size, note)
            _write(self._folder, _name(self._key), header, chunks, size)
            _make_room(self._folder)
        except (OSError, TypeError, ValueError):
            return False  # a cache that does not work is none
        return True


@dataclass
class MappedForm(ProgramForm):
    """A form whose constants lie in a mapped file."""

    mapping: mmap.mmap | None = None

    def release(self) -> None:
        """Give the memory of the constants back; what is read again comes from the file."""
        if self.mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


# ---- What a kept file is for ---------------------------------------------------------------------
def cache_folder() -> Path | None:
    """Return the folder, made if need be; None where it is switched off or not ours alone."""
    named = os.environ.get("LOWPREC_CACHE", "")
    if named == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(named or os.path.join(base, "lowprec"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return folder


def _key(source: SourceFile, verb: str) -> str:
    status = source.status
    parts = [source.path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
             status.st_ctime_ns, verb, sys.byteorder, code_fingerprint(),
             *(os.environ.get(name, "") for name in SETTINGS)]  # fmt: skip
    return "\0".join(str(part) for part in parts)


def _name(key: str) -> str:
    """Return a file name; two keys may share it, and then the file is one's or the other's."""
    return f"{zlib.crc32(key.encode()):08x}{zlib.crc32(key[::-1].encode()):08x}.program"


def code_fingerprint() -> str:
    """Return a text that changes with lowprec itself and with what reads models for it."""
    here = Path(__file__).parent.parent
    files = [*here.rglob("*.py"), Path(str(_core.__file__))]
    files += [Path(spec.origin) for name in READERS if (spec := find_spec(name)) and spec.origin]
    return repr(sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# ---- Writing -------------------------------------------------------------------------------------
def _lay_out(arrays: Sequence[Array]) -> tuple[list[tuple[int, Array]], int]:
    """Return the arrays with their offsets, and the size of all."""
    chunks: list[tuple[int, Array]] = []
    end = 0
    for array in arrays:
        chunks.append((end, in_order(array)))
        end += (array.nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return chunks, end + SLACK


def _header(
    key: str,
    session: Session,
    content: tuple[Sequence[ProgramForm], dict[str, Array]],
    chunks: Sequence[tuple[int, Array]],
    size: int,
    note: str | None,
) -> Header:
    forms, constants = content
    offsets: Iterator[int] = iter([offset for offset, _ in chunks])

    def entry(array: Array) -> ConstantEntry:
        return ConstantEntry(array.dtype.name, list(array.shape), next(offsets), array.nbytes)

    segments = [
        SegmentEntry(
            form.inputs,
            sorted(form.keyed),
            form.outputs,
            form.names,
            {number: entry(array) for number, array in form.constants.items()},
            [(n.op, n.name, n.inputs, n.outputs, n.attributes) for n in form.nodes],
            form.results,
        )
        for form in forms
    ]
    by_name = {name: entry(array) for name, array in constants.items()}
    checksum = 0
    for block in _blocks(chunks, size):
        checksum = zlib.crc32(block, checksum)
    inputs, outputs = (
        [_described(info) for info in infos] for infos in (session.inputs, session.outputs)
    )
    return Header(key, inputs, outputs, segments, by_name, note, size, checksum, _boot())


def _described(info: TensorInfo) -> tuple[str, str, list[int | str | None] | None]:
    if info.dtype == object:
        raise TypeError("sequences are not kept")
    return info.name, info.dtype.name, None if info.shape is None else list(info.shape)


def _blocks(chunks: Sequence[tuple[int, Array]], size: int) -> Iterator[Any]:
    at = 0
    for offset, array in chunks:
        yield bytes(offset - at)
        yield array.reshape(-1).view(np.uint8).data
        at = offset + array.nbytes
    yield bytes(size - at)


def _write(
    folder: Path, name: str, header: Header, chunks: Sequence[tuple[int, Array]], size: int
) -> None:
    encoded = header.encoded()
    checksum = zlib.crc32(encoded).to_bytes(4, "little")
    prefix = MAGIC + len(encoded).to_bytes(8, "little") + checksum + encoded
    import tempfile

    handle, temporary = tempfile.mkstemp(dir=folder, prefix="partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(prefix)
            file.write(bytes(-len(prefix) % ALIGNMENT))
            for block in _blocks(chunks, size):
                file.write(block)
        os.replace(temporary, folder / name)
    except BaseException:
        os.unlink(temporary)
        raise


def _make_room(folder: Path) -> None:
    """Delete the least recently used until all are within LIMIT."""
    entries = [(path, path.stat()) for path in folder.glob("*.program")]
    total = sum(status.st_size for _, status in entries)
    for path, status in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
        if total <= LIMIT:
            break
        path.unlink(missing_ok=True)  # who has mapped it keeps it
        total -= status.st_size


# ---- Reading -------------------------------------------------------------------------------------
def _read(path: Path, key: str) -> tuple[mmap.mmap, Header, int]:
    """Return the mapped file, its header, and where the constants start.

    Raises:
        ValueError: it is damaged, or for something else.
    """
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = len(MAGIC) + PREFIX
    if mapping[: len(MAGIC)] != MAGIC:
        raise ValueError("not a kept program")
    length = int.from_bytes(mapping[len(MAGIC) : at - 4], "little")
    encoded = mapping[at : at + length] if length <= len(mapping) - at else b""
    if zlib.crc32(encoded) != int.from_bytes(mapping[at - 4 : at], "little"):
        raise ValueError("damaged, or cut off")
    header = Header.decoded(encoded)
    start = (at + length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    if header.key != key or len(mapping) != start + header.size:
        raise ValueError("for something else, or cut off")
    for segment in header.segments:
        _check(segment, header.size)
    for entry in header.constants.values():
        _check_constant(entry, header.size)
    # Written before the machine stopped, perhaps not wholly: believed only after it was read.
    is_of_this_boot = header.boot == _boot() and header.boot
    if not is_of_this_boot and zlib.crc32(memoryview(mapping)[start:]) != header.checksum:
        raise ValueError("damaged")
    return mapping, header, start


def _check(segment: SegmentEntry, size: int) -> None:
    count = len(segment.names)
    numbers = [n for _, _, inputs, outputs, _ in segment.nodes for n in (*inputs, *outputs)]
    if any(not -1 <= number < count for number in numbers):
        raise ValueError("a node refers to no value")
    if any(not 0 <= number < count for number in (*segment.results, *segment.constants)):
        raise ValueError("no such value")
    if len(segment.inputs) > count:
        raise ValueError("more inputs than values")
    for entry in segment.constants.values():
        _check_constant(entry, size)


def _check_constant(entry: ConstantEntry, size: int) -> None:
    elements = 1
    for extent in entry.shape:
        elements *= extent
    expected = elements * np.dtype(entry.dtype).itemsize
    if min(entry.shape, default=0) < 0 or entry.size != expected:
        raise ValueError("a constant's size is not its shape's")
    if entry.offset < 0 or entry.offset % ALIGNMENT or entry.offset + entry.size > size - SLACK:
        raise ValueError("a constant lies outside")


def _form(entry: SegmentEntry, mapping: mmap.mmap, start: int) -> ProgramForm:
    return MappedForm(
        entry.inputs,
        set(entry.keyed),
        entry.outputs,
        entry.names,
        {number: _array(mapping, start, at) for number, at in entry.constants.items()},
        [NodeForm(*node) for node in entry.nodes],
        entry.results,
        mapping,
    )


def _array(mapping: mmap.mmap, start: int, entry: ConstantEntry) -> Array:
    dtype = np.dtype(entry.dtype)
    count = entry.size // dtype.itemsize
    array = np.frombuffer(mapping, dtype, count, start + entry.offset)
    return array.reshape(entry.shape)


def _info(name: str, dtype: str, shape: list[int | str | None] | None) -> TensorInfo:
    return TensorInfo(name, np.dtype(dtype), None if shape is None else tuple(shape))
