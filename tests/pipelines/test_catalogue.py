"""Components in other people's pipelines: from the YAML alone, run by KFP's own local runner."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import components
from tritower.errors import ArtifactError

from pipelines import catalogue
from pipelines.steps import STEPS
from tests.support import ingest_log

THEIRS = """
import json, sys
from kfp import components, dsl, local

folder, log, out = sys.argv[1:]
ingest, entities = (components.load_component_from_file(f"{folder}/{name}/component.yaml") for name in ("ingest", "entities"))

@dsl.component
def count(found: dsl.Input[dsl.Dataset]) -> int:
    return len(found.metadata)

@dsl.pipeline(name="theirs")
def theirs(jobs: str, impressions: str) -> int:
    read = ingest(jobs=jobs, impressions=impressions)
    return count(found=entities(dataset=read.outputs["dataset"]).outputs["entities"]).output

local.init(local.SubprocessRunner(use_venv=False), pipeline_root=out)
print("COUNTED", theirs(jobs=f"{log}/jobs.csv", impressions=f"{log}/impressions.csv").output)
"""


def test_every_step_is_in_the_catalogue() -> None:
    assert {step.component for step in STEPS.values()} <= catalogue.components().keys()


@pytest.mark.parametrize("name", sorted(catalogue.components()))
def test_a_component_file_loads_with_the_source_s_inputs_and_outputs(name: str) -> None:
    room, source = catalogue.components()[name]
    loaded = components.load_component_from_file(str(catalogue.FOLDER / name / "component.yaml"))
    for side in ("inputs", "outputs"):
        ours, theirs = getattr(source.component_spec, side) or {}, getattr(loaded.component_spec, side) or {}
        assert ours.keys() == theirs.keys()
        artifacts = {key: one.type for key, one in ours.items() if one.type.startswith("system.")}
        assert artifacts == {key: one.type for key, one in theirs.items() if one.type.startswith("system.")}
    facts = yaml.safe_load((catalogue.FOLDER / name / "metadata.yaml").read_text())
    assert facts["name"] == name.replace("_", "-")
    assert f"/{facts['image']}:" in loaded.component_spec.implementation.container.image
    readme = (catalogue.PACKAGE / room / "README.md").read_text()
    assert all(f"| `{key}` |" in readme for key in (*source.component_spec.inputs, *source.component_spec.outputs))


def test_every_input_and_output_is_explained() -> None:
    lines = [line for readme in catalogue._readmes().values() for line in readme.partition("<!-- interface")[2].splitlines()]
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []


def test_what_is_kept_is_compared(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(catalogue.FOLDER, folder)
    catalogue.check(folder)
    yaml_file = folder / "score/component.yaml"
    text = yaml_file.read_text()
    yaml_file.write_text(text.replace("tritower/train:", "registry.example.org/a/train:"))
    catalogue.check(folder)  # where the images lie is no part of the source
    yaml_file.write_text(text.replace("system.Model", "system.Dataset"))
    with pytest.raises(ArtifactError, match=r"score/component\.yaml is not what the component's source gives"):
        catalogue.check(folder)
    yaml_file.write_text(text)
    (folder / "gone").mkdir()
    (folder / "gone/component.yaml").write_text("")
    with pytest.raises(ArtifactError, match=r"gone/component\.yaml"):
        catalogue.check(folder)


@pytest.mark.slow
def test_two_components_run_in_a_pipeline_of_somebody_else_s(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    ingest_log.save(ingest_log.jobs(), tmp_path / "log/jobs.csv")
    ingest_log.save(ingest_log.impressions(), tmp_path / "log/impressions.csv")
    (tmp_path / "theirs.py").write_text(THEIRS)
    given = [str(catalogue.FOLDER), str(tmp_path / "log"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, tmp_path / "theirs.py", *given], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COUNTED" in done.stdout
    assert int(done.stdout.rsplit("COUNTED", 1)[1].split()[0]) > 2
