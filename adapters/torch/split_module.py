"""A module of which some parts run on lowprec and the rest in PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lowprec.adapters.torch.inference import InferenceModule
from lowprec.adapters.torch.signature import class_with, picklable
from lowprec.errors import LowprecError, UnsupportedError

if TYPE_CHECKING:
    from lowprec.report import Report


class SplitModule(InferenceModule):
    """Called like the original, for inference only.

    Attributes:
        module: The original's structure with its captured parts replaced.
        regions: Names of the parts that run on lowprec, each with its path in `module`.
        notes: Why the whole does not, with the line and the remedy.
    """

    def __init__(
        self,
        module: nn.Module,
        regions: Mapping[str, str],
        notes: Sequence[str],
        signature: inspect.Signature,
    ) -> None:
        """Take what `split.assemble` puts together."""
        super().__init__()
        self.training = False
        self.module = module
        self.regions = dict(regions)
        self.notes = tuple(notes)
        self._signature = picklable(signature)
        self.__class__ = class_with(type(self), signature)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original module returns for these arguments."""
        with torch.no_grad():
            return self.module(*args, **kwargs)

    def part(self, region: str) -> Any:
        """Return the module that runs for one of `regions`: its report, save() and to_onnx()."""
        return self.module.get_submodule(self.regions[region])

    @property
    def report(self) -> Report:
        """The reports of all parts as one, the layers' names in full; its notes say what is left.

        Raises:
            UnsupportedError: the module was compiled, not quantised.
        """
        reports = {name: getattr(part, "report", None) for name, part in self._parts().items()}
        if any(report is None for report in reports.values()):
            raise UnsupportedError(
                "a compiled module has no report; its `notes` say what was split"
            )
        found: dict[str, Report] = reports  # type: ignore[assignment]
        whole = next(iter(found.values()))
        return type(whole).of_parts(found, type(self.module).__name__, self.notes)

    @property
    def config(self) -> Any:
        """The configuration that the parts were quantised with."""
        return next(iter(self._parts().values())).config

    def explain(self) -> dict[str, Any]:
        """Return for each part the steps of its most recent run."""
        return {name: part.explain() for name, part in self._parts().items()}

    def save(self, path: object) -> None:
        """Refuse: what PyTorch computes between the parts has no ONNX form.

        Raises:
            UnsupportedError: always; it names the reason and what to do.
        """
        raise self._no_file()

    def to_onnx(self) -> Any:
        """Refuse, as `save`.

        Raises:
            UnsupportedError: always.
        """
        raise self._no_file()

    def _no_file(self) -> UnsupportedError:
        return UnsupportedError(
            f"a split module is no ONNX file, PyTorch computes between its parts: {self.notes[0]}; "
            "keep it with torch.save(module), or save a part: "
            f"module.part('{next(iter(self.regions))}').save(path)"
        )

    def _parts(self) -> dict[str, Any]:
        return {name: self.part(name) for name in self.regions}

    def __reduce__(self) -> Any:
        return _made, (self.module, self.regions, self.notes, self._signature)

    def __deepcopy__(self, memo: dict[int, Any]) -> SplitModule:
        """Return a module of its own; the parts share what they run."""
        import copy

        made = _made(
            copy.deepcopy(self.module, memo),
            self.regions,
            self.notes,
            inspect.signature(self.forward),
        )
        memo[id(self)] = made
        return made

    def _get_name(self) -> str:
        return "SplitModule"


def note_of_refusal(name: str, why: LowprecError) -> str:
    """Return why a part is not captured, for a report."""
    return f"'{name}' is not captured as a whole: {why}"


def _made(
    module: nn.Module,
    regions: Mapping[str, str],
    notes: Sequence[str],
    signature: inspect.Signature,
) -> SplitModule:
    return SplitModule(module, regions, notes, signature)
