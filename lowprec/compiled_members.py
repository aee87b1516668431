"""What every model of lowprec can do, for adapters whose models are of their framework's kind.

An adapter's class mixes `CompiledMembers` in and says which CompiledModel it runs on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lowprec.engine import Explanation, StepTime
    from lowprec.models import CompiledModel, NodeArg


class CompiledMembers:
    """`run`, `get_inputs`, `get_outputs`, `explain`, `profile`: as CompiledModel has them.

    `inputs` and `outputs` are left to the class: frameworks have members of these names.
    """

    def _runs_on(self) -> CompiledModel:
        """Return the model on the engine."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it runs on")

    def run(
        self,
        feeds: Mapping[str, ArrayLike] | Sequence[str] | None,
        named_feeds: Mapping[str, ArrayLike] | None = None,
        /,
        *,
        out: Sequence[NDArray[Any]] | None = None,
    ) -> list[NDArray[Any]]:
        """Return the outputs in order for a dict of arrays by input name; no framework has part.

        onnxruntime's form `run(output_names, feeds)` works too; None names all outputs.

        Args:
            feeds: Every input by name; arrays that are C-contiguous are read where they are.
            named_feeds: The same in onnxruntime's form.
            out: One array per output, in order, which the engine writes into and returns.

        Raises:
            InputError: a name, dtype, rank or size does not fit the model, or an array of `out`
                does not fit its output.
        """
        return self._runs_on().run(feeds, named_feeds, out=out)

    def get_inputs(self) -> list[NodeArg]:
        """Return name, dtype and shape of each input, as onnxruntime's InferenceSession does."""
        return self._runs_on().get_inputs()

    def get_outputs(self) -> list[NodeArg]:
        """Return name, dtype and shape of each output, as onnxruntime's InferenceSession does."""
        return self._runs_on().get_outputs()

    def explain(self) -> Explanation:
        """Return the steps of the most recent run: operator, kernel, ISA, why better ones refused.

        Raises:
            LowprecError: nothing has run yet; kernels are chosen for concrete shapes.
        """
        return self._runs_on().explain()

    def profile(self, feeds: Mapping[str, ArrayLike], *, repeats: int = 10) -> list[StepTime]:
        """Return the median time of each step over `repeats` runs, for arrays by input name."""
        return self._runs_on().profile(feeds, repeats=repeats)
