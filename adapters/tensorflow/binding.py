"""How a captured model is called: plain data, kept in saved files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lowprec.adapters.tensorflow.structure import Tree, packed
from lowprec.errors import ModelError

KEY = "lowprec.tensorflow"  # of Captured.binding, and in the metadata of saved ONNX files

FORMS = ("keras", "function", "saved_model", "graph")


@dataclass(frozen=True)
class Binding:
    """The call of a model.

    Attributes:
        form: What the model was: one of FORMS.
        name: Of the model.
        inputs: Names of the graph's inputs, in order; for a graph file, of TensorFlow's tensors.
        outputs: The same for its outputs.
        shapes: Of the inputs, None where a size is open; None where the rank is.
        results: The same for the outputs.
        arguments: The structure of the first argument; leaves are numbers of inputs.
        returned: The structure of the result; leaves are numbers of outputs.
        details: What a form needs besides: signature keys, tensor names.
    """

    form: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...] | None, ...]
    results: tuple[tuple[int | None, ...] | None, ...]
    arguments: Tree = 0
    returned: Tree = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Binding:
        """Return what `to_dict` described.

        Raises:
            ModelError: the data is damaged.
        """
        damaged = ModelError("the description of the model's call is damaged; save the model again")
        if not isinstance(data, Mapping) or set(data) != set(cls.__dataclass_fields__):
            raise damaged
        try:
            made = cls(
                form=str(data["form"]),
                name=str(data["name"]),
                inputs=tuple(map(str, data["inputs"])),
                outputs=tuple(map(str, data["outputs"])),
                shapes=tuple(map(_shape, data["shapes"])),
                results=tuple(map(_shape, data["results"])),
                arguments=data["arguments"],
                returned=data["returned"],
                details=dict(data["details"]),
            )
        except (TypeError, ValueError):
            raise damaged from None
        if (
            made.form not in FORMS
            or len(made.inputs) != len(made.shapes)
            or len(made.outputs) != len(made.results)
        ):
            raise damaged
        packed(made.arguments, made.inputs)
        packed(made.returned, made.outputs)
        return made


def _shape(sizes: Any) -> tuple[int | None, ...] | None:
    if sizes is None:
        return None
    if not all(size is None or (isinstance(size, int) and size >= 0) for size in sizes):
        raise ValueError
    return tuple(sizes)
