"""SavedModels: signatures in, the same signatures out, in this process and in a fresh one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_models import (
    Pair,
    frozen_images,
    pair_feeds,
    read_graph_def,
    run_graph,
    write_graph,
)

import lowprec
from lowprec import api
from lowprec.adapters.tensorflow import load, saved_model
from lowprec.errors import InputError, LowprecError, ModelError, OutputError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "pair"
    pair = Pair()
    tf.saved_model.save(
        pair, str(path), signatures={"serving_default": pair.__call__, "embed": pair.embed}
    )
    return path


@pytest.fixture(scope="module")
def quantized(folder: Path) -> Any:
    return lowprec.quantize(folder, pair_feeds())


def tensors(feed: dict[str, Any]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in feed.items()}


def assert_same(results: Any, expected: Any) -> None:
    assert set(results) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_allclose(results[name], tensor, rtol=1e-5, atol=1e-6)


def test_compiled_is_called_like_the_signature(folder: Path) -> None:
    feed = pair_feeds(1, batch=3)[0]
    original = tf.saved_model.load(str(folder)).signatures["serving_default"]
    compiled = lowprec.compile(folder)
    results = compiled(**tensors(feed))
    assert all(tf.is_tensor(result) for result in results.values())
    assert_same(results, original(**tensors(feed)))
    by_name = dict(zip([info.name for info in compiled.outputs], compiled.run(feed), strict=True))
    assert_same(by_name, results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((1, 4), np.float32)}, "'y' is missing; the model takes x, y"),
        ({**pair_feeds(1)[0], "z": 0}, "no argument 'z'"),
        ({**pair_feeds(1)[0], "y": tf.zeros((5, 3))}, "'y' is float32; it must be int32"),
    ],
)
def test_wrong_arguments_are_named(quantized: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantized(**arguments)


def test_the_saved_folder_has_the_signature_of_the_original(
    quantized: Any, folder: Path, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "q")
    saved = tf.saved_model.load(str(tmp_path / "q")).signatures["serving_default"]
    original = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert saved.structured_input_signature == original.structured_input_signature
    assert set(saved.structured_outputs) == set(original.structured_outputs)
    for batch in (1, 4):
        feed = pair_feeds(1, batch=batch)[0]
        results, expected = saved(**tensors(feed)), quantized(**tensors(feed))
        assert {name: value.shape for name, value in results.items()} == {
            name: value.shape for name, value in original(**tensors(feed)).items()
        }
        for name, value in expected.items():
            np.testing.assert_array_equal(results[name], value)
    note = (tmp_path / "q" / "LOWPREC.txt").read_text()
    assert "import lowprec.adapters.tensorflow" in note


def test_a_fresh_process_needs_one_import(quantized: Any, tmp_path: Path) -> None:
    feed = pair_feeds(1)[0]
    quantized.save(tmp_path / "q")
    np.savez(tmp_path / "data.npz", **feed, expected=quantized(**tensors(feed))["scores"])
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "import lowprec.adapters.tensorflow\n"
        "data = np.load(sys.argv[1] + '/data.npz')\n"
        "model = tf.saved_model.load(sys.argv[1] + '/q').signatures['serving_default']\n"
        "y = model(x=tf.constant(data['x']), y=tf.constant(data['y']))['scores']\n"
        "np.testing.assert_array_equal(y, data['expected'])\n"
        "print('same')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("same\n"), done.stderr


def test_other_signatures_are_chosen_and_named(folder: Path, tmp_path: Path) -> None:
    x = pair_feeds(1)[0]["x"]
    embed = lowprec.quantize(saved_model(folder, signature="embed"), [{"x": x}])
    assert set(embed(tf.constant(x))) == {"embedding"}
    embed.save(tmp_path / "q")
    assert set(tf.saved_model.load(str(tmp_path / "q")).signatures) == {"embed"}
    captured = api.capture(folder)
    assert any("also has embed" in note for note in captured.notes)
    with pytest.raises(ModelError, match=r"no signature 'other'; it has embed, serving_default"):
        api.capture(saved_model(folder, signature="other"))
    with pytest.raises(ModelError, match=r"tagged gpu; it has serve"):
        api.capture(saved_model(folder, tags="gpu"))


def test_what_keras_exports_has_one_function_by_two_names(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="softmax")])
    model.export(tmp_path / "exported", verbose=False)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    quantized = lowprec.quantize(tmp_path / "exported", [x])
    assert not any("also has" in note for note in quantized.report.notes)
    quantized.save(tmp_path / "q")
    signatures = tf.saved_model.load(str(tmp_path / "q")).signatures
    assert set(signatures) == {"serve", "serving_default"}
    np.testing.assert_array_equal(
        signatures["serve"](tf.constant(x))["output_0"], quantized(tf.constant(x))["output_0"]
    )
    again = lowprec.compile(tmp_path / "q")  # the graph of TensorFlow 1 that holds LowprecRun
    np.testing.assert_array_equal(
        again(tf.constant(x))["output_0"], quantized(tf.constant(x))["output_0"]
    )


def write_tf1(path: Path, tags: list[str]) -> Path:
    """Write a SavedModel as TensorFlow 1 did: a variable, and names that are not Python's."""
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="in")
        weights = tf.compat.v1.get_variable(
            "weights", initializer=np.eye(4, 3, dtype=np.float32), use_resource=False
        )
        y = tf.nn.softmax(x @ weights)
        session.run(tf.compat.v1.global_variables_initializer())
        signature = tf.compat.v1.saved_model.predict_signature_def({"a/x.1": x}, {"b y": y})
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, tags, {"predict": signature})
        builder.save()
    return path


