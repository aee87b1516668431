"""Find, load and check plugins: the pluggy manager over the entry-point group `lowprec`.

Our own adapters come in through the same door as anyone else's. A plugin that cannot be imported is
set aside and reported by `lowprec doctor`; one that is imported but misunderstands the contract (a
misspelt hook) is an error, because it would silently never be called.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from lowprec import hookspecs
from lowprec.errors import LowprecError
from lowprec.hookspecs import AdapterInfo

DISABLED_VARIABLE = "LOWPREC_DISABLE_ADAPTERS"  # names, separated by commas


@dataclass(frozen=True)
class PluginStatus:
    """What became of one plugin.

    Attributes:
        name: Its name in the entry-point group.
        origin: The module or package it comes from.
        state: 'active', 'disabled' or 'failed'.
        reason: Why it is not active; empty when it is.
        info: What it says about itself, if it is active and says anything.
    """

    name: str
    origin: str
    state: str
    reason: str = ""
    info: AdapterInfo | None = None


class Plugins:
    """Loaded plugins. `hook` calls them: `plugins.hook.lowprec_capture(model=..., ...)`."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._statuses: list[PluginStatus] = []
        self._contract_errors: list[LowprecError] = []

    @property
    def hook(self) -> Any:
        """The hooks of all active plugins; those registered last are asked first."""
        return self._manager.hook

    def register(self, plugin: object, name: str) -> None:
        """Add `plugin`, a module or object with hook functions, under `name`.

        Raises:
            LowprecError: the name is taken, or a hook or one of its parameters is not part of the
                contract; the plugin is then not registered.
        """
        if self._manager.has_plugin(name):
            raise LowprecError(
                f"a plugin named '{name}' is registered already; choose another name"
            )
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise LowprecError(_explain(name, plugin, error)) from None
        origin = getattr(plugin, "__name__", type(plugin).__name__)
        self._statuses.append(PluginStatus(name, origin, "active", info=_describe(plugin)))

    def unregister(self, name: str) -> None:
        """Remove the plugin `name`; nothing happens when there is none."""
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
            self._statuses = [status for status in self._statuses if status.name != name]

    def load_entry_points(self) -> None:
        """Register every plugin that installed packages declare, except the disabled ones."""
        disabled = _disabled_names()
        for entry in sorted(entry_points(group=hookspecs.PROJECT), key=_ours_first):
            if entry.name in disabled:
                self._set_aside(entry, "disabled", f"named in {DISABLED_VARIABLE}")
                continue
            try:
                plugin = entry.load()
            except (Exception, SystemExit) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._set_aside(entry, "failed", f"cannot be imported: {reason}")
                continue
            try:
                self.register(plugin, entry.name)
            except LowprecError as error:
                self._set_aside(entry, "failed", str(error))
                self._contract_errors.append(error)

    def _set_aside(self, entry: EntryPoint, state: str, reason: str) -> None:
        self._statuses.append(PluginStatus(entry.name, entry.value, state, reason))

    def check(self) -> None:
        """Raise LowprecError when a plugin misunderstood the contract."""
        if self._contract_errors:
            raise self._contract_errors[0]

    def statuses(self) -> tuple[PluginStatus, ...]:
        """Return what became of every plugin, in the order of loading."""
        return tuple(self._statuses)

    def accepted_kinds(self) -> str:
        """Return what the active adapters accept, in words."""
        kinds = [status.info.accepts for status in self._statuses if status.info]
        return "; ".join(kinds) or "nothing: no adapter is active (see `lowprec doctor`)"

    def strategies(self) -> dict[str, Callable[..., Any]]:
        """Return the tuning strategies that plugins add, by name."""
        return _merged(self.hook.lowprec_strategies())

    def observers(self) -> dict[str, Callable[..., Any]]:
        """Return the calibration methods that plugins add, by name."""
        return _merged(self.hook.lowprec_observers())


_lock = threading.Lock()
_loaded: Plugins | None = None


def all_plugins() -> Plugins:
    """Return the process's plugins, loaded at the first call; problems are in `statuses()`."""
    global _loaded
    with _lock:
        if _loaded is None:
            plugins = Plugins()
            plugins.load_entry_points()
            _loaded = plugins
        return _loaded


def active_plugins() -> Plugins:
    """Return the process's plugins for work.

    Raises:
        LowprecError: a plugin misunderstood the contract.
    """
    plugins = all_plugins()
    plugins.check()
    return plugins


def _disabled_names() -> set[str]:
    names = os.environ.get(DISABLED_VARIABLE, "").split(",")
    return {name.strip() for name in names if name.strip()}


def _ours_first(entry: EntryPoint) -> tuple[bool, str]:
    """Sort key: pluggy asks the last registered first, so a third party can take what we also "
    "could."""
    return (not entry.value.startswith("lowprec."), entry.name)


def _describe(plugin: object) -> AdapterInfo | None:
    describe = getattr(plugin, "lowprec_describe", None)
    if describe is None:
        return None
    try:
        info = describe()
    except Exception:
        return None
    return info if isinstance(info, AdapterInfo) else None


def _explain(name: str, plugin: object, error: Exception) -> str:
    known = [hook for hook in dir(hookspecs) if hook.startswith("lowprec_")]
    for hook in dir(plugin):
        marked = getattr(getattr(plugin, hook, None), f"{hookspecs.PROJECT}_impl", None)
        if marked is not None and hook not in known:
            return (
                f"plugin '{name}' implements '{hook}', which is not a hook of lowprec; "
                f"accepted are {', '.join(known)}: fix its name, or disable the plugin with "
                f"{DISABLED_VARIABLE}={name}"
            )
    reason = " ".join(str(error).split())
    return (
        f"plugin '{name}' does not fit the hooks of lowprec: {reason}; fix it, or disable it with "
        f"{DISABLED_VARIABLE}={name}"
    )


def _merged(mappings: list[Mapping[str, Callable[..., Any]]]) -> dict[str, Callable[..., Any]]:
    merged: dict[str, Callable[..., Any]] = {}
    for mapping in reversed(mappings):  # the first called wins, as with the other hooks
        merged.update(mapping)
    return merged
