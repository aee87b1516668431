"""Image files through Pillow, which is only needed for them (extra `images`)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError
from lowprec.optional import require

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
)
MAX_PIXELS = 100_000_000  # of one file; a small file can declare any size


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the image as (H, W, 3) bytes, RGB.

    Raises:
        DataError: the file is missing, is no image, is damaged or is too large.
        UnsupportedError: Pillow is not installed.
    """
    pillow = require("PIL.Image", "images", "reading image files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            with pillow.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(
                        f"image file '{path}' declares {width} x {height} pixels; accepted are "
                        f"{MAX_PIXELS} at most"
                    )
                return np.asarray(image.convert("RGB"))
    except pillow.DecompressionBombError:
        raise DataError(f"image file '{path}' declares more than {MAX_PIXELS} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"image file '{path}' cannot be read: {reason}; replace it or leave it out"
        ) from None


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and below it, sorted by path."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()
    )
