"""What quantize(), load() and compile() return for torch: a torch.nn.Module."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
import torch

from lowprec import CompiledModel, QuantizedModel
from lowprec.adapters.torch import operator
from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.hugging_face import carried_from
from lowprec.adapters.torch.inference import InferenceModule
from lowprec.adapters.torch.signature import class_with, picklable
from lowprec.adapters.torch.state import (
    Call,
    call_from,
    compiled_from,
    state_of,
    tensor_of,
    without_hub,
)
from lowprec.adapters.torch.tensors import converted, to_tensor, torch_dtype
from lowprec.compiled_members import CompiledMembers
from lowprec.errors import ModelError
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lowprec.config import Config
    from lowprec.engine import TensorInfo
    from lowprec.report import Report

BUFFER = "lowprec_model"  # the ONNX file in the module's state

SHAPES_KNOWN = 256  # sets of shapes that were within their bounds before

# What is made of the bytes and of the call.
_DERIVED = (
    "_accepted",
    "_bounded",
    "_build",
    "_compiled",
    "_dtypes",
    "_known",
    "_plain_results",
    "_session",
    "_signature_text",
)


class CompiledModule(CompiledMembers, InferenceModule):
    """A captured module on the engine: called like the original, for inference only.

    Its state is one uint8 buffer, the bytes of its ONNX file: `state_dict`, `torch.save`, deepcopy
    and pickle keep them; `to()`, `half()` and the like leave them alone, and the module on the CPU.
    """

    lowprec_model: torch.Tensor

    def __init__(self, compiled: Any, state: torch.Tensor, call: Call) -> None:
        """Take what `module_of` puts together."""
        super().__init__()
        self.training = False
        self._call = call
        self._carried: dict[str, Any] = {}
        self.__class__ = class_with(type(self), call.signature)
        self.register_buffer(BUFFER, state)
        self._attach(compiled, state)

    def _attach(self, compiled: Any, state: torch.Tensor) -> None:
        binding = self._call.binding
        text = operator.signature_for(state, compiled)
        operator.register(text, state, compiled)
        self._buffers[BUFFER] = state
        self._known = (state, state._version)
        self._signature_text = text
        self._compiled = compiled
        self._session = compiled.session
        self._build = binding.build_result
        self._dtypes = tuple(torch_dtype(info.dtype) for info in compiled.inputs)
        self._bounded = bool(binding.ranges)
        self._accepted: set[tuple[Any, ...] | None] = set()
        self._plain_results = all(
            torch_dtype(info.dtype) != torch.bfloat16 for info in compiled.outputs
        )

    # ---- Calls ----

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original module returns for these arguments.

        Raises:
            InputError: they do not fit what was captured.
        """
        if torch.compiler.is_compiling():
            return self._traced(args, kwargs)
        # The usual case, as short as can be; whatever is unusual goes the long way.
        leaves = self._call.binding.quick_leaves(args, kwargs)
        arrays = self._usual(leaves) if leaves is not None else None
        results = self._session.run_ordered(arrays) if arrays is not None else None
        if results is None:
            return self._carefully(args, kwargs)
        if self._plain_results:
            return self._build([torch.from_numpy(array) for array in results])
        return self._build([to_tensor(array) for array in results])

    def _usual(self, leaves: Sequence[Any]) -> list[NDArray[Any]] | None:
        """Return tensors as arrays where there is nothing to check or convert, else None."""
        state, version = self._known
        if (
            (self._bounded and _shapes(leaves) not in self._accepted)
            or self._buffers[BUFFER] is not state
            or state._version != version
            or torch._C._len_torch_dispatch_stack()
            or torch._C._get_tracing_state() is not None
        ):
            return None
        arrays = []
        try:
            for leaf, dtype in zip(leaves, self._dtypes):  # noqa: B905 (time counts)
                if type(leaf) is not torch.Tensor or leaf.dtype is not dtype:
                    return None
                array = leaf.numpy()
                if not array.flags.c_contiguous:
                    array = leaf.contiguous().numpy()
                arrays.append(array)
        except (RuntimeError, TypeError):  # a gradient, another device, bfloat16, lazy bits
            return None
        return arrays

    def _carefully(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Check everything, convert what may be converted, and go by the operator if traced."""
        binding = self._call.binding
        leaves = binding.leaves(args, kwargs)
        if _is_traced(leaves):
            return self._traced(args, kwargs)
        leaves = [
            leaf if type(leaf) is torch.Tensor else leaf.as_subclass(torch.Tensor)
            for leaf in leaves
        ]
        operator.refuse_gradients(binding.inputs, leaves)
        if self._bounded and all(leaf.numel() for leaf in leaves):
            binding.check_ranges(leaves)
            if len(self._accepted) >= SHAPES_KNOWN:
                self._accepted.clear()
            self._accepted.add(_shapes(leaves))
        return self._build(operator.run(self._current(), leaves))

    def _traced(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the operator, which stands for the model in what is traced."""
        leaves = [
            converted(leaf, dtype, name)
            for leaf, dtype, name in zip(
                self._call.binding.leaves(args, kwargs),
                self._dtypes,
                self._call.binding.inputs,
                strict=True,
            )
        ]
        outputs = torch.ops.lowprec.run(leaves, self.lowprec_model, self._signature_text)
        return self._build(outputs)

    def _current(self) -> Any:
        """Return the compiled model of the buffer, which torch.func.functional_call replaces."""
        state, version = self._known
        buffer = self._buffers[BUFFER]
        if buffer is state and state._version == version:
            return self._compiled
        assert buffer is not None
        compiled = self._fitting(buffer)
        if buffer is state:  # written into
            self._attach(compiled, state)
        return compiled

    def carry(self, attributes: dict[str, Any]) -> None:
        """Give the module plain attributes of the original, to be read where it has none itself.

        Pipelines of transformers look at the name of a model's class too.
        """
        self._carried = attributes
        if "can_generate" in attributes:
            type(self).__name__ = self._call.name

    @property
    def carried(self) -> dict[str, Any]:
        """Plain attributes of the original, by name."""
        return self._carried

    def __getattr__(self, name: str) -> Any:
        """Return the original's plain attribute of this name, too."""
        carried = self.__dict__.get("_carried", {})
        if name in carried:
            return carried[name]
        return super().__getattr__(name)

    # ---- State ----

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Leave the bytes alone: they are codes, on the CPU, whatever the rest is moved to."""
        return self

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = prefix + BUFFER
        if strict:
            unexpected_keys += [
                name for name in state_dict if name.startswith(prefix) and name != key
            ]
        if key not in state_dict:
            if strict:
                missing_keys.append(key)
            return
        state = state_dict[key]
        if not isinstance(state, torch.Tensor) or state.device.type != "cpu":
            raise ModelError(f"'{key}' in the state is not a tensor on the CPU")
        if state.dtype != torch.uint8:
            raise ModelError(f"'{key}' in the state is {state.dtype}; it must be torch.uint8")
        if state is self.lowprec_model:
            return
        with torch.inference_mode(False):
            copy = state.detach().clone()
        if torch.equal(copy, self.lowprec_model):
            return
        self._attach(self._fitting(copy), copy)

    def _fitting(self, state: torch.Tensor) -> Any:
        """Return what `state` compiles to.

        Raises:
            ModelError: it is not a usable model, or of a module that is called otherwise.
        """
        compiled = operator.compiled_of(state)
        call = call_from(state, compiled, "")
        if not call.binding.is_called_like(self._call.binding) or (
            [(info.dtype, len(info.shape or ())) for info in compiled.inputs]
            != [(info.dtype, len(info.shape or ())) for info in self.inputs]
        ):
            raise ModelError(
                f"the state is of a module that is called as {call.name}{call.signature}, this one "
                f"as {self._call.name}{self._call.signature}, or with other arguments: load it "
                "into a module that was made like the saved one"
            )
        return compiled

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        call = self._call
        kept["_call"] = (call.binding.to_dict(), picklable(call.signature), call.name)
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        plain, signature, name = state["_call"]
        self._call = Call(Binding.from_dict(plain), signature, name)
        buffer = self.lowprec_model
        if buffer.is_inference() or buffer.device.type != "cpu":
            with torch.inference_mode(False):
                buffer = buffer.detach().cpu().clone()
        self.__class__ = class_with(type(self), signature)
        self.carry(self._carried)
        self._attach(operator.compiled_of(buffer), buffer)

    def __reduce__(self) -> Any:
        return _blank, (_named_class(self),), self.__getstate__()

    def __copy__(self) -> CompiledModule:
        """Return a module that shares everything, as copy.copy of any module does."""
        made = _blank(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledModule:
        """Return a module of its own over the same bytes and the same compiled model."""
        import copy

        made = _blank(type(self))
        memo[id(self)] = made
        shared = {*_DERIVED, "_call"}
        for name, value in self.__dict__.items():
            if name == "_buffers":
                made.__dict__[name] = dict(value)
            else:
                made.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        return made

    def extra_repr(self) -> str:
        """Return precision, size and signature in one line."""
        parts = [self._call.name] if self._call.name else []
        report = getattr(self._compiled, "report", None)
        if report is not None:
            low = sum(layer.precision not in ("f32", "float32") for layer in report.layers)
            parts.append(f"{report.precision}, {low} of {len(report.layers)} layers")
        parts.append(f"{self.lowprec_model.numel() / 1e6:.1f} MB")
        sides = (
            ", ".join(_described(info) for info in infos) for infos in (self.inputs, self.outputs)
        )
        return f"{'; '.join(parts)}; ({') -> ('.join(sides)})"

    def _get_name(self) -> str:
        return _named_class(self).__name__

    # ---- As what quantize() and compile() return for ONNX ----

    def _runs_on(self) -> CompiledModel:
        found: CompiledModel = self._compiled
        return found

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each graph input; dimensions that may vary are names or None."""
        found: tuple[TensorInfo, ...] = self._compiled.inputs
        return found

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each graph output, in the order of `run`'s result."""
        found: tuple[TensorInfo, ...] = self._compiled.outputs
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .onnx file, atomically: `lowprec.load` needs no torch to run it.

        How the module is called stands in its metadata: `lowprec.adapters.torch.load` returns a
        module with the same signature. A quantised module's file is in QDQ form.

        Raises:
            OutputError: the folder is missing or read-only, or the disk is full; an old file is
                unharmed.
        """
        from lowprec.atomic import write_atomically

        write_atomically(path, self.lowprec_model.numpy().tobytes())

    def save_pretrained(self, folder: str | os.PathLike[str], tokenizer: Any = None) -> None:
        """Write the module into a folder: see `lowprec.adapters.torch.save_pretrained`.

        Raises:
            OutputError: the folder cannot be written.
        """
        from lowprec.adapters.torch.pretrained import save_pretrained

        save_pretrained(self, folder, tokenizer)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the model as an onnx.ModelProto, as `save` writes it."""
        proto = onnx.ModelProto()
        proto.ParseFromString(self.lowprec_model.numpy().tobytes())
        return proto


class QuantizedModule(CompiledModule):
    """A quantised module with its report."""

    @property
    def config(self) -> Any:
        """The original's `config`, which libraries read, where it had one.

        Otherwise the configuration that the module was quantised with; `report.config` holds that
        in any case.
        """
        found: Config = self._compiled.config
        return self._carried.get("config", found)

    @property
    def report(self) -> Report:
        """Per layer: precision, range, error and why; for the whole: agreement, size, speed."""
        found: Report = self._compiled.report
        return found


def module_of(compiled: CompiledModel, captured: Captured) -> CompiledModule:
    """Return a compiled or quantised model as a module with the original's signature.

    Raises:
        UnsupportedError: its weights exceed what one ONNX file can hold.
    """
    binding = captured.binding[KEY]
    signature = captured.binding["signature"]
    assert isinstance(binding, Binding)
    assert isinstance(signature, inspect.Signature)
    call = Call(binding, signature, type(captured.source).__name__)
    made: CompiledModule
    if isinstance(compiled, QuantizedModel):
        state = state_of(compiled.to_onnx, call)
        made = QuantizedModule(without_hub(compiled, state), state, call)
    else:
        state = state_of(captured.graph, call)
        made = CompiledModule(without_hub(compiled, state), state, call)
    if isinstance(captured.source, torch.nn.Module):
        made.carry(carried_from(captured.source))
    return made


def load(path: str | os.PathLike[str]) -> CompiledModule:
    """Return the model in an .onnx file as a torch.nn.Module.

    Args:
        path: Written by `save` of a module: the module is called like the original, and has the
            bits, configuration and report that it had. Or any .onnx file: forward takes the graph's
            inputs, in order or by name, and returns a tensor, or a tuple of several.

    Raises:
        ModelError: the file is missing or is not a usable ONNX model.
    """
    from lowprec.graph import load as load_hub
    from lowprec.graph.read import read_proto

    name = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    proto = read_proto(path)
    has_own_weights = not any(
        tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer
    )
    if has_own_weights:
        state = tensor_of(proto.SerializeToString(deterministic=True))
    else:
        state = state_of(load_hub(path), None)
    del proto
    compiled = compiled_from(state)
    kind = QuantizedModule if isinstance(compiled, QuantizedModel) else CompiledModule
    return kind(compiled, state, call_from(state, compiled, name))


def _blank(kind: type[CompiledModule]) -> CompiledModule:
    return kind.__new__(kind)


def _named_class(module: CompiledModule) -> type[CompiledModule]:
    """Return the class of `module` that can be imported: its own one holds but a signature."""
    kind: type = type(module)
    while "forward" in kind.__dict__ and kind is not CompiledModule:
        kind = kind.__mro__[1]
    assert issubclass(kind, CompiledModule)
    return kind


def _shapes(leaves: Sequence[Any]) -> tuple[Any, ...] | None:
    try:
        return tuple([leaf.shape for leaf in leaves])
    except AttributeError:
        return None


def _is_traced(leaves: Sequence[torch.Tensor]) -> bool:
    """Return whether something looks on: a trace, a mode, or tensors that stand for others."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(
            type(leaf).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ for leaf in leaves
        )
    )


def _described(info: TensorInfo) -> str:
    if info.shape is None:
        return f"{info.name}: {info.dtype.name}"
    sizes = ", ".join("?" if size is None else str(size) for size in info.shape)
    return f"{info.name}: {info.dtype.name}[{sizes}]"
