"""The adapter contract: all that a plugin may implement, ours and anyone else's.

A plugin is any object, usually a module, with functions of these names and parameters, marked with
`@hookimpl`, and named in the entry-point group `lowprec` of its package:

    [options.entry_points]
    lowprec =
        toy = toy_adapter

Deciding "is this mine" must not import a framework: look into sys.modules, or at a path's suffix
and content. A misspelt hook or parameter is an error when the plugin is registered. Parameters
that a hook does not need may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

PROJECT = "lowprec"  # of the markers, and the name of the entry-point group

_F = TypeVar("_F", bound=Callable[..., Any])

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


Sample = tuple["dict[str, NDArray[Any]]", "list[NDArray[Any]]"]  # inputs, outputs


@dataclass
class Captured:
    """A framework's model, translated into the hub.

    Attributes:
        graph: The hub: an onnx_ir.Model as `lowprec.graph.load` returns it.
        source: The model as it was given; lowprec only hands it back to `lowprec_rebuild`.
        kind: The framework's name, for reports and for the adapter's own hooks.
        binding: How the framework's arguments and results map to graph inputs and outputs; the
            adapter's own business.
        samples: Feeds by input name, each with the outputs, in order, that the framework itself
            computes for it. Where there are any, the hub is run on them before anything else, and
            must give the same.
        notes: Lines for the report: what is particular about the model.
    """

    graph: ir.Model
    source: object
    kind: str
    binding: Mapping[str, object] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()


@dataclass
class CapturedParts:
    """A model of which the framework goes on to compute some of it, between parts in the hub.

    Attributes:
        parts: By name; each is compiled or quantised for itself, and `lowprec_batches` gives each
            its feeds.
        source: The model as it was given.
        kind: The framework's name.
        binding: The adapter's own business.
        notes: Why the model is not captured as a whole, for reports.
    """

    parts: Mapping[str, Captured]
    source: object
    kind: str
    binding: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class AdapterInfo:
    """What `lowprec doctor` says about an adapter.

    Attributes:
        name: Short name.
        versions: Installed packages that it works with, name -> version; empty when none is there.
        accepts: What it takes, in words, for messages such as "no adapter accepts a list".
    """

    name: str
    versions: Mapping[str, str]
    accepts: str


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed, by name; imports none."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@hookspec(firstresult=True)
def lowprec_capture(
    model: object, example_inputs: object, calibration_data: object, samples: int
) -> Captured | CapturedParts | None:
    """Return `model` as a hub graph, or in parts, or None when it is not this adapter's.

    Args:
        model: Whatever was given to quantize() or compile().
        example_inputs: One complete feed for models that must be traced; often None.
        calibration_data: As given, or None. An adapter that traces may look at its first items; if
            that uses them up, its own `lowprec_batches` must still yield them.
        samples: How many items of the data calibration will ask for; no more may be looked at.

    Raises:
        LowprecError: it is this adapter's, but cannot be captured.
    """


@hookspec(firstresult=True)
def lowprec_defer(model: object, build: Callable[[object], Any]) -> object | None:
    """Return an object that captures `model` when it is first called, or None.

    Asked when there is neither an example nor data, and the precision needs no data.

    Args:
        model: Whatever was given to quantize() or compile().
        build: Called with example inputs, returns what quantize() or compile() returns.
    """


@hookspec(firstresult=True)
def lowprec_rebuild(quantized: object, captured: Captured | CapturedParts) -> object | None:
    """Return `quantized` as the framework's own kind of object, or None when not this adapter's.

    Args:
        quantized: The lowprec.QuantizedModel or CompiledModel; for CapturedParts a dict of them, by
            the names of the parts.
        captured: What `lowprec_capture` returned for the original.
    """


@hookspec(firstresult=True)
def lowprec_batches(
    data: object, captured: Captured
) -> Iterable[dict[str, NDArray[np.generic]]] | None:
    """Return complete feeds by input name from `data`, or None when it is not this adapter's.

    The iterable may have an attribute `notes`, a list of lines for the report that is read after
    the iteration (for example: labels were dropped).

    Args:
        data: Calibration data as given, never None.
        captured: The model the feeds are for.
    """


@hookspec
def lowprec_strategies() -> Mapping[str, Callable[..., Any]]:
    """Return tuning strategies by name."""
    return {}


@hookspec
def lowprec_observers() -> Mapping[str, Callable[..., Any]]:
    """Return calibration methods by name, written PLUGIN.NAME, for `calibration.method`.

    A method is a function from a Config (whose `activations.scheme` is the tensor's own) to a rule:
    an object with `end_batch(tensor)`, called once per batch and in order, and `range(tensor)`,
    called at the end, which returns a `lowprec.calibration.Range`. The tensor has `minimum`,
    `maximum`, `count`, `histogram()` and `real_histogram` (a `lowprec.calibration.Histogram`:
    quantiles, shares, power) of all batches, `batch_minimum` and `batch_maximum` of the one at
    hand. A rule is asked after all batches have run: so it works with workers, and on what was
    observed for another method.
    """
    return {}


@hookspec
def lowprec_describe() -> AdapterInfo:
    """Return what to say about this adapter; must not import its framework."""
    raise NotImplementedError
