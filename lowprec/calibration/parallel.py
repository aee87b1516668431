"""Shares of the calibration data on several workers: threads, processes, machines, through joblib.

Each worker compiles the model once and keeps it for its next share; what comes back are the states
of its observers. Whatever backend joblib has will do (loky, threading, dask, ray); the user may
wrap the call in `joblib.parallel_config`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.calibration.observation import Feed, Observation, Watch
from lowprec.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from lowprec.config import Config

SHARE = 8
"""Feeds that a worker is given at a time."""
_MODELS_KEPT = 2  # compiled models that a worker process keeps

_idle: dict[bytes, list[Watch]] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_renew_lock)


def observe_in_parallel(
    model: ir.Model,
    names: Sequence[str],
    feeds: Iterable[Feed],
    config: Config,
    bins: int,
    done: Callable[[int], None] | None = None,
) -> Observation | None:
    """Return what `calibration.n_jobs` workers see of `feeds`; None where there are no feeds.

    Args:
        model: Float hub; not changed.
        names: Values to observe.
        feeds: Read lazily, a few shares ahead of the workers.
        config: Its `calibration` says how many workers there are, and joblib's backend.
        bins: Of each observer.
        done: Called with the number of feeds seen so far.

    Raises:
        ConfigError: joblib has no such backend, or it is not ready.
        UnsupportedError: joblib is not installed; the model is larger than 2 GB and cannot be sent.
        DataError: as for one worker.
    """
    from lowprec.optional import require

    joblib = require("joblib", "distributed", "calibration on several workers (n_jobs, backend)")

    wanted = config.calibration
    settings: dict[str, Any] = {}
    if wanted.n_jobs != 1 or wanted.backend is not None:
        settings["n_jobs"] = wanted.n_jobs
    if wanted.backend is not None:
        settings["backend"] = wanted.backend
    if wanted.backend == "ray":
        require("ray.util.joblib", "distributed", "calibration.backend 'ray'").register_ray()
    with ExitStack() as stack:
        try:
            stack.enter_context(joblib.parallel_config(**settings))
            backend, jobs = joblib.parallel.get_active_backend()
            workers = max(1, backend.effective_n_jobs(jobs))
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"calibration.backend is {wanted.backend!r}: {error}; accepted are loky, "
                "threading, multiprocessing, and dask or ray where their client runs"
            ) from None
        streams = getattr(backend, "supports_return_generator", False)
        parallel = joblib.Parallel(return_as="generator" if streams else "list")
        run = partial(_run_shares, parallel, joblib.delayed(observe_share), workers)
        try:
            return run(model, names, feeds, bins, done)
        finally:
            forget_models()  # of this process, where its threads were the workers


def _run_shares(
    parallel: Any,
    task: Any,
    workers: int,
    model: ir.Model,
    names: Sequence[str],
    feeds: Iterable[Feed],
    bins: int,
    done: Callable[[int], None] | None,
) -> Observation | None:
    from lowprec.threads import get_num_threads

    threads = max(1, get_num_threads() // workers)
    sent = _serialised(model)
    tasks = (
        task(sent, tuple(names), bins, first, share, os.getpid(), threads)
        for first, share in _shares(feeds)
    )
    whole: Observation | None = None
    for data in parallel(tasks):
        part = Observation.from_bytes(data)
        if whole is None:
            whole = part
        else:
            whole.merge(part)
        if done is not None:
            done(whole.samples)
    return whole


def is_wanted(config: Config) -> bool:
    """Return whether the config, or a joblib.parallel_config around the call, asks for workers."""
    if config.calibration.n_jobs != 1 or config.calibration.backend is not None:
        return True
    joblib = sys.modules.get("joblib")
    if joblib is None or not hasattr(joblib, "parallel"):
        return False
    backend, jobs = joblib.parallel.get_active_backend()
    return bool(backend.effective_n_jobs(jobs) > 1)


def observe_share(
    model: NDArray[np.uint8],
    names: tuple[str, ...],
    bins: int,
    first: int,
    feeds: list[dict[str, NDArray[Any]]],
    caller: int,
    threads: int,
) -> bytes:
    """Return what one worker sees of one share, as `Observation.to_bytes`.

    Args:
        model: A serialised ModelProto.
        names: Values to observe.
        bins: Of each observer.
        first: Number of the share's first feed.
        feeds: The share.
        caller: Process that asked: in another one, the number of threads is set.
        threads: What it is set to.
    """
    from hashlib import blake2b

    from lowprec.threads import set_num_threads

    if os.getpid() != caller:
        set_num_threads(threads)
    key = blake2b(model.data, digest_size=16)
    key.update(repr((names, bins)).encode())
    with _lock:
        waiting = _idle.pop(key.digest(), [])
        _idle[key.digest()] = waiting  # the last one used stands last
        while len(_idle) > _MODELS_KEPT:
            del _idle[next(iter(_idle))]
        watch = waiting.pop() if waiting else None
    if watch is None:
        watch = Watch(_deserialised(model), names, bins)
    data = watch.run(feeds, first=first).to_bytes()
    with _lock:
        if key.digest() in _idle:
            _idle[key.digest()].append(watch)
    return data


def forget_models() -> None:
    """Let go of the compiled models that this process keeps for further shares."""
    with _lock:
        _idle.clear()


def _shares(feeds: Iterable[Feed]) -> Iterator[tuple[int, list[dict[str, NDArray[Any]]]]]:
    iterator, first = iter(feeds), 0
    while True:
        # Copies: a source may reuse its arrays, and workers are behind.
        share = [
            {name: np.array(array) for name, array in feed.items()}
            for feed in islice(iterator, SHARE)
        ]
        if not share:
            return
        yield first, share
        first += len(share)


def _serialised(model: ir.Model) -> NDArray[np.uint8]:
    """Return the model's bytes, as an array: joblib's backends send that once per worker."""
    try:
        return np.frombuffer(ir.to_proto(model).SerializeToString(), np.uint8)
    except (ValueError, RuntimeError) as error:
        raise UnsupportedError(
            f"the model cannot be sent to workers ({error}): models above 2 GB are calibrated with "
            "calibration.n_jobs 1"
        ) from None


def _deserialised(data: NDArray[np.uint8]) -> ir.Model:
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(data.tobytes())
    return ir.from_proto(proto)
