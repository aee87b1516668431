"""What every metric is: options, and a sum that batches are added to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lowprec.errors import DataError

Array = NDArray[Any]
Outputs = Array | Sequence[Array]


class Metric(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A score that batches are added to: `update(outputs, labels)`, then `result()`.

    Attributes:
        output: Number of the model's output that is scored.
    """

    higher_is_better: ClassVar[bool] = True
    shorthand: ClassVar[str | None] = None  # the option that `NAME: value` sets

    output: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch.

        Args:
            outputs: The model's outputs in order, or its only one; samples along axis 0.
            labels: What belongs to them, samples along axis 0.

        Raises:
            DataError: the shapes do not fit each other.
        """
        raise NotImplementedError

    def result(self) -> float:
        """Return the score of all batches since the last reset.

        Raises:
            DataError: there was none.
        """
        raise NotImplementedError

    # ---- for the metrics themselves ----

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def _chosen(self, outputs: Outputs) -> Array:
        if isinstance(outputs, np.ndarray):
            return outputs
        if not 0 <= self.output < len(outputs):
            raise DataError(
                f"the metric {self.name} asks for output {self.output}, the model has "
                f"{len(outputs)}, counted from 0"
            )
        return np.asarray(outputs[self.output])

    def _labels(self, labels: object) -> Array:
        if labels is None:
            raise DataError(
                f"the metric {self.name} needs labels, the evaluation data has none; name a data "
                "set with labels (an .npz file: an array called label, labels or y)"
            )
        try:
            return np.asarray(labels)
        except ValueError:
            raise DataError(
                f"the metric {self.name} needs labels of one shape in a batch"
            ) from None

    def _misfit(self, outputs: Array, labels: Array) -> DataError:
        return DataError(
            f"the metric {self.name} cannot compare an output of shape {list(outputs.shape)} with "
            f"labels of shape {list(labels.shape)}"
        )

    def _mean(self, total: float, count: int) -> float:
        if count == 0:
            raise DataError(f"the metric {self.name} saw no samples; the evaluation data is empty")
        return float(total / count)
