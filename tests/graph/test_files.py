"""Files that are not models, and external data that must not be followed."""

from __future__ import annotations

import copy
import mmap
import os

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import make_model, run_reference, value
from refusals import refused

from lowprec.errors import LowprecError, ModelError
from lowprec.graph import load, to_proto


def refuses(path, *words: str) -> None:
    with refused(ModelError, *words):
        load(path)


def test_missing_file(tmp_path):
    refuses(tmp_path / "none.onnx", "none.onnx", "does not exist")


def test_folder(tmp_path):
    refuses(tmp_path, "folder")


def test_text_file(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("<html>404: not found</html>\n" * 10)
    refuses(path, "text.onnx", "text file")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    refuses(path, "empty")


def test_device(tmp_path):
    refuses("/dev/zero", "not a regular file")


def test_a_name_with_a_null_byte():
    refuses("a\0b.onnx", "cannot be read")


def test_truncation_at_any_byte_is_an_error_or_complete(linear_path):
    content = linear_path.read_bytes()
    short = linear_path.with_name("short.onnx")
    complete = lines = 0
    for size in range(len(content)):
        short.write_bytes(content[:size])
        try:
            load(short)
            complete += 1
        except ModelError as error:
            lines += str(error).count("\n")
    # Only a cut between two whole fields of the last message can leave a valid model.
    assert complete <= 2
    assert lines == 0


def test_damaged_bytes_never_raise_anything_else(linear_path):
    content = bytearray(linear_path.read_bytes())
    path = linear_path.with_name("damaged.onnx")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load(path)
        except LowprecError:
            refused += 1
    assert refused > 30


# ---- external data ----


@pytest.fixture
def external(linear, tmp_path):
    """A model in a folder of its own whose weight lies in weights.bin, and a secret outside."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\x01" * 4096)
    path = folder / "linear.onnx"
    onnx.save_model(
        copy.deepcopy(linear),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def edit(path, **entries: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key in entries:
            entry.value = entries.pop(entry.key)
    for key, item in entries.items():
        model.graph.initializer[0].external_data.add(key=key, value=item)
    path.write_bytes(model.SerializeToString())


def test_external_data_is_read(external, linear, tmp_path, monkeypatch):
    monkeypatch.chdir(external.parent)
    model = load("linear.onnx")
    monkeypatch.chdir(tmp_path)  # the folder is remembered, not the working directory
    expected = onnx.numpy_helper.to_array(linear.graph.initializer[0])
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), expected)


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "a/../../secret.bin", "/etc/hostname", "..\\secret.bin", "C:\\x", ""],
)
def test_paths_that_leave_the_folder_are_refused_unread(external, location, monkeypatch):
    edit(external, location=location, offset="0")
    monkeypatch.setattr(mmap, "mmap", lambda *args, **kwargs: pytest.fail("it was read"))
    refuses(external, "'w'", "external data")


def test_symlinks_that_leave_the_folder_are_refused(external, tmp_path):
    (external.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    edit(external, location="link.bin", offset="0")
    refuses(external, "outside the model's folder", "link.bin")


def test_linked_folders_that_leave_the_folder_are_refused(external, tmp_path):
    (external.parent / "sub").symlink_to(tmp_path)
    edit(external, location="sub/secret.bin", offset="0")
    refuses(external, "outside the model's folder")


def test_hard_links_are_refused(external, tmp_path):
    os.link(tmp_path / "secret.bin", external.parent / "hard.bin")
    edit(external, location="hard.bin", offset="0")
    refuses(external, "hard link")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": "100000"}, ["holds"]),
        ({"offset": "-4"}, ["holds"]),
        ({"length": "4"}, ["48 bytes", "4 bytes"]),
        ({"offset": "many"}, ["not a number"]),
        ({"location": "none.bin"}, ["none.bin", "cannot be read"]),
        ({"location": "."}, ["not a regular file"]),
    ],
)
def test_sizes_are_checked_against_the_file(external, entries, words):
    edit(external, **entries)
    refuses(external, "'w'", *words)


def test_a_model_in_memory_has_no_folder(external):
    refuses(onnx.load(external, load_external_data=False), "'w'", "path of the .onnx file")


def test_attributes_and_subgraphs_are_checked_too(external):
    model = onnx.load(external, load_external_data=False)
    (constant,) = [node for node in model.graph.node if node.op_type == "Constant"]
    tensor = constant.attribute[0].t
    assert tensor.data_location == onnx.TensorProto.EXTERNAL
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = "../secret.bin"
    external.write_bytes(model.SerializeToString())
    refuses(external, "outside the model's folder")


def test_external_data_survives_an_upgrade_everywhere(tmp_path):
    """The converter sees no file: axes must come in before it, weights must come back after it."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 64)).astype(np.float32)
    nested = rng.normal(size=(64, 64)).astype(np.float32)

    def branch(name: str) -> onnx.GraphProto:
        inner = onnx.numpy_helper.from_array(nested, f"{name}_w")
        nodes = [
            helper.make_node("Constant", [], [f"{name}_c"], value=inner),
            helper.make_node("MatMul", ["p", f"{name}_c"], [name]),
        ]
        return helper.make_graph(nodes, name, [], [value(name, [3, 64])])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Pad", ["m", "pads"], ["p"]),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("then"), else_branch=branch("other")
        ),
    ]
    model = make_model(
        nodes,
        [value("x", [2, 64]), value("c", [], onnx.TensorProto.BOOL)],
        [value("y", [3, 64])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.array([1, 0, 0, 0]), "pads"),
        ],
        opset=12,
        ir_version=7,
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location="data.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert path.stat().st_size < 3000
    x = rng.normal(size=(2, 64)).astype(np.float32)
    (result,) = run_reference(to_proto(load(path)), {"x": x, "c": np.array(True)})
    expected = np.concatenate([np.zeros((1, 64), np.float32), x @ weight]) @ nested
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_names_from_a_file_cannot_write_to_the_terminal(linear, capfd):
    linear.graph.node[-1].op_type = "Re\x1b[2Jlu\n\u2028"
    with refused(ModelError, r"Re\x1b[2Jlu\n\u2028"):
        load(linear)
    assert capfd.readouterr().err == ""
