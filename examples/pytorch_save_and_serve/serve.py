"""A quantised module is saved, and served over HTTP by a process that never imports torch.

    python serve.py [--requests 200]

Three ways to keep a module: a state_dict or torch.save (for programs with torch), a folder with
`save_pretrained` (for torch, signature and attributes included), and one .onnx file, which
`lowprec.load` runs without torch. Needs lowprec[torch] to quantise, lowprec alone to serve.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import lowprec

INPUTS, CLASSES = 64, 10


def quantize_and_save(folder: Path) -> np.ndarray:
    """Write the files; return what the module answers to the row of ones."""
    import torch
    from torch import nn

    import lowprec.adapters.torch as lowprec_torch

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(INPUTS, 256), nn.ReLU(), nn.Linear(256, CLASSES)).eval()
    quantized = lowprec.quantize(network, torch.randn(64, INPUTS))
    quantized.save(folder / "model.onnx")
    lowprec_torch.save_pretrained(quantized, folder / "module")

    again = lowprec_torch.from_pretrained(folder / "module")
    row = torch.ones(1, INPUTS)
    assert torch.equal(again(row), quantized(row))
    sizes = (
        sum(t.numel() * 4 for t in network.parameters()),
        (folder / "model.onnx").stat().st_size,
    )
    print(f"float weights {sizes[0] / 1e3:.0f} kB, int8 model.onnx {sizes[1] / 1e3:.0f} kB")
    return quantized(row).numpy()


def serve(path: str) -> None:
    """Answer POSTs of JSON rows with JSON rows; print the port."""
    model = lowprec.load(path)
    name = model.inputs[0].name
    assert "torch" not in sys.modules

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                (result,) = model.run({name: np.asarray(rows, np.float32)})
                status, content = 200, json.dumps(result.tolist())
            except (ValueError, lowprec.errors.LowprecError) as error:
                status, content = 400, json.dumps({"error": str(error)})
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    # Every request has a thread; runs of one model do not disturb each other.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def ask(port: int, rows: list[list[float]]) -> list[list[float]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}", json.dumps(rows).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--serve", metavar="MODEL", help="serve this file; print the port")
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        expected = quantize_and_save(Path(folder))
        command = [sys.executable, __file__, "--serve", f"{folder}/model.onnx"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                port = int(server.stdout.readline())
                answer = ask(port, [[1.0] * INPUTS])
                print("the same bits over HTTP:", np.array_equal(np.float32(answer), expected))
                rows = np.random.default_rng(0).standard_normal((options.requests, 1, INPUTS))
                start = time.perf_counter()
                with ThreadPoolExecutor(4) as pool:
                    answers = list(pool.map(lambda row: ask(port, row.tolist()), rows))
                seconds = time.perf_counter() - start
                print(f"{len(answers) / seconds:.0f} requests a second from four clients")
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
