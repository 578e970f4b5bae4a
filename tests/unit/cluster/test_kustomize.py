"""manifests/: every object strictly by Kubernetes' own schema, the overlays as kustomize builds them, how they fit together."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster import pods
from tritower.cluster.config import ClusterConfig
from tritower.config import from_dict
from tritower.jobs import Job, settings

from tests.support.apiserver import answers, quantities, schema
from tests.support.apiserver.kinds import Kind
from tests.unit.cluster.test_manifests import BASE, manifests

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
RBAC = "rbac.authorization.k8s.io"
KINDS = {
    kind: Kind(group, "v1", kind.lower(), kind, schema=schema.KUBERNETES)
    for group, names in {
        "": ("Namespace", "ServiceAccount", "Secret", "ConfigMap", "ResourceQuota", "LimitRange", "Service"),
        "networking.k8s.io": ("NetworkPolicy",),
        RBAC: ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"),
    }.items()
    for kind in names
}
COMPONENTS = sorted(one.name for one in (MANIFESTS / "components").iterdir())
OVERLAYS = ["base", *sorted(f"overlays/{one.name}" for one in (MANIFESTS / "overlays").iterdir())]
KFP_ACCOUNTS = {"pipeline-runner", "default-editor"}
STEP = {"pipelines.kubeflow.org/v2_component": "true", "workflows.argoproj.io/workflow": "w"}
"""Labels of the pod of a step (tests/data/recordings, kfp-self)."""
Object = dict[str, Any]


def documents(path: Path) -> list[Object]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def files() -> Iterator[tuple[str, Object]]:
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from ((str(path.relative_to(MANIFESTS)), one) for one in documents(path))


def find(kind: str, name: str) -> Object:
    """An object as it is written."""
    (found,) = (one for _, one in files() if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def refuse(item: Object) -> None:
    """Raise where the API server would with fieldValidation=Strict."""
    if item["kind"] == "PeerAuthentication":  # of Istio's, whose schema is not at hand
        assert item["apiVersion"] == "security.istio.io/v1"
        assert set(item["spec"]) == {"selector", "mtls"} and item["spec"]["mtls"] == {"mode": "PERMISSIVE"}
        return
    kind = KINDS[item["kind"]]
    assert item["apiVersion"] == kind.api_version
    unknown, _ = schema.unknown_fields(kind, item)
    assert not unknown, unknown
    schema.check(kind, item)


@pytest.mark.parametrize(("file", "item"), files(), ids=lambda given: given if isinstance(given, str) else given["kind"])
def test_every_object_is_what_its_schema_has(file: str, item: Object) -> None:
    refuse(item)
    wrong = copy.deepcopy(item) | {"rulez": []}
    with pytest.raises(AssertionError):
        refuse(wrong if item["kind"] != "PeerAuthentication" else item | {"spec": {}})


def test_a_wrong_field_is_seen() -> None:
    role = find("Role", "tritower-launcher")
    role["rules"][0]["verb"] = ["get"]
    with pytest.raises(AssertionError, match="verb"):
        refuse(role)
    policy = find("NetworkPolicy", "tritower-jobs")
    policy["spec"]["egress"][1]["ports"][0]["protocol"] = 17
    with pytest.raises(answers.Refused, match="protocol"):
        refuse(policy)


@pytest.mark.parametrize("folder", [*OVERLAYS, *(f"components/{name}" for name in COMPONENTS)])
def test_a_kustomization_names_files_that_are_there(folder: str) -> None:
    (found,) = documents(MANIFESTS / folder / "kustomization.yaml")
    for name in (*found.get("resources", []), *found.get("components", [])):
        place = MANIFESTS / folder / name
        assert place.is_file() or (place / "kustomization.yaml").is_file()
    written = {one.name for one in (MANIFESTS / folder).iterdir()} - {"kustomization.yaml"}
    assert written <= set(found["resources"])


def built(folder: Path) -> list[Object]:
    """What kustomize makes of a folder."""
    for program, words in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if place := shutil.which(program):
            done = subprocess.run([place, *words, str(folder)], check=True, capture_output=True, text=True)
            return [one for one in yaml.safe_load_all(done.stdout) if one]
    pytest.skip("neither kustomize nor kubectl is installed")


@pytest.mark.parametrize("folder", OVERLAYS)
def test_an_overlay_builds_and_fits_together(folder: str) -> None:
    made = built(MANIFESTS / folder)
    for one in made:
        refuse(one)
    check_bindings(made)
    spaces = {one["metadata"].get("namespace") for one in made if not one["kind"].startswith("Cluster")}
    assert spaces == ({None} if folder == "base" else {"kubeflow"})
    ours = [one for one in made if "tritower-launcher" in one["metadata"]["name"]]
    assert all(one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tritower" for one in ours)


def test_components_build_on_the_base_in_a_namespace_of_ones_own(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    mine = {"namespace": "team", "resources": ["../base"], "components": [f"../components/{name}" for name in COMPONENTS]}
    (tmp_path / "manifests" / "mine").mkdir()
    (tmp_path / "manifests" / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    made = built(tmp_path / "manifests" / "mine")
    for one in made:
        refuse(one)
        assert one["metadata"].get("namespace", one["metadata"]["name"]) == "team"
    check_bindings(made)
    (space,) = (one for one in made if one["kind"] == "Namespace")
    assert space["metadata"]["labels"]["katib.kubeflow.org/metrics-collector-injection"] == "enabled"


def check_bindings(made: list[Object]) -> None:
    """Every binding binds a role that is there to accounts that are ours or of Kubeflow's steps; every role is bound."""
    roles = {(one["kind"], one["metadata"]["name"]) for one in made if one["kind"].endswith("Role")}
    bindings = [one for one in made if one["kind"].endswith("RoleBinding")]
    assert {(one["roleRef"]["kind"], one["roleRef"]["name"]) for one in bindings} == roles
    own = {one["metadata"]["name"] for one in made if one["kind"] == "ServiceAccount"}
    for one in bindings:
        assert one["metadata"]["name"] == one["roleRef"]["name"] and one["roleRef"]["apiGroup"] == RBAC
        assert {subject["name"] for subject in one["subjects"]} <= own | KFP_ACCOUNTS


