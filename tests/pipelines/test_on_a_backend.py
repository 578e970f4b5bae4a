"""Publish, submit, schedule, status, diagnose, terminate over HTTP.

Against a server of the tests' own, which answers as KFP 2.17 was seen to, and against the real backend that
KF_PIPELINES_ENDPOINT names (with TRITOWER_TOY_IMAGE for the toy's steps).
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritower
import yaml
from tritower.errors import ConfigError, JobFailed, LaunchError

from pipelines import compiling, diagnosis, experiments, runs, schedules, standing, versions
from pipelines.__main__ import main
from pipelines.api import Api
from tests.support import backend, kfp_api, toy
from tests.support.toy_runs import Engine


@dataclass(frozen=True)
class There:
    """A backend: a connection to it, seconds between two looks, a name that nobody else has, the server if it is ours."""

    api: Api
    poll_s: float
    name: str
    own: kfp_api.Api | None = None

    def wait(self, run_id: str) -> dict[str, Any]:
        return runs.wait(self.api, run_id, poll_s=self.poll_s)

    def until(self, true: Callable[[], Any], seconds: float = 600.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(self.poll_s)
        return found

    def hasten(self, run_id: str, seconds: float) -> None:
        """Our own server takes a run for so much older; a real one's goes on by itself."""
        if self.own:
            assert isinstance(self.own.engine, Engine)
            self.own.engine.began[run_id] -= seconds

    def tick(self, schedule_id: str) -> str:
        """The first run of a schedule; our own server is told that it is time, a real one has a clock."""
        if self.own:
            return self.own.tick(schedule_id)
        return str(self.until(lambda: backend.runs_of(self.api, self.name, schedule_id))[0]["run_id"])


@pytest.fixture(params=["own", "real"])
def there(request: pytest.FixtureRequest) -> Iterator[There]:
    name = f"toy-{uuid.uuid4().hex[:8]}"
    if request.param == "own":
        with kfp_api.served(kfp_api.Api()) as server:
            server.engine = Engine()
            yield There(Api(server.url), 0.02, name, server)
        assert server.faults == []
        return
    if not (os.environ.get("KF_PIPELINES_ENDPOINT") and os.environ.get("TRITOWER_TOY_IMAGE")):
        pytest.skip("KF_PIPELINES_ENDPOINT and TRITOWER_TOY_IMAGE name no backend")
    api = Api()
    yield There(api, 2.0, name)
    backend.tidy(api, name)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def published(there: There, file: Path) -> versions.Version:
    return versions.publish(there.api, file, pipeline=there.name, name="1.0")


def submitted(there: There, version: versions.Version, arguments: dict[str, Any], **more: Any) -> str:
    return runs.submit(there.api, version, arguments, experiment=there.name, name="a run", **more)


