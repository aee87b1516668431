"""Other runtimes on the same file and feed, for `lowprec bench --vs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import InputError

Array = NDArray[np.generic]
Feed = dict[str, Array]
Run = Callable[[], list[Array]]


class Refused(Exception):
    """A peer does not run this model; the message says why."""


def parse_peers(text: str) -> list[str]:
    """Return the names in 'onnxruntime,openvino'.

    Raises:
        InputError: a name is unknown, or its package is not installed.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise InputError(f"--vs {name}: no such peer; there are {', '.join(PEERS)}")
        if find_spec(name) is None:
            raise InputError(
                f"--vs {name}: it is not installed; pip install {name}, or leave it out"
            )
    return list(dict.fromkeys(names))


def installed_peers(names: Sequence[str] = ("onnxruntime",)) -> list[str]:
    """Return those of `names` that are installed."""
    return [name for name in names if find_spec(name) is not None]


def peer_run(name: str, path: Path, feed: Feed, threads: int) -> Run:
    """Return a run of `feed`, which has run once.

    Args:
        name: One of PEERS.
        path: The .onnx file.
        feed: Arrays by input name; runtimes that fix shapes fix these.
        threads: How many the peer may use.

    Raises:
        Refused: it cannot run the model.
    """
    try:
        run = PEERS[name](path, feed, threads)
        run()
    except Refused:
        raise
    except Exception as error:  # peers' exceptions have no common public base
        raise Refused(" ".join(str(error).split())[:200] or type(error).__name__) from error
    return run


def _onnxruntime(path: Path, feed: Feed, threads: int) -> Run:
    peer = import_module("onnxruntime")
    options = peer.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    session = peer.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: list(session.run(None, feed))


def _openvino(path: Path, feed: Feed, threads: int) -> Run:
    core = import_module("openvino").Core()
    graph = core.read_model(str(path))
    graph.reshape({name: list(array.shape) for name, array in feed.items()})
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(graph, "CPU", settings).create_infer_request()

    def run() -> list[Array]:
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return [np.asarray(results[port]) for port in results]

    return run


def _torch(path: Path, feed: Feed, threads: int) -> Run:
    from lowprec.cli.torch_peer import torch_run

    return torch_run(path, feed, threads)


PEERS: dict[str, Callable[[Path, Feed, int], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def difference(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """Return the worst output's largest difference, relative to its largest value."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size and a.dtype.kind in "fiub":
            a64, b64 = a.astype(np.float64), b.astype(np.float64)
            largest = max(float(np.abs(b64).max()), 1e-30)
            worst = max(worst, float(np.abs(a64 - b64).max()) / largest)
    return worst
