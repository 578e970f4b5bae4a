"""What the launcher may do and must be able to do, and an API server that is away, busy or without the operator."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster import launcher, preflight
from tritower.cluster.experiment import Experiments
from tritower.cluster.kind import Kind
from tritower.errors import LaunchError
from tritower.jobs import Job, open_launcher
from tritower.searches import open_searcher
from tritower.tuning.config import TuningConfig
from tritower.tuning.launched import described

from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_launcher import QUICK, launch

MANIFESTS = Path(__file__).parents[3] / "manifests"


def shipped(file: str, kind: str) -> list[dict[str, Any]]:
    """The rules of a Role in the manifests."""
    documents = yaml.safe_load_all((MANIFESTS / file).read_text(encoding="utf-8"))
    return next(one["rules"] for one in documents if one["kind"] == kind)


RULES = shipped("base/launcher.yaml", "Role")
KINDS: dict[str, Kind] = {**launcher.KINDS, "katib": Experiments(described(TuningConfig()))}
RIGHTS = [
    (name, group, resource, verb)
    for name, kind in KINDS.items()
    for group, resource, verbs in preflight.rights(kind)
    for verb in verbs
]


def act_as(cluster: Cluster, rules: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """This process's rights from now on; the pods keep theirs."""
    path = cluster.kubeconfig(folder / "mine", cluster.token(rules, namespace="team", **more), namespace="team")
    monkeypatch.setenv("KUBECONFIG", str(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(launcher.KINDS))
def test_the_shipped_role_is_enough(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It starts, follows, reads the log of, and collects a job with GPUs; and reads why a pod could not be made."""
    act_as(cluster, RULES, tmp_path, monkeypatch)
    start(name, s3, "once", gpus=1)
    cluster.add(kinds.QUOTA, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}, namespace="team")
    with pytest.raises(LaunchError, match="exceeded quota"):
        start(name, f"{s3}/other")


@pytest.mark.parametrize(("name", "group", "resource", "verb"), RIGHTS, ids=lambda text: text)
def test_every_right_of_it_is_needed_and_named(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, group: str, resource: str, verb: str
) -> None:
    rules = copy.deepcopy(RULES)
    (rule,) = (one for one in rules if (one["apiGroups"], one["resources"]) == ([group], [resource]))
    rule["verbs"].remove(verb)
    act_as(cluster, rules, tmp_path, monkeypatch)
    with pytest.raises(LaunchError, match=rf"may not {verb} {resource}.*kubectl -n team create role .* --verb={verb}"):
        start(name, s3)
    assert not cluster.store.all(kinds.POD) and not any(cluster.store.all(kind) for kind in kinds.CUSTOM)


def start(name: str, where: str, *deed: str, **settings: Any) -> None:
    """What a launcher of this name starts."""
    if name == "katib":
        job = Job(name="tune", module="tests.support.trainer")
        open_searcher("katib", QUICK).run(job, described(TuningConfig(trials=1, parallel=1)), f"{where}/tune_trials")
    else:
        job = Job(
            name="small", module="tests.support.pod", arguments=deed or ("count", "1"), outputs={"model": f"{where}/model"}
        )
        open_launcher(name, QUICK | settings).run(job)


def test_the_role_has_what_the_preflights_look_for_and_nothing_else() -> None:
    asked = {(group, resource, verb) for _, group, resource, verb in RIGHTS}
    given = [(rule["apiGroups"][0], rule["resources"][0], verb) for rule in RULES for verb in rule["verbs"]]
    assert set(given) == asked and len(given) == len(asked)
    assert all(len(rule["apiGroups"]) == len(rule["resources"]) == 1 for rule in RULES)


def test_the_workers_role_lets_a_job_delete_itself_and_nothing_else() -> None:
    given = [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in shipped("base/worker.yaml", "Role")]
    own = {(kind.resource.group, kind.resource.plural) for kind in KINDS.values()}
    assert sorted(given) == sorted(([group], [plural], ["delete"]) for group, plural in {*own, ("kubeflow.org", "pytorchjobs")})


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


@pytest.mark.parametrize(
    "why",
    [
        'admission webhook "policy" denied the request: no team label',
        'pytorchjobs "x" is forbidden: no PriorityClass with name low was found',
    ],
)
def test_a_manifest_that_the_server_refuses_is_told(cluster: Cluster, s3: str, why: str) -> None:
    cluster.faults.answer(403, method="POST", path="pytorchjobs", message=why)
    with pytest.raises(LaunchError, match=why) as caught:
        launch(s3, "count", "1")
    assert "Role" not in caught.value.remedy


def test_without_a_cluster(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(LaunchError, match="no cluster to run jobs on"):
        launch(s3, "count", "1")
