"""conservative: start in float, make one operator type after the other low precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any

from lowprec.config import Config
from lowprec.tuning.changes import with_layers
from lowprec.tuning.problem import Layer, Problem, Proposal, runs_to_its_end
from lowprec.tuning.strategies.ranking import by_isolated_error
from lowprec.tuning.strategies.take_back import take_back

OTHERS = ""  # layers without multiply-adds, whatever their type
DEPTH = 3  # halvings of a type that does not hold as a whole: eighths of it


@runs_to_its_end
def conservative(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield configurations with more and more low precision, as long as the criterion holds.

    The type with most of the work comes first. Of a type that does not hold as a whole, the less
    sensitive half is tried, and so on. `tuning.options: {depth: 0}` keeps types whole. What does
    no multiply-adds comes last, all types of it at once.
    """
    depth = int(problem.options.get("depth", DEPTH))
    ranked = by_isolated_error(problem)
    by_type: dict[str, list[Layer]] = defaultdict(list)
    for layer in reversed(ranked):  # the least sensitive first
        by_type[layer.op_type if layer.macs else OTHERS].append(layer)
    work = {op_type: sum(layer.macs for layer in layers) for op_type, layers in by_type.items()}
    in_float = {layer.name for layer in ranked}

    def build(kept: set[str]) -> Config:
        return with_layers(problem.config, [x.name for x in ranked if x.name in kept], "f32")

    yield build(in_float)  # so that there is an answer even where nothing holds
    for op_type in sorted(by_type, key=lambda name: (-work[name], name)):
        names = [layer.name for layer in by_type[op_type]]
        yield from take_back(names, in_float, build, depth)
