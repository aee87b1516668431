"""Read idx files, the form of MNIST: plain or gzip, never more than their header declares.

    2 bytes of zero, 1 byte of element type (8: u8), 1 byte of rank, rank sizes of 4 bytes
    (big-endian), then the elements, the last axis fastest.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError

MAX_BYTES = 1 << 30  # of one file; the largest of the MNIST family has 420 MB
_UNSIGNED_BYTE = 8


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file; a name that ends in .gz is unpacked.

    Args:
        path: The file.
        rank: How many axes it must have: 3 for images, 1 for labels.

    Raises:
        DataError: it cannot be read, is no idx file, or is shorter or longer than it declares.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(file, path, rank)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"data file '{path}' cannot be read: {reason}; fetch or copy it again"
        ) from None


def _read(file: gzip.GzipFile | IO[bytes], path: Path, rank: int) -> NDArray[np.uint8]:
    head = file.read(4 + 4 * rank)
    if len(head) < 4 + 4 * rank or head[:2] != b"\0\0":
        raise DataError(f"data file '{path}' is no idx file: it does not begin like one")
    if head[2] != _UNSIGNED_BYTE or head[3] != rank:
        raise DataError(
            f"data file '{path}' declares elements of type {head[2]} in {head[3]} dimensions; "
            f"expected are unsigned bytes (type {_UNSIGNED_BYTE}) in {rank}"
        )
    shape = tuple(int(size) for size in np.frombuffer(head[4:], ">u4"))
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise DataError(
            f"data file '{path}' declares {size} bytes ({shape}); accepted are {MAX_BYTES} at most"
        )
    content = file.read(size)
    if len(content) < size or file.read(1):
        relation = "fewer" if len(content) < size else "more"
        raise DataError(
            f"data file '{path}' holds {relation} than the {size} bytes that it declares "
            f"({shape}); fetch or copy it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