def changed(file: Path, folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    documents = list(yaml.safe_load_all(file.read_text()))
    change(documents)
    (folder / "other.yaml").write_text(yaml.safe_dump_all(documents))
    return folder / "other.yaml"


def test_the_same_content_is_published_once(there: There, file: Path, published: versions.Version, tmp_path: Path) -> None:
    assert published.is_new and published.name == "1.0"
    kept = there.api.get("pipelines", published.pipeline_id)
    assert kept["name"] == there.name and kept["description"] == "Doubles a text.\n\nAnd checks how long it is."
    (one,) = there.api.listed("pipelines", published.pipeline_id, "versions", key="pipeline_versions")
    assert one["description"] == kept["description"] and one["name"] == "1.0"

    # Another SDK, another order of keys and other spellings are the same content.
    def respelt(documents: list[dict[str, Any]]) -> None:
        documents[0]["sdkVersion"] = "kfp-9.9.9"
        documents[0]["root"]["inputDefinitions"]["parameters"]["limit"]["defaultValue"] = 10

    again = versions.publish(there.api, changed(file, tmp_path, respelt), pipeline=there.name, name="1.0")
    assert not again.is_new and again.version_id == published.version_id
    other = versions.publish(there.api, file, pipeline=there.name, name="1.1")
    assert other.is_new and other.pipeline_id == published.pipeline_id
    assert versions.find(there.api, pipeline=there.name, name="1.0").version_id == published.version_id
    with pytest.raises(LaunchError, match=rf"no version 2 of the pipeline {there.name} .*There are 1\.[01], 1\.[01]\."):
        versions.find(there.api, pipeline=there.name, name="2")
    with pytest.raises(LaunchError, match=rf"no version 1\.0 of the pipeline {there.name}x .*publish"):
        versions.find(there.api, pipeline=f"{there.name}x", name="1.0")


@pytest.mark.parametrize(
    ("where", "place"),
    [
        (("deploymentSpec", "executors", "exec-check", "container", "image"), "exec-check.container.image"),
        (("root", "inputDefinitions", "parameters", "limit", "defaultValue"), "parameters.limit.defaultValue"),
    ],
)
@pytest.mark.usefixtures("published")
def test_another_content_under_the_same_name_is_refused(
    there: There, file: Path, tmp_path: Path, where: tuple[str, ...], place: str
) -> None:
    def change(documents: list[dict[str, Any]]) -> None:
        part = documents[0]
        for key in where[:-1]:
            part = part[key]
        part[where[-1]] = "tritower/base:9" if where[-1] == "image" else 11

    with pytest.raises(LaunchError, match=rf"another content there; it differs in \S*{place} .*never changes.*--version"):
        versions.publish(there.api, changed(file, tmp_path, change), pipeline=there.name, name="1.0")


def test_both_documents_are_the_content(there: There, file: Path, published: versions.Version, tmp_path: Path) -> None:
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-check": {"imagePullPolicy": "Always"}}}}}}
    two = changed(file, tmp_path, lambda documents: documents.append(platform))
    with pytest.raises(LaunchError, match=r"differs in platform_spec"):
        versions.publish(there.api, two, pipeline=there.name, name="1.0")
    made = versions.publish(there.api, two, pipeline=there.name, name="2.0")
    assert made.is_new and not versions.publish(there.api, two, pipeline=there.name, name="2.0").is_new
    platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-check"]["imagePullPolicy"] = "Never"
    with pytest.raises(LaunchError, match=r"exec-check\.imagePullPolicy"):
        other = changed(file, tmp_path, lambda documents: documents.append(platform))
        versions.publish(there.api, other, pipeline=there.name, name="2.0")


@pytest.mark.parametrize("pipeline", sorted(compiling.WIRED))
def test_the_kept_pipelines_come_back_as_they_are(there: There, pipeline: str) -> None:
    """Both documents: images, Secrets, limits, descriptions, outputs, nested pipelines."""
    kept = compiling.yaml_path(pipeline)
    made = versions.publish(there.api, kept, pipeline=f"{there.name}-{pipeline}")
    assert made.is_new and made.name == tritower.__version__ and made.spec.keys() == {"pipeline_spec", "platform_spec"}
    again = versions.publish(there.api, kept, pipeline=f"{there.name}-{pipeline}")
    assert not again.is_new and again.version_id == made.version_id


def test_many_publish_at_once(there: There, file: Path) -> None:
    made: list[versions.Version] = []

    def publish() -> None:
        made.append(versions.publish(there.api, file, pipeline=there.name, name="1.0"))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len({(one.pipeline_id, one.version_id) for one in made}) == 1
    assert sum(one.is_new for one in made) == 1


def test_a_run_of_a_version(there: There, published: versions.Version) -> None:
    run_id = submitted(there, published, {"text": "ab", "limit": 4}, about="of a test")
    run = there.wait(run_id)
    assert runs.check(there.api, run) == "SUCCEEDED"
    assert run["pipeline_version_reference"] == published.reference and "pipeline_spec" not in run
    assert (run["display_name"], run["description"]) == ("a run", "of a test")
    assert run["runtime_config"]["parameters"] == {"text": "ab", "limit": 4}
    assert there.api.get("experiments", run["experiment_id"])["description"].startswith("Runs of tritower")
    (line,) = standing.status(there.api, there.name, most=5)
    assert line.startswith(f"{run_id}  SUCCEEDED since 20") and line.endswith("a run")
    assert runs.diagnose(there.api, run_id) == [f"run {run_id}: SUCCEEDED"]
    assert standing.outcome(there.api, run, None)["text"] == "a run: SUCCEEDED"


def test_a_failed_run_says_which_step_and_why(there: There, published: versions.Version) -> None:
    run_id = submitted(there, published, {"text": "ab" * 9})
    run = there.wait(run_id)
    with pytest.raises(JobFailed) as caught:
        runs.check(there.api, run)
    assert f"the run ended FAILED: checked: DataError: the text is too long (in {'ab' * 18}). Shorten it (in run" in str(
        caught.value
    )
    with pytest.raises(JobFailed, match="checked: DataError: the text is too long"):
        runs.diagnose(there.api, run_id)
    (line,) = standing.status(there.api, there.name, most=5)
    assert line.startswith(f"{run_id}  FAILED since 20")
    told = standing.outcome(there.api, run, caught.value)
    assert told["state"] == "FAILED" and "the text is too long" in told["error"] and "the text is too long" in told["text"]
    # `kfp run archive` puts it away.
    there.api.post("runs", run_id, verb="archive")
    assert standing.status(there.api, there.name, most=5) == []


def test_the_verdict_of_a_run(there: There, tmp_path: Path) -> None:
    version = versions.publish(there.api, toy.compiled(tmp_path, toy.judged), pipeline=f"{there.name}-judged", name="1.0")
    run = there.wait(submitted(there, version, {"word": "hold", "why": f"so says {there.name}"}))  # no other run has it cached
    told = standing.verdict(there.api, run)
    assert (told["gate"], told["gate_reason"]) == ("hold", f"so says {there.name}")
    # Whoever names an artifact of the run by its location is told the same, and what the step's metrics say.
    place = f"minio://mlpipeline/v2/artifacts/judged/{run['run_id']}/judge/1/ranker_model"
    figure = ", AUC 0.7312" if there.own else ""
    assert standing.of_model(there.api, place) == f"run {run['run_id']}{figure}, gate hold"
    unknown = place.replace(run["run_id"], str(uuid.uuid4()))
    assert standing.of_model(there.api, unknown) == f"run {standing.of_location(unknown)}"
    assert standing.of_model(there.api, "s3://b/model") == "s3://b/model"
    (line,) = standing.status(there.api, there.name, most=5)
    assert line.endswith(f"hold: so says {there.name}")
    assert standing.outcome(there.api, run, None)["gate"] == "hold"


def test_arguments_are_checked_against_the_version(there: There, published: versions.Version) -> None:
    with pytest.raises(ConfigError, match=rf"no parameter 'txt' \(in {there.name} 1\.0\)"):
        submitted(there, published, {"txt": "ab"})
    with pytest.raises(ConfigError, match="parameter 'limit' is to be a number, not str"):
        submitted(there, published, {"text": "ab", "limit": "4"})
    with pytest.raises(ConfigError, match="parameter 'text' is missing"):
        submitted(there, published, {"limit": 4})
    assert experiments.find(there.api, there.name) == ""


def test_a_run_is_ended(there: There, published: versions.Version) -> None:
    run_id = submitted(there, published, {"text": "ab", "seconds": 600.0})
    there.until(lambda: "double" in [str(part) for part in diagnosis.parts(_whole(there, run_id), "RUNNING")])
    (line,) = standing.status(there.api, there.name, most=5)
    assert f"{run_id}  RUNNING since 20" in line and line.endswith("at double")
    assert runs.diagnose(there.api, run_id)[:2] == [f"run {run_id}: RUNNING", "at double"]

    said = runs.terminate(there.api, run_id, poll_s=there.poll_s)
    assert said == f"run {run_id} has ended: TERMINATED. Finished steps stay in the cache."
    run = runs.get(there.api, run_id)
    # The backend calls it FAILED; what it was before says that somebody ended it.
    assert run["state"] == "FAILED" and "CANCELING" in [entry["state"] for entry in run["state_history"]]
    with pytest.raises(JobFailed, match="the run was terminated at double; no step failed by itself"):
        runs.check(there.api, run)
    assert runs.terminate(there.api, run_id) == f"run {run_id} had ended before: TERMINATED"
    with pytest.raises(LaunchError, match=r"refused \(404\)"):
        runs.terminate(there.api, str(uuid.uuid4()))


def test_the_commands_say_it_in_lines(
    there: There, file: Path, published: versions.Version, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if there.own:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", there.own.url)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main(arguments), *capsys.readouterr())

    named = file.with_name(f"{there.name}.yaml")
    named.write_text(file.read_text())
    told = f"{there.name} 1.0: there already, with the same content\n"
    assert call("publish", str(named), "--version", "1.0") == (0, told, "")
    assert call("publish", str(named), "--version", "1.1") == (0, f"{there.name} 1.1: published\n", "")

    experiment = ("--experiment", there.name)
    assert call("status", *experiment) == (0, f"no runs in the experiment {there.name}\n", "")
    failed = submitted(there, published, {"text": "ab" * 9})
    endless = submitted(there, published, {"text": "ab", "seconds": 600.0})
    there.wait(failed)
    status, out, errors = call("diagnose", failed)
    assert (status, out) == (1, "") and "checked: DataError: the text is too long" in errors
    there.until(lambda: runs.get(there.api, endless)["state"] == "RUNNING")
    status, out, errors = call("terminate", endless)
    assert status == 0 and out.startswith(f"run {endless} has ended: TERMINATED"), errors
    status, out, errors = call("status", *experiment)
    states = {line.split("  ")[0]: line.split("  ")[1].split()[0] for line in out.splitlines()}
    assert (status, errors, states) == (0, "", {failed: "FAILED", endless: "TERMINATED"})
    assert call("status", endless)[0] == 1


def _whole(there: There, run_id: str) -> dict[str, Any]:
    return runs.with_pipeline(there.api, runs.get(there.api, run_id))


def test_a_schedule_gives_way_without_ending_its_run(there: There, published: versions.Version) -> None:
    def schedule(cron: str, **more: Any) -> schedules.Scheduled:
        given = {"text": runs.EACH_RUN, "limit": 100, "seconds": 90.0 if not there.own else 600.0}
        return schedules.schedule(there.api, published, given, experiment=there.name, name=there.name, cron=cron, **more)

    first = schedule("*/15 * * * * *", about="which model serves")
    kept = there.api.get("recurringruns", first.made)
    assert kept["description"] == "which model serves" and kept["pipeline_version_reference"] == published.reference
    assert (
        kept["trigger"]["cron_schedule"]["cron"] == "*/15 * * * * *" and kept["max_concurrency"] == "1" and kept["no_catchup"]
    )
    run_id = there.tick(first.made)
    there.until(lambda: diagnosis.parts(_whole(there, run_id), "RUNNING"))

    second = schedule("0 0 0 1 1 *")
    assert (second.deleted, second.waiting) == ([], [first.made])
    assert there.api.get("recurringruns", first.made)["status"] == "DISABLED"
    told = schedules.lines(there.api, there.name)
    assert {line.split("  ")[0]: line.split("  ")[1] for line in told} == {
        first.made: "replaced; deleted once its last run has ended", second.made: "enabled",
    }  # fmt: skip
    there.hasten(run_id, 600.0)
    # Its run goes on to its end, and was given its own id in place of the word that stands for it.
    run = there.wait(run_id)
    assert runs.check(there.api, run) == "SUCCEEDED"
    (doubled,) = [
        part for part in diagnosis.parts(_whole(there, run_id), "SUCCEEDED") if part.step == "double" and part.kind == "step"
    ]
    assert f"doubling {run_id}" in runs.log(there.api, run, doubled)

    told = schedules.lines(there.api, there.name)
    assert f"{first.made}  replaced; its last run has ended: deleted" in "\n".join(told)
    (line,) = schedules.lines(there.api, there.name)
    assert line == f"{second.made}  enabled  {there.name}  0 0 0 1 1 *"
    third = schedule("0 0 1 1 1 *")
    assert (third.deleted, third.waiting) == ([second.made], [])


def test_a_paused_schedule_is_nobodys_leftover(there: There, published: versions.Version) -> None:
    given = {"cron": "0 0 0 1 1 *", "experiment": there.name, "name": "nightly"}
    made = schedules.schedule(there.api, published, {"text": "ab"}, **given).made
    there.api.post("recurringruns", made, verb="disable")
    (line,) = schedules.lines(there.api, there.name)
    assert line.startswith(f"{made}  disabled  nightly")
