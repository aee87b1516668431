"""A bar where somebody looks, nothing where output is piped."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import numpy as np
import onnx
import onnx_models

PROGRAM = """
import numpy as np, lowprec
lowprec.quantize("model.onnx", (np.ones((1, 4), np.float32) for _ in range(40)), progress={})
"""


def test_the_library_is_silent_and_a_pipe_shows_no_bar(tmp_path):
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    for progress in ("None", "True", "False"):
        command = [sys.executable, "-c", PROGRAM.format(progress)]
        done = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
        assert (done.stdout, done.stderr) == (b"", b"")


def test_a_terminal_shows_a_bar_on_stderr(tmp_path):
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((40, 4), np.float32))
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "lowprec.cli", "quantize", "model.onnx"]
    command += ["--calibration", "data.npz", "-o", "out.onnx"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=end,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        process.wait()
    os.close(terminal)
    assert process.returncode == 0
    assert b"calibrating" in shown
    assert b"40/" in shown
