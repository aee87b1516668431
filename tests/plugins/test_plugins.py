"""Plugins are found, checked and reported; a bad one never breaks a good one silently."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from refusals import refused

from lowprec import plugins
from lowprec.errors import LowprecError
from lowprec.hookspecs import AdapterInfo, hookimpl


class FakeEntry:
    group = "lowprec"

    def __init__(self, name: str, plugin: object) -> None:
        self.name = name
        self.value = f"{name}_package.adapter"
        self._plugin = plugin

    def load(self) -> object:
        if isinstance(self._plugin, BaseException):
            raise self._plugin
        return self._plugin


@pytest.fixture
def install(monkeypatch):
    """Install fake plugins beside nothing else, and forget loaded ones."""

    def install_(**plugins_by_name: object) -> plugins.Plugins:
        entries = [FakeEntry(name, plugin) for name, plugin in plugins_by_name.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
        monkeypatch.setattr(plugins, "_loaded", None)
        return plugins.all_plugins()

    return install_


class Good:
    @hookimpl
    def lowprec_describe(self):
        return AdapterInfo("good", {"numpy": "2"}, "good things")

    @hookimpl
    def lowprec_capture(self, model):
        return SimpleNamespace(graph=None) if model == "good" else None


class Misspelt:
    @hookimpl
    def lowprec_captur(self, model):
        return None


class WrongParameter:
    @hookimpl
    def lowprec_capture(self, modle):
        return None


def test_ours_is_found_through_its_entry_point():
    active = {status.name: status for status in plugins.active_plugins().statuses()}
    assert active["onnx"].state == "active"
    assert active["onnx"].origin == "lowprec.adapters.onnx"
    assert "onnx" in active["onnx"].info.versions


@pytest.mark.parametrize("problem", [ImportError("no\nmodule"), SystemExit("no\nmodule")])
def test_a_broken_plugin_is_set_aside_and_others_work(install, problem):
    loaded = install(broken=problem, good=Good())
    states = {status.name: status for status in loaded.statuses()}
    assert states["broken"].state == "failed"
    reason = f"cannot be imported: {type(problem).__name__}: no module"
    assert states["broken"].reason == reason
    assert states["good"].state == "active"
    assert plugins.active_plugins().hook.lowprec_capture(
        model="good", example_inputs=None, calibration_data=None, samples=1
    )
    assert loaded.accepted_kinds() == "good things"


@pytest.mark.parametrize(
    ("plugin", "words"),
    [(Misspelt(), ["lowprec_captur'", "lowprec_capture"]), (WrongParameter(), ["modle"])],
)
def test_a_misspelt_hook_is_an_error_at_registration(install, plugin, words):
    with refused(LowprecError, "plugin 'bad'", "LOWPREC_DISABLE_ADAPTERS=bad", *words):
        plugins.Plugins().register(plugin, "bad")
    loaded = install(bad=plugin, good=Good())
    states = {status.name: status.state for status in loaded.statuses()}
    assert states == {"bad": "failed", "good": "active"}
    with refused(LowprecError, "plugin 'bad'", *words):
        plugins.active_plugins()


def test_a_refused_plugin_is_not_left_registered():
    registry = plugins.Plugins()
    with refused(LowprecError, "bad"):
        registry.register(Misspelt(), "bad")
    registry.register(Good(), "good")
    assert registry.hook.lowprec_capture(
        model="good", example_inputs=None, calibration_data=None, samples=1
    )
    with refused(LowprecError, "'good'", "already"):
        registry.register(Good(), "good")
    registry.unregister("good")
    assert (
        registry.hook.lowprec_capture(
            model="good", example_inputs=None, calibration_data=None, samples=1
        )
        is None
    )


def test_adapters_can_be_disabled(install, monkeypatch):
    monkeypatch.setenv("LOWPREC_DISABLE_ADAPTERS", "bad, other")
    loaded = install(bad=Misspelt(), good=Good())
    states = {status.name: status.state for status in loaded.statuses()}
    assert states == {"bad": "disabled", "good": "active"}
    plugins.active_plugins()


def test_a_plugin_that_cannot_describe_itself_still_works(install):
    class Silent(Good):
        @hookimpl
        def lowprec_describe(self):
            raise RuntimeError("no")

    loaded = install(silent=Silent())
    assert loaded.statuses()[0].info is None
    assert loaded.hook.lowprec_capture(
        model="good", example_inputs=None, calibration_data=None, samples=1
    )


def test_collected_hooks_merge_by_name(install):
    class First:
        @hookimpl
        def lowprec_observers(self):
            return {"a": int, "b": int}

    class Second:
        @hookimpl
        def lowprec_observers(self):
            return {"b": float}

    loaded = install(first=First(), second=Second())
    assert loaded.observers() == {"a": int, "b": float}
    assert loaded.strategies() == {}
