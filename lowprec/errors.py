"""What can go wrong, by kind.

Every error that lowprec raises on purpose is a LowprecError. Its message is one line that names the
offending thing, the accepted values and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence


class LowprecError(Exception):
    """The base of every error raised on purpose by lowprec."""

    def __str__(self) -> str:
        """Return the message on one printable line: names come from files that nobody checked."""
        return _printable(super().__str__())


class ModelError(LowprecError):
    """A model file or graph that cannot be used."""


class DataError(LowprecError):
    """Calibration data that cannot be used."""


class ConfigError(LowprecError):
    """A configuration with unknown keys or values out of range; all of them at once.

    Attributes:
        headline: What has how many mistakes; the whole message when there is only one.
        details: One line for each of several mistakes.
    """

    def __init__(self, headline: str, details: Sequence[str] = ()) -> None:
        super().__init__(f"{headline}: {'; '.join(details)}" if details else headline)
        self.headline = _printable(headline)
        self.details = tuple(_printable(line) for line in details)


class InputError(LowprecError):
    """What a run was fed: a wrong name, rank, dtype or size."""


class OutputError(LowprecError):
    """A result that could not be written."""


class UnsupportedError(LowprecError):
    """Something valid that lowprec does not do."""


class QuantizationError(LowprecError):
    """Numbers that cannot be quantised."""


class IsaError(LowprecError):
    """LOWPREC_ISA names an instruction set that is unknown or missing on this machine."""


class ThreadsError(LowprecError):
    """LOWPREC_NUM_THREADS, or what set_num_threads was given, is not a number of threads."""


def _printable(message: str) -> str:
    if message.isprintable():
        return message
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in message
    )
