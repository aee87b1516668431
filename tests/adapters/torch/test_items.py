"""What people hold calibration data in, item by item, as calls of forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lowprec.adapters.torch.items import Wanted, call_of
from lowprec.adapters.torch.sources import OpenedData
from lowprec.errors import DataError


def one(x): ...
def masked(x, mask=None): ...
def two(x, y): ...
def of_list(xs: list[torch.Tensor]): ...
def of_dict(batch): ...
def texts(input_ids, attention_mask=None, labels=None, **more): ...


X = torch.arange(24.0).reshape(2, 3, 4)


def calls(
    data: object, forward: Callable[..., Any]
) -> tuple[list[tuple[tuple[Any, ...], dict[str, Any]]], list[str]]:
    signature = inspect.signature(forward)
    opened = OpenedData(data, signature.parameters)
    wanted = Wanted.by_signature(signature)
    notes = opened.notes
    return [call_of(item, wanted, i, notes) for i, item in enumerate(opened)], notes


def shapes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: shapes(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shapes(part) for part in value)
    return value


LABEL = torch.tensor([1, 0])
DROPPED = ["calibration data: dropped what follows the inputs in each item (1 more)"]


@pytest.mark.parametrize(
    ("item", "forward", "args", "kwargs", "notes"),
    [
        (X, one, ((2, 3, 4),), {}, []),
        (X.numpy(), one, ((2, 3, 4),), {}, []),
        ((X,), one, ((2, 3, 4),), {}, []),
        ((X, LABEL), one, ((2, 3, 4),), {}, DROPPED),
        ([X, LABEL], one, ((2, 3, 4),), {}, DROPPED),
        ((X, "a label"), one, ((2, 3, 4),), {}, DROPPED),
        ((X, 3), one, ((2, 3, 4),), {}, DROPPED),
        ((X, {"boxes": X}), one, ((2, 3, 4),), {}, DROPPED),
        ((X, LABEL), masked, ((2, 3, 4),), {}, DROPPED),
        ((X, LABEL), two, ((2, 3, 4), (2,)), {}, []),
        (((X, X), LABEL), two, ((2, 3, 4), (2, 3, 4)), {}, DROPPED),
        ((X, X, LABEL), two, ((2, 3, 4), (2, 3, 4)), {}, DROPPED),
        (({"x": X}, LABEL), masked, ((2, 3, 4),), {}, DROPPED),
        ({"x": X, "mask": X}, masked, (), {"x": (2, 3, 4), "mask": (2, 3, 4)}, []),
        (
            {"x": X, "label": LABEL, "name": ["a", "b"]},
            masked,
            (),
            {"x": (2, 3, 4)},
            ["calibration data: dropped label, name: not an input of forward"],
        ),
        ([X, X], of_list, ([(2, 3, 4), (2, 3, 4)],), {}, []),
        (([X, X], LABEL), of_list, ([(2, 3, 4), (2, 3, 4)],), {}, DROPPED),
        ({"a": X, "b": X}, of_dict, (), {"batch": {"a": (2, 3, 4), "b": (2, 3, 4)}}, []),
        ([1.0, 2.0, 3.0], one, ((3,),), {}, []),
        ([[1.0, 2.0], [3.0, 4.0]], one, ((2, 2),), {}, []),
        (
            {"input_ids": [[1, 2]], "labels": [1], "text": ["a"]},
            texts,
            (),
            {"input_ids": (1, 2)},
            ["calibration data: dropped labels, text: not an input of forward"],
        ),
    ],
)
def test_an_item_is_one_call(item, forward, args, kwargs, notes):
    ((call, said),) = [(found[0], notes) for found, notes in [calls([item], forward)]]
    assert (shapes(call[0]), shapes(call[1])) == (args, kwargs)
    assert said == notes


@pytest.mark.parametrize(
    ("item", "forward", "message"),
    [
        ("a text", one, "sample 1, argument 'x': it is text; give what the tokenizer makes of it"),
        ({"y": X}, two, "sample 1 has no 'x'; it holds y, forward takes x, y"),
        ((X,), two, r"sample 1 has 1 parts, forward takes 2 \(x, y\)"),
        ([[1, 2], [3]], one, "sample 1, argument 'x': its lists have different lengths; fill them"),
        (np.array(["a"]), one, "sample 1, argument 'x': dtype <U1 is none that torch knows"),
        ({"input_ids": "text"}, texts, "sample 1, argument 'input_ids': it is text"),
    ],
)
def test_an_item_that_is_no_call_is_named(item, forward, message):
    good = (X, X) if forward is two else X
    with pytest.raises(DataError, match=message):
        calls([good, item], forward)


def test_a_picture_of_pil_is_named():
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
    with pytest.raises(DataError, match="sample 0, argument 'x': it is a PIL picture"):
        calls([image], one)


class Squares(Dataset):
    """Samples (picture, label) without a batch axis."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 4), float(index)), index


