"""The launcher in a step's pod, as Kubeflow Pipelines makes it (the recording kfp-self): what it takes from there."""

from pathlib import Path
from typing import Any

import pytest
from tritower.cluster import here
from tritower.cluster.api import Api
from tritower.errors import LaunchError

from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_access import act_as
from tests.unit.cluster.test_launcher import launch

NAME = "kfp-self-q9gzl-system-container-impl-810213344"
RUN = "42b16257-5ad0-4c90-b8c6-f7c53250cee5"
KFPS_OWN: list[dict[str, Any]] = [  # as far as launchers need it; without events
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["*"]},
    {"apiGroups": ["kubeflow.org"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get", "list", "watch", "update", "patch"]},
]


@pytest.fixture
def step(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """This process is the step's: its pod, with the sidecar of Argo's, belongs to a Workflow. The Workflow."""
    flow = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "kfp-self-q9gzl"}}, namespace="team")
    owner = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "kfp-self-q9gzl", "uid": flow["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    labels = {"pipeline/runid": RUN, "pipelines.kubeflow.org/v2_component": "true"}
    containers = [
        {"name": name, "image": image, "command": ["sleep", "60"]}
        for name, image in (("wait", "registry.example/argoexec:v4"), ("main", "registry.example/base:1"))
    ]
    pod = {
        "metadata": {"name": NAME, "labels": labels, "ownerReferences": [owner]},
        "spec": {"serviceAccountName": "pipeline-runner", "containers": containers, "restartPolicy": "Never"},
        "status": {"phase": "Pending"},
    }
    cluster.add(kinds.POD, pod, namespace="team")
    monkeypatch.setenv("KFP_POD_NAME", NAME)
    return flow


def test_run_owner_image_and_account_are_the_pods(step: dict[str, Any]) -> None:
    found = here.find(Api())
    assert (found.namespace, found.run, found.image) == ("team", RUN, "registry.example/base:1")
    assert found.account == "pipeline-runner"
    assert found.owner and found.owner["uid"] == step["metadata"]["uid"]


def test_outside_a_pod_there_is_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    found = here.find(Api())
    assert (found.namespace, found.run, found.image, found.account, found.owner) == ("team", "", "", "", None)


def test_kfps_own_role_lacks_events_only_and_the_line_names_the_account(
    cluster: Cluster, step: dict[str, Any], s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(cluster, KFPS_OWN, tmp_path, monkeypatch)
    with pytest.raises(LaunchError) as caught:
        launch(s3, "count", "1")
    assert caught.value.problem == "this service account may not list events"
    assert "--serviceaccount=team:pipeline-runner" in caught.value.remedy


def test_an_account_without_a_role_is_told_what_it_may_not(
    cluster: Cluster, step: dict[str, Any], s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(cluster, [], tmp_path, monkeypatch, account="default")
    with pytest.raises(LaunchError, match=r'cannot get resource "pods".*kubectl apply -k manifests/base'):
        launch(s3, "count", "1")
