"""What a configuration costs: latency against the float model's, size, and whether it is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowprec.timing import median_times

if TYPE_CHECKING:
    from lowprec.models import CompiledModel, QuantizedModel

FEEDS = 4  # calibration feeds that are timed
SECONDS = 0.3  # how long a model is timed, together with the float model
TURNS = 5  # at least, however slow the model is


class Benchmark:
    """Times models in turns with the float model, on the first feeds of the workbench."""

    def __init__(self, original: CompiledModel, feeds: Any) -> None:
        """Take the float model, and feeds with `first(n)` as a workbench has them, or None."""
        self._original = original
        self._feeds = feeds
        self._first: list[Any] | None = None

    def latencies(self, model: CompiledModel) -> tuple[float, float] | None:
        """Return seconds per feed of the float model and of `model`; None without any feed."""
        if self._first is None:
            self._first = [] if self._feeds is None else list(self._feeds.first(FEEDS))
        feeds = self._first
        if not feeds:
            return None

        def run(each: CompiledModel) -> None:
            for feed in feeds:
                each.run(feed)

        times = median_times(
            {"float": lambda: run(self._original), "trial": lambda: run(model)},
            seconds=SECONDS,
            least=TURNS,
        )
        return times["float"] / len(feeds), times["trial"] / len(feeds)


def fingerprint(model: QuantizedModel) -> str | None:
    """Return what stands for the graph and weights of `model`; None for one without a graph.

    Two configurations that make the same model (smoothing where nothing can be smoothed) need only
    one evaluation.
    """
    hub = getattr(model, "hub", None)
    if hub is None:
        return None
    from lowprec.graph.digest import model_digest

    return model_digest(hub)
