"""Calibration data in every accepted form becomes complete feeds; everything else is named."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import make_model, value
from refusals import refused

from lowprec.adapters.onnx.batches import Batches
from lowprec.errors import DataError
from lowprec.graph import load

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def one():
    """One input x (N, 4) float32."""
    node = helper.make_node("Relu", ["x"], ["y"])
    return load(make_model([node], [value("x", ["N", 4])], [value("y", None)]))


@pytest.fixture(scope="module")
def three():
    """Inputs x (N, 4) float32, ids (N, T) int64, rate () int64."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Add", ["ids", "rate"], ["z"]),
    ]
    inputs = [
        value("x", ["N", 4]),
        value("ids", ["N", "T"], TensorProto.INT64),
        value("rate", [], TensorProto.INT64),
    ]
    return load(make_model(nodes, inputs, [value("y", None), value("z", None, TensorProto.INT64)]))


def x(batch: int = 1) -> np.ndarray:
    return RNG.normal(size=(batch, 4)).astype(np.float32)


def feeds(data, graph) -> list[dict[str, np.ndarray]]:
    return list(Batches(data, graph))


def test_iterables_of_arrays_tuples_and_dicts_are_the_same(one):
    arrays = [x(2), x(3)]
    for data in (
        arrays,
        iter(arrays),
        [(array,) for array in arrays],
        [{"x": array} for array in arrays],
        lambda: iter(arrays),
        lambda: [{"x": array} for array in arrays],
    ):
        result = feeds(data, one)
        assert [list(feed) for feed in result] == [["x"], ["x"]]
        for feed, array in zip(result, arrays, strict=True):
            np.testing.assert_array_equal(feed["x"], array)


def test_labels_are_dropped_and_reported(one):
    batches = Batches([(x(), np.array([3])), (x(), np.array([4]))], one)
    assert [list(feed) for feed in batches] == [["x"], ["x"]]
    assert batches.notes == [
        "calibration data: dropped what follows the inputs in each item (1 more)"
    ]
    batches = Batches([({"x": x()}, np.array([3]))], one)
    assert [list(feed) for feed in batches] == [["x"]]
    assert "1 more" in batches.notes[0]
    batches = Batches([{"x": x(), "label": np.array([1])}], one)
    assert [list(feed) for feed in batches] == [["x"]]
    assert "dropped label" in batches.notes[0]


def test_arrays_stand_for_samples_along_axis_0(one):
    array = x(5)
    for data in (array, {"x": array}):
        result = feeds(data, one)
        assert [feed["x"].shape for feed in result] == [(1, 4)] * 5
        np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in result]), array)
    assert [feed["x"].shape for feed in feeds(array.reshape(1, 5, 4), one)] == [(5, 4)]


def test_several_inputs(three):
    ids = np.arange(3)[None]
    rate = np.array(16000)
    for item in ((x(), ids, rate), [x(), ids, rate], {"x": x(), "ids": ids, "rate": rate}):
        (feed,) = feeds([item], three)
        assert {name: array.shape for name, array in feed.items()} == {
            "x": (1, 4),
            "ids": (1, 3),
            "rate": (),
        }
    (feed,) = feeds([((x(), ids, rate), np.array(1))], three)
    assert list(feed) == ["x", "ids", "rate"]


def test_float64_is_converted_and_reported(one):
    batches = Batches([np.ones((1, 4))], one)
    assert next(iter(batches))["x"].dtype == np.float32
    assert "float64" in batches.notes[0]


def test_npz_with_samples_along_axis_0(three, tmp_path):
    path = tmp_path / "data.npz"
    arrays = {"x": x(3), "ids": np.arange(12).reshape(3, 4), "rate": np.array(8000)}
    np.savez_compressed(path, label=np.arange(3), **arrays)
    batches = Batches(path, three)
    result = list(batches)
    assert [feed["x"].shape for feed in result] == [(1, 4)] * 3
    assert [feed["ids"].tolist() for feed in result] == [[row] for row in arrays["ids"].tolist()]
    assert [feed["rate"].item() for feed in result] == [8000] * 3
    assert "dropped label" in batches.notes[0]
    assert feeds(str(path), three)[0].keys() == result[0].keys()


def test_npz_in_fortran_order(one, tmp_path):
    path = tmp_path / "data.npz"
    array = x(3)
    np.savez(path, x=np.asfortranarray(array))
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in feeds(path, one)]), array)


