"""What a namespace refuses or lacks: told before a job is made where the launcher may look, and else by the job's events."""

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster import surroundings
from tritower.cluster.api import Api
from tritower.cluster.config import ClusterConfig
from tritower.config import from_dict
from tritower.errors import JobFailed, LaunchError

from tests.support.apiserver import Cluster, kinds, served
from tests.unit.cluster.test_access import RULES, act_as
from tests.unit.cluster.test_kustomize import MANIFESTS, documents, find
from tests.unit.cluster.test_launcher import jobs, launch

KFP = Path(__file__).parents[2] / "data/kfp/workflow-controller-configmap.yaml"
LOOK = find("Role", "tritower-look-ahead")["rules"]


@pytest.fixture
def restricted(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with served(Cluster(namespaces={"team": {surroundings.ENFORCED: "restricted"}})) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        yield cluster


@pytest.mark.parametrize(
    ("wrong", "knob"),
    [
        ({"run_as_user": 0}, "run_as_user"), ({"capabilities": ["IPC_LOCK"]}, "capabilities"),
        ({"host_network": True}, "host_network"),
        ({"pod": {"volumes": [{"name": "x", "nfs": {"server": "s", "path": "/"}}]}}, "pod.volumes"),
    ],
)  # fmt: skip
def test_a_setting_that_pod_security_refuses_is_named_first(restricted: Cluster, s3: str, wrong: Any, knob: str) -> None:
    with pytest.raises(LaunchError, match=rf"`restricted`, which refuses {knob} .*kubectl label --overwrite namespace team"):
        launch(s3, "count", "1", store_secret="", **wrong)
    assert not jobs(restricted)


def test_what_baseline_takes_and_what_not(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Cluster(namespaces={"team": {surroundings.ENFORCED: "baseline"}})) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))

        def missing(**settings: Any) -> list[tuple[str, str]]:
            return surroundings.missing(Api(), from_dict(ClusterConfig, {"namespace": "team", **settings}))

        assert not missing(run_as_user=0, capabilities=["NET_BIND_SERVICE"])
        assert "capabilities" in missing(capabilities=["IPC_LOCK"])[0][0]
        volumes = [{"name": "x", "hostPath": {"path": "/data"}}]
        assert "host_network, pod.volumes" in missing(pod={"volumes": volumes}, host_network=True)[0][0]


def test_who_may_not_look_hears_it_from_the_jobs_events(
    restricted: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(restricted, RULES, tmp_path, monkeypatch)
    with pytest.raises(JobFailed, match=r"a pod cannot be made: .*violates PodSecurity"):
        launch(s3, "count", "1", store_secret="", run_as_user=0)
    with pytest.raises(JobFailed, match='serviceaccount "none" not found'):
        launch(f"{s3}/other", "count", "1", store_secret="", service_account="none")


def test_the_component_lets_it_look(restricted: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act_as(restricted, RULES + LOOK, tmp_path, monkeypatch)
    with pytest.raises(LaunchError) as caught:
        launch(s3, "count", "1", run_as_user=0)
    assert "which refuses run_as_user" in str(caught.value) and "Secret tritower-store is not there" in str(caught.value)


def test_a_service_account_that_is_not_there(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert surroundings.missing(Api(), from_dict(ClusterConfig, {"namespace": "team"})) == []
    with pytest.raises(LaunchError, match=r"service account none .* kubectl -n team create serviceaccount none"):
        launch(s3, "count", "1", service_account="none")
    with served(Cluster(namespaces=["team"], accounts=())) as bare:
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig(tmp_path / "bare", namespace="team")))
        (found,) = surroundings.missing(Api(), from_dict(ClusterConfig, {"namespace": "team"}))
        assert found[1] == "kubectl apply -k manifests/base -n team"


def warned(caplog: pytest.LogCaptureFixture, **how: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        given = {"resource": "PyTorchJob", "pods": 2, "in_a_pipeline": True} | how
        surroundings.warn(Api(), from_dict(ClusterConfig, {"namespace": "team"}), **given)
    return caplog.text


def test_workers_in_a_restricted_namespace_are_warned_of(restricted: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    assert "it refuses workers unless the training operator gives its init container" in warned(caplog)
    assert not warned(caplog, pods=1) and not warned(caplog, resource="TrainJob")


def test_the_retry_patch_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with served(Cluster(namespaces=["team", "kubeflow"])) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        assert not warned(caplog)  # no Kubeflow Pipelines where they are looked for
        shipped = yaml.safe_load(KFP.read_text(encoding="utf-8"))
        cluster.add(kinds.CONFIG_MAP, shipped, namespace="kubeflow")
        assert "kubectl -n kubeflow patch configmap workflow-controller-configmap --patch-file" in warned(caplog)
        assert not warned(caplog, in_a_pipeline=False)
        (patch,) = documents(MANIFESTS / "kfp/retries/retry-what-was-killed.yaml")
        name = shipped["metadata"]["name"]
        found = cluster.store.get(kinds.CONFIG_MAP, "kubeflow", name)
        assert found
        cluster.store.update(kinds.CONFIG_MAP, found | {"data": {**found["data"], **patch["data"]}})
        assert not warned(caplog)
        act_as(cluster, RULES, tmp_path, monkeypatch)
        assert not warned(caplog)
