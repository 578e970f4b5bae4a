"""Submitting and scheduling, against an HTTP server that keeps experiments and runs as a backend's API does."""

from pathlib import Path

import pytest
from tritower.errors import ConfigError, JobFailed, LaunchError

from pipelines import compiling, remote
from tests.support import toy
from tests.support.kfp_api import Api


@pytest.fixture
def backend(api: Api) -> remote.Backend:
    return remote.Backend(api.url, token="secret")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


def test_submit_and_wait(api: Api, backend: remote.Backend, pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = backend.submit(pipeline, {"text": "ab", "limit": 3}, experiment="daily", name="first", service_account="robot")
    run = api.kept["runs"][run_id]
    assert run["display_name"] == "first" and run["service_account"] == "robot"
    assert run["runtime_config"]["parameters"] == {"text": "ab", "limit": 3}
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "toy"
    assert [one["display_name"] for one in api.kept["experiments"].values()] == ["daily"]
    assert api.tokens == {"Bearer secret"}

    api.states[:] = ["PENDING", "RUNNING", "SUCCEEDED"]
    assert backend.wait(run_id, poll_s=0.01) == "SUCCEEDED"
    for state, words in (("FAILED", "ended FAILED: the backend marks no step"), ("CANCELED", "was terminated")):
        api.states[:] = ["RUNNING", state]
        with pytest.raises(JobFailed, match=words):
            backend.wait(run_id, poll_s=0.01)
    assert capsys.readouterr().out == ""


def test_a_dict_given_as_text_is_refused_before_it_is_sent(api: Api, backend: remote.Backend) -> None:
    arguments = {"data_jobs": "s3://b/j", "data_impressions": "s3://b/i", "settings_ranker": '{"epochs": 1}'}
    with pytest.raises(ConfigError, match="parameter 'settings_ranker' is to be a dict, not str"):
        backend.submit(compiling.yaml_path("training"), arguments, experiment="daily", name="first")
    with pytest.raises(ConfigError, match="'settings_ranker'"):
        backend.schedule(compiling.yaml_path("training"), arguments, experiment="daily", name="n", cron="0 0 3 * * *")
    assert api.calls == []


def test_schedule_makes_the_new_one_before_it_disables_and_deletes_the_old(
    api: Api, backend: remote.Backend, pipeline: Path
) -> None:
    def schedule(name: str, cron: str) -> remote.Scheduled:
        return backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name=name, cron=cron)

    first = schedule("nightly", "0 0 3 * * *")
    other = schedule("weekly", "0 0 4 * * 1")
    assert first.deleted == first.waiting == []
    assert api.kept["recurringruns"][first.made]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    tasks = api.kept["recurringruns"][first.made]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks.values())

    # A second one left over by a deletion that failed goes as well, also from a later page.
    api.kept["recurringruns"]["left-over"] = dict(api.kept["recurringruns"][first.made], recurring_run_id="left-over")
    second = schedule("nightly", "0 30 3 * * *")
    assert (set(second.deleted), second.waiting) == ({first.made, "left-over"}, [])
    disabled, deleted = f"DISABLE {first.made}", f"DELETE {first.made}"
    assert api.calls[-5:] == [f"POST {second.made}", disabled, deleted, "DISABLE left-over", "DELETE left-over"]
    assert api.kept["recurringruns"].keys() == {second.made, other.made}


def test_a_schedule_whose_run_is_under_way_is_disabled_and_goes_later(
    api: Api, backend: remote.Backend, pipeline: Path
) -> None:
    """Deleting it would delete the run."""

    def schedule() -> remote.Scheduled:
        return backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name="nightly", cron="0 0 3 * * *")

    first = schedule()
    experiment = api.kept["recurringruns"][first.made]["experiment_id"]
    for number, state in enumerate(["SUCCEEDED", "RUNNING"]):
        api.kept["runs"][str(number)] = {
            "run_id": str(number), "recurring_run_id": first.made, "experiment_id": experiment, "state": state
        }  # fmt: skip
    second = schedule()
    assert (second.deleted, second.waiting) == ([], [first.made])
    assert api.kept["recurringruns"][first.made]["status"] == "DISABLED"
    api.kept["runs"]["1"]["state"] = "FAILED"
    third = schedule()
    assert (set(third.deleted), third.waiting) == ({first.made, second.made}, [])
    assert api.kept["recurringruns"].keys() == {third.made}


def test_a_refused_schedule_leaves_the_old_one(api: Api, backend: remote.Backend, pipeline: Path) -> None:
    kept = backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name="nightly", cron="0 0 3 * * *").made
    api.refuses = "recurringruns"
    with pytest.raises(LaunchError, match=r"refused \(403\).*not allowed"):
        backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name="nightly", cron="0 0 4 * * *")
    assert api.kept["recurringruns"].keys() == {kept}


@pytest.mark.parametrize("cron", ["0 3 * * *", "", "0 0 3 * * * *", "0 0 3 * * ; rm"])
def test_cron_has_six_fields(cron: str) -> None:
    with pytest.raises(ConfigError, match="six fields"):
        remote.check_cron(cron)


def test_a_backend_that_is_not_there(pipeline: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be reached"):
        remote.Backend("http://127.0.0.1:9").submit(pipeline, {}, experiment="x", name="y")


def test_a_backend_that_is_not_well_from_the_start(
    api: Api, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kfp.client.client.time.sleep", lambda seconds: None)
    api.is_healthy = False
    with pytest.raises(LaunchError, match="cannot be reached: Failed getting healthz endpoint"):
        remote.Backend(api.url)
    assert capfd.readouterr() == ("", "")
