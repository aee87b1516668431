"""LowprecRun: one operator of TensorFlow that runs a whole model."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

import lowprec
from lowprec.adapters.tensorflow import operator, programs, signature
from lowprec.adapters.tensorflow.content import proto_of
from lowprec.graph import load

BF16 = np.dtype(ml_dtypes.bfloat16)
WEIGHTS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def dense(scale: float = 1.0) -> bytes:
    """Return y = max(x w, 0) * scale and the shape-preserving z = -x as an ONNX file."""
    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["r"]),
            helper.make_node("Mul", ["r", "s"], ["y"]),
            helper.make_node("Neg", ["x"], ["z"]),
        ],
        "dense",
        [shape("x", TensorProto.FLOAT, ["batch", 6])],
        [shape("y", TensorProto.FLOAT, ["batch", 4]), shape("z", TensorProto.FLOAT, ["batch", 6])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, (6, 4), WEIGHTS.ravel()),
            helper.make_tensor("s", TensorProto.FLOAT, (), [scale]),
        ],
    )
    return packed(graph)


def identity(kind: int, operation: str = "Identity") -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operation, ["x"], ["y"])],
        "same",
        [value("x", kind, ["n"])],
        [value("y", kind, ["n"])],
    )
    return packed(graph)


def packed(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def signature_for(content: bytes) -> str:
    return programs.signature_of(content, lowprec.compile(load(proto_of(content))))


def tensor_of(content: bytes) -> tf.Tensor:
    return tf.constant(np.frombuffer(content, np.uint8))


def tensor_of_graph(content: bytes) -> tf.Tensor:
    """Return the bytes as a tensor of two axes, whose digest is the same."""
    return tf.constant(np.frombuffer(content, np.uint8)[None])


DENSE = dense()
DENSE_SIGNATURE = signature_for(DENSE)


def expected(x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ WEIGHTS, 0)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)


def test_eager_and_traced() -> None:
    variable = tf.Variable(np.frombuffer(DENSE, np.uint8), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32)])
    def traced(x: tf.Tensor) -> list[tf.Tensor]:
        return operator.run([x], variable, DENSE_SIGNATURE)

    assert [shape.as_list() for shape in traced.get_concrete_function().output_shapes] == [
        [None, 4],
        [None, 6],
    ]
    for count in (1, 3, 3, 5):
        x = rows(count)
        for y, z in (operator.run([x], variable, DENSE_SIGNATURE), traced(x)):
            np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(z, -x)


def test_static_shapes_follow_those_of_the_inputs() -> None:
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, (7, 6))
        y, _ = operator.run([x], tf.constant(np.frombuffer(DENSE, np.uint8)), DENSE_SIGNATURE)
        assert y.shape.as_list() == [7, 4]


def test_v1_graph_through_a_file() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6), name="x")
        y, _ = operator.run([x], tensor_of(DENSE), DENSE_SIGNATURE)
        tf.identity(y, name="y")
        stored = graph.as_graph_def().SerializeToString()
    definition = tf.compat.v1.GraphDef.FromString(stored)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        assert graph.get_tensor_by_name("y:0").shape.as_list() == [None, 4]
        with tf.compat.v1.Session(graph=graph) as session:
            data = rows(3)
            found = session.run("y:0", {"x:0": data})
    np.testing.assert_allclose(found, expected(data), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_batch_gives_an_empty_result(count: int) -> None:
    y, z = operator.run([rows(count)], tensor_of(DENSE), DENSE_SIGNATURE)
    assert y.shape == (count, 4)
    assert z.shape == (count, 6)


def test_an_empty_batch_of_huge_rows_is_refused_at_once() -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])],
    )
    content = packed(graph)
    signed, model = signature_for(content), tensor_of(content)
    assert operator.run([np.zeros((0, 7), np.float32)], model, signed)[0].shape == (0, 7)
    with pytest.raises(tf.errors.InvalidArgumentError, match="empty batch"):
        operator.run([tf.zeros((0, 1 << 40))], model, signed)


def test_outputs_end_with_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    run = programs.Program.run

    def keeping(self: programs.Program, arrays: list[np.ndarray], outputs: Any) -> None:
        kept.append(outputs)
        run(self, arrays, outputs)

    monkeypatch.setattr(programs.Program, "run", keeping)
    operator.run([rows(2)], tensor_of(DENSE), DENSE_SIGNATURE)
    for late in (kept[0].count, lambda: kept[0].dtype(0)):
        with pytest.raises(RuntimeError, match="over"):
            late()
    with pytest.raises(RuntimeError, match="over"):
        kept[0].allocate(0, (2, 4), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("types", "results", "message"),
    [
        ([tf.float64], [tf.float32, tf.float32], "input 'x' is float64"),
        ([tf.float32], [tf.float32, tf.int8], "output 'z' is float32, the graph wants int8"),
        ([tf.float32], [tf.float32], "wants 1"),
        ([tf.float32] * 2, [tf.float32, tf.float32], "gives 2"),
    ],
)
def test_hostile_graphs_are_refused(
    types: list[tf.DType], results: list[tf.DType], message: str
) -> None:
    from tensorflow.python.framework import op_def_library

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = op_def_library.apply_op(
            "LowprecRun",
            args=[tf.zeros((2, 6), kind) for kind in types],
            model=tensor_of_graph(DENSE),
            Tout=results,
            signature=DENSE_SIGNATURE,
            keep=True,
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            session.run(made)


@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float32, np.float64, np.float16, BF16, np.bool_, np.int8, np.uint8, np.int16),
        *(np.uint16, np.int32, np.uint32, np.int64, np.uint64),
    ],
)
def test_every_dtype_keeps_its_bits(dtype: Any) -> None:
    content = identity(ir.DataType.from_numpy(np.dtype(dtype)).value)
    x = np.arange(-3, 5).astype(dtype)
    (y,) = operator.run([tf.constant(x)], tensor_of(content), signature_for(content))
    assert y.dtype == tf.as_dtype(dtype)
    np.testing.assert_array_equal(np.asarray(y), x)


def test_inputs_are_read_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    run = programs.Program.run

    def watching(self: programs.Program, arrays: list[np.ndarray], outputs: Any) -> None:
        seen.extend(arrays)
        run(self, arrays, outputs)

    monkeypatch.setattr(programs.Program, "run", watching)
    x = tf.constant(rows(3))
    operator.run([x], tensor_of(DENSE), DENSE_SIGNATURE)
    assert seen[0].ctypes.data == np.asarray(memoryview(x)).ctypes.data
    assert not seen[0].flags.writeable


def test_outputs_are_written_where_tensorflow_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = rows(9), tensor_of(DENSE)
    operator.run([x], model, DENSE_SIGNATURE)  # plans
    copied = []
    monkeypatch.setattr(programs.np, "copyto", lambda *_: copied.append(1))
    y, z = operator.run([x], model, DENSE_SIGNATURE)
    np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(z, -x)
    assert not copied


def test_other_bytes_are_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="not those that the graph was made"):
        operator.run([rows(2)], tensor_of(dense(2.0)), DENSE_SIGNATURE)


def test_bytes_that_change_are_noticed() -> None:
    variable = tf.Variable(np.frombuffer(DENSE, np.uint8), trainable=False)
    traced = tf.function(lambda x: operator.run([x], variable, DENSE_SIGNATURE)[0])
    traced(rows(2))
    variable.assign(np.frombuffer(dense(2.0), np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not those that the graph was made"):
        traced(rows(2))


@pytest.mark.parametrize(
    ("inputs", "content", "message"),
    [
        ([np.zeros((2, 5), np.float32)], DENSE, "size 5 on axis 1"),
        ([np.zeros((2, 6), np.float32)], b"not a model", "ONNX file|usable|damaged"),
    ],
)
def test_errors_are_statuses_with_our_message(
    inputs: list[np.ndarray], content: bytes, message: str
) -> None:
    text = programs.shapes_in(DENSE_SIGNATURE)
    signed = f"{programs.digest_of(content)} {text}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        operator.run(inputs, tensor_of(content), signed)


def test_other_outputs_than_the_signature_says_are_refused() -> None:
    digest = programs.digest_of(DENSE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="other inputs and outputs"):
        operator.run([rows(1)], tensor_of(DENSE), f"{digest} float32[2;6] -> float32[2;4]")


def test_a_wrong_number_of_inputs_is_refused() -> None:
    with pytest.raises(lowprec.LowprecError, match="takes 1 inputs, 2 were given"):
        operator.run([rows(1), rows(1)], tensor_of(DENSE), DENSE_SIGNATURE)


def test_a_gradient_is_refused() -> None:
    x = tf.constant(rows(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = operator.run([x], tensor_of(DENSE), DENSE_SIGNATURE)[0]
    with pytest.raises(lowprec.LowprecError, match="no gradient"):
        tape.gradient(y, x)

    @tf.function
    def traced(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = operator.run([x], tensor_of(DENSE), DENSE_SIGNATURE)[0]
        return tape.gradient(y, x)

    with pytest.raises(lowprec.LowprecError, match="no gradient"):
        traced(x)


def test_xla_refuses_it_by_name() -> None:
    model = tensor_of(DENSE)
    compiled = tf.function(lambda x: operator.run([x], model, DENSE_SIGNATURE)[0], jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="LowprecRun"):
        compiled(rows(2))


def test_several_threads_at_once() -> None:
    model = tensor_of(DENSE)
    traced = tf.function(lambda x: operator.run([x], model, DENSE_SIGNATURE)[0])
    traced(rows(1))

    def work(number: int) -> bool:
        x = rows(1 + number % 5)
        eager = operator.run([x], model, DENSE_SIGNATURE)[0]
        return all(np.allclose(y, expected(x), atol=1e-5) for y in (eager, traced(x)))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))


def test_a_result_as_a_shape_does_not_wait_for_ever() -> None:
    # TensorFlow may evaluate constants while a graph is built, with Python's lock held.
    content = identity(TensorProto.INT64)
    with tf.Graph().as_default():
        shape = operator.run([np.array([2, 3])], tensor_of(content), signature_for(content))[0]
        reshaped = tf.reshape(tf.range(6), shape)
        with tf.compat.v1.Session() as session:
            assert session.run(reshaped).shape == (2, 3)


def test_programs_end_with_what_runs_them() -> None:
    content = dense(3.0)
    signed = signature_for(content)
    model = tensor_of(content)
    traced = tf.function(lambda x: operator.run([x], model, signed)[0])
    traced(rows(2))
    assert signed in programs._programs
    del traced
    gc.collect()
    operator.run([rows(1)], tensor_of(DENSE), DENSE_SIGNATURE)  # comes by with Python's lock
    gc.collect()
    assert signed not in programs._programs


def test_eager_calls_keep_a_few_programs() -> None:
    for scale in range(10, 10 + programs.KEPT + 2):
        content = dense(float(scale))
        operator.run([rows(1)], tensor_of(content), signature_for(content))
    assert len(programs._recent) == programs.KEPT


def test_registering_again_changes_nothing() -> None:
    operator._register()
    operator.run([rows(1)], tensor_of(DENSE), DENSE_SIGNATURE)


def test_a_tensorflow_without_the_functions_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import tensorflow as tf\n"
        "import lowprec._ext._tensorflow as t\n"
        "print(t.register(['/no/such/library.so'], {}, None, None))\n"
        "print(t.register([t.__file__], {}, None, None))\n"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.splitlines()
    assert lines == ["none of its libraries is loaded", "it has no TF_NewStatus"]
    monkeypatch.setattr(operator._tensorflow, "register", lambda *_: "it has no TF_NewStatus")
    with pytest.raises(lowprec.LowprecError, match=r"cannot add .* it has no TF_NewStatus"):
        operator._register()


@pytest.mark.parametrize(
    "text", ["", "float32", "float32[3] float32", "no[3] -> float32", "float32 -> string[2]"]
)
def test_damaged_signatures_are_refused(text: str) -> None:
    with pytest.raises(lowprec.LowprecError, match="signature"):
        signature.read(text)


def test_a_saved_model_runs_in_a_fresh_process(tmp_path: Path) -> None:
    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tf.Variable(np.frombuffer(DENSE, np.uint8), trainable=False)

        @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32)])
        def serve(self, x: tf.Tensor) -> tf.Tensor:
            return operator.run([x], self.model, DENSE_SIGNATURE)[0]

    tf.saved_model.save(Module(), str(tmp_path / "saved"))
    np.save(tmp_path / "x.npy", rows(3))
    code = (
        "import numpy as np, tensorflow as tf\n"
        "tf.constant(1) + 1\n"  # TensorFlow has run before
        "import lowprec.adapters.tensorflow\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"loaded = tf.saved_model.load({str(tmp_path / 'saved')!r})\n"
        "y = loaded.serve(x)\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, y.numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected(rows(3)), rtol=1e-5, atol=1e-6)
