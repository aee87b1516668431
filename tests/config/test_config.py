"""Config: the same names everywhere, and every mistake named with its key and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from refusals import refused

from lowprec.config import Algorithms, Config
from lowprec.errors import ConfigError

FULL = """\
version: 1
precision: int8               # int8 | int8-dynamic | int8-weight-only | bf16 | auto
calibration: {method: auto, samples: 128, bins: 2048, percentile: 99.99}
activations: {dtype: u8, scheme: asymmetric, granularity: per_tensor}
weights: {dtype: s8, scheme: symmetric, granularity: per_channel}
algorithms: {equalization: auto, bias_correction: auto, smoothing: auto, rounding: nearest}
layers: [{match: "head.*", precision: f32}, {op_type: Softmax, precision: f32}]
tuning: {strategy: basic, accuracy: {relative: 0.01, higher_is_better: true}, objective: latency,
         max_trials: 100, timeout: null, seed: 0}
"""


def test_a_full_example_is_the_default_but_for_its_layers_and_rounding():
    config = Config.from_yaml(FULL)
    assert config.layers[0].match == "head.*"
    assert config == Config(layers=config.layers, algorithms=Algorithms(rounding="nearest"))


def test_all_forms_of_a_config_are_equal(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(FULL)
    config = Config.from_yaml(FULL)
    for other in (path, str(path), config, config.to_dict()):
        assert Config.of(other) == config
    assert Config.from_yaml(config.to_yaml()) == config
    assert Config.of(None) == Config.of({}) == Config.from_yaml("") == Config()


def test_partial_sections_keep_the_other_defaults():
    config = Config.of({"calibration": {"samples": 7}})
    assert config.calibration.samples == 7
    assert config.calibration.bins == 2048


def test_configs_are_values():
    assert Config() == Config()
    with pytest.raises(AttributeError):
        Config().precision = "bf16"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("precision: int8\ncalibraton: {samples: 3}\n", ["line 2", "calibraton", "'calibration'"]),
        (
            "calibration:\n  method: auto\n  sample: 3\n",
            ["line 3", "calibration.sample", "'samples'", "method, preset, samples, bins"],
        ),
        (
            "layers:\n- {match: a, precision: f32}\n- match: b\n  precison: f32\n",
            ["line 4", "layers[1].precison", "'precision'"],
        ),
        ("tuning:\n  accuracy:\n    relativ: 3\n", ["line 3", "tuning.accuracy.relativ"]),
        ("{1: 2}", ["line 1", "unknown key '1'"]),
    ],
)
def test_unknown_keys_are_named_with_their_line(text, words):
    with refused(ConfigError, "unknown key", *words):
        Config.from_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("precision: int9", ["line 1", "precision is 'int9'", "int8, int8-dynamic"]),
        ("\ncalibration:\n  samples: many", ["line 3", "calibration.samples", "'many'", "number"]),
        ("calibration: {samples: 0}", ["calibration.samples is 0", ">= 1"]),
        ("calibration: {bins: 3}", ["bins is 3", ">= 512 and <= 65536"]),
        ("calibration: {percentile: 101}", ["percentile is 101", "> 50 and <= 100"]),
        ("calibration: 3", ["calibration is 3", "mapping", "samples"]),
        ("layers: {match: a}", ["layers", "a list"]),
        ("layers: [{match: a}]", ["layers[0]", "asks for nothing", "precision"]),
        (
            "calibration:\n  samples: 3\n  method: entropi\n",
            ["line 3", "calibration.method is 'entropi'", "moving-average", "PLUGIN.NAME"],
        ),
        ("layers:\n- {precision: f32}", ["line 2", "layers[0]", "match", "op_type"]),
        ("algorithms: {smoothing: maybe}", ["smoothing is 'maybe'", "auto or true or false"]),
        ("version: 2", ["version is 2", "accepted is 1"]),
        ("- a\n- b", ["the configuration is", "mapping"]),
        ("tuning: {timeout: -1}", ["timeout is -1", "> 0"]),
    ],
)
def test_wrong_values_are_named_with_what_is_accepted(text, words):
    with refused(ConfigError, *words):
        Config.from_yaml(text)


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("precision: int8\nlayers: [\n")
    with refused(ConfigError, "conf.yaml, line 3", "not valid YAML"):
        Config.of(path)


def test_a_key_given_twice_is_an_error():
    with refused(ConfigError, "line 3", "'samples'", "twice"):
        Config.from_yaml("calibration:\n  samples: 3\n  samples: 4\n")


def test_anchors_that_grow_or_recur_are_harmless():
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    for use in ("", "precision: *a19", "tuning: {options: {x: *a19}}", "layers: *a19"):
        with refused(ConfigError, "anchors stand for more than"):
            Config.from_yaml("\n".join([*lines, use]))
    with refused(ConfigError, "line 2", "holds itself"):
        Config.from_yaml("precision: int8\nlayers: &a [*a]\n")
    shared = "layers:\n- &one {match: a, precision: f32}\n- *one\n"
    assert len(Config.from_yaml(shared).layers) == 2


def test_no_code_in_yaml():
    with refused(ConfigError, "not valid YAML"):
        Config.from_yaml("precision: !!python/object/apply:os.getcwd []\n")


def test_missing_and_unreadable_files(tmp_path):
    with refused(ConfigError, "none.yaml", "does not exist"):
        Config.of(tmp_path / "none.yaml")
    with refused(ConfigError, "cannot be read"):
        Config.of(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with refused(ConfigError, "UTF-8"):
        Config.of(tmp_path / "binary.yaml")
    with refused(ConfigError, "int", "accepted"):
        Config.of(3)


def test_the_last_matching_rule_wins():
    rules = [
        {"match": "*", "precision": "f32"},
        {"match": "head.*", "precision": "int8"},
        {"match": "head.[0-9]", "op_type": "Conv", "precision": "f32"},
    ]
    config = Config.of({"layers": rules})
    assert config.layer_precision("body", "Conv") == "f32"
    assert config.layer_precision("head.x", "Conv") == "int8"
    assert config.layer_precision("head.3", "Conv") == "f32"
    assert config.layer_precision("head.3", "MatMul") == "int8"
    assert Config().layer_precision("head.3", "Conv") is None


def test_the_page_shows_the_defaults():
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    text = page.read_text().split("```yaml\n")[1].split("```")[0]
    assert Config.from_yaml(text) == Config()
    assert yaml.safe_load(text) == Config().to_dict()
