"""Which image runs for a compiled name, and what a build is called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tritower import __version__
from tritower.errors import StepError

from pipelines.compiling import yaml_path
from pipelines.containers import on_this_machine


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("TRITOWER_IMAGE_PREFIX", "TRITOWER_IMAGE_TAG"):
        monkeypatch.delenv(variable, raising=False)
    file = tmp_path / "built.json"
    file.write_text(json.dumps({"base": "tritower/base:0.1.0-abc", "train": "reg.example/x/train:0.1.0-abc"}))
    return file


def test_the_committed_pipeline_runs_in_what_was_built_last(built: Path) -> None:
    executors = next(iter(yaml.safe_load_all(yaml_path("training").read_text())))["deploymentSpec"]["executors"]
    images = {one["container"]["image"] for one in executors.values() if "container" in one}
    assert {on_this_machine(image, built) for image in images} == {"tritower/base:0.1.0-abc", "reg.example/x/train:0.1.0-abc"}


def test_a_run_keeps_the_images_that_it_began_with(built: Path) -> None:
    on_this_machine(f"tritower/base:{__version__}", built)
    built.write_text(json.dumps({"base": "tritower/base:later", "train": "tritower/train:later"}))
    assert on_this_machine(f"tritower/train:{__version__}", built) == "reg.example/x/train:0.1.0-abc"


def test_a_name_that_was_compiled_with_a_tag_stays(built: Path) -> None:
    for image in ("tritower/base:0.1.0-def", f"reg.example/base:{__version__}", "python:3.11-slim"):
        assert on_this_machine(image, built) == image


def test_what_was_not_built_keeps_its_name(built: Path, tmp_path: Path) -> None:
    assert on_this_machine(f"tritower/spark:{__version__}", built) == f"tritower/spark:{__version__}"
    assert on_this_machine(f"tritower/base:{__version__}", tmp_path / "none.json") == f"tritower/base:{__version__}"


def test_the_environment_has_the_last_word(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITOWER_IMAGE_TAG", "7")
    assert on_this_machine(f"tritower/base:{__version__}", built) == "tritower/base:7"
    monkeypatch.setenv("TRITOWER_IMAGE_PREFIX", "reg.example/y/")
    assert on_this_machine("tritower/train:0.1.0-def", built) == "reg.example/y/train:7"
    assert on_this_machine("python:3.11-slim", built) == "python:3.11-slim"


def test_a_torn_record_is_an_error_with_its_remedy(built: Path) -> None:
    built.write_text(built.read_text()[:20])
    with pytest.raises(
        StepError, match=r"the record of built images cannot be read \(in .*built\.json\)\. Run `make images` again\."
    ):
        on_this_machine(f"tritower/base:{__version__}", built)


def tag(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {key: value for key, value in os.environ.items() if key != "TRITOWER_IMAGE_TAG"} | environment
    command = [sys.executable, "images/build.py", "tag"]
    return subprocess.run(command, cwd=checkout, env=settings, capture_output=True, text=True, check=False)


def test_without_a_git_checkout_the_tag_must_be_given(checkout: Path, tmp_path: Path) -> None:
    # A git directory further up is another project's.
    outside = {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    done = tag(checkout, **outside)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("Set TRITOWER_IMAGE_TAG to the tag to use.")
    assert len(done.stderr.strip().splitlines()) == 1
    assert tag(checkout, PATH="", **outside).stderr == done.stderr  # nor is there a program called git
    assert tag(checkout, TRITOWER_IMAGE_TAG="1.0", **outside).stdout == "1.0\n"


def test_a_tag_names_the_commit_and_whether_the_files_differ_from_it(checkout: Path) -> None:
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:12]
    assert tag(checkout).stdout == f"{__version__}-{commit}\n"
    (checkout / "images/warm.py").write_text("")
    assert tag(checkout).stdout == f"{__version__}-{commit}-dirty\n"
