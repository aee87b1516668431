"""What quantize(), load() and compile() return for torch: a torch.nn.Module."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from lowprec.adapters.torch import operator
from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.errors import InputError, UnsupportedError
from lowprec.graph import to_proto
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

BUFFER = "lowprec_model"  # the ONNX file in the module's state


class CompiledModule(torch.nn.Module):
    """A captured module on the engine: called like the original, for inference only.

    Its state is one uint8 buffer, the bytes of its ONNX file: `state_dict`, `torch.save`, deepcopy
    and pickle keep them; `half()` and `double()` leave them alone.
    """

    lowprec_model: torch.Tensor

    def __init__(
        self, compiled: Any, blob: torch.Tensor, binding: Binding, signature: inspect.Signature
    ) -> None:
        """Take what `module_of` puts together."""
        super().__init__()
        self.training = False
        self.register_buffer(BUFFER, blob)
        self._binding = binding
        self._signature = signature
        self._attach(compiled)

    def _attach(self, compiled: Any) -> None:
        self._key = operator.key_of(self.lowprec_model)
        self._compiled = compiled
        operator.register(self._key, compiled)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original module returns for these arguments."""
        leaves = self._binding.leaves(args, kwargs)
        if torch.compiler.is_compiling() or type(leaves[0]) is not torch.Tensor:
            outputs = torch.ops.lowprec.run(leaves, self.lowprec_model, self._key)
        else:
            if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
                raise InputError(
                    "an input requires a gradient, and a lowprec module computes none; call it "
                    "under torch.no_grad(), or give it tensor.detach()"
                )
            outputs = operator.run(self._compiled, leaves)
        return self._binding.build_result(outputs)

    def train(self, mode: bool = True) -> CompiledModule:
        """Accept evaluation; training needs the original.

        Raises:
            UnsupportedError: mode is True.
        """
        if mode:
            raise UnsupportedError(
                "a lowprec module is for inference; train the original and quantise it again"
            )
        return self

    # ---- As what quantize() and compile() return for ONNX ----

    def run(
        self,
        feeds: Mapping[str, ArrayLike],
        *,
        out: Sequence[NDArray[Any]] | None = None,
    ) -> list[NDArray[Any]]:
        """Return the outputs in order for a dict of arrays by input name."""
        result: list[NDArray[Any]] = self._compiled.run(feeds, out=out)
        return result

    @property
    def inputs(self) -> Any:
        """Name, dtype and shape of each graph input."""
        return self._compiled.inputs

    @property
    def outputs(self) -> Any:
        """Name, dtype and shape of each graph output."""
        return self._compiled.outputs

    def explain(self) -> Any:
        """Return the steps of the most recent run: operator, kernel, ISA, refusals."""
        return self._compiled.explain()

    def profile(self, feeds: Mapping[str, ArrayLike], *, repeats: int = 10) -> Any:
        """Return the median time of each step over `repeats` runs."""
        return self._compiled.profile(feeds, repeats=repeats)


class QuantizedModule(CompiledModule):
    """A quantised module with its report."""

    @property
    def config(self) -> Any:
        """The configuration that the module was quantised with."""
        return self._compiled.config

    @property
    def report(self) -> Any:
        """Per layer: precision, range, error and why; for the whole: agreement, size, speed."""
        return self._compiled.report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one QDQ .onnx file; `lowprec.load` needs no torch to run it.

        Raises:
            OutputError: it cannot be written.
        """
        self._compiled.save(path)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the QDQ model as an onnx.ModelProto, as `save` writes it."""
        proto: onnx.ModelProto = self._compiled.to_onnx()
        return proto


def module_of(compiled: Any, captured: Captured) -> CompiledModule:
    """Return a compiled or quantised model as a module with the original's signature."""
    binding = captured.binding[KEY]
    signature = captured.binding["signature"]
    assert isinstance(binding, Binding)
    assert isinstance(signature, inspect.Signature)
    from lowprec import QuantizedModel

    if isinstance(compiled, QuantizedModel):
        blob = _bytes_of(compiled.to_onnx(), binding)
        return QuantizedModule(compiled, blob, binding, signature)
    return CompiledModule(
        compiled, _bytes_of(to_proto(captured.graph), binding), binding, signature
    )


def compiled_from(model: torch.Tensor) -> Any:
    """Return the compiled model that the bytes of `model` hold."""
    import lowprec

    return lowprec.compile(onnx.ModelProto.FromString(to_numpy(model).tobytes()))


def _bytes_of(proto: onnx.ModelProto, binding: Binding) -> torch.Tensor:
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(binding.to_dict())
    return torch.from_numpy(np.frombuffer(proto.SerializeToString(), np.uint8).copy())
