"""`serve`: what it takes of a demo's folder, and what it says where there is none."""

import os
from pathlib import Path

import pytest
from tritower.errors import StorageError

from pipelines import serving


def test_without_a_run_it_says_what_to_do_first(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no run has ended here .*ranker_model.*Run `make demo` first"):
        serving.run(tmp_path, port=0)


def test_the_newest_output_of_each_step_is_taken(tmp_path: Path) -> None:
    """A second run that took all but the ranker from the cache."""
    folders = [tmp_path / "run" / "artifacts" / f"training-{day}" for day in (1, 2)]
    for output in serving._STEP.values():
        (folders[0] / output).mkdir(parents=True)
        os.utime(folders[0] / output, (1, 1))
    (folders[1] / "ranker" / "ranker_model").mkdir(parents=True)
    found = serving.newest(tmp_path)
    assert found.pop("model") == folders[1] / "ranker" / "ranker_model"
    assert found == {name: folders[0] / output for name, output in serving._STEP.items() if name != "model"}


def test_a_run_without_a_baseline_is_served_without_one(tmp_path: Path) -> None:
    for name, output in serving._STEP.items():
        if name != "baseline":
            (tmp_path / "run" / "artifacts" / "one" / output).mkdir(parents=True)
    assert set(serving.newest(tmp_path)) == set(serving._STEP) - {"baseline"}
