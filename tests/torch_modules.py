"""Small networks for the tests of the returned module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class Answer:
    """A result with fields, as transformers' ModelOutput."""

    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Net(nn.Module):
    """A tensor, an option and a keyword in; a dict out."""

    def __init__(self, width: int = 16) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Linear(8, width)
        self.last = nn.Linear(width, 4)

    def forward(
        self, x: torch.Tensor, scale: float = 1.0, *, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return {"y": [batch, 4]} for [batch, 8]."""
        y = self.last(torch.relu(self.first(x))) * scale
        return {"y": y if mask is None else y * mask}


class Several(nn.Module):
    """Two tensors in, of which one holds numbers of tokens; an Answer out."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, want: bool | None = None
    ) -> Answer:
        """Return an Answer for [batch, length] numbers and a mask of the same shape."""
        hidden = self.embedding(ids)
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
        return Answer(self.head(hidden), hidden if want else None)


class Picture(nn.Module):
    """A picture in; one of half the size, and the input itself, out."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [batch, 5, (height + 1) // 2, (width + 1) // 2] and x."""
        return self.conv(x), x


def seeded(kind: type[nn.Module], *arguments: Any, seed: int = 0) -> nn.Module:
    """Return a module with known weights, in evaluation."""
    torch.manual_seed(seed)
    return kind(*arguments).eval()
