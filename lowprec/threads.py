"""How many threads lowprec works with, for the user and for threadpoolctl.

At first: LOWPREC_NUM_THREADS, else OMP_NUM_THREADS, else the processors that this process may use
(its affinity, and no more than its control group's quota pays for). The number is the process's;
results do not depend on it.
"""

from __future__ import annotations

import operator
from typing import Any

from lowprec._ext import _core
from lowprec.errors import ThreadsError


def set_num_threads(n: int) -> None:
    """Let lowprec use `n` threads, the caller included, from the next call on.

    Calls that are under way in other threads go on as they began. 1 means no threads of our own.

    Args:
        n: 1 to 1024. More than there are processors is allowed, and slower.

    Raises:
        ThreadsError: `n` is not such a number.

    Example:
        >>> before = lowprec.get_num_threads()
        >>> lowprec.set_num_threads(1)
        >>> lowprec.get_num_threads()
        1
        >>> lowprec.set_num_threads(before)
    """
    try:
        threads = operator.index(n)
    except TypeError:
        threads = 0
    if isinstance(n, bool) or not 1 <= threads <= _core.MAX_THREADS:
        raise ThreadsError(
            f"set_num_threads({n!r}): pass a whole number of threads from 1 to {_core.MAX_THREADS}"
        )
    _core.set_num_threads(threads)


def get_num_threads() -> int:
    """Return how many threads lowprec uses at most, the caller included.

    Raises:
        ThreadsError: LOWPREC_NUM_THREADS is not a number of threads.
    """
    try:
        return _core.get_num_threads()
    except _core.ThreadCountInvalid as error:
        raise ThreadsError(str(error)) from None


_registered = False


def register_with_threadpoolctl() -> None:
    """Let `threadpoolctl.threadpool_limits` limit lowprec too, where threadpoolctl is installed."""
    global _registered
    if _registered:
        return
    _registered = True
    try:
        import threadpoolctl  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return

    class LowprecController(threadpoolctl.LibController):  # type: ignore[misc, unused-ignore]
        user_api = "lowprec"
        internal_api = "lowprec"
        # Other packages have a _core too: the symbols tell them apart.
        filename_prefixes = ("_core",)
        check_symbols = ("lowprec_get_num_threads", "lowprec_set_num_threads")

        def get_num_threads(self) -> Any:
            read = getattr(self.dynlib, "lowprec_get_num_threads", None)
            return None if read is None else read()

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.lowprec_set_num_threads(num_threads)

        def get_version(self) -> str | None:
            if not hasattr(self.dynlib, "lowprec_get_num_threads"):
                return None
            from importlib.metadata import version

            return version("lowprec")

    if hasattr(threadpoolctl, "register"):  # since version 3.2
        threadpoolctl.register(LowprecController)
