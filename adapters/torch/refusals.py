"""Why a module cannot be captured, in one line: what, where, remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowprec.errors import LowprecError, ModelError

if TYPE_CHECKING:
    from lowprec.adapters.torch.lines import Line

LONGEST_REASON = 300


class Refusal(ModelError):
    """A module, or a part of one, that a trace cannot stand for.

    Attributes:
        what: Why, without the line and the remedy.
        line: Where in the source; None where that is not known.
        remedy: What to do.
        size_one: Whether all that is wrong are calls in which a size is 1.
    """

    def __init__(
        self, what: str, line: Line | None, remedy: str = "", *, size_one: bool = False
    ) -> None:
        super().__init__("; ".join(filter(None, [f"{what} ({line})" if line else what, remedy])))
        self.what = what
        self.line = line
        self.remedy = remedy
        self.size_one = size_one


def because(error: BaseException) -> LowprecError:
    """Return what torch raised while it traced a module, as a refusal."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    from lowprec.adapters.torch.lines import line_of_error

    if isinstance(error, LowprecError):
        return error
    line = line_of_error(error)
    if isinstance(error, GuardOnDataDependentSymNode) or _is_data_dependent(error):
        return Refusal(
            "forward decides by the value of a tensor what to compute, which a trace cannot",
            line,
            "compute both and choose with torch.where, or use torch.cond",
        )
    return Refusal(
        f"torch.export cannot trace the module: {first_sentence(error)}",
        line,
        "change that line, or give only the part of the module that computes",
    )


def first_sentence(error: BaseException) -> str:
    """Return the beginning of an exception's message: torch's go on for pages."""
    text = str(error).strip()
    paragraph = " ".join(text.partition("\n\n")[0].split())
    name = type(error).__name__
    return f"{name}: {paragraph[:LONGEST_REASON]}" if paragraph else name


def _is_data_dependent(error: BaseException) -> bool:
    seen = 0
    current: BaseException | None = error
    while current is not None and seen < 10:
        if "data-dependent" in str(current).lower()[:2000]:
            return True
        current = current.__cause__ or current.__context__
        seen += 1
    return False
