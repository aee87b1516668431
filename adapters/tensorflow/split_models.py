"""What comes back for a model of which TensorFlow keeps some operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow import programs
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.calls import arguments_of, result_of
from lowprec.adapters.tensorflow.content import content_of
from lowprec.adapters.tensorflow.keras_layer import Run
from lowprec.adapters.tensorflow.parts import SPLIT, Split, assembled
from lowprec.adapters.tensorflow.saving import (
    DEFAULT_SIGNATURE,
    Ends,
    check_suffix,
    save_graph,
    save_saved_model,
)
from lowprec.adapters.tensorflow.structure import leaves_like, packed
from lowprec.errors import InputError, UnsupportedError
from lowprec.hookspecs import CapturedParts

if TYPE_CHECKING:
    import os

    from lowprec.config import Config
    from lowprec.engine import Explanation
    from lowprec.report import Report


class Parts:
    """The parts of a split model, each a layer that holds its own ONNX file, and what is kept."""

    def __init__(
        self, compiled: Mapping[str, lowprec.CompiledModel], captured: CapturedParts
    ) -> None:
        """Take what was compiled or quantised for each part."""
        binding, split = captured.binding[KEY], captured.binding[SPLIT]
        assert isinstance(binding, Binding)
        assert isinstance(split, Split)
        self.binding = binding
        self.notes = tuple(captured.notes)
        self.layers: dict[str, Run] = {}
        self.specs = split.specs
        for name, model in compiled.items():
            content = content_of(model, captured.parts[name])
            results = captured.parts[name].binding[KEY]
            assert isinstance(results, Binding)
            layer = Run(
                programs.signature_of(content, model), len(content), results.results, name=name
            )
            layer.fill(content, model)
            self.layers[name] = layer
        self.compute: Callable[..., list[tf.Tensor]] = assembled(
            split, lambda name, tensors: self.layers[name](tensors)
        )

    def compiled(self, name: str) -> Any:
        """Return what runs for the part `name`."""
        return self.layers[name].program.compiled

    def report(self) -> Report:
        """Return the reports of all parts as one.

        Raises:
            UnsupportedError: the model was compiled, not quantised.
        """
        found: dict[str, Report] = {}
        for name in self.layers:
            report = getattr(self.compiled(name), "report", None)
            if report is None:
                raise UnsupportedError(
                    "a compiled model has no report; its `notes` say what TensorFlow keeps"
                )
            found[name] = report
        whole = next(iter(found.values()))
        return type(whole).of_parts(found, self.binding.name, self.notes)

    def no_onnx(self) -> UnsupportedError:
        """Return why there is no ONNX file."""
        return UnsupportedError(
            f"a split model is no ONNX file: {self.notes[0]}; save it as a SavedModel, or take a "
            f"part's own file: model.part('{next(iter(self.layers))}').to_onnx()"
        )


class _Members:
    """What quantize() and compile() return has, for a model in parts."""

    _split: Parts

    @property
    def notes(self) -> tuple[str, ...]:
        """What TensorFlow keeps."""
        return self._split.notes

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that run on lowprec."""
        return tuple(self._split.layers)

    def part(self, name: str) -> Any:
        """Return what runs for one of `parts`: a lowprec.CompiledModel or QuantizedModel."""
        return self._split.compiled(name)

    @property
    def report(self) -> Report:
        """The reports of all parts as one; its notes say what is left to TensorFlow.

        Raises:
            UnsupportedError: the model was compiled, not quantised.
        """
        return self._split.report()

    @property
    def config(self) -> Config:
        """The configuration that the parts were quantised with."""
        config: Config = self.part(self.parts[0]).config
        return config

    def explain(self) -> dict[str, Explanation]:
        """Return for each part the steps of its most recent run."""
        return {name: self.part(name).explain() for name in self.parts}

    def to_onnx(self) -> Any:
        """Refuse: what TensorFlow computes between the parts has no ONNX form.

        Raises:
            UnsupportedError: always.
        """
        raise self._split.no_onnx()