def test_no_role_gives_more_than_it_names() -> None:
    for file, one in files():
        for rule in one.get("rules", []):
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]), file
            if rule["resources"] == ["secrets"]:
                assert rule["resourceNames"][0] in ("tritower-store", "tritower-serving") and rule["verbs"] == ["get"]


def labels(**settings: Any) -> dict[str, str]:
    """Of the pods of a job."""
    made = pods.template(Job(name="ranker", module="m"), from_dict(ClusterConfig, BASE | settings),
                         name="x", container="c", command=[])  # fmt: skip
    found: dict[str, str] = made["metadata"]["labels"]
    return found


def selects(selector: Object, of_pod: dict[str, str]) -> bool:
    return selector["matchLabels"].items() <= of_pod.items()


def test_the_pods_of_a_job_reach_each_other_and_nothing_else_reaches_them() -> None:
    policy = find("NetworkPolicy", "tritower-jobs")["spec"]
    assert selects(policy["podSelector"], labels()) and selects(policy["podSelector"], labels(labels={"team": "a"}))
    assert not selects(policy["podSelector"], STEP) and set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (comes,) = policy["ingress"]
    assert set(comes) == {"from"}  # every port
    for who, may in ((labels(), True), (STEP, True), ({"app": "other"}, False), ({}, False)):
        assert any(selects(one["podSelector"], who) for one in comes["from"]) == may
    assert policy["egress"][0] == {"to": comes["from"]}
    anywhere = {(one["protocol"], one["port"]) for rule in policy["egress"] if "to" not in rule for one in rule["ports"]}
    assert {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6443)} < anywhere
    store = documents(MANIFESTS / "overlays/kind/store.yaml")[0]["stringData"]["endpoint"]
    assert ("TCP", int(store.rpartition(":")[2])) in anywhere


def test_pods_stay_out_of_a_mesh() -> None:
    made = pods.template(Job(name="ranker", module="m"), from_dict(ClusterConfig, BASE), name="x", container="c", command=[])
    assert made["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert made["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert made["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    mesh = find("PeerAuthentication", "tritower-jobs")["spec"]["selector"]
    assert selects(mesh, made["metadata"]["labels"])


def users(value: Any) -> Iterator[str]:
    """The fields of a manifest that name users or groups."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from [key] if key in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups") else users(one)
    if isinstance(value, list):
        for one in value:
            yield from users(one)


def test_on_openshift_no_user_and_no_group_is_named() -> None:
    for manifest in manifests(from_dict(ClusterConfig, BASE | {"run_as_user": -1, "nodes": 2})):
        assert not list(users(manifest)), manifest["kind"]
    assert set(users(manifests(from_dict(ClusterConfig, BASE))[0])) == {"runAsUser", "runAsGroup"}


def test_the_example_of_a_quota_takes_jobs_of_the_defaults() -> None:
    """What the compiled pipeline gives the ranker's pod, in as many pods as four jobs of two nodes."""
    document, *_ = yaml.safe_load_all((ROOT / "pipelines/compiled/kfp/training.yaml").read_text(encoding="utf-8"))
    own = document["deploymentSpec"]["executors"]["exec-ranker"]["container"]["resources"]
    sides = {"requests": "Request", "limits": "Limit"}
    task = {side: {"cpu": own[f"resourceCpu{word}"], "memory": own[f"resourceMemory{word}"]} for side, word in sides.items()}
    given = settings({}, type("TaskConfig", (), {"resources": task}))
    found = pods.resources(Job(name="ranker", module="m"), from_dict(ClusterConfig, BASE | given))
    hard = find("ResourceQuota", "tritower")["spec"]["hard"]
    for what in ("requests.cpu", "requests.memory", "limits.memory"):
        side, _, resource = what.partition(".")
        assert 0 < 8 * quantities.number(found[side][resource]) <= quantities.number(hard[what]), what
    assert "limits.cpu" not in hard and "cpu" not in found["limits"]
    (limits,) = find("LimitRange", "tritower")["spec"]["limits"]
    assert set(limits["default"]) == {"memory"} and set(limits["defaultRequest"]) == {"cpu", "memory"}
