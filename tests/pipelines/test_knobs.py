"""Presets and `--set`: read, checked, refused before anything runs."""

import importlib
from pathlib import Path

import pytest
from tritower.config import from_dict
from tritower.errors import ConfigError
from tritower.ranker.config import RankerConfig
from tritower.tuning import step as tuning
from tritower.tuning.config import Parameter, TuningConfig

from pipelines import knobs, names, steps


@pytest.mark.parametrize("preset", sorted(path.stem for path in knobs.PRESETS.glob("*.toml")))
def test_every_preset_is_valid(preset: str) -> None:
    assert knobs.gather(preset).keys() <= steps.configs().keys()


def test_settings_override_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[recommend]\ntop_k = 5\ncollapse_duplicates = false\n")
    chosen = knobs.gather(str(file), ["recommend.top_k=7", "candidates.searches = 3"])
    assert chosen == {"recommend": {"top_k": "7", "collapse_duplicates": False}, "candidates": {"searches": "3"}}
    assert knobs.arguments(chosen) == {
        "recommend_top_k": 7,
        "settings_recommend": {"collapse_duplicates": False},
        "settings_candidates": {"searches": "3"},
    }


@pytest.mark.parametrize("preset", ["", *sorted(path.stem for path in knobs.PRESETS.glob("*.toml"))])
@pytest.mark.parametrize("settings", [[], ["ranker.members=2", "finetune.epochs=0", "recommend.collapse_duplicates=false"]])
def test_a_step_gets_the_knobs_that_were_chosen_whichever_way_they_go(preset: str, settings: list[str]) -> None:
    """Some are parameters of their own, the others are in a dict: together they are what was asked for."""
    chosen = knobs.gather(preset, settings)
    given = knobs.arguments(chosen)
    for table, step in steps.configs().items():
        kind = knobs.kind_of(table)
        defaults = {}
        if step.plain:
            component = getattr(importlib.import_module(f"tritower.{step.room}.component"), step.component)
            defaults = {name: component.component_spec.inputs[name].default for name in step.plain}
        plain = {knob: given.get(name, defaults[name]) for name, knob in step.plain.items()}
        wanted = from_dict(kind, chosen.get(table, {}))
        assert from_dict(kind, given.get(names.settings(table), {}), plain=plain) == wanted
        assert all(isinstance(given.get(name, 0), int) for name in step.plain)


def test_the_dict_wins_over_a_plain_parameter() -> None:
    plain = {"training.epochs": 6, "training.members": 3}
    for values in ({"epochs": 2.0}, {"training.epochs": 2}, {"training": {"epochs": 2}}, {"training": '{"epochs": 2}'}):
        config = from_dict(RankerConfig, values, plain=plain)
        assert (config.training.epochs, config.training.members) == (2, 3)
    with pytest.raises(ConfigError, match="epochs is 0"):
        from_dict(RankerConfig, {}, plain={"training.epochs": 0})


def test_plain_parameters_reach_every_trial_unless_they_are_searched_or_fixed() -> None:
    plain = {"epochs": 4, "members": 2}
    config = TuningConfig(space=(Parameter(name="epochs", kind="int", low=1, high=3),))
    assert tuning.with_plain(config, {}, plain).fixed == {"members": 2}
    config = TuningConfig(fixed={"network.cross_layers": 1})
    assert tuning.with_plain(config, {"training": {"epochs": 1}, "training.members": 5}, plain).fixed == {
        "training": {"epochs": 1},
        "training.members": 5,
        "network.cross_layers": 1,
    }
    assert tuning.with_plain(TuningConfig(), {}, {"epochs": 0, "members": 0}).fixed == {}


def test_nested_knobs_by_dots_and_by_their_former_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[ranker]\naverage = 0.5\ntraining.epochs = 2\n[ranker.network]\ncross_layers = 1\ncross_rank = 4\n")
    chosen = knobs.gather(str(file), ["ranker.network.cross_layers=0", "ranker.epochs=3"])
    assert chosen == {
        "ranker": {
            "optimiser": {"ema_decay": 0.5}, "training": {"epochs": "3"}, "network": {"cross_layers": "0", "cross_rank": 4}
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recommend.topk=7", "Did you mean 'top_k'"),
        ("recomend.top_k=7", "Did you mean 'recommend'"),
        ("recommend.top_k", "step.knob=value"),
        ("recommend.top_k=many", "does not fit"),
        ("recommend.top_k=0", "from 1 to 32767"),
        ("ranker.network.cross_layer=0", "ranker.network.* Did you mean 'cross_layers'"),
        ("ranker.cross_layer=0", "Did you mean 'network.cross_layers'"),
        ("ranker.network.cross_layers=-1", "ranker.network.*>= 0"),
        ("ranker.dropout=0.1", "'dropout' was removed"),
    ],
)
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        knobs.gather("", [setting])


def test_wrong_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Known presets: demo, gpu, quick"):
        knobs.gather("fast")
    (tmp_path / "bad.toml").write_text("[ingest\n")
    with pytest.raises(ConfigError, match="not TOML"):
        knobs.gather(str(tmp_path / "bad.toml"))