class SplitModel(_Members, keras.Model):  # type: ignore[misc]
    """A Keras model of which some parts run on lowprec and the rest in TensorFlow."""

    def __init__(
        self, compiled: Mapping[str, lowprec.CompiledModel], captured: CapturedParts
    ) -> None:
        """Take what was compiled or quantised for each part."""
        original: Any = captured.source
        super().__init__(name=getattr(original, "name", None), trainable=False)
        self._split = Parts(compiled, captured)
        # Keras saves and exports what it tracks: the parts, and variables and tables of the rest.
        self.original = original
        self.part_layers = list(self._split.layers.values())
        self.supports_jit = False
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return what the original returns; `training` makes no difference."""
        binding = self._split.binding
        try:
            leaves = leaves_like(binding.arguments, inputs, binding.inputs)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the model takes {', '.join(binding.inputs)}: {' '.join(str(error).split())}"
            ) from None
        tensors = [
            tf.cast(leaf, spec.dtype) if spec.dtype != tf.string else tf.convert_to_tensor(leaf)
            for leaf, spec in zip(leaves, self._split.specs, strict=True)
        ]
        return packed(binding.returned, self._split.compute(*tensors))

    def export(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write a SavedModel, as Keras does; it runs after `import lowprec.adapters.tensorflow`."""
        specs = [
            tf.TensorSpec(spec.shape, spec.dtype, name=name.replace("/", "_"))
            for name, spec in zip(self._split.binding.inputs, self._split.specs, strict=True)
        ]
        kwargs.setdefault("input_signature", [packed(self._split.binding.arguments, specs)])
        super().export(filepath, *args, **kwargs)

    def compute_output_spec(self, inputs: Any, training: Any = None) -> Any:
        """Return the original's shapes and dtypes."""
        return self.original.compute_output_spec(inputs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the model is for inference.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "a lowprec model is for inference; train the original and quantise it again"
        )

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Refuse: neither an ONNX nor a .keras file holds what TensorFlow keeps.

        Raises:
            UnsupportedError: always; `export` writes a SavedModel.
        """
        raise UnsupportedError(
            f"a split model is no .keras and no ONNX file: {self.notes[0]}; write a SavedModel "
            "with model.export(folder), or save the original and quantise it again"
        )


class SplitFunction(_Members):
    """A function, SavedModel or graph of which some parts run on lowprec, called as it was."""

    def __init__(
        self, compiled: Mapping[str, lowprec.CompiledModel], captured: CapturedParts
    ) -> None:
        """Take what was compiled or quantised for each part."""
        self._split = Parts(compiled, captured)
        self._source = captured.source  # its variables and tables live as long

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original returns for these arguments; also inside a tf.function.

        Raises:
            InputError: they do not fit what was captured.
        """
        binding = self._split.binding
        given = [
            tf.convert_to_tensor(value, spec.dtype)
            for value, spec in zip(
                arguments_of(binding, args, kwargs), self._split.specs, strict=True
            )
        ]
        return result_of(binding, self._split.compute(*given))

    def save(self, path: str | os.PathLike[str], target: str = "lowprec") -> None:
        """Write the model as a frozen graph (.pb, .pbtxt) or a SavedModel (a folder).

        Raises:
            OutputError: it cannot be written there.
            UnsupportedError: the path asks for another form, or what TensorFlow keeps has a state
                that no frozen graph holds (a table of words).
        """
        form = check_suffix(path)
        if form in ("onnx", "keras") or target != "lowprec":
            raise self._split.no_onnx()
        binding = self._split.binding
        ends = Ends(binding.inputs, binding.outputs, tuple(self._split.specs))

        def compute(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            return self._split.compute(*tensors)

        details = binding.details
        try:
            if form == "graph":
                save_graph(path, compute, ends, details.get("inputs"), details.get("outputs"))
                return
            signatures = details.get("signatures", [DEFAULT_SIGNATURE])
            save_saved_model(path, compute, ends, signatures, details.get("tags", ["serve"]))
        except (tf.errors.OpError, KeyError, NotImplementedError) as error:
            raise UnsupportedError(
                f"'{path}': {self.notes[0]}, and a frozen graph cannot hold it "
                f"({' '.join(str(error).split())[:200]}); keep the model in memory, or quantise "
                "what follows the table"
            ) from error


def split_model(
    compiled: Mapping[str, lowprec.CompiledModel], captured: CapturedParts
) -> SplitModel | SplitFunction:
    """Return a model in parts as what is called like the original."""
    binding = captured.binding[KEY]
    assert isinstance(binding, Binding)
    kind = SplitModel if binding.form == "keras" else SplitFunction
    return kind(compiled, captured)
