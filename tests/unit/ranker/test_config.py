"""Knobs out of range are refused with their name."""

import pytest
from tritower.config import from_dict, to_dict
from tritower.errors import ConfigError
from tritower.ranker.config import RankerConfig


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("network.query_tower", ()), ("network.document_tower", (64, 0)), ("network.positions", 0),
        ("network.position", "sideways"), ("optimiser.learning_rate", 0.0), ("optimiser.clip_norm", -1),
        ("optimiser.warmup_ratio", 1), ("training.batch_size", 1), ("training.epochs", 0),
        ("launch.processes", 0), ("launch.checkpoint_every_s", 0),
    ],
)  # fmt: skip
def test_out_of_range(knob: str, value: object):
    with pytest.raises(ConfigError, match=knob.rpartition(".")[2]):
        from_dict(RankerConfig, {knob: value})


def test_text_and_floats_convert_and_round_trip():
    network = {"query_tower": "64,32", "document_tower": [64.0, 16], "cross_layers": "0"}
    config = from_dict(RankerConfig, {"training.epochs": "3", "network": network})
    assert (config.training.epochs, config.network.query_tower, config.network.document_tower) == (3, (64, 32), (64, 16))
    assert from_dict(RankerConfig, to_dict(config)) == config


def test_flat_names_of_earlier_versions_are_read():
    flat = {"cross_layers": 0, "warmup_share": 0.3, "average": 0.5, "epochs": 2, "processes": 2, "gates": False}
    nested = {
        "network": {"cross_layers": 0}, "optimiser": {"warmup_ratio": 0.3, "ema_decay": 0.5}, "training": {"epochs": 2},
        "launch": {"processes": 2},
    }  # fmt: skip
    assert from_dict(RankerConfig, flat) == from_dict(RankerConfig, nested) != RankerConfig()


@pytest.mark.parametrize(("off", "on"), [
    ({"product": "false"}, {"product": True}),
    ({"network.product": False}, {"network.product": "true"}),
    ({"network": {"product": 0}}, {"network": {"product": 1}}),
])  # fmt: skip
def test_the_product_of_the_towers_may_be_off_and_no_longer_on(off: dict[str, object], on: dict[str, object]):
    assert from_dict(RankerConfig, off) == RankerConfig()
    with pytest.raises(ConfigError, match=r"knob 'product' was removed: .* Leave it out"):
        from_dict(RankerConfig, on)


def test_a_batch_must_be_shared_out_evenly():
    with pytest.raises(ConfigError, match=r"RankerConfig.training.batch_size.*divisible by launch.processes = 3"):
        from_dict(RankerConfig, {"launch.processes": 3})
