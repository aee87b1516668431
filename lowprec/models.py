"""What quantize(), load() and compile() return for ONNX models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec.errors import ConfigError, InputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from lowprec.config import Config
    from lowprec.engine import Explanation, Session, StepTime, TensorInfo
    from lowprec.report import Report

Array = NDArray[np.generic]

REPORT_KEY = "lowprec.report"  # in metadata_props; the report holds configuration and versions too

_ONNX_TYPES = {"float32": "float", "float64": "double", "str": "string", "object": "string"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output in onnxruntime's words.

    Attributes:
        name: As in the model.
        type: For example 'tensor(float)'.
        shape: Sizes; names or None where they may vary.
    """

    name: str
    type: str
    shape: list[int | str | None]


class CompiledModel:
    """A model on the engine: NumPy arrays in and out; safe to use from several threads."""

    def __init__(self, model: ir.Model | Session) -> None:
        """Compile a hub, or take one that is compiled.

        Args:
            model: From lowprec.graph.load; must not be changed afterwards. Or a session.
        """
        from lowprec.engine import Session, compile_model

        self._session: Session = model if isinstance(model, Session) else compile_model(model)

    @property
    def session(self) -> Session:
        """What runs it."""
        return self._session

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each input; dimensions that may vary are names or None."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of each output, in the order of `run`'s result."""
        return self._session.outputs

    def __call__(self, *arrays: ArrayLike, **feeds: ArrayLike) -> Array | tuple[Array, ...]:
        """Return the output for inputs given in order or by name; a tuple when there are several.

        Raises:
            InputError: as `run` does.
        """
        names = [info.name for info in self.inputs]
        if len(arrays) > len(names):
            raise InputError(
                f"{len(arrays)} inputs were given, the model has {len(names)}: {', '.join(names)}"
            )
        by_name = dict(zip(names, arrays, strict=False))
        twice = [name for name in by_name if name in feeds]
        if twice:
            raise InputError(f"input '{twice[0]}' was given both by position and by name")
        results = self._session.run({**by_name, **feeds})
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        feeds: Mapping[str, ArrayLike] | Sequence[str] | None,
        named_feeds: Mapping[str, ArrayLike] | None = None,
        /,
        *,
        out: Sequence[Array] | None = None,
    ) -> list[Array]:
        """Return the outputs in order for `feeds`, a dict of arrays by input name.

        onnxruntime's form `run(output_names, feeds)` works too; None names all outputs.

        Args:
            feeds: Every input by name; arrays that are C-contiguous are read where they are.
            named_feeds: The same in onnxruntime's form.
            out: One array per output, in order, which the engine writes into and returns; those
                that are not C-contiguous, or share memory with an input, are copied into.

        Raises:
            InputError: a name, dtype, rank or size does not fit the model, or an array of `out`
                does not fit its output.
        """
        if named_feeds is None:
            if not isinstance(feeds, Mapping):
                raise InputError(
                    f"run() takes a dict of arrays by input name, got a {type(feeds).__name__}; "
                    "call the model itself to give inputs in order"
                )
            return self._session.run(feeds, out=out)
        results = self._session.run(named_feeds, out=out)
        if feeds is None:
            return results
        by_name = {info.name: result for info, result in zip(self.outputs, results, strict=True)}
        unknown = [name for name in feeds if name not in by_name]
        if unknown:
            raise InputError(
                f"the model has no output '{unknown[0]}'; its outputs are {', '.join(by_name)}"
            )
        return [by_name[name] for name in feeds]

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs as onnxruntime.InferenceSession.get_inputs does."""
        return [_node_arg(info) for info in self.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs as onnxruntime.InferenceSession.get_outputs does."""
        return [_node_arg(info) for info in self.outputs]

    def explain(self) -> Explanation:
        """Return the steps of the most recent run: operator, kernel, ISA, why better ones refused.

        Raises:
            LowprecError: nothing has run yet; kernels are chosen for concrete shapes.
        """
        return self._session.explain()

    def profile(self, feeds: Mapping[str, ArrayLike], *, repeats: int = 10) -> list[StepTime]:
        """Return the median time of each step over `repeats` runs."""
        return self._session.profile(feeds, repeats=repeats)

    def without_hub(self, read: Callable[[], ir.Model]) -> CompiledModel:
        """Return this model without its graph, whose memory is large.

        Args:
            read: Returns the graph as it was before compiling; called when a shape turns up that
                some kernel refuses, and to save a quantised model.
        """
        from lowprec.engine.session import hubs_of
        from lowprec.passes import simplify

        def hubs() -> tuple[ir.Model, ir.Model]:
            hub = read()
            simplify(hub)
            return hubs_of(hub)

        self._session.prepare()
        self._session.let_go(hubs)
        return self

    def __repr__(self) -> str:
        inputs = ", ".join(_signature(info) for info in self.inputs)
        outputs = ", ".join(_signature(info) for info in self.outputs)
        return f"<lowprec.{type(self).__name__} ({inputs}) -> ({outputs})>"


