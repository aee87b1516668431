"""What a configuration says about data and metrics is checked with the rest of it."""

from __future__ import annotations

import pytest

from lowprec.config import Config
from lowprec.errors import ConfigError

TEXT = """\
data:
  calibration: samples.npz
  evaluation:
    dataset: {MNST: {root: here}}
    transform:
      Resize: {siz: 3}
    bach_size: 3
evaluation:
  metric: {topkk: 3}
tuning: {timeout: soon}
"""


def test_data_and_metrics_are_checked_with_their_lines():
    with pytest.raises(ConfigError) as caught:
        Config.from_yaml(TEXT)
    lines = [line.partition(": ")[0] for line in caught.value.details]
    assert lines == ["line 4", "line 6", "line 6", "line 7", "line 9", "line 10"]


def test_a_whole_run_survives_yaml():
    config = Config.of(
        {
            "model": "m.onnx",
            "data": {
                "calibration": {"dataset": {"dummy": {"shape": [3, 4]}}, "batch_size": 2},
                "evaluation": "module:function",
            },
            "evaluation": {"metric": ["topk", {"F1": {"average": "micro"}}]},
        }
    )
    assert Config.from_yaml(config.to_yaml()) == config
    assert config.data.calibration["batch_size"] == 2


@pytest.mark.parametrize("section", [{"data": {"calibration": 3}}, {"evaluation": {"metric": 3}}])
def test_other_types_are_refused(section):
    with pytest.raises(ConfigError, match="is 3; accepted are"):
        Config.of(section)
