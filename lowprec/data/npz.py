"""Arrays out of .npz archives, with their declared sizes checked before anything is allocated."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError

Array = NDArray[Any]

MAX_BYTES = 1 << 33  # of one array


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in the archive.

    Raises:
        DataError: the file is missing or is no .npz archive.
    """
    with _open(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_array(path: Path, name: str) -> Array:
    """Return the array `name` of the archive.

    Raises:
        DataError: there is none, it is damaged, pickled, or larger than this reader accepts.
    """
    where = f"data file '{path}', array '{name}'"
    try:
        with _open(path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = _header(file, where)
            size = math.prod(shape) * dtype.itemsize
            if size > MAX_BYTES:
                raise DataError(f"{where}: {size} bytes; accepted are {MAX_BYTES} at most")
            content = file.read(size + 1)
            if len(content) != size:
                raise DataError(f"{where}: its header declares {size} bytes, it does not hold them")
    except KeyError:
        raise DataError(
            f"data file '{path}' has no array '{name}'; it holds {', '.join(array_names(path))}"
        ) from None
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where} cannot be read: {reason}; write it with numpy.savez") from None
    array: Array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz archive"
        raise DataError(
            f"data file '{path}' cannot be read: {reason}; write it with numpy.savez"
        ) from None


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise DataError(f"{where}: pickled objects are refused: they run code when they are read")
    return tuple(shape), bool(fortran), dtype