def test_a_saved_model_of_tensorflow_1(tmp_path: Path) -> None:
    path = write_tf1(tmp_path / "old", ["serve", "cpu"])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    compiled = lowprec.compile(path)
    expected = tf.nn.softmax(x[:, :3]).numpy()
    np.testing.assert_allclose(compiled(tf.constant(x))["b y"], expected, rtol=1e-5)
    compiled.save(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"), tags=["serve", "cpu"])
    result = loaded.signatures["predict"](**{"a/x.1": tf.constant(x)})["b y"]
    np.testing.assert_array_equal(result, compiled(tf.constant(x))["b y"])


def test_what_only_the_old_loader_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = pair_feeds(1)[0]
    expected = tf.saved_model.load(str(folder)).signatures["serving_default"](**tensors(feed))

    def fail(*_: object, **__: object) -> None:
        raise AttributeError("'_UserObject' object has no attribute 'add_slot'")

    monkeypatch.setattr(tf.saved_model, "load", fail)
    compiled = lowprec.compile(folder)
    assert_same(compiled(**tensors(feed)), expected)
    assert [info.name for info in compiled.outputs] == ["hidden", "scores"]  # in every process


def test_a_loaded_model_is_taken_too(folder: Path) -> None:
    loaded = tf.saved_model.load(str(folder))
    feed = pair_feeds(1)[0]
    expected = loaded.signatures["serving_default"](**tensors(feed))
    assert_same(lowprec.compile(loaded)(**tensors(feed)), expected)
    assert_same(lowprec.compile(loaded.signatures["serving_default"])(**tensors(feed)), expected)


def test_it_is_saved_as_a_graph(quantized: Any, tmp_path: Path) -> None:
    feed = pair_feeds(1)[0]
    quantized.save(tmp_path / "q.pb")
    results = run_graph(
        read_graph_def(tmp_path / "q.pb"),
        ["scores:0", "hidden:0"],
        {"x:0": feed["x"], "y:0": feed["y"]},
    )
    np.testing.assert_array_equal(results[0], quantized(**tensors(feed))["scores"])
    np.testing.assert_array_equal(results[1], quantized(**tensors(feed))["hidden"])


def test_scores_see_the_original_as_something_to_call(folder: Path) -> None:
    feed = pair_feeds(1)[0]
    seen = []

    def score(model: Any) -> float:
        results = model(**tensors(feed))
        seen.append(type(model).__name__)
        return float(tf.reduce_sum(results["scores"]))

    tuned = lowprec.quantize(folder, pair_feeds(), evaluate=score)
    assert seen[0] == "Original"
    assert "QuantizedFunction" in seen
    assert set(tuned(**tensors(feed))) == {"scores", "hidden"}


# ---- Folders that nobody checked, and that are in the way ----------------------------------------


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, b"\x08\x01\x12\xff\xff\xff\x0f"])
def test_damaged_folders(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match=r"saved_model\.pb"):
        api.capture(tmp_path)


def test_missing_variables(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        api.capture(tmp_path)


def test_the_file_in_the_folder_stands_for_it(folder: Path) -> None:
    assert api.capture(folder / "saved_model.pb").binding["lowprec.tensorflow"].name == "pair"


def test_saving_over_an_old_folder(
    quantized: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "q"
    quantized.save(path)
    (path / "mark").write_text("old")
    replace, calls = __import__("os").replace, []

    def fail_second(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr("os.replace", fail_second)
    with pytest.raises(OutputError, match="No space"):
        quantized.save(path)
    assert (path / "mark").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    quantized.save(path)
    assert not (path / "mark").exists()
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(LowprecError, match="is a file"):
        quantized.save(tmp_path / "file")


@pytest.mark.parametrize("name", ["q", "q.pb", "q.onnx"])
def test_load_gives_back_what_was_saved(quantized: Any, tmp_path: Path, name: str) -> None:
    feed = tensors(pair_feeds(1)[0])
    quantized.save(tmp_path / name)
    loaded = load(tmp_path / name)
    np.testing.assert_array_equal(loaded(**feed)["scores"], quantized(**feed)["scores"])
    assert str(loaded.report) == str(quantized.report)
    again = lowprec.compile(tmp_path / name)  # what the commands do with it
    np.testing.assert_array_equal(again.run(pair_feeds(1)[0])[1], quantized(**feed)["scores"])
    with pytest.raises(ModelError, match="no model that lowprec saved"):
        load(write_graph(frozen_images(), tmp_path / "float.pb"))


def test_a_model_that_could_write_files_is_not_even_loaded(tmp_path: Path) -> None:
    class Writing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * 2}

        @tf.function(input_signature=[])
        def write(self) -> dict[str, tf.Tensor]:
            tf.io.write_file(str(tmp_path / "written"), "here")
            return {"y": tf.constant(0)}

    module = Writing()
    signatures = {"serving_default": module.__call__, "write": module.write}
    tf.saved_model.save(module, tmp_path / "model", signatures=signatures)
    with pytest.raises(UnsupportedError, match="WriteFile"):
        api.capture(tmp_path / "model")
