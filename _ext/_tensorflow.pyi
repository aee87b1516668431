"""Types of the TensorFlow operator's compiled part."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Outputs:
    def allocate(
        self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[Any]: ...
    def count(self) -> int: ...
    def dtype(self, index: int) -> np.dtype[Any]: ...

def register(
    libraries: list[str],
    dtypes: dict[int, np.dtype[Any]],
    open_kernel: Callable[
        [str, bool], Callable[[list[NDArray[Any]], NDArray[np.uint8], int, Outputs], None]
    ],
    explained: Callable[[BaseException], tuple[int, str]],
) -> str | None: ...
