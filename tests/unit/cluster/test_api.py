"""Requests while the API server is away, busy or without its webhooks: what is made again, for how long, and what is told."""

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster.api import Api, Refused, core, custom
from tritower.errors import LaunchError

from tests.support.apiserver import Cluster, kinds, served
from tests.support.pytorchjobs import job, shell, until

JOBS = custom("kubeflow.org", "v1", "team", "pytorchjobs")
PODS = core("team", "pods")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster without a store."""
    with served(Cluster(namespaces=["team"])) as one:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        yield one


def requests(cluster: Cluster, method: str, part: str) -> int:
    return sum(one == method and part in path for one, path in cluster.faults.seen)


def seconds(act: Any) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def test_a_server_that_asks_for_time_gets_it(alone: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    alone.faults.answer(429, path="pods", retry_after_s=2)
    assert seconds(lambda: Api().get(PODS)) >= 2.0
    assert "the API server says 429" in caplog.text and caplog.text.count("asking again") == 1
    alone.faults.answer(429, path="pods", times=2)  # says nothing: .5 s, then 1 s
    assert seconds(lambda: Api().get(PODS)) >= 1.5


def test_more_time_than_there_is_is_not_waited_for(alone: Cluster) -> None:
    alone.faults.answer(429, path="pods", retry_after_s=3600)
    with pytest.raises(Refused, match="says 429: TooManyRequests"):
        seconds(lambda: Api(patience_s=5).get(PODS))
    alone.faults.answer(503, path="pods", times=99)
    with pytest.raises(Refused, match="says 503"):
        Api(patience_s=1).get(PODS)


@pytest.mark.parametrize(
    ("code", "method", "message", "again"),
    [
        (500, "POST", 'failed calling webhook "validator": no endpoints available for service "training-operator"', True),
        (500, "POST", "etcdserver: request timed out", True),
        (500, "POST", "Internal error occurred: leader-job broke", False),
        (500, "GET", "Internal error occurred: something broke", True),
        (410, "GET", "The provided continue parameter is too old", True),
        (409, "POST", 'object is being deleted: pytorchjobs.kubeflow.org "x" already exists', True),
        (409, "POST", 'pytorchjobs.kubeflow.org "x" already exists', False),
        (401, "GET", "Unauthorized", False),
        (403, "POST", 'admission webhook "policy" denied the request: no', False),
        (422, "POST", "is invalid", False),
    ],
)
def test_what_passes_is_asked_again_and_what_does_not_is_told(
    alone: Cluster, code: int, method: str, message: str, again: bool
) -> None:
    alone.faults.answer(code, method=method, path="pytorchjobs", message=message)
    body = job("x", shell("true")) if method == "POST" else None
    if again:
        Api().call(method, JOBS, body=body)
        assert requests(alone, method, "pytorchjobs") == 2
    else:
        with pytest.raises(Refused, match=f"the API server says {code}: {message[:20]}") as caught:
            Api().call(method, JOBS, body=body)
        assert caught.value.status == code and requests(alone, method, "pytorchjobs") == 1


def test_a_server_that_is_gone_for_a_while_and_one_that_stays_away(alone: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    server = Api()
    alone.faults.gone(2.0)
    assert server.get(PODS)["items"] == []
    assert caplog.text.count("the API server does not answer") == 1
    alone.faults.gone(60.0)
    with pytest.raises(LaunchError, match=r"the API server does not answer: .* Is it there, and may this pod reach it\?"):
        Api(patience_s=1).get(PODS)


def test_a_server_that_takes_connections_and_says_nothing(alone: Cluster) -> None:
    alone.faults.slow(60, path="pods")
    start = time.monotonic()
    with pytest.raises(LaunchError, match=r"does not answer: .*Read timed out"):
        Api(patience_s=0).raw("GET", PODS, timeout_s=(9, 1.5))
    assert 1.5 <= time.monotonic() - start < 30
    alone.faults.slow(2, path="pods")  # a webhook's call takes up to ten seconds: slow is not away
    assert Api(patience_s=0).raw("GET", PODS, timeout_s=(0.5, 60)).status == 200


def test_a_token_that_was_renewed_is_taken_up(alone: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one is refused for a while: the client reads the new one when it thinks that the old has expired."""
    old, new = (alone.token([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}], namespace="team") for _ in "on")
    holder, program = tmp_path / "token", tmp_path / "plugin"
    holder.write_text(old)
    status = '{"token":"%s","expirationTimestamp":"2020-01-01T00:00:00Z"}'
    answer = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":' + status + "}"
    program.write_text(f"#!/bin/sh\nprintf '{answer}' $(cat {holder})\n")
    program.chmod(stat.S_IRWXU)
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": plugin}
    (tmp_path / "plugged").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "plugged"))
    server = Api()
    server.get(PODS)
    account = alone.rights.accounts.pop(old)
    alone.rights.accounts[new] = account
    threading.Timer(1.0, lambda: holder.write_text(new)).start()
    assert server.get(PODS)["items"] == []
    with pytest.raises(Refused, match=r"401: Unauthorized.*The token has expired or is of another cluster"):
        holder.write_text("nobody")
        Api().get(PODS)  # one that was never taken is told at once
    holder.write_text(new)


def test_a_kind_that_is_unknown_is_no_object_that_is_missing(alone: Cluster) -> None:
    with pytest.raises(Refused) as missing:
        Api().get(f"{JOBS}/none")
    with pytest.raises(Refused) as unknown:
        Api().get("/apis/kubeflow.org/v1/namespaces/team/mpijobs/none")
    assert not missing.value.unknown and unknown.value.unknown


def test_fields_that_nobody_knows_are_refused_and_not_dropped(alone: Cluster) -> None:
    manifest = job("x", shell("true"), backofLimit=2)
    with pytest.raises(Refused, match=r'unknown field "spec.runPolicy.backofLimit"'):
        Api().call("POST", JOBS, query={"fieldValidation": "Strict"}, body=manifest)
    Api().call("POST", JOBS, body=manifest)  # without it the field is gone, and nobody says so
    assert "backofLimit" not in alone.store.all(kinds.PYTORCHJOB)[0]["spec"]["runPolicy"]


def test_a_job_of_the_same_name_with_another_uid_is_left_alone(alone: Cluster) -> None:
    Api().call("POST", JOBS, body=job("x", shell("sleep 60")))
    options = {"propagationPolicy": "Background", "preconditions": {"uid": "another"}}
    with pytest.raises(Refused, match=r"the UID in the precondition .* does not match") as caught:
        Api().call("DELETE", f"{JOBS}/x", body=options)
    assert caught.value.status == 409 and alone.store.all(kinds.PYTORCHJOB)


def test_a_job_that_is_being_deleted_is_waited_for(alone: Cluster) -> None:
    """Recorded: the name is free when the old job's pods are gone."""
    manifest = job("x", shell("trap 'sleep 1; exit 143' TERM; sleep 60 & wait $!"))
    first = Api().call("POST", JOBS, body=manifest)
    until(lambda: any(pod["status"].get("phase") == "Running" for pod in alone.store.all(kinds.POD)))
    Api().call("DELETE", f"{JOBS}/x", body={"propagationPolicy": "Foreground"})
    second = Api().call("POST", JOBS, body=manifest)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
