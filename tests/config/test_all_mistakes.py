"""Every mistake of a configuration is said at once, with its line; nothing is found twice."""

from __future__ import annotations

import pytest
from refusals import refused

from lowprec.cli.application import run as command_line
from lowprec.config import Config
from lowprec.config_text import MAX_SHOWN
from lowprec.errors import ConfigError

MANY = """\
version: 1
precison: bf16
calibration:
  sampels: 3
  bins: 7
  method: entropi
layers:
- {match: a, precision: f32, op: Conv}
- {precision: f32}
- 3
tuning:
  accuracy: {relative: -1, absolut: 3}
  timeout: soon
"""


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_yaml(text)
    return list(caught.value.details)


def test_all_mistakes_are_named_in_the_order_of_their_lines():
    lines = mistakes_of(MANY)
    numbers = [int(line.split(":")[0].removeprefix("line ")) for line in lines]
    assert numbers == [2, 4, 5, 6, 8, 9, 10, 12, 12, 13]
    keys = ["precison", "sampels", "bins", "method", "layers[0].op", "layers[1]", "layers[2]"]
    for line, key in zip(lines, keys, strict=False):
        assert key in line
    assert "did you mean 'precision'" in lines[0]
    assert "did you mean 'samples'" in lines[1]
    with refused(ConfigError, "config: 10 mistakes", "line 2", "line 13", "timeout is 'soon'"):
        Config.from_yaml(MANY)


def test_a_section_s_own_rule_is_checked_where_its_keys_are_right():
    lines = mistakes_of("layers:\n- {precision: f32}\n- {precision: f32}\n")
    assert [line.split(":")[0] for line in lines] == ["line 2", "line 3"]


def test_repeated_keys_are_told_with_the_rest():
    lines = mistakes_of("calibration:\n  samples: 3\n  samples: 4\n  bin: 3\nprecision: x\n")
    assert [line.split(":")[0] for line in lines] == ["line 3", "line 4", "line 5"]
    assert "given twice" in lines[0]


def test_a_file_of_garbage_gives_a_bounded_message():
    lines = mistakes_of("".join(f"key{number}: 1\n" for number in range(1000)))
    assert len(lines) == MAX_SHOWN + 1
    assert lines[-1] == f"and {1000 - MAX_SHOWN} more"


def test_dicts_have_all_their_mistakes_told_too():
    with refused(ConfigError, "config: 2 mistakes", "calibration.bins", "'tunings'"):
        Config.of({"calibration": {"bins": 1}, "tunings": {}})


def test_the_command_line_prints_one_mistake_a_line(tmp_path, capfd, linear_path):
    conf = tmp_path / "conf.yaml"
    conf.write_text("precison: int8\ncalibration: {bins: 1}\n")
    code = command_line(["quantize", str(linear_path), "-c", str(conf), "-o", str(tmp_path / "q")])
    error = capfd.readouterr().err.splitlines()
    assert code == 2
    assert error[0] == f"error: {conf}: 2 mistakes"
    assert [line.split(":")[0] for line in error[1:]] == ["  line 1", "  line 2"]
