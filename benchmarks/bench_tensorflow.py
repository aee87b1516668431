"""keras.applications: capture of every family, and latency beside TensorFlow and OpenVINO.

    python benchmarks/bench_tensorflow.py                  # both parts, 1 and 2 threads
    python benchmarks/bench_tensorflow.py --part families --models "ResNet50,VGG16" --tf2onnx
    python benchmarks/bench_tensorflow.py --part speed --models MobileNetV2 --threads 1

Networks have seeded weights (tests/keras_families.py) and get seeded pictures; all calibrate with
the same ones. `families`: processor time of Keras' trace and of the capture after it, how far
memory rises above what the process had held at most before (each network in a process of its own),
the largest difference to TensorFlow over the largest output, and int8's SQNR on the logits.
`speed`: one call of batch 1 by a tf.function of the float model, by the engine, by the quantised
Keras model in a tf.function, and by OpenVINO in f32 and int8 (NNCF) of the same SavedModel, in
turns in one process for each number of threads; medians of rounds (--least: the least). Writes
out/bench/tensorflow.json and tensorflow.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from tensorflow_report import families_table, speed_table
from turns import take_turns

import lowprec

PARTS = ("families", "speed")
FAST = ("MobileNetV2", "ResNet50", "EfficientNetB0")
CALIBRATION = 16  # pictures, for every tool
RESULTS = Path("out/bench/tensorflow.json")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


# ---- One network in a process of its own ---------------------------------------------------------
def capture_costs(choice: argparse.Namespace) -> dict[str, Any]:
    """Return what capturing and quantising one network costs and gives."""
    import keras_families

    from lowprec.adapters.tensorflow.hub import hub_of
    from lowprec.adapters.tensorflow.keras_source import source_of_keras

    model = keras_families.network(choice.models[0])
    pictures = keras_families.pictures(model, 3, 7)
    expected = np.asarray(model(pictures, training=False))
    row: dict[str, Any] = {"model": choice.models[0], "parameters": model.count_params()}
    start, before = time.process_time(), peak()
    source, called = source_of_keras(model)
    row["trace"], row["trace_memory"] = time.process_time() - start, peak() - before
    start, before = time.process_time(), peak()
    hub = hub_of(source, model.name)
    row["capture"], row["capture_memory"] = time.process_time() - start, peak() - before
    session = lowprec.compile(hub)
    feed = called.names[0]
    (floats,) = session.run({feed: pictures})
    row["error"] = float(np.abs(floats - expected).max() / np.abs(expected).max())
    row["spread"] = float(np.abs(expected - expected.mean(0)).max() / np.abs(expected).max())
    samples = [{feed: keras_families.pictures(model, 1, 100 + n)} for n in range(CALIBRATION)]
    start = time.process_time()
    quantized = lowprec.quantize(hub, samples)
    row["quantize"] = time.process_time() - start
    exact = keras_families.logits_of(expected)
    noise = keras_families.logits_of(quantized.run({feed: pictures})[0]) - exact
    row["sqnr"] = float(10 * np.log10(np.square(exact).sum() / np.square(noise).sum()))
    row["int8"] = quantized.report.int8_macs / quantized.report.total_macs
    steps = [line.split()[1] for line in str(quantized.explain()).splitlines()[1:]]
    row["steps"] = len(steps)
    row["left"] = sorted({step for step in steps if step in LEFT_OVER})
    if choice.tf2onnx:
        row["tf2onnx"], row["tf2onnx_memory"] = tf2onnx_costs(model)
    return row


LEFT_OVER = ("Transpose", "Reshape", "Pad", "Slice", "Shape", "Concat", "BatchNormalization")


def tf2onnx_costs(model: Any) -> tuple[float, float]:
    """Return seconds and memory of tf2onnx with the same model, its own freeze included."""
    import tensorflow as tf
    import tf2onnx

    spec = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="picture")]
    start, before = time.process_time(), peak()
    tf2onnx.convert.from_function(tf.function(lambda x: model(x, training=False)), spec)
    return time.process_time() - start, peak() - before


def peak() -> float:
    """Return the most memory that the process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def latencies(choice: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of one call by runner, for one network and number of threads."""
    import keras_families
    import tensorflow as tf

    threads = choice.threads[0]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    lowprec.set_num_threads(threads)
    model = keras_families.network(choice.models[0])
    picture = keras_families.pictures(model, 1, 7)
    calibration = [keras_families.pictures(model, 1, 100 + n) for n in range(CALIBRATION)]
    quantized: Any = lowprec.quantize(model, calibration)
    floats: Any = lowprec.compile(model)
    (feed,) = (info.name for info in quantized.inputs)

    spec = tf.TensorSpec(picture.shape, tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    ours = tf.function(lambda x: quantized(x)).get_concrete_function(spec)
    tensor = tf.constant(picture)
    calls: dict[str, Callable[[], Any]] = {
        "tensorflow f32": lambda: function(tensor),
        "lowprec f32": lambda: floats.run({feed: picture}),
        "lowprec int8": lambda: quantized.run({feed: picture}),
        "int8 in tf.function": lambda: ours(tensor),
    }
    failed = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("openvino f32", "openvino int8"):
            try:
                calls[name] = openvino_call(name, model, folder, picture, calibration, threads)
            except Exception as error:  # another tool's errors have no common base
                failed[name] = str(error).splitlines()[0]
    slow = max(take_turns(calls, 1, 1).values()) > 0.1
    rounds = max(5, choice.rounds // 3) if slow else choice.rounds
    seconds = take_turns(calls, rounds, threads, min if choice.least else median)
    return {"model": choice.models[0], "threads": threads, "seconds": seconds, "failed": failed}


def openvino_call(
    name: str, model: Any, folder: str, picture: Any, calibration: Sequence[Any], threads: int
) -> Callable[[], Any]:
    """Return OpenVINO's run of the SavedModel of `model`, in f32 or in NNCF's int8."""
    import logging

    import openvino

    path = Path(folder) / "saved"
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # its progress
        if not path.exists():
            model.export(str(path), verbose=False)
        converted = openvino.convert_model(str(path))
        if name.endswith("int8"):
            import nncf

            nncf.set_log_level(logging.ERROR)
            converted = nncf.quantize(
                converted, nncf.Dataset(list(calibration)), subset_size=len(calibration)
            )
    converted.reshape({converted.inputs[0]: list(picture.shape)})
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    return lambda: request.infer([picture], share_inputs=True, share_outputs=True)


# ---- All of them ---------------------------------------------------------------------------------
def in_process(choice: argparse.Namespace, part: str, model: str, threads: int) -> dict[str, Any]:
    """Return what a fresh process finds; what it writes to stderr is shown if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--worker", str(result), "--part", part]
        command += ["--models", model, "--threads", str(threads), "--rounds", str(choice.rounds)]
        command += ["--tf2onnx"] if choice.tf2onnx else []
        command += ["--least"] if choice.least else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{model}: exit {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
            return {}
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: both")
    parser.add_argument("--models", type=names, help="by comma; default: one of each family")
    parser.add_argument("--threads", type=lambda text: [*map(int, names(text))], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--least", action="store_true", help="least of the rounds")
    parser.add_argument("--tf2onnx", action="store_true", help="its cost too (families)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    choice = parser.parse_args()
    if choice.worker:
        row = capture_costs(choice) if choice.part == ["families"] else latencies(choice)
        choice.worker.write_text(json.dumps(row))
        return 0
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tables = {"families": families_table, "speed": speed_table}
    for part in choice.part or PARTS:
        rows: dict[str, Any] = kept.setdefault(part, {})
        models, counts = choice.models or FAST, choice.threads
        if part == "families":
            import keras_families

            models, counts = choice.models or keras_families.FAMILIES, [1]
        for model in models:
            for threads in counts:
                row = in_process(choice, part, model, threads)
                if row:
                    rows[f"{model} {threads}"] = row
                    print(tables[part]([row]), flush=True)
                RESULTS.write_text(json.dumps(kept, indent=1))
    text = "\n\n".join(tables[part](list(kept[part].values())) for part in PARTS if part in kept)
    RESULTS.with_suffix(".md").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
