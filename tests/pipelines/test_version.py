"""Versions of data and code: the same for the same content, another for any change."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tritower
from tritower.errors import StorageError

from pipelines.compiling import yaml_path
from pipelines.version import data_version, step_versions


def test_content_counts_and_place_does_not(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "a.parquet").write_bytes(b"abc")
        (folder / "jobs.csv").write_bytes(b"x")
    version = data_version(str(one / "parts"), str(one / "jobs.csv"), "")
    assert version == data_version(str(two / "parts"), f"file://{two / 'jobs.csv'}", "")
    assert len(version) == 16
    assert version != data_version(str(one / "jobs.csv"), str(one / "parts"), "")
    (two / "parts" / "a.parquet").write_bytes(b"abd")
    assert version != data_version(str(two / "parts"), str(two / "jobs.csv"), "")


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no such file.*nothing\.csv"):
        data_version(str(tmp_path / "nothing.csv"))


def test_a_change_in_one_room_concerns_its_steps_only(tmp_path: Path) -> None:
    copy = tmp_path / "tritower"
    shutil.copytree(Path(tritower.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = _versions_in(tmp_path)
    assert before == step_versions(yaml_path("training"))

    (copy / "ranker" / "README.md").write_text("new words\n")
    assert before == _versions_in(tmp_path)
    (copy / "ranker" / "added.py").write_text("# new\n")
    after = _versions_in(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"ranker", "score"}

    (copy / "errors.py").write_text((copy / "errors.py").read_text() + "# new\n")
    last = _versions_in(tmp_path)
    assert all(after[name] != last[name] for name in after)


def _versions_in(folder: Path) -> dict[str, str]:
    """The step versions as seen by a process that imports the tritower under `folder`."""
    code = (
        "import json; from pipelines.version import step_versions; from pipelines.compiling import yaml_path;"
        "print(json.dumps(step_versions(yaml_path('training'))))"
    )
    root = yaml_path("training").parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": f"{folder}:{root}"}, capture_output=True, text=True, check=True
    )
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def test_a_partition_with_an_underscore_counts(tmp_path: Path) -> None:
    part = tmp_path / "_day=3" / "part.csv"
    part.parent.mkdir()
    part.write_text("a\n1\n")
    before = data_version(str(tmp_path))
    part.write_text("a\n2\n")
    after = data_version(str(tmp_path))
    assert after != before
    (tmp_path / "_SUCCESS").touch()
    assert data_version(str(tmp_path)) == after
