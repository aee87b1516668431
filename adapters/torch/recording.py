"""What really reaches the regions of a split module, as their calibration data."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lowprec.adapters.torch.binding import Binding
from lowprec.adapters.torch.items import Wanted, call_of
from lowprec.adapters.torch.regions import entered
from lowprec.adapters.torch.sources import OpenedData
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.adapters.torch.untouched import untouched
from lowprec.errors import DataError

Feed = dict[str, NDArray[Any]]


class Recorder:
    """Runs a module over calibration data and keeps what its regions are called with, on disk.

    An item is read when a region asks for more than there is; it serves the others too.
    """

    def __init__(
        self,
        module: nn.Module,
        data: OpenedData,
        wanted: Wanted,
        most: int,
    ) -> None:
        """Take hold of the data; nothing is read.

        Args:
            module: A copy of the original, its regions not yet replaced.
            data: Calibration data of the whole.
            wanted: What the whole's forward takes of an item.
            most: How many items to read at most.
        """
        self.notes = data.notes
        self._module = module
        self._data = data
        self._items: Iterator[tuple[int, object]] | None = None
        self._wanted = wanted
        self._most = most
        self._entries: dict[str, nn.Module] = {}
        self._bindings: dict[str, Binding] = {}
        self._stored: dict[str, list[dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]]]] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the recorder)
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def add(self, name: str, entry: nn.Module, binding: Binding) -> None:
        """Record a region, too: the part that is called for it, and how."""
        self._entries[name] = entry
        self._bindings[name] = binding
        self._stored[name] = []

    def feeds(self, name: str) -> RegionFeeds:
        """Return what reaches a region."""
        return RegionFeeds(self, name)

    def feed(self, name: str, number: int) -> Feed | None:
        """Return what a region is called with the `number`th time; None after the last."""
        with self._lock:
            while number >= len(self._stored[name]):
                if not self._advance():
                    return None
            return self._load(self._stored[name][number])

    def _advance(self) -> bool:
        """Run the module on the next item; return whether there was one."""
        if self._items is None:
            self._items = enumerate(islice(self._data, self._most))
        try:
            number, item = next(self._items)
        except StopIteration:
            return False
        args, kwargs = call_of(item, self._wanted, number, self.notes)
        with untouched(self._module), entered(self._entries, self._keep):
            self._module(*args, **kwargs)
        return True

    def _keep(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        binding = self._bindings[name]
        leaves = binding.named_leaves(args, kwargs)
        stored = {}
        for key, (_, tensor) in zip(binding.inputs, leaves, strict=True):
            array = np.ascontiguousarray(to_numpy(tensor))
            stored[key] = (self._file.seek(0, 2), tensor.shape, array.dtype)
            self._file.write(array.reshape(-1).view(np.uint8).data)
        self._stored[name].append(stored)

    def _load(self, stored: Mapping[str, tuple[int, tuple[int, ...], np.dtype[Any]]]) -> Feed:
        feed = {}
        for key, (offset, shape, dtype) in stored.items():
            array = np.empty(shape, dtype)
            self._file.seek(offset)
            self._file.readinto(array.reshape(-1).view(np.uint8).data)
            feed[key] = array
        return feed


class RegionFeeds:
    """Feeds of one region; `notes` says after iterating what was dropped."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        """Read from `recorder`, when asked."""
        self._recorder = recorder
        self._name = name

    @property
    def notes(self) -> list[str]:
        """Lines about the calibration data."""
        return self._recorder.notes

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name: array}.

        Raises:
            DataError: nothing reaches the region.
        """
        number = 0
        while (feed := self._recorder.feed(self._name, number)) is not None:
            yield feed
            number += 1
        if not number:
            raise DataError(
                f"the calibration data holds no samples for the part '{self._name}': it is empty, "
                "or an iterator that was used up before, or none reaches that part"
            )
