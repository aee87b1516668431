"""How every refusal of lowprec must look: a LowprecError of one line that names what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lowprec.errors import LowprecError


@contextmanager
def refused(kind: type[LowprecError], *words: str) -> Iterator[None]:
    """Expect an error of exactly this kind whose one line holds all the words."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"
