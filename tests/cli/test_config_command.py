"""`lowprec config` prints what loads back equal, and checks files."""

from __future__ import annotations

import msgspec
import pytest

from lowprec.cli.application import run as command_line
from lowprec.config import Config
from lowprec.config_page import commented_yaml


def all_keys(kind, prefix=""):
    for field in msgspec.structs.fields(kind):
        yield f"{prefix}{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from all_keys(field.type, f"{prefix}{field.name}.")


def test_the_defaults_load_back_equal_and_every_key_is_explained(capfd):
    assert command_line(["config"]) == 0
    text = capfd.readouterr().out
    assert Config.from_yaml(text) == Config()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("#"), line
    written = {line.split(":")[0].strip() for line in lines if ":" in line and "#" not in line}
    assert {key.rpartition(".")[2] for key in all_keys(Config)} <= written
    assert max(map(len, lines)) <= 100


def test_any_configuration_loads_back_equal():
    config = Config.of(
        {
            "precision": "bf16",
            "calibration": {"method": "toy.mid", "samples": 3},
            "layers": [{"match": "a: [b]*", "precision": "f32"}, {"op_type": "Conv",
                                                                  "method": "minmax"}],
            "tuning": {"metrics": {"top k": {"weight": 0.5}}, "objective": ["latency", "size"],
                       "options": {"a": [1, {"b": None}]}, "timeout": 1e-3},
            "data": {"calibration": {"dataset": {"dummy": {"shape": [3, 4]}}}},
            "evaluation": {"metric": ["topk"]},
        }
    )  # fmt: skip
    assert Config.from_yaml(commented_yaml(config)) == config


def test_a_file_is_resolved_or_only_checked(tmp_path, capfd):
    conf = tmp_path / "conf.yaml"
    conf.write_text("calibration: {samples: 7}\n")
    assert command_line(["config", str(conf)]) == 0
    assert Config.from_yaml(capfd.readouterr().out).calibration.samples == 7
    assert command_line(["config", "--check", str(conf)]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["calibratoin: {}\n", "precision: int9\nlayers: 3\n", "a: [\n"])
def test_mistakes_are_exit_code_2(tmp_path, capfd, text):
    conf = tmp_path / "conf.yaml"
    conf.write_text(text)
    assert command_line(["config", str(conf)]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "line 1" in printed.err or "line 2" in printed.err
