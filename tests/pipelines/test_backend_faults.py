"""What a backend refuses, loses and leaves lying about: against the tests' own server, which can be told to."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from tritower.champion import kept, pointer
from tritower.errors import ConfigError, LaunchError

from pipelines import compiling, runs, schedules, standing, versions
from pipelines.api import Api, Refused
from tests.support import kfp_api, kfp_contract, toy


@pytest.fixture
def backend(api: kfp_api.Api) -> Api:
    return Api(api.url, token="secret")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def version(backend: Api, file: Path) -> versions.Version:
    return versions.publish(backend, file, pipeline="toy", name="1.0")


def schedule(backend: Api, version: versions.Version, cron: str = "0 0 3 * * *", name: str = "nightly") -> schedules.Scheduled:
    return schedules.schedule(backend, version, {"text": "ab"}, experiment="daily", name=name, cron=cron)


def test_a_busy_backend_is_asked_again(api: kfp_api.Api, backend: Api, file: Path) -> None:
    api.busy = 2
    made = versions.publish(backend, file, pipeline="toy", name="1.0")
    assert made.is_new and len(api.calls) == 2
    api.busy = 3
    with pytest.raises(LaunchError, match=r"\(500\): Error 1213"):
        versions.publish(backend, file, pipeline="toy", name="2.0")


def test_a_namespace_has_pipelines_of_its_own_and_may_run_the_shared_ones(api: kfp_api.Api, file: Path) -> None:
    shared = versions.publish(Api(api.url), file, pipeline="toy", name="1.0")
    team = Api(api.url, namespace="team")
    assert versions.find(team, pipeline="toy", name="1.0") == dataclasses.replace(shared, is_new=False)
    own = versions.publish(team, file, pipeline="toy", name="2.0")
    assert own.pipeline_id != shared.pipeline_id and api.kept["pipelines"][own.pipeline_id]["namespace"] == "team"
    assert versions.find(team, pipeline="toy", name="1.0").pipeline_id == shared.pipeline_id
    with pytest.raises(LaunchError, match=r"There are 2\.0, 1\.0"):
        versions.find(team, pipeline="toy", name="3.0")
    with pytest.raises(LaunchError, match=r"There are 1\.0"):
        versions.find(Api(api.url), pipeline="toy", name="2.0")
    run_id = runs.submit(team, own, {"text": "ab"}, experiment="daily", name="a run")
    assert api.kept["experiments"][api.kept["runs"][run_id]["experiment_id"]]["namespace"] == "team"


def test_a_dict_given_as_text_is_refused_before_it_is_sent(api: kfp_api.Api, backend: Api) -> None:
    version = versions.publish(backend, compiling.yaml_path("training"), pipeline="training")
    declared = version.spec["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    table = next(name for name, one in declared.items() if one["parameterType"] == "STRUCT" and "ranker" in name)
    arguments = {name: "s3://b/x" for name, one in declared.items() if not one.get("isOptional")} | {table: '{"epochs": 1}'}
    before = list(api.calls)
    with pytest.raises(ConfigError, match=f"parameter '{table}' is to be a dict, not str"):
        runs.submit(backend, version, arguments, experiment="daily", name="first")
    with pytest.raises(ConfigError, match=f"'{table}'"):
        schedules.schedule(backend, version, arguments, experiment="daily", name="n", cron="0 0 3 * * *")
    assert api.calls == before


def test_the_old_schedule_is_off_before_the_new_one_is_made(api: kfp_api.Api, backend: Api, version: versions.Version) -> None:
    """So no tick of the clock starts a run of each."""
    first = schedule(backend, version)
    other = schedule(backend, version, name="weekly")
    # A second one left over by a deletion that failed goes as well, also from a later page.
    left_over = api.add("recurringruns", dict(api.kept["recurringruns"][first.made], mode="ENABLE"))["recurring_run_id"]
    before = len(api.calls)
    second = schedule(backend, version, "0 30 3 * * *")
    assert (second.deleted, second.waiting) == ([first.made, left_over], [])
    disabled, deleted = ([f"{verb} {one}" for one in (first.made, left_over)] for verb in ("DISABLE", "DELETE"))
    assert api.calls[before:] == [*disabled, f"POST {second.made}", *deleted]
    assert api.kept["recurringruns"].keys() == {second.made, other.made}


def test_a_refused_schedule_leaves_the_old_one_on(api: kfp_api.Api, backend: Api, version: versions.Version) -> None:
    kept = schedule(backend, version).made
    api.refuses = "recurringruns"
    with pytest.raises(LaunchError, match=r"refused \(403\).*not allowed"):
        schedule(backend, version)
    assert api.kept["recurringruns"].keys() == {kept} and api.kept["recurringruns"][kept]["status"] == "ENABLED"


def test_deleting_a_schedule_would_leave_its_run_for_ever(api: kfp_api.Api, backend: Api, version: versions.Version) -> None:
    """What `schedule` avoids, and what `terminate` says of such a run."""
    made = schedule(backend, version).made
    run_id = api.tick(made)
    api.kept["runs"][run_id]["state"] = "RUNNING"
    backend.delete("recurringruns", made)
    assert run_id in api.orphans
    with pytest.raises(LaunchError, match=r"could not end the run: .*\(500\).*kubectl get workflows.*kfp run archive"):
        runs.terminate(backend, run_id)
    with pytest.raises(LaunchError, match=r"the run is still CANCELING after 0\.05 s"):
        runs.terminate(backend, run_id, poll_s=0.01, patience_s=0.05)
    assert api.calls.count(f"TERMINATE {run_id}") == 1


def test_names_and_descriptions_fit_the_backends_columns(api: kfp_api.Api, backend: Api, version: versions.Version) -> None:
    long = "s3://bucket/" + "x" * 300
    run_id = runs.submit(backend, version, {"text": "ab"}, experiment="daily", name=long, about=long)
    run = api.kept["runs"][run_id]
    assert len(run["display_name"]) == len(run["description"]) == 255 and run["description"].endswith("x…")


@pytest.mark.parametrize("name", ["", "a b", "x" * 128, "../1", "-1"])
def test_a_versions_name_is_one(backend: Api, file: Path, name: str) -> None:
    if not name:
        assert versions.publish(backend, file, pipeline="toy").name == "0"  # the tag of its images
        return
    with pytest.raises(ConfigError, match="no name for a version"):
        versions.publish(backend, file, pipeline="toy", name=name)


@pytest.mark.parametrize(
    ("images", "tag"),
    [
        (["r.example:5000/t/base:1.2", "r.example:5000/t/train:1.2"], "1.2"),
        (["t/base:1.2@sha256:" + "0" * 64], "1.2"),
        (["t/base:1.2", "t/train:1.3"], None),
        (["r.example:5000/t/base@sha256:" + "0" * 64], None),
    ],
)
def test_the_tag_of_the_images_is_the_version(tmp_path: Path, images: list[str], tag: str | None) -> None:
    import tritower

    executors = {str(number): {"container": {"image": image}} for number, image in enumerate(images)} | {"i": {"importer": {}}}
    (tmp_path / "p.yaml").write_text(json.dumps({"deploymentSpec": {"executors": executors}}))
    assert versions.tag(tmp_path / "p.yaml") == (tag or tritower.__version__)


def test_the_champion_is_told_as_far_as_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert standing.of_champion(str(tmp_path)) == f"the champion of {tmp_path}"
    new = pointer.Champion(version=1, ranker_model="s3://b/m", encoder="s3://b/e", run="r-7", auc=0.73125)
    kept.move(str(tmp_path), lambda now: pointer.Move(dataclasses.replace(now, champion=new), "promoted"))
    assert standing.of_champion(str(tmp_path)) == f"the champion of {tmp_path}, now run r-7, AUC 0.7312"
    for name in [name for name in os.environ if name.startswith(("AWS_", "MINIO_", "TRITOWER_"))]:
        monkeypatch.delenv(name)
    assert standing.of_champion("minio://b/root") == "the champion of minio://b/root"


@pytest.mark.parametrize("cron", ["0 3 * * *", "", "0 0 3 * * * *", "0 0 3 * * ; rm"])
def test_cron_has_six_fields(cron: str) -> None:
    with pytest.raises(ConfigError, match="six fields"):
        schedules.check_cron(cron)


def test_a_backend_that_is_not_there(file: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be reached"):
        versions.publish(Api("http://127.0.0.1:9"), file, pipeline="toy")


def test_a_backend_that_is_not_well_from_the_start(
    api: kfp_api.Api, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kfp.client.client.time.sleep", lambda seconds: None)
    api.is_healthy = False
    with pytest.raises(LaunchError, match="cannot be reached: Failed getting healthz endpoint"):
        Api(api.url)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_field_is_refused_as_a_backend_does(api: kfp_api.Api, backend: Api) -> None:
    with pytest.raises(Refused, match="unknown field of V2beta1Experiment") as caught:
        backend.post("experiments", body={"display_name": "x", "colour": "red"})
    assert caught.value.status == 400
    with pytest.raises(Refused, match=r"query: page_sise"):
        backend.get("runs", page_sise="3")
    assert len(api.faults) == 2
    api.faults.clear()
    assert list(kfp_contract.faults({"state": "ENDED", "created_at": "today", "error": {"code": "3"}}, "V2beta1Run")) == [
        ".state: 'ENDED' is none of " + str(kfp_contract.kfp_server_api.V2beta1RuntimeState.allowable_values),
        ".created_at: 'today' is no time",
        ".error.code: '3' is no int",
    ]
