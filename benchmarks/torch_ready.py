"""How long EfficientNet-Lite0 takes from a module and 64 pictures to its first int8 result.

Each contestant in a fresh process, everything it does counted but the import of torch and of
itself; bench_torch.py --part ready.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

SAMPLES = 64
OURS = "lowprec.quantize()"
CONTESTANTS = {
    OURS: "",
    "torchao pt2e + torch.compile": "torchao int8",
    "OpenVINO (NNCF)": "openvino int8",
}


def seconds_of(who: str) -> dict[str, float]:
    """Return the seconds of each part, in this process, and of the processor."""
    import torch
    from torch_networks import networks

    network = networks()[0]
    module = network.make()
    samples = network.samples(SAMPLES, 1, False)
    made: Callable[..., Any]
    found: dict[str, float] = {}
    processor = sum(os.times()[:4])
    if who == OURS:
        from lowprec import api, quantize

        capture, taken = api.capture_any, []

        def timed_capture(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            captured = capture(*args, **options)
            taken.append(time.perf_counter() - start)
            return captured

        api.capture_any = timed_capture
        start = time.perf_counter()
        made = quantize(module, samples)
        if not taken:
            raise RuntimeError("quantize() no longer captures through api.capture_any")
        found["capture"] = sum(taken)
    else:
        from torch_peers import openvino_run, torchao_int8

        start = time.perf_counter()
        if CONTESTANTS[who] == "torchao int8":
            made = torchao_int8(module, samples, samples[0])
        else:
            threads = torch.get_num_threads()
            made = openvino_run(CONTESTANTS[who], network, module, samples[0], samples, threads)
    with torch.inference_mode():
        made(*samples[0])
    return {
        "total": time.perf_counter() - start,
        **found,
        "processor": sum(os.times()[:4]) - processor,  # compilers included
    }


def ready_part(peers: Sequence[str]) -> str:
    """Return a line for each contestant."""
    lines = [f"| EfficientNet-Lite0, {SAMPLES} pictures | seconds |", "|---|---|"]
    for who, peer in CONTESTANTS.items():
        if peer and peer not in peers:
            continue
        command = [sys.executable, __file__, who]
        with tempfile.TemporaryDirectory() as folder:  # nothing compiled in earlier runs
            environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        parts = "".join(f", {name} {s:.1f}" for name, s in found.items() if name != "total")
        lines.append(f"| {who} | {found['total']:.1f}{parts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(seconds_of(sys.argv[1])))
