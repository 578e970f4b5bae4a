"""What the pipeline gives a launched step's pod, in the pods of its job: from KFP's TaskConfig to the manifest."""

import json
from typing import Any

import pytest
from kfp.dsl import TaskConfig, executor
from tritower.cluster import pods
from tritower.cluster.config import ClusterConfig
from tritower.config import from_dict
from tritower.errors import ConfigError
from tritower.jobs import Job, Resources, settings

from tests.unit.cluster.test_manifests import BASE, manifests, refuse

AFFINITY = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 50.0, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}
        ]
    }
}
SPOT = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60.0}
DRIVERS: dict[str, Any] = {  # as KFP 2.17's driver writes it: nulls and numbers as in its Go types
    "affinity": AFFINITY,
    "tolerations": [SPOT],
    "nodeSelector": {"pool": "gpu", "zone": "a"},
    "env": [
        {"name": "NCCL_DEBUG", "value": "INFO"},
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "tritower-store", "key": "accesskey"}}},
        {"name": "TRACKING", "valueFrom": {"secretKeyRef": {"name": "tracking", "key": "token"}}},
        {"name": "PET_NNODES", "value": "7"},
    ],
    "volumes": [{"name": "corpus", "persistentVolumeClaim": {"claimName": "corpus", "readOnly": True}}],
    "volumeMounts": [{"name": "corpus", "mountPath": "/corpus"}],
    "resources": {
        "limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2", "rdma/hca": "1"},
        "requests": {"cpu": "250m", "memory": "1536Mi"},
    },
}


def given(value: dict[str, Any] | None) -> TaskConfig:
    """The parameter as KFP's own executor hands it to a component."""
    found: list[TaskConfig] = []

    def component(task: TaskConfig = None) -> None:  # type: ignore[assignment]
        found.append(task)

    values = {"task": value} if value else {}
    executor.Executor({"inputs": {"parameterValues": values}, "outputs": {"outputFile": "/dev/null"}}, component).execute()
    return found[0]


def pod(cluster: dict[str, Any], task: dict[str, Any] | None, **job: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pod's specification, and its container."""
    one = Job(name="ranker", module="m", **job)
    config = from_dict(ClusterConfig, BASE | settings(cluster, given(task)))
    spec = pods.template(one, config, name="x", container="c", command=[])["spec"]
    return spec, spec["containers"][0]


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_a_jobs_pods_get_what_the_steps_pod_gets() -> None:
    spec, container = pod({}, DRIVERS)
    assert spec["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert spec["tolerations"] == [SPOT | {"tolerationSeconds": 60}]
    assert '"weight": 50,' in json.dumps(spec["affinity"]) and '"tolerationSeconds": 60}' in json.dumps(spec)
    assert [one["name"] for one in spec["volumes"]] == ["shm", "corpus"]
    assert container["volumeMounts"][1:] == DRIVERS["volumeMounts"]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "1536Mi", "nvidia.com/gpu": "2", "rdma/hca": "1"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "2", "rdma/hca": "1"},
    }
    assert variables(container)["NCCL_DEBUG"] == "INFO"
    assert variables(container)["TRACKING"] == {"secretKeyRef": {"name": "tracking", "key": "token"}}


def test_what_does_not_pass() -> None:
    _, container = pod({"store_secret": ""}, DRIVERS)
    assert "PET_NNODES" not in variables(container)  # the operator's
    assert "AWS_ACCESS_KEY_ID" not in variables(container)  # workload identity was asked for
    assert "cpu" not in container["resources"]["limits"]
    names = [one["name"] for one in pod({}, DRIVERS)[1]["env"]]
    assert len(names) == len(set(names)) and "AWS_ACCESS_KEY_ID" in names


def test_the_settings_win_then_the_step_then_the_task() -> None:
    own = {
        "node_selector": {"zone": "b"}, "tolerations": [SPOT | {"tolerationSeconds": 60}, {"operator": "Exists"}],
        "environment": {"NCCL_DEBUG": "WARN"}, "memory": "64Gi", "gpus": 8, "devices": {"rdma/hca": "4"},
    }  # fmt: skip
    spec, container = pod(own, DRIVERS, resources=Resources(cpus=2, gpus=4))
    assert spec["nodeSelector"] == {"pool": "gpu", "zone": "b"}
    assert spec["tolerations"] == [SPOT | {"tolerationSeconds": 60}, {"operator": "Exists"}]
    assert variables(container)["NCCL_DEBUG"] == "WARN"
    limits = {"memory": "64Gi", "nvidia.com/gpu": "8", "rdma/hca": "4"}
    assert container["resources"] == {"requests": {"cpu": "2", **limits}, "limits": limits}
    _, container = pod({}, DRIVERS, resources=Resources(cpus=2, gpus=4), environment={"NCCL_DEBUG": "TRACE"})
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "4" and container["resources"]["requests"]["cpu"] == "2"
    assert variables(container)["NCCL_DEBUG"] == "TRACE"
    _, container = pod({}, {"env": [{"name": "AWS_REGION", "value": "eu-west-1"}]})
    assert variables(container)["AWS_REGION"] == "eu-west-1"  # a plain value is no key of the store's


def test_settings_may_name_parts_of_the_pod_themselves() -> None:
    claim = [{"name": "scratch", "persistentVolumeClaim": {"claimName": "scratch"}}]
    for own in ({"pod": {"volumes": claim}}, {"pod": json.dumps({"volumes": claim})}):
        spec, _ = pod(own, DRIVERS)
        assert [one["name"] for one in spec["volumes"]] == ["shm", "scratch"]
        assert spec["nodeSelector"] == {"pool": "gpu", "zone": "a"}


def test_without_a_task_config_nothing_changes() -> None:
    assert settings({"nodes": 2}, given(None)) == {"nodes": 2} == settings({"nodes": 2})
    empty = {"affinity": None, "tolerations": None, "env": None, "resources": {}}
    assert settings({}, given(empty)) == {}


def test_every_kind_takes_it() -> None:
    made = {one["kind"]: one for one in manifests(from_dict(ClusterConfig, BASE | settings({}, given(DRIVERS))))}
    for kind, manifest in made.items():
        refuse(manifest)
        text = json.dumps(manifest)
        assert ('"pool": "gpu"' in text) == (kind != "TrainJob")  # its runtime has the pods' template
        assert ("NCCL_DEBUG" in text) == (kind != "TrainingRuntime")
        assert ('"claimName": "corpus"' in text) == (kind != "TrainJob")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodeSelektor": {}}, "nodeSelektor.*one of affinity"), ({"volumes": {}}, "pod.volumes.*list"),
        ({"volumes": [{"name": "shm"}]}, "the shared memory's"), ({"env": [{"value": "x"}]}, "pod.env"),
    ],
)  # fmt: skip
def test_wrong_parts_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(ClusterConfig, BASE | {"pod": wrong})