class Stream(IterableDataset):
    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self):
        for number in range(1000):
            self.asked += 1
            yield {"x": np.full((3, 4), number, np.float32), "label": number}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gives_batches_without_labels(workers):
    loader = DataLoader(Squares(), batch_size=2, num_workers=workers)
    found, notes = calls(loader, one)
    assert [shapes(args) for args, _ in found] == [((2, 3, 4),), ((2, 3, 4),), ((1, 3, 4),)]
    assert torch.equal(torch.cat([args[0] for args, _ in found])[:, 0, 0], torch.arange(5.0))
    assert notes == DROPPED


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (lambda: Squares(), 5),
        (lambda: TensorDataset(torch.zeros(4, 3, 4), torch.zeros(4)), 4),
        (lambda: torch.utils.data.Subset(Squares(), [1, 3]), 2),
        (lambda: Stream(), 1000),
    ],
)
def test_samples_of_a_data_set_get_a_batch_axis(data, count):
    found, _ = calls(data(), one)
    assert len(found) == count
    args, kwargs = found[0]
    assert shapes(args or tuple(kwargs.values())) == ((1, 3, 4),)


@pytest.mark.parametrize(
    ("data", "kwargs"),
    [
        ({"x": X, "mask": X}, [{"x": (1, 3, 4), "mask": (1, 3, 4)}] * 2),
        ({"x": X.numpy(), "other": ["a", "b"]}, [{"x": (1, 3, 4)}] * 2),
        ({"x": [[1, 2], [3, 4, 5]]}, [{"x": (1, 2)}, {"x": (1, 3)}]),
        ({"x": X, "mask": None}, [{"x": (1, 3, 4), "mask": None}] * 2),
    ],
)
def test_a_dict_holds_samples_along_axis_0(data, kwargs):
    found, _ = calls(data, masked)
    assert [shapes(given) for _, given in found] == kwargs


def test_an_array_holds_samples_along_axis_0():
    for data in (X, X.numpy()):
        found, _ = calls(data, one)
        assert [shapes(args) for args, _ in found] == [((1, 3, 4),)] * 2
    with pytest.raises(DataError, match="is one number"):
        calls(torch.tensor(1.0), one)


def test_a_function_is_called_once_and_may_return_anything():
    opened: list[int] = []

    def loader() -> Iterable[torch.Tensor]:
        opened.append(1)
        return (X for _ in range(3))

    data = OpenedData(loader)
    assert len(data.peek(2)) == 2
    assert len(list(data)) == 3
    assert opened == [1]
    assert len(list(data)) == 3  # a function can be called again
    with pytest.raises(DataError, match="cannot be called without arguments"):
        list(OpenedData(lambda x: x))


def test_what_was_looked_at_is_read_again_and_nothing_is_opened_twice():
    stream = Stream()
    data = OpenedData(stream)
    data.peek(3)
    assert stream.asked == 3
    iterator = iter(data)
    values = [float(next(iterator)["x"][0, 0, 0]) for _ in range(5)]
    assert values == [0, 1, 2, 3, 4]
    assert stream.asked == 5


def test_files_hold_arrays_by_argument(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4), np.float32), extra=np.zeros(3))
    np.savez(tmp_path / "b.npz", **{"x/00000": np.zeros((2, 4)), "x/00001": np.zeros((5, 4))})
    for path, expected in [
        (tmp_path / "a.npz", [(1, 4)] * 3),
        (str(tmp_path / "b.npz"), [(2, 4), (5, 4)]),
        (tmp_path, [(1, 4)] * 3 + [(2, 4), (5, 4)]),
    ]:
        found, _ = calls(path, one)
        assert [shapes(given["x"]) for _, given in found] == expected
    assert calls(tmp_path, one)[1] == ["calibration data: dropped extra: no argument of forward"]
    for path, forward, message in [
        (tmp_path / "none.npz", one, "does not exist"),
        (tmp_path / "a.npz", of_list, r"holds x, extra; name its arrays like .* \(xs\)"),
        (__file__, one, "is not an .npz file"),
    ]:
        with pytest.raises(DataError, match=message):
            calls(path, forward)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.npz files"):
        calls(tmp_path / "empty", one)


@pytest.mark.parametrize("data", [3, torch.nn.Linear(2, 2)])
def test_what_is_no_data_is_refused_with_what_is(data):
    with pytest.raises(DataError, match="give a DataLoader or another iterable of tensors"):
        calls(data, one)


def test_a_captured_module_takes_what_it_was_captured_with():
    wanted = Wanted.by_capture({"x": {"leaf": 0}, "mask": {"leaf": 1}})
    notes: list[str] = []
    args, _ = call_of((X, LABEL, LABEL), wanted, 0, notes)
    assert shapes(args) == ((2, 3, 4), (2,))
    assert notes == DROPPED
    _, kwargs = call_of({"x": X, "mask": X, "types": X}, wanted, 0, notes)
    assert list(kwargs) == ["x", "mask"]
    assert notes[1:] == ["calibration data: dropped types: captured without it"]
    with pytest.raises(DataError, match="sample 7 has no 'mask'; it holds x"):
        call_of({"x": X}, wanted, 7, notes)