class QuantizedModel(CompiledModel):
    """A quantised model with its report; what quantize() and load() return for ONNX models."""

    def __init__(
        self,
        model: ir.Model | Callable[[], ir.Model],
        config: Config,
        report: Report,
        session: Session | None = None,
    ) -> None:
        """Compile a QDQ hub.

        Args:
            model: From lowprec.graph.load; must not be changed afterwards. Or a function that
                returns it, for `save` and `to_onnx`.
            config: What it was quantised with.
            report: What was done to it.
            session: `model` compiled before; None compiles it now.
        """
        super().__init__(session or (model() if callable(model) else model))
        self._hub = model
        self._config = config
        self._report = report

    @classmethod
    def from_hub(cls, model: ir.Model, name: str) -> QuantizedModel:
        """Return a loaded model with the configuration and report that its metadata hold.

        Args:
            model: From lowprec.graph.load.
            name: What to call it in the report when its metadata hold none.

        Raises:
            ModelError: the metadata are damaged.
        """
        return cls.from_report(model.metadata_props.get(REPORT_KEY), name, model)

    @classmethod
    def from_report(
        cls,
        text: str | None,
        name: str,
        model: ir.Model | Callable[[], ir.Model],
        session: Session | None = None,
    ) -> QuantizedModel:
        """Return a model with the configuration and report in `text`, from its metadata.

        Args:
            text: The report as JSON; None where the metadata hold none.
            name: What to call the model in the report then.
            model: As for the constructor.
            session: As for the constructor.

        Raises:
            ModelError: the text is damaged.
        """
        from lowprec.config import Config
        from lowprec.report import Report

        if text is None:
            note = "the file holds no report of lowprec: another tool wrote it"
            return cls(model, Config(), Report(model=name, notes=[note]), session)
        report = Report.from_json(text)
        try:
            config = Config.from_dict(report.config)
        except ConfigError as error:  # of a later version, whose codes we can run all the same
            config = Config()
            report.notes.append(f"its configuration is not of this version: {error}")
        return cls(model, config, report, session)

    @staticmethod
    def is_in(model: ir.Model) -> bool:
        """Return whether a hub is a quantised model of ours: its metadata hold a report."""
        return REPORT_KEY in model.metadata_props

    def without_hub(self, read: Callable[[], ir.Model]) -> QuantizedModel:
        """Return this model without its graph; see `CompiledModel.without_hub`."""
        from lowprec.engine.session import hubs_of

        self._session.prepare()
        self._session.let_go(lambda: hubs_of(read()))
        return QuantizedModel(read, self._config, self._report, self._session)

    @property
    def hub(self) -> ir.Model:
        """The QDQ hub; must not be changed.

        Raises:
            ModelError: it is still in the file that it was loaded from, which was changed since.
        """
        if callable(self._hub):
            self._hub = self._hub()
        return self._hub

    @property
    def config(self) -> Config:
        """The configuration that the model was quantised with."""
        return self._config

    @property
    def report(self) -> Report:
        """Per layer: precision, range, error and why; for the whole: agreement, size, speed."""
        return self._report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one QDQ .onnx file that onnxruntime and OpenVINO open too, atomically.

        Configuration, report and versions go into its metadata. The same quantisation gives the
        same bytes.

        Raises:
            OutputError: the folder is missing or read-only, or the disk is full; an old file is
                unharmed.
        """
        from lowprec.graph import save

        save(self._with_report(), path)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the QDQ model as an onnx.ModelProto, as `save` writes it."""
        from lowprec.graph import to_proto

        return to_proto(self._with_report())

    def _with_report(self) -> ir.Model:
        model = self.hub.clone()
        model.metadata_props[REPORT_KEY] = json.dumps(
            self._report.to_dict(), separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return model


def _node_arg(info: TensorInfo) -> NodeArg:
    name = _ONNX_TYPES.get(info.dtype.name, info.dtype.name)
    return NodeArg(info.name, f"tensor({name})", list(info.shape or ()))


def _signature(info: TensorInfo) -> str:
    if info.shape is None:
        return f"{info.name}: {info.dtype.name}"
    sizes = ", ".join("?" if size is None else str(size) for size in info.shape)
    return f"{info.name}: {info.dtype.name}[{sizes}]"
