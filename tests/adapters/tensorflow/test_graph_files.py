"""Frozen graphs: their ends are found, refusals are clear, and they come back as graphs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from tensorflow_models import (
    frozen_images,
    image_feeds,
    read_graph_def,
    run_graph,
    write_graph,
)

import lowprec
from lowprec import api
from lowprec.adapters.tensorflow import graph
from lowprec.adapters.tensorflow_paths import form_of
from lowprec.cli.application import run
from lowprec.errors import LowprecError, ModelError, OutputError, UnsupportedError


@pytest.fixture(scope="module")
def definition() -> Any:
    return frozen_images()


@pytest.fixture(scope="module")
def model_file(definition: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(definition, tmp_path_factory.mktemp("graph") / "m.pb")


@pytest.fixture(scope="module")
def quantized(model_file: Path) -> Any:
    return lowprec.quantize(model_file, image_feeds())


def test_compiled_equals_tensorflow(model_file: Path, definition: Any) -> None:
    x = image_feeds(1, batch=3)[0]
    expected = run_graph(definition, "scores:0", {"input:0": x})
    compiled = lowprec.compile(model_file)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5)
    np.testing.assert_allclose(compiled.run({"input": x})[0], expected, rtol=1e-5)


def test_arrays_give_arrays_and_tensors_give_tensors(quantized: Any) -> None:
    x = image_feeds(1)[0]
    result = quantized(x)
    assert isinstance(result, np.ndarray)
    assert tf.is_tensor(quantized(tf.constant(x)))
    np.testing.assert_array_equal(quantized(input=tf.constant(x)).numpy(), result)
    assert quantized.report.layers
    with pytest.raises(lowprec.LowprecError, match="dimensions"):
        quantized(tf.constant(x[0]))


def test_inside_a_function_of_tensorflow(quantized: Any) -> None:
    x = image_feeds(1)[0]

    @tf.function
    def doubled(x: tf.Tensor) -> tf.Tensor:
        return 2 * quantized(x)

    np.testing.assert_array_equal(doubled(tf.constant(x)).numpy(), 2 * quantized(x))


def test_the_saved_graph_has_the_names_of_the_original(quantized: Any, tmp_path: Path) -> None:
    x = image_feeds(1, batch=7)[0]
    for name in ("q.pb", "q.pbtxt"):
        quantized.save(tmp_path / name)
    saved = read_graph_def(tmp_path / "q.pb")
    result = run_graph(saved, "scores:0", {"input:0": x})
    np.testing.assert_array_equal(result, quantized(x))
    from google.protobuf import text_format

    read = text_format.Parse((tmp_path / "q.pbtxt").read_text(), tf.compat.v1.GraphDef())
    assert read == saved


def test_it_is_saved_as_the_other_kinds_too(quantized: Any, tmp_path: Path) -> None:
    x = image_feeds(1)[0]
    quantized.save(tmp_path / "q.onnx")
    loaded = lowprec.load(tmp_path / "q.onnx")
    np.testing.assert_array_equal(loaded.run({"input": x})[0], quantized(x))
    quantized.save(tmp_path / "folder")
    signature = tf.saved_model.load(str(tmp_path / "folder")).signatures["serving_default"]
    np.testing.assert_array_equal(signature(input=tf.constant(x))["scores"], quantized(x))
    with pytest.raises(UnsupportedError, match="Keras"):
        quantized.save(tmp_path / "q.keras")
    with pytest.raises(OutputError, match="h5"):
        quantized.save(tmp_path / "q.h5")
    with pytest.raises(UnsupportedError, match="accepted"):
        quantized.save(tmp_path / "q.pb", target="other")


def test_a_fresh_process_needs_one_import(quantized: Any, tmp_path: Path) -> None:
    x = image_feeds(1)[0]
    quantized.save(tmp_path / "q.pb")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", quantized(x))
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "import lowprec.adapters.tensorflow\n"
        "folder = sys.argv[1]\n"
        "graph = tf.compat.v1.GraphDef.FromString(open(folder + '/q.pb', 'rb').read())\n"
        "tf.compat.v1.disable_eager_execution()\n"
        "tf.graph_util.import_graph_def(graph, name='')\n"
        "y = tf.compat.v1.Session().run('scores:0', {'input:0': np.load(folder + '/x.npy')})\n"
        "np.testing.assert_array_equal(y, np.load(folder + '/y.npy'))\n"
        "print('same')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("same\n"), done.stderr


def test_int8_files_are_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    float_graph = tf.Graph()
    with float_graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 512], name="x")
        for _ in range(2):
            x = tf.nn.relu(x @ random.standard_normal((512, 512)).astype(np.float32) / 16)
        tf.identity(x, name="y")
    path = write_graph(float_graph.as_graph_def(), tmp_path / "m.pb")
    feeds = [random.standard_normal((4, 512)).astype(np.float32) for _ in range(4)]
    lowprec.quantize(path, feeds).save(tmp_path / "q.pb")
    assert (tmp_path / "q.pb").stat().st_size < 0.30 * path.stat().st_size


def test_a_broken_save_leaves_the_old_file(
    quantized: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "q.pb"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OutputError, match="No space"):
        quantized.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---- Where a graph begins and ends ---------------------------------------------------------------


def test_leftovers_of_training_are_no_outputs() -> None:
    training = tf.Graph()
    with training.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        labels = tf.compat.v1.placeholder(tf.int64, [None], name="labels")
        rate = tf.compat.v1.placeholder_with_default(0.5, [], name="rate")
        logits = x @ tf.ones([4, 3]) * rate
        scores = tf.nn.softmax(logits, name="scores")
        right = tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32)
        tf.reduce_mean(right, name="accuracy")
        tf.compat.v1.summary.histogram("seen", scores)
        tf.compat.v1.Assert(tf.reduce_all(logits < 9), [logits])
        tf.constant(3, name="step")
    captured = api.capture(training.as_graph_def())
    assert [value.name for value in captured.graph.graph.inputs] == ["x"]
    assert [value.name for value in captured.graph.graph.outputs] == ["scores"]


def test_ends_can_be_named(definition: Any) -> None:
    x = image_feeds(1)[0]
    part = lowprec.compile(graph(definition, outputs="Relu"))
    (expected,) = run_graph(definition, ["Relu:0"], {"input:0": x})
    np.testing.assert_allclose(part(x), expected, rtol=1e-4, atol=1e-6)


def test_a_model_can_begin_in_the_middle(definition: Any, tmp_path: Path) -> None:
    hidden = np.random.default_rng(0).standard_normal((2, 5, 4, 8)).astype(np.float32)
    part = lowprec.compile(graph(definition, inputs=["Relu:0"], outputs=["scores"]))
    expected = run_graph(definition, "scores:0", {"Relu:0": hidden})
    np.testing.assert_allclose(part(hidden), expected, rtol=1e-4)
    part.save(tmp_path / "part.pb")
    result = run_graph(read_graph_def(tmp_path / "part.pb"), "scores:0", {"Relu:0": hidden})
    np.testing.assert_array_equal(result, part(hidden))


def test_outputs_that_are_not_the_first_of_their_node(tmp_path: Path) -> None:
    split = tf.Graph()
    with split.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 6], name="x")
        parts = tf.split(x * 2, 3, axis=1, name="parts")
        tf.identity(parts[0], name="only")
    compiled = lowprec.compile(graph(split.as_graph_def(), outputs=["parts:2", "parts:1"]))
    feed = np.arange(12, dtype=np.float32).reshape(2, 6)
    compiled.save(tmp_path / "c.pb")
    saved = run_graph(read_graph_def(tmp_path / "c.pb"), ["parts:2", "parts:1"], {"x:0": feed})
    np.testing.assert_array_equal(saved[0], 2 * feed[:, 4:])
    np.testing.assert_array_equal(saved[1], 2 * feed[:, 2:4])


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({"inputs": ["nothing"]}, "no tensor 'nothing' for an input; its inputs are input"),
        ({"outputs": ["nothing"]}, "no tensor 'nothing' for an output"),
        ({"outputs": ["scores:7"]}, "no tensor 'scores:7'"),
        ({"inputs": ["Relu"], "outputs": ["conv"]}, "need more than the inputs named: input"),
    ],
)
def test_wrong_ends_are_named(definition: Any, ends: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        api.capture(graph(definition, **ends))


def test_a_graph_that_is_not_frozen_names_a_variable() -> None:
    unfrozen = tf.Graph()
    with unfrozen.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4])
        tf.identity(x @ tf.compat.v1.get_variable("weights", [4, 3]))
    with pytest.raises(ModelError, match=r"not frozen.*'weights'"):
        api.capture(unfrozen.as_graph_def())


# ---- Files that nobody checked -------------------------------------------------------------------


def test_onnx_and_graphs_are_told_apart(tmp_path: Path, definition: Any) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", ends[:1], ends[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = tmp_path / "onnx_inside.pb"
    path.write_bytes(proto.SerializeToString())
    assert form_of(path) is None
    assert isinstance(lowprec.compile(path), lowprec.CompiledModel)
    assert form_of(write_graph(definition, tmp_path / "without_suffix")) == "graph"
    assert form_of(write_graph(definition, tmp_path / "other.onnx")) is None


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"garbage" * 100, b"\x0a\xff\xff\xff\xff\x0f", None]
)
def test_damaged_files(tmp_path: Path, definition: Any, content: bytes | None) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes(definition.SerializeToString()[:-100] if content is None else content)
    with pytest.raises(ModelError, match=r"m\.pb"):
        api.capture(path)


def test_a_text_file_that_is_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.pbtxt"
    path.write_bytes(b"node { name: \xff")
    with pytest.raises(ModelError, match="not a complete GraphDef"):
        api.capture(path)


def test_an_operation_that_nobody_knows(definition: Any) -> None:
    changed = tf.compat.v1.GraphDef.FromString(definition.SerializeToString())
    changed.node[0].op = "NobodyKnowsThis"
    with pytest.raises(ModelError, match="NobodyKnowsThis"):
        api.capture(changed)


def test_a_constant_that_would_fill_memory(definition: Any) -> None:
    changed = tf.compat.v1.GraphDef.FromString(definition.SerializeToString())
    constant = next(node for node in changed.node if node.op == "Const")
    constant.attr["value"].tensor.tensor_shape.dim[0].size = 1 << 40
    with pytest.raises(ModelError, match="GiB"):
        api.capture(changed)


def test_functions_whose_calls_multiply(definition: Any) -> None:
    changed = tf.compat.v1.GraphDef()
    changed.CopyFrom(definition)
    for number in range(30):
        function = changed.library.function.add()
        function.signature.name = f"f{number}"
        for half in range(2):
            call = function.node_def.add(name=f"call{half}", op="PartitionedCall")
            call.attr["f"].func.name = f"f{number + 1}"
    with pytest.raises(ModelError, match=r"'f0' of the graph .* made to fill memory"):
        api.capture(changed)


@pytest.mark.parametrize("operation", ["WriteFile", "PrintV2"])
def test_files_are_not_touched_by_what_is_opened(operation: str, tmp_path: Path) -> None:
    path = str(tmp_path / "written")
    writing = tf.Graph()
    with writing.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        if operation == "WriteFile":
            written = tf.io.write_file(path, "here")
        else:
            written = tf.print("here", output_stream=f"file://{path}")
        with tf.control_dependencies([written]):
            tf.nn.relu(x, name="y")
    with pytest.raises(UnsupportedError, match=operation):
        api.capture(writing.as_graph_def())
    assert not (tmp_path / "written").exists()


def test_an_output_that_is_called_like_an_input_has_a_node_of_its_own(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def doubled(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"x": x * 2}

    rows = np.ones((3, 4), np.float32)
    lowprec.compile(doubled).save(tmp_path / "m.pb")
    saved = read_graph_def(tmp_path / "m.pb")
    np.testing.assert_array_equal(run_graph(saved, "x_1:0", {"x:0": rows}), rows * 2)


def test_a_folder_that_holds_something_else_is_kept(quantized: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(LowprecError, match="holds something else"):
        quantized.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_from_the_command_line(model_file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", input=np.concatenate(image_feeds()))
    data = ["--calibration", str(tmp_path / "data.npz")]
    for name in ("q.pb", "folder", "folder"):  # the second time it is replaced
        assert run(["quantize", str(model_file), *data, "-o", str(tmp_path / name)]) == 0
    x = image_feeds(1)[0]
    scores = run_graph(read_graph_def(tmp_path / "q.pb"), "scores:0", {"input:0": x})
    signature = tf.saved_model.load(str(tmp_path / "folder")).signatures["serving_default"]
    np.testing.assert_array_equal(signature(input=tf.constant(x))["scores"], scores)
