"""What quantize(), load() and compile() return for Keras: a registered keras.Model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow import programs
from lowprec.adapters.tensorflow import signature as signatures
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.content import content_of
from lowprec.adapters.tensorflow.keras_layer import Run
from lowprec.adapters.tensorflow.stock_files import is_stock, save_stock
from lowprec.adapters.tensorflow.structure import packed
from lowprec.atomic import replace_file, write_atomically
from lowprec.compiled_members import CompiledMembers
from lowprec.errors import ModelError, OutputError, UnsupportedError
from lowprec.graph import load as hub_of
from lowprec.hookspecs import Captured

if TYPE_CHECKING:
    import onnx

    from lowprec.config import Config
    from lowprec.report import Report

LAYER = "lowprec_run"

_NO_TRAINING = "a lowprec model is for inference; train the original and quantise it again"


@keras.saving.register_keras_serializable(package="lowprec")
class CompiledModel(CompiledMembers, keras.Model):  # type: ignore[misc]
    """A captured Keras model on the engine: called like the original, for inference only.

    A Functional model of one layer whose only weight is the bytes of its ONNX file: Keras saves,
    loads, exports and copies it, and puts it into other models, like any other.
    """

    def __init__(
        self, binding: Mapping[str, Any], signature: str, size: int, name: str | None = None
    ) -> None:
        """Make the model without its bytes: from a configuration, as Keras does.

        Args:
            binding: How the original is called, from `Binding.to_dict`.
            signature: From `programs.signature_of`.
            size: Of the ONNX file in bytes.
            name: Of the model; None for the original's.

        Raises:
            ModelError: an argument is damaged.
        """
        call = Binding.from_dict(binding)
        takes, _ = signatures.read(programs.shapes_in(str(signature)))
        if len(takes) != len(call.inputs):
            raise ModelError("the description of the model's call is damaged; save the model again")
        tensors = [
            keras.Input(batch_shape=shape, dtype=spec.dtype.name, name=_keras_name(key))
            for key, shape, spec in zip(_keys(call), call.shapes, takes, strict=True)
        ]
        layer = Run(signature, size, call.results, name=LAYER)
        super().__init__(
            inputs=packed(call.arguments, tensors),
            outputs=packed(call.returned, layer(tensors)),
            name=name or call.name,
            trainable=False,
        )
        self.output_names = list(call.outputs)
        self._how = call  # not _call: tf.function(model) copies attributes over its own

    def get_config(self) -> dict[str, Any]:
        """Return all but the bytes, which are a weight."""
        layer = self._run_layer.get_config()
        return {
            "name": self.name,
            "binding": self._how.to_dict(),
            "signature": layer["signature"],
            "size": layer["size"],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> CompiledModel:
        """Return the model that `get_config` described, without its bytes."""
        return cls(**config)

    @property
    def _run_layer(self) -> Run:
        layer = self.get_layer(LAYER)
        assert isinstance(layer, Run)
        return layer

    def _runs_on(self) -> lowprec.CompiledModel:
        return self._run_layer.program.compiled

    # ---- As Keras models, but for training ----

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the model is for inference.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(_NO_TRAINING)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the model is for inference.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(_NO_TRAINING)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: Keras's own quantisation is of float layers.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "the model is one of lowprec already; quantise the original: lowprec.quantize(model, "
            "data)"
        )

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        target: str = "lowprec",
        **kwargs: Any,
    ) -> None:
        """Write the model, in the form that the path says.

        Args:
            filepath: `.onnx`: the ONNX file, atomically; `lowprec.load` needs no TensorFlow to run
                it, and a quantised model's is in QDQ form. `.keras`: Keras's own format;
                `keras.models.load_model` reads it after `import lowprec.adapters.tensorflow`.
                `.pb`: a frozen graph; without a suffix: the folder of a SavedModel.
            overwrite: False to refuse to replace a file.
            zipped: As Keras has it.
            target: "tensorflow" writes a `.pb` file or a SavedModel folder of TensorFlow's own int8
                operators, which runs without lowprec.
            **kwargs: As Keras has them.

        Raises:
            OutputError: the file cannot be written, or is there; an old file is unharmed.
            UnsupportedError: TensorFlow's own operators cannot express the model.
        """
        is_own = not is_stock(target)
        if not overwrite and os.path.exists(filepath):
            raise OutputError(f"'{os.fspath(filepath)}' is there; overwrite=True replaces it")
        if not is_own:
            save_stock(hub_of(self.to_onnx()), self._how, filepath)
            return
        if os.fspath(filepath).endswith(".onnx"):
            write_atomically(filepath, self._run_layer.content)
            return
        if os.path.splitext(filepath)[1].lower() in ("", ".pb", ".pbtxt"):
            from lowprec.adapters.tensorflow.saving import save_as

            dtypes = [info.dtype for info in self._runs_on().inputs]
            layer = self._run_layer
            save_as(layer.content, layer.program.signature, self._how, dtypes, filepath)
            return
        if os.fspath(filepath).endswith(".keras") and zipped is not False:
            # Keras itself would write over the old file, and leave half of one where that fails.
            replace_file(filepath, lambda fresh: super(CompiledModel, self).save(fresh, **kwargs))
            return
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    # ---- As what quantize() and compile() return for ONNX ----

    def to_onnx(self) -> onnx.ModelProto:
        """Return the model as an onnx.ModelProto, as `save("m.onnx")` writes it."""
        from lowprec.adapters.tensorflow.content import proto_of

        return proto_of(self._run_layer.content)


@keras.saving.register_keras_serializable(package="lowprec")
class QuantizedModel(CompiledModel):
    """A quantised Keras model with its report."""

    @property
    def _quantized(self) -> lowprec.QuantizedModel:
        compiled = self._runs_on()
        assert isinstance(compiled, lowprec.QuantizedModel)
        return compiled

    @property
    def config(self) -> Config:
        """The configuration that the model was quantised with."""
        return self._quantized.config

    @property
    def report(self) -> Report:
        """Per layer: precision, range, error and why; for the whole: agreement, size, speed."""
        return self._quantized.report


def model_of(compiled: lowprec.CompiledModel, captured: Captured) -> CompiledModel:
    """Return a compiled or quantised model as a Keras model that is called like the original.

    Raises:
        UnsupportedError: its weights exceed what one ONNX file can hold.
    """
    binding = captured.binding[KEY]
    assert isinstance(binding, Binding)
    made = _made(content_of(compiled, captured), binding, compiled)
    if isinstance(captured.source, keras.Model):
        _carry(captured.source, made)
    return made


def from_content(content: bytes, binding: Binding) -> CompiledModel:
    """Return the model in the bytes that `content_of` made, called as `binding` says.

    Raises:
        ModelError: they are not a usable model.
    """
    from lowprec.adapters.tensorflow.content import compiled_from

    return _made(content, binding, compiled_from(content))


def _made(content: bytes, binding: Binding, compiled: lowprec.CompiledModel) -> CompiledModel:
    kind = QuantizedModel if isinstance(compiled, lowprec.QuantizedModel) else CompiledModel
    made = kind(binding.to_dict(), programs.signature_of(content, compiled), len(content))
    made._run_layer.fill(content, compiled)
    return made


def _carry(original: keras.Model, made: CompiledModel) -> None:
    """Compile `made` for evaluation with copies of the original's loss and metrics.

    Where one cannot be copied, `made` stays as it is: evaluate() then says that it wants compile().
    """
    if not original.compiled:
        return
    settings = getattr(original, "_compile_config", None)
    config = dict(settings.config) if settings is not None else {}
    try:
        loss, metrics, weighted = (
            _copied(config.get(key)) for key in ("loss", "metrics", "weighted_metrics")
        )
    except Exception:  # a class of the user's that does not say how to make another of it
        return
    made.compile(
        loss=loss,
        loss_weights=config.get("loss_weights"),
        metrics=metrics,
        weighted_metrics=weighted,
        run_eagerly=bool(config.get("run_eagerly", False)),
        steps_per_execution=config.get("steps_per_execution", 1),
        jit_compile=False,
    )


def _copied(nested: Any) -> Any:
    """Return losses and metrics without their state: names and functions are as they were."""

    def one(item: Any) -> Any:
        if isinstance(item, (keras.metrics.Metric, keras.losses.Loss)):
            return type(item).from_config(item.get_config())
        return item

    return tf.nest.map_structure(one, nested)


def _keys(call: Binding) -> list[str]:
    """Return names for Keras's inputs: it wants those of a dict to be its keys."""
    names = list(call.inputs)
    arguments = call.arguments
    if isinstance(arguments, dict) and "dict" in arguments:
        for key, leaf in arguments["dict"].items():
            if isinstance(leaf, int):
                names[leaf] = key
    return names


def _keras_name(name: str) -> str:
    return name.replace("/", "_")
