"""What the launcher may do and must be able to do, and an API server that is away, busy or without the operator."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster import launcher, preflight
from tritower.errors import LaunchError

from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_launcher import jobs, launch

MANIFESTS = Path(__file__).parents[3] / "manifests"


def shipped(file: str, kind: str) -> list[dict[str, Any]]:
    """The rules of a Role in the manifests."""
    documents = yaml.safe_load_all((MANIFESTS / file).read_text(encoding="utf-8"))
    return next(one["rules"] for one in documents if one["kind"] == kind)


RULES = shipped("base/launcher.yaml", "Role")
LAUNCHERS = {"trainer.kubeflow.org": "trainjob"}
"""API group -> the launcher that needs rights in it."""
RIGHTS = [(number, verb) for number, rule in enumerate(RULES) for verb in rule["verbs"]]


def act_as(cluster: Cluster, rules: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """This process's rights from now on; the pods keep theirs."""
    path = cluster.kubeconfig(folder / "mine", cluster.token(rules, namespace="team", **more), namespace="team")
    monkeypatch.setenv("KUBECONFIG", str(path))


@pytest.mark.slow
def test_the_shipped_role_is_enough(cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act_as(cluster, RULES, tmp_path, monkeypatch)
    launch(s3, "once", gpus=1)
    cluster.add(kinds.QUOTA, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}, namespace="team")
    with pytest.raises(LaunchError, match="exceeded quota"):
        launch(f"{s3}/other", "count", "1")


@pytest.mark.parametrize(("number", "verb"), RIGHTS, ids=[f"{verb} {RULES[number]['resources'][0]}" for number, verb in RIGHTS])
def test_every_right_of_it_is_needed_and_named(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, verb: str
) -> None:
    rules = copy.deepcopy(RULES)
    rules[number]["verbs"].remove(verb)
    act_as(cluster, rules, tmp_path, monkeypatch)
    (resource,) = RULES[number]["resources"]
    (group,) = RULES[number]["apiGroups"]
    with pytest.raises(LaunchError, match=rf"may not {verb} {resource}.*kubectl -n team create role .* --verb={verb}"):
        launch(s3, "count", "1", launcher=LAUNCHERS.get(group, "pytorchjob"))
    assert not jobs(cluster) and not cluster.store.all(kinds.TRAINJOB)


def test_the_role_has_what_the_preflight_looks_for_and_nothing_else() -> None:
    rights = [right for kind in launcher.KINDS.values() for right in preflight.rights(kind)]
    asked = {(group, resource, verb) for group, resource, verbs in rights for verb in verbs}
    given = {(rule["apiGroups"][0], rule["resources"][0], verb) for rule in RULES for verb in rule["verbs"]}
    assert given == asked


def test_the_workers_role_lets_a_job_delete_itself_and_nothing_else() -> None:
    assert shipped("base/worker.yaml", "Role") == [
        {"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["delete"]},
        {"apiGroups": ["trainer.kubeflow.org"], "resources": ["trainjobs"], "verbs": ["delete"]},
    ]


def test_an_api_server_that_is_away_or_busy_is_waited_for(cluster: Cluster, s3: str) -> None:
    cluster.faults.answer(429, path="pytorchjobs", times=2)
    cluster.faults.answer(503, path="pods", times=2)
    away = []

    def look() -> None:
        if cluster.store.all(kinds.POD) and not away:
            away.append(cluster.faults.gone(2.0))

    launch(s3, "count", "20", look=look)
    assert away


def test_a_webhook_that_is_down_is_waited_for_and_then_named(cluster: Cluster, s3: str) -> None:
    cluster.down.add("training-operator")
    with pytest.raises(LaunchError, match="failed calling webhook"):
        launch(s3, "count", "1", api_patience_s=1)


def test_an_operator_that_is_not_installed(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.apiserver import served

    with served(Cluster(namespaces=["team"], without=["pytorchjobs"])) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        with pytest.raises(LaunchError, match=r"not installed.*kubectl apply --server-side"):
            launch(s3, "count", "1", store_secret="")


def test_a_manifest_that_the_server_refuses_is_told(cluster: Cluster, s3: str) -> None:
    cluster.faults.answer(
        403, method="POST", path="pytorchjobs", message='admission webhook "policy" denied the request: no team label'
    )
    with pytest.raises(LaunchError, match="no team label") as caught:
        launch(s3, "count", "1")
    assert "Role" not in caught.value.remedy


def test_without_a_cluster(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(LaunchError, match="no cluster to run jobs on"):
        launch(s3, "count", "1")