def test_npz_with_whole_ragged_feeds_in_number_order(three, tmp_path):
    path = tmp_path / "data.npz"
    arrays: dict[str, np.ndarray] = {"rate": np.array(1)}
    for number in (10, 2, 0):
        arrays[f"x/{number:05d}"] = x(1)
        arrays[f"ids/{number:05d}"] = np.zeros((1, number + 1), np.int64)
    np.savez(path, **arrays)
    assert [feed["ids"].shape for feed in feeds(path, three)] == [(1, 1), (1, 3), (1, 11)]


def test_a_folder_of_npz_files_in_name_order(one, tmp_path):
    for name, count in (("b", 2), ("a", 1)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((count, 4), count, np.float32))
    assert [feed["x"][0, 0] for feed in feeds(tmp_path, one)] == [1, 2, 2]


def test_npz_is_read_sample_by_sample(one, tmp_path):
    """A thousand samples need no more memory than one: only the running feed is held."""
    import tracemalloc

    path = tmp_path / "data.npz"
    np.savez(path, x=np.ones((20_000, 4), np.float32))
    tracemalloc.start()
    try:
        count = sum(1 for _ in Batches(path, one))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 100_000  # bytes; the array alone has 320,000


# ---- refusals ----


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ["no calibration data", "iterable"]),
        ([], ["no samples"]),
        (iter([]), ["used up"]),
        (list, ["no samples"]),
        (3, ["is a int", "iterable"]),
        ([{"y": x()}], ["sample 0", "no 'x'", "holds y", "inputs are x"]),
        ([x(), x()[0]], ["sample 1", "'x'", "1 dimensions", "expects 2"]),
        ([x().astype(np.int32)], ["dtype int32", "float32", ".astype"]),
        ([x(0)], ["sample 0", "[0, 4]", "no values"]),
        ([x(), x() * np.nan], ["sample 1", "'x'", "NaN"]),
        ([np.full((1, 4), -np.inf, np.float32)], ["sample 0", "infinity"]),
        ([np.array([["a", "b"]])], ["dtype <U1", "float32"]),
        ([object()], ["sample 0", "object", "numbers"]),
        ([[[1.0], [1.0, 2.0]]], ["sample 0", "numbers"]),
        (np.ones((1, 1, 1, 4)), ["dimensions", "axis 0"]),
        ({"z": x()}, ["no 'x'"]),
        (lambda extra: [], ["without arguments"]),
    ],
)
def test_wrong_data_is_named(one, data, words):
    with refused(DataError, *words):
        feeds(data, one)


def test_a_used_up_iterator_is_named(one):
    iterator = iter([x()])
    assert len(feeds(iterator, one)) == 1
    with refused(DataError, "used up"):
        feeds(iterator, one)


def test_several_inputs_need_names_or_order(three):
    with refused(DataError, "one array", "3 inputs", "x, ids, rate"):
        feeds([x()], three)
    with refused(DataError, "2 arrays", "3 inputs"):
        feeds([(x(), x())], three)
    with refused(DataError, "different numbers", "x: 2"):
        feeds({"x": x(2), "ids": np.ones((3, 1), np.int64), "rate": np.array(1)}, three)


def test_wrong_files_are_named(one, three, tmp_path):
    with refused(DataError, "none.npz", "does not exist"):
        feeds(tmp_path / "none.npz", one)
    with refused(DataError, "no .npz files"):
        feeds(tmp_path, one)
    path = tmp_path / "data.npz"
    path.write_text("hello")
    with refused(DataError, "not an .npz archive"):
        feeds(path, one)
    text = tmp_path / "data.txt"
    text.write_text("hello")
    with refused(DataError, "data.txt", "not an .npz file"):
        feeds(text, one)
    np.savez(path, y=x())
    with refused(DataError, "no array for the input 'x'", "holds y"):
        feeds(path, one)
    np.savez(path, x=np.ones((2, 4, 4, 4), np.float32))
    with refused(DataError, "'x'", "axis 0"):
        feeds(path, one)
    np.savez(path, x=x(2), ids=np.ones((3, 1), np.int64), rate=np.array(1))
    with refused(DataError, "different numbers"):
        feeds(path, three)


def test_pickled_arrays_are_refused(one, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{"code": 1}], dtype=object))
    with refused(DataError, "'x'", "pickled"):
        feeds(path, one)


def test_damaged_archives_are_refused(one, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=x(100))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with refused(DataError, "damaged"):
        feeds(path, one)
    path.write_bytes(content[: len(content) // 2])
    with refused(DataError, "not an .npz archive"):
        feeds(path, one)


def test_a_header_that_declares_too_much_reserves_nothing(one, tmp_path):
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 40)}
    )
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"1234")
    with refused(DataError, "'x'", "needs 4398046511104 bytes", "holds 4"):
        feeds(path, one)
