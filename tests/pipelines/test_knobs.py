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
    assert knobs.arguments(chosen).keys() == {"recommend_config", "candidates_config"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recommend.topk=7", "Did you mean 'top_k'"),
        ("recomend.top_k=7", "Did you mean 'recommend'"),
        ("recommend.top_k", "step.knob=value"),
        ("recommend.top_k=many", "does not fit"),
        ("recommend.top_k=0", "from 1 to 32767"),
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
