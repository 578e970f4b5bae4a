"""The manifests of jobs: strictly what the operators' schemas have, and goldens of a few."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster import katib, names, pods, pytorchjob, spark, trainjob
from tritower.cluster.config import ClusterConfig
from tritower.config import from_dict
from tritower.errors import ConfigError
from tritower.jobs import Job, Resources
from tritower.searches import Search
from tritower.tuning import space
from tritower.tuning.config import SPACE

from tests.support.apiserver import answers, kinds, schema

GOLDEN = Path(__file__).parents[2] / "golden" / "cluster"
KINDS = {one.kind: one for one in (kinds.PYTORCHJOB, kinds.TRAINJOB, kinds.RUNTIME, kinds.EXPERIMENT, kinds.SPARK)}
BASE = {"namespace": "team", "image": "registry.example/tritower/train:1.0"}
GPU = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]}
RDMA = {"devices": {"rdma/hca": "1"}, "capabilities": ["IPC_LOCK"], "environment": {"NCCL_IB_HCA": "mlx5"}}
CONFIGS: list[dict[str, Any]] = [
    {},
    *({"nodes": nodes} for nodes in (1, 2, 3, 4, 8, 16)),
    *({"nodes": nodes, "gpus": gpus} | GPU for nodes in (1, 2, 16) for gpus in (1, 8)),
    {"gpus": 8, "nodes": 4, "host_network": True, "shared_memory": "64Gi"} | GPU | RDMA,
    {"gpus": 1, "gpu_type": "NVIDIA-H100-80GB-HBM3", "gpu_resource": "nvidia.com/mig-3g.40gb"},
    {"gpus": 1, "gpu_type": "nvidia-l4", "gpu_label": "cloud.google.com/gke-accelerator", "nodes_may_come": True},
    {"cpu": "500m", "memory": "1.5Gi"},
    {"cpu": "16", "memory": "64Gi", "disk": "100Gi"},
    {"shared_memory": ""},
    {"node_selector": {"pool": "training", "topology.kubernetes.io/zone": "a"}},
    {"tolerations": [{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute", "tolerationSeconds": 60}]},
    {"priority_class": "low"},
    {"queue": "team-queue"},
    {"image_pull_secrets": ["registry", "mirror"], "image_pull_policy": "Always"},
    {"store_secret": ""},
    {"store_secret": "other", "store_secret_optional": True},
    {"service_account": "trainer"},
    {"run_as_user": -1},
    {"run_as_user": 65_534, "labels": {"team": "search", "example.com/cost": "7"}, "annotations": {"note": "any text: {}"}},
    {"environment": {"NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "eth0"}},
    {"pod": {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
        "volumes": [{"name": "corpus", "persistentVolumeClaim": {"claimName": "corpus", "readOnly": True}}],
        "volumeMounts": [{"name": "corpus", "mountPath": "/corpus", "readOnly": True}],
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tracking", "key": "token", "optional": True}}}],
        "resources": {"limits": {"memory": "8Gi", "cpu": "4"}, "requests": {"memory": "2Gi", "cpu": "1"}},
    }},
    {"restarts": 0, "grace_s": 300, "deadline_s": 60, "keep_after_s": 0},
]  # fmt: skip


def job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "name": "ranker", "module": "tritower.ranker", "arguments": ('--config={"epochs": 2, "note": "it\'s"}',),
        "inputs": {"features": "s3://bucket/features"}, "outputs": {"model": "s3://bucket/run/model"},
        "processes": 2, "environment": {"OMP_NUM_THREADS": "1"}, "resources": Resources(cpus=2, memory_mib=4096),
    }  # fmt: skip
    return Job(**given | changes)


def manifests(config: ClusterConfig) -> list[dict[str, Any]]:
    """One of each kind."""
    own = job()
    name = names.job_name(own.name, "run-1", own.outputs)
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "u", "controller": True}
    search = Search(
        parameters=tuple(space.katib(SPACE)),
        fixed={"epochs": 4},
        early_stopping={"min_trials_required": "5", "start_step": "2"},
    )
    return [
        pods.owned(pytorchjob.manifest(own, config, name=name, run="run-1", agent=("--home=s3://bucket/x",)), owner),
        trainjob.manifest(own, config, name=name, run="run-1"),
        trainjob.runtime(own, config, name=name),
        katib.manifest(job(arguments=(), outputs={}), search, config, name=name),
        spark.manifest(own, config, spark.Executors(), name=name),
    ]


def refuse(manifest: dict[str, Any]) -> None:
    """Raise where the API server would with fieldValidation=Strict."""
    kind = KINDS[manifest["kind"]]
    unknown, _ = schema.unknown_fields(kind, manifest)
    assert not unknown, unknown
    schema.check(kind, manifest)
    for trial in [manifest["spec"].get("trialTemplate", {}).get("trialSpec")]:  # the Experiment's schema takes anything there
        if trial:
            refuse(trial)


@pytest.mark.parametrize("given", CONFIGS, ids=lambda given: json.dumps(given)[:60])
def test_every_manifest_is_what_the_schemas_have(given: dict[str, Any]) -> None:
    assert len(CONFIGS) >= 30
    for manifest in manifests(from_dict(ClusterConfig, BASE | given)):
        json.dumps(manifest, allow_nan=False)
        refuse(manifest)


def test_a_field_that_the_schema_does_not_know_or_of_another_type_is_seen() -> None:
    for manifest in manifests(from_dict(ClusterConfig, BASE)):
        unknown = copy.deepcopy(manifest)
        unknown["spec"]["nodeSelectr"] = {}
        with pytest.raises(AssertionError, match="nodeSelectr"):
            refuse(unknown)
    wrong = copy.deepcopy(manifests(from_dict(ClusterConfig, BASE))[0])
    wrong["spec"]["nprocPerNode"] = 2
    with pytest.raises(answers.Refused, match="nprocPerNode"):
        refuse(wrong)


@pytest.mark.parametrize("number", range(5), ids=list(KINDS))
def test_goldens(number: int) -> None:
    given = BASE | GPU | {"nodes": 2, "gpus": 8, "memory": "64Gi", "queue": "team-queue"}
    manifest = manifests(from_dict(ClusterConfig, given))[number]
    check_golden(manifest, manifest["kind"].lower())


def test_goldens_of_the_defaults_and_of_what_a_pipeline_gives() -> None:
    check_golden(manifests(from_dict(ClusterConfig, BASE))[0], "pytorchjob-defaults")
    (given,) = (config for config in CONFIGS if "pod" in config)
    check_golden(manifests(from_dict(ClusterConfig, BASE | given))[0], "pytorchjob-task")


def check_golden(manifest: dict[str, Any], name: str) -> None:
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        plain = json.loads(json.dumps(manifest))
        golden.write_text(yaml.safe_dump(plain, sort_keys=False, width=120), encoding="utf-8")
    assert manifest == yaml.safe_load(golden.read_text(encoding="utf-8"))


def test_a_name_is_the_same_for_the_same_run_step_and_places_only() -> None:
    outputs = {"model": "s3://bucket/a"}
    name = names.job_name("ranker", "run", outputs)
    assert name == names.job_name("ranker", "run", outputs) and len(name) <= 40
    others = [
        names.job_name("finetune", "run", outputs), names.job_name("ranker", "other", outputs),
        names.job_name("ranker", "run", {"model": "s3://bucket/b"}),
    ]  # fmt: skip
    assert len({name, *others}) == 4
    long = names.job_name("Champion_Features of a very long name, longer than a label", "run", outputs)
    assert len(long) <= 40 and long.startswith("champion-features-of-a-very")


def test_the_spec_hash_follows_every_change_and_no_order() -> None:
    one, other = (
        pytorchjob.manifest(job(), from_dict(ClusterConfig, BASE | more), name="x") for more in ({}, {"memory": "8Gi"})
    )
    hashes = [made["metadata"]["annotations"][names.SPEC_HASH] for made in (one, other)]
    assert hashes[0] != hashes[1]
    assert names.spec_hash(dict(reversed(one["spec"].items()))) == hashes[0]


def test_what_operators_stumble_over() -> None:
    config = from_dict(ClusterConfig, BASE | {"nodes": 3, "restarts": 2})
    torch_job, train_job, runtime, experiment, _ = manifests(config)
    assert torch_job["spec"]["nprocPerNode"] == "2"  # text
    assert torch_job["spec"]["runPolicy"]["cleanPodPolicy"] == "None"
    assert torch_job["spec"]["runPolicy"]["backoffLimit"] == 2 * 3 + 1
    (container,) = torch_job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert container["name"] == "pytorch"
    assert container["command"][-1] == "--model=s3://bucket/run/model"
    assert train_job["spec"]["trainer"]["numNodes"] == 3 and train_job["spec"]["trainer"]["numProcPerNode"] == 2
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    assert replicated["template"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert runtime["spec"]["template"]["spec"]["failurePolicy"] == {"maxRestarts": 2}
    assert experiment["spec"]["maxFailedTrialCount"] == 4
    trial = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]
    words = {role: one["template"]["spec"]["containers"][0]["command"] for role, one in trial["pytorchReplicaSpecs"].items()}
    assert words["Master"] == ["sh", "-c"] and words["Worker"][0] == "python3"
    assert trial["pytorchReplicaSpecs"]["Master"]["restartPolicy"] == "Never"
    assert "earlyStopping" not in experiment["spec"]  # of several pods the collector would stop the master alone
    alone = manifests(from_dict(ClusterConfig, BASE))[3]["spec"]["earlyStopping"]
    assert {one["name"]: one["value"] for one in alone["algorithmSettings"]} == {"min_trials_required": "5", "start_step": "2"}
    for one in experiment["spec"]["parameters"]:
        assert all(isinstance(value, str) for key, value in one["feasibleSpace"].items() if key != "list")


def test_a_secret_is_a_reference_and_never_a_value() -> None:
    made = manifests(from_dict(ClusterConfig, BASE))[0]
    environment = made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["env"]
    keys = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in environment if "valueFrom" in one}
    assert keys["AWS_SECRET_ACCESS_KEY"] == {"name": "tritower-store", "key": "secretkey"}
    assert keys["TRITOWER_S3_ENDPOINT"]["optional"]


@pytest.mark.parametrize(
    ("wrong", "knob"),
    [
        ({"memory": "16 GB"}, "memory"), ({"nodes": -1}, "nodes"), ({"nods": 2}, "nods"), ({"labels": {"a b": "c"}}, "labels"),
        ({"environment": {"PET_NNODES": "2"}}, "environment"), ({"heartbeat_s": 300}, "abandoned_after_s"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong: dict[str, Any], knob: str) -> None:
    with pytest.raises(ConfigError, match=knob):
        from_dict(ClusterConfig, BASE | wrong)
