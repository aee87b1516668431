"""Calibration data of every kind, through capture and calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lowprec
from lowprec.adapters.torch import example
from lowprec.adapters.torch.batches import Batches, feeds_of
from lowprec.api import capture
from lowprec.errors import DataError, LowprecError, ModelError


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        y = self.body(x).mean((2, 3))
        return self.head(y if scale is None else y * scale)


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, input_ids, attention_mask=None, labels=None):
        y = self.head(self.words(input_ids))
        return y if attention_mask is None else y * attention_mask[..., None]


class OfDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)

    def forward(self, batch):
        return self.head(torch.cat([batch["left"], batch["right"]], 1))


class OfList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)

    def forward(self, parts: list[torch.Tensor]):
        return self.head(torch.cat(parts, 1))


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def classifier() -> Any:
    torch.manual_seed(0)
    return capture(Classifier(), example_inputs=pictures(2))


def batches(data: object, captured: Any) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    found: Batches = feeds_of(data, captured)
    return list(found), found.notes


def test_items_become_what_the_module_was_captured_with(classifier):
    loader = DataLoader(TensorDataset(pictures(5).double(), torch.arange(5)), batch_size=2)
    feeds, notes = batches(loader, classifier)
    assert [feed["x"].shape[0] for feed in feeds] == [2, 2, 1]
    assert all(feed["x"].dtype == np.float32 for feed in feeds)
    assert np.array_equal(np.concatenate([f["x"] for f in feeds]), pictures(5).numpy())
    assert notes == [
        "calibration data: dropped what follows the inputs in each item (1 more)",
        "calibration data: converted 'x' from float64 to float32",
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (pictures(2)[0], r"shape \[3, 12, 12\] has 3 dimensions, .* with 4; one item is one call"),
        (pictures(2)[:, :1], r"shape \[2, 1, 12, 12\] has 1 on axis 1, .* captured with 3 there"),
        (pictures(2)[:0], r"shape \[0, 3, 12, 12\] holds no values; leave the sample out"),
        (pictures(2) / 0, "it holds (NaN|infinity); remove or repair that sample"),
        (pictures(2) * float("nan"), "it holds NaN; remove or repair that sample"),
        (pictures(2).to(torch.uint8), r"dtype uint8, the module takes float32; convert with \.to"),
    ],
)
def test_an_item_that_does_not_fit_is_named(item, message, classifier):
    with pytest.raises(DataError, match=f"sample 1, argument 'x': {message}"):
        batches([pictures(2), item], classifier)


def test_an_item_of_another_structure_is_named(classifier):
    with pytest.raises(DataError, match="sample 0: argument 'x' is a dict of a, the module was"):
        batches([{"x": {"a": pictures(1)}}], classifier)


@pytest.mark.parametrize("data", [[], {}, (), iter(()), torch.zeros(0, 3, 12, 12), list])
def test_no_data_is_said_before_and_after_the_capture(data, classifier):
    with pytest.raises(DataError, match="holds no samples: it is empty, or an iterator that was"):
        lowprec.quantize(Classifier(), data)
    with pytest.raises(DataError, match="holds no samples"):
        batches(data, classifier)


def test_whole_numbers_are_converted_where_they_fit():
    captured = capture(Embedder(), example_inputs={"input_ids": torch.zeros(2, 5).long()})
    ids = torch.randint(0, 50, (2, 5), dtype=torch.int32)
    feeds, notes = batches([{"input_ids": ids}], captured)
    assert feeds[0]["input_ids"].dtype == np.int64
    assert notes == ["calibration data: converted 'input_ids' from int32 to int64"]


@pytest.mark.parametrize(
    ("module", "item"),
    [
        (OfDict, {"left": torch.randn(2, 3), "right": torch.randn(2, 3)}),
        (OfList, [torch.randn(2, 3), torch.randn(2, 3)]),
        (OfList, ([torch.randn(2, 3), torch.randn(2, 3)], torch.arange(2))),
    ],
)
def test_nested_arguments(module, item):
    network = module().eval()
    quantised = lowprec.quantize(network, [item] * 2)
    argument = item[0] if isinstance(item, tuple) else item
    with torch.no_grad():
        expected = network(argument)
    assert (quantised(argument) - expected).norm() < 0.05 * expected.norm()


def test_an_example_says_which_arguments_a_tuple_holds():
    network = Classifier()
    data = [(pictures(2), torch.rand(2, 16)) for _ in range(2)]
    with_scale = lowprec.quantize(network, data, example_inputs=data[0])
    assert [info.name for info in with_scale.inputs] == ["x", "scale"]
    assert not any("dropped" in note for note in with_scale.report.notes)
    by_name = capture(network, example_inputs=example(pictures(2), scale=torch.rand(2, 16)))
    feeds, _ = batches(data, by_name)
    assert sorted(feeds[0]) == ["scale", "x"]


class Sum(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


@pytest.mark.parametrize(
    ("module", "item", "message"),
    [
        (
            Classifier,
            pictures(2)[:, :1],
            r"sample 0 \(x float32 \[2, 1, 12, 12\]\): the module fails for it: RuntimeError: .*"
            "; one item of the data is one call of the module, with its batch axis",
        ),
        (Sum, pictures(2), "sample 0 is one Tensor, forward takes left, right; give a dict"),
        (Sum, {"left": pictures(2)}, "sample 0 has no 'right'; it holds left, forward takes left"),
    ],
)
def test_a_first_item_that_the_module_does_not_take_is_named(module, item, message):
    with pytest.raises(DataError, match=message):
        lowprec.quantize(module(), [item])


class Counted:
    """A loader that counts what was asked of it."""

    def __init__(self, count: int) -> None:
        self.count, self.opened, self.asked = count, 0, 0

    def __iter__(self):
        self.opened += 1
        for number in range(self.count):
            self.asked += 1
            yield pictures(number + 1)[:1], torch.tensor([number])


@pytest.mark.parametrize(("samples", "asked"), [(20, 20), (8, 8), (100, 50), (3, 3)])
def test_a_loader_is_opened_once_and_no_further_than_asked_for(samples, asked):
    loader = Counted(50)
    config = {"calibration": {"samples": samples}}
    quantised = lowprec.quantize(Classifier(), loader, config=config)
    assert (loader.opened, loader.asked) == (1, asked)
    assert quantised.report.samples == asked


def test_a_generator_is_calibrated_from_its_first_item_on():
    items = [pictures(n)[:1] for n in range(1, 13)]
    one_shot, kept = (
        lowprec.quantize(_seeded(), data) for data in ((item for item in items), items)
    )
    assert one_shot.report.samples == 12
    assert torch.equal(one_shot(items[0]), kept(items[0]))


def _seeded() -> Classifier:
    torch.manual_seed(0)
    return Classifier()


def test_all_kinds_of_data_give_the_same_bits(tmp_path):
    x = pictures(6)
    np.savez(tmp_path / "x.npz", x=x.numpy())
    kinds = {
        "list": [x[i : i + 1] for i in range(6)],
        "loader": DataLoader(TensorDataset(x, torch.arange(6))),
        "workers": DataLoader(TensorDataset(x), num_workers=1),
        "data set": TensorDataset(x),
        "dict": {"x": x},
        "file": tmp_path / "x.npz",
        "float64": x.double().numpy(),
        "function": lambda: iter(x[:, None]),
    }
    outputs = {name: lowprec.quantize(_seeded(), data)(x) for name, data in kinds.items()}
    assert all(torch.equal(output, outputs["list"]) for output in outputs.values())


def test_a_search_scores_modules(tmp_path):
    network = _seeded().eval()
    x = pictures(64)
    with torch.no_grad():
        labels = network(x).argmax(1)
    seen: list[type] = []

    def agreement(module: nn.Module) -> float:
        assert isinstance(module, nn.Module)
        assert not module.training
        seen.append(type(module))
        with torch.no_grad():
            return float((module(x).argmax(1) == labels).float().mean())

    steps: list[tuple[int, int]] = []
    found = lowprec.quantize(
        network,
        x,
        evaluate=agreement,
        config={"tuning": {"max_trials": 3}},
        progress=lambda done, total: steps.append((done, total)),
    )
    assert seen[0] is Classifier  # the original is what the others are compared with
    assert len(seen) >= 2
    assert isinstance(found, nn.Module)
    assert agreement(found) > 0.95
    assert steps
    assert found.report.trials


def test_precision_auto_of_a_module():
    found = lowprec.quantize(_seeded(), pictures(16), precision="auto")
    assert isinstance(found, nn.Module)
    assert {layer.name for layer in found.report.layers} >= {"body.0", "body.2", "head"}


def test_layers_are_configured_by_module_names(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "calibration: {samples: 4}\nlayers: [{match: 'body.0', precision: f32}]\n"
    )
    steps: list[tuple[int, int]] = []
    found = lowprec.quantize(
        _seeded(),
        pictures(16),
        config=tmp_path / "config.yaml",
        progress=lambda done, total: steps.append((done, total)),
    )
    precisions = {layer.name: layer.precision for layer in found.report.layers}
    assert (precisions["body.0"], precisions["body.2"]) == ("f32", "int8")
    assert steps[-1] == (4, 4)


def test_without_data_or_example_it_says_what_to_give():
    with pytest.raises(ModelError, match=r"a Classifier must be traced: give calibration data, or"):
        lowprec.quantize(Classifier())
    with pytest.raises(LowprecError):
        lowprec.quantize(Classifier(), precision="int8", example_inputs=pictures(1))


# ---- Hugging Face data sets and tokenizers -------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> Any:
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (6, 5)).tolist()
    return datasets.Dataset.from_dict(
        {
            "text": [f"text {i}" for i in range(6)],
            "input_ids": ids,
            "attention_mask": [[1] * 5] * 6,
            "label": list(range(6)),
        }
    )


@pytest.mark.parametrize("form", ["lists", "torch", "numpy", "streamed"])
def test_rows_of_a_data_set(form, rows):
    data = rows.to_iterable_dataset() if form == "streamed" else rows
    data = data.with_format(form) if form in ("torch", "numpy") else data
    captured = capture(Embedder(), calibration_data=data)
    feeds, notes = batches(data, captured)
    assert [feed["input_ids"].shape for feed in feeds] == [(1, 5)] * 6
    assert feeds[2]["input_ids"].tolist() == [rows[2]["input_ids"]]
    assert all(feed["attention_mask"].dtype == np.int64 for feed in feeds)
    assert "label" in notes[0]
    assert "text" in notes[0]


def test_batches_of_a_data_set(rows):
    data = list(rows.select_columns(["input_ids"]).iter(batch_size=3))
    feeds, _ = batches(data, capture(Embedder(), calibration_data=data))
    assert [feed["input_ids"].shape for feed in feeds] == [(3, 5)] * 2


def test_a_dict_of_data_sets_is_refused(rows):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"several data sets \(train\); .* as data\['train'\]"):
        lowprec.quantize(Embedder(), datasets.DatasetDict(train=rows))


def test_outputs_of_a_tokenizer():
    encoding = pytest.importorskip("transformers").BatchEncoding
    ids = torch.randint(0, 50, (4, 7))
    whole = encoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    several = [
        encoding({"input_ids": ids[:2, :5], "attention_mask": torch.ones(2, 5).long()}),
        encoding({"input_ids": ids[:, :3].tolist(), "attention_mask": [[1] * 3] * 4}),
        encoding({"input_ids": ids[0].tolist(), "attention_mask": [1] * 7}),
    ]
    captured = capture(Embedder(), calibration_data=several)
    feeds, _ = batches(several, captured)
    assert [feed["input_ids"].shape for feed in feeds] == [(2, 5), (4, 3), (1, 7)]
    feeds, _ = batches(whole, captured)
    assert [feed["input_ids"].tolist() for feed in feeds] == [[row] for row in ids.tolist()]
    ragged = encoding({"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1], [1]]})
    with pytest.raises(DataError, match=r"sample 0, argument 'input_ids': .* padding=True"):
        batches([ragged], captured)
