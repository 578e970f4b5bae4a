"""Knobs out of range are refused with their name."""

import pytest
from tritower.config import from_dict, to_dict
from tritower.errors import ConfigError
from tritower.ranker.config import RankerConfig


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("query_tower", ()), ("document_tower", (64,)), ("batch_size", 0), ("positions", 0),
        ("batch_size", 1), ("learning_rate", 0.0), ("clip_norm", -1), ("position", "sideways"), ("warmup_share", 1),
    ],
)  # fmt: skip
def test_out_of_range(knob: str, value: object):
    with pytest.raises(ConfigError):
        from_dict(RankerConfig, {knob: value})


def test_text_and_floats_convert_and_round_trip():
    config = from_dict(RankerConfig, {"epochs": "3", "query_tower": "64,32", "document_tower": [64.0, 32], "product": "false"})
    assert (config.epochs, config.query_tower, config.product) == (3, (64, 32), False)
    assert from_dict(RankerConfig, to_dict(config)) == config
