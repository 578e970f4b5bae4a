"""Presets and `--set`: read, checked, refused before anything runs."""

from pathlib import Path

import pytest
from tritower.errors import ConfigError

from pipelines import knobs, steps


@pytest.mark.parametrize("preset", sorted(path.stem for path in knobs.PRESETS.glob("*.toml")))
def test_every_preset_is_valid(preset: str) -> None:
    assert knobs.gather(preset).keys() <= steps.configs().keys()


def test_settings_override_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[recommend]\ntop_k = 5\ncollapse_duplicates = false\n")
    chosen = knobs.gather(str(file), ["recommend.top_k=7", "candidates.searches = 3"])
    assert chosen == {"recommend": {"top_k": "7", "collapse_duplicates": False}, "candidates": {"searches": "3"}}
    assert knobs.arguments(chosen).keys() == {"settings_recommend", "settings_candidates"}


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
    with pytest.raises(ConfigError, match="Known presets: demo, quick"):
        knobs.gather("fast")
    (tmp_path / "bad.toml").write_text("[ingest\n")
    with pytest.raises(ConfigError, match="not TOML"):
        knobs.gather(str(tmp_path / "bad.toml"))
