"""Write files so that either the new content or the old one is there, never half of one.

The new content goes to a temporary file in the target's own folder, is made durable, and is
renamed into place in one step. On any failure the temporary file disappears and an old file is
unharmed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lowprec.errors import OutputError


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, wholly or not at all.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or the path is a folder.
    """
    target = resolve_target(path)
    with output_errors(target), temporary_file(target) as temporary:
        temporary.file.write(content)
        temporary.move_to(target)
        sync_folder(target.parent)


def replace_file(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` make the file `path`, wholly or not at all.

    Args:
        path: Of the file.
        write: Writes the content to the path that it is given, which has the same suffix.

    Raises:
        OutputError: as `write_atomically`.
    """
    target = resolve_target(path)
    fresh = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    with output_errors(target):
        try:
            write(fresh)
            with open(fresh, "rb+") as file:
                TemporaryFile(fresh, file).move_to(target)
            sync_folder(target.parent)
        finally:
            fresh.unlink(missing_ok=True)


def resolve_target(path: str | os.PathLike[str]) -> Path:
    """Return the file that writing to `path` will replace; links are followed.

    Raises:
        OutputError: its folder is missing or read-only, or it is not a regular file.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.exists():
        raise OutputError(f"output folder '{folder}' does not exist; create it first")
    if not folder.is_dir():
        raise OutputError(f"'{folder}' is not a folder; give a path inside an existing folder")
    if target.is_dir():
        raise OutputError(f"'{target}' is a folder; give the name of the file to write")
    if target.exists() and not target.is_file():
        raise OutputError(f"'{target}' is not a regular file; give the name of the file to write")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"output folder '{folder}' is not writable; choose another folder")
    return target


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn what the operating system says into one line with a remedy."""
    remedies = {
        errno.ENOSPC: "free some space or choose another disk",
        errno.EDQUOT: "free some space or choose another disk",
        errno.EFBIG: "raise the limit on file sizes or choose another disk",
    }
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "check the folder's permissions")
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write '{target}': {reason}; {remedy} (a file that was there is unchanged)"
        ) from error


@dataclass
class TemporaryFile:
    """A new file beside the target; it disappears unless it is moved into place."""

    path: Path
    file: BinaryIO

    def move_to(self, target: Path) -> None:
        """Make the content durable, then let it appear under its name in one step."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if target.exists():
            os.fchmod(self.file.fileno(), target.stat().st_mode & 0o7777)
        self.file.close()
        os.replace(self.path, target)


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[TemporaryFile]:
    """Yield a new file in `target`'s folder that is gone afterwards, unless it was moved."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    with open(path, "xb") as file:  # not tempfile: that ignores the umask
        try:
            yield TemporaryFile(path, file)
        except BaseException:
            # Closing flushes, and flushing fails on a full disk: the file goes away either way.
            with contextlib.suppress(OSError):
                file.close()
            raise
        finally:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames durable where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_folder_atomically(
    path: str | os.PathLike[str],
    fill: Callable[[Path], None],
    may_replace: Callable[[Path], bool],
) -> None:
    """Write a folder, wholly or not at all; one that is there is replaced once the new is complete.

    Args:
        path: Of the folder; its parent must exist.
        fill: Writes the content into the new, empty folder that it is given.
        may_replace: Whether a folder with something in it, that is there already, may go.

    Raises:
        OutputError: as `write_atomically`, or there is something else at the path.
    """
    target = resolve_folder(path, may_replace)
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    old = target.with_name(f".{target.name}.{secrets.token_hex(6)}.old")
    with output_errors(target):
        try:
            fresh.mkdir()
            fill(fresh)
            if target.exists():
                os.replace(target, old)
            try:
                os.replace(fresh, target)
            except BaseException:
                if old.exists():
                    os.replace(old, target)
                raise
            sync_folder(target.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)


def resolve_folder(path: str | os.PathLike[str], may_replace: Callable[[Path], bool]) -> Path:
    """Return the folder that writing to `path` will make or replace; links are followed.

    Raises:
        OutputError: its parent is missing or read-only, it is a file, or holds something else.
    """
    target = Path(os.path.realpath(path))
    if not target.is_dir():
        resolve_target(target)  # the parent's permissions
        if target.exists():
            raise OutputError(f"'{target}' is a file; give the name of a folder")
        return target
    if any(target.iterdir()) and not may_replace(target):
        raise OutputError(
            f"the folder '{target}' holds something else and is not replaced; give another name, "
            "or delete it"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"output folder '{target.parent}' is not writable; choose another folder")
    return target
