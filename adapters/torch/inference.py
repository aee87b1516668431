"""What every module of ours is: for inference only."""

from __future__ import annotations

from typing import TypeVar

import torch

from lowprec.errors import UnsupportedError

_Module = TypeVar("_Module", bound=torch.nn.Module)


class InferenceModule(torch.nn.Module):
    """A module that stays in evaluation."""

    def train(self: _Module, mode: bool = True) -> _Module:
        """Accept evaluation; training needs the original.

        Raises:
            UnsupportedError: mode is True.
        """
        if mode:
            raise UnsupportedError(
                "a lowprec module is for inference; train the original and quantise it again"
            )
        return self
