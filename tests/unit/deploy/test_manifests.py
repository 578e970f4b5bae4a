"""The objects of a version: strictly what their schemas have, goldens of a few, and what makes another version."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.config import from_dict
from tritower.deploy import manifests
from tritower.deploy.config import DeployConfig
from tritower.deploy.release import Release
from tritower.errors import ConfigError

from tests.support.apiserver import schema

GOLDEN = Path(__file__).parents[2] / "golden" / "deploy"
BASE = {"namespace": "team", "image": "registry.example/tritower/serve:1.0"}
RELEASE = Release(bundle="s3://bucket/bundles/7", version="3f2a" * 16)
CONFIGS: list[dict[str, Any]] = [
    {},
    {"replicas": 3, "max_replicas": 12, "target_cpu_percent": 60},
    {"storage_initializer": True, "store_secret": "", "token_secret": ""},
    {"serve": {"rate_per_s": 50}, "environment": {"OMP_NUM_THREADS": "1"}},
    {"node_selector": {"pool": "serving"}, "priority_class": "high", "image_pull_secrets": ["registry"]},
    {"tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]},
    {"run_as_user": -1, "cpu": "500m", "memory": "1.5Gi", "disk": "20Gi", "pre_stop_s": 2, "grace_s": 30},
    {"gateway": "ingress/entrance", "hostnames": ["jobs.example.com"]},
]


def everything(settings: dict[str, Any]) -> list[dict[str, Any]]:
    config = from_dict(DeployConfig, BASE | settings)
    sets = [manifests.of(RELEASE, config, kind) for kind in ("kserve", "deployment")]
    found = [item for one in sets for count in (1, one.replicas) for item in manifests.sized(one, count)]
    found += [*manifests.shared(config), manifests.service(config, "a"), manifests.service(config, "a", "b")]
    return [*found, manifests.serverless(RELEASE, config)]


@pytest.mark.parametrize("settings", CONFIGS, ids=lambda one: ",".join(one) or "defaults")
def test_every_object_is_what_its_schema_has(settings: dict[str, Any]) -> None:
    found = everything(settings)
    assert {"InferenceService", "Deployment", "Service", "PodDisruptionBudget"} <= {one["kind"] for one in found}
    for item in found:
        assert not schema.problems(item), (item["kind"], schema.problems(item))
        assert schema.problems(item | {"spec": item["spec"] | {"wrong": 1}})


@pytest.mark.parametrize("kind", ["kserve", "deployment", "serverless", "shared"])
def test_goldens(kind: str) -> None:
    config = from_dict(DeployConfig, BASE | CONFIGS[1] | CONFIGS[7] | {"canary_percent": 10})
    if kind in ("kserve", "deployment"):
        items = list(manifests.of(RELEASE, config, kind).objects)
    elif kind == "serverless":
        items = [manifests.serverless(RELEASE, config)]
    else:
        items = [
            *manifests.shared(config),
            manifests.service(config, "tritower-1"),
            manifests.route(config, {"tritower-1": 100}),
        ]
    file = GOLDEN / f"{kind}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump_all(items, sort_keys=False), encoding="utf-8")
    assert list(yaml.safe_load_all(file.read_text(encoding="utf-8"))) == items


def test_what_makes_another_version_and_what_does_not() -> None:
    def name(bundle: str = RELEASE.bundle, version: str = RELEASE.version, **settings: Any) -> str:
        config = from_dict(DeployConfig, BASE | settings)
        return manifests.of(Release(bundle=bundle, version=version), config, "deployment").name

    first = name()
    same = [name(), name(replicas=5), name(canary_percent=20), name(gateway="x"), name(poll_s=1)]
    assert set(same) == {first}
    other = [name(version="b" * 64), name(bundle="s3://other"), name(image="a/b:2"), name(memory="3Gi"), name(max_replicas=9)]
    assert len({first, *other}) == 1 + len(other)


def test_nothing_that_changes_without_a_version_is_on_an_inference_service() -> None:
    """KServe copies its labels and annotations into the pods: writing one would start them anew."""
    makes = [manifests.of(RELEASE, from_dict(DeployConfig, BASE | more), "kserve").objects[0]["metadata"]
             for more in ({}, {"replicas": 4}, {"canary_percent": 5})]  # fmt: skip
    assert makes[0] == makes[1] == makes[2]
    assert makes[0]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


def test_pods_are_asked_over_http_and_sleep_before_they_end() -> None:
    (container,) = manifests.of(RELEASE, from_dict(DeployConfig, BASE), "kserve").objects[0]["spec"]["predictor"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}} and container["name"] == "kserve-container"
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert container["resources"]["limits"]["cpu"] == "4"  # KServe would write 1, below a larger request


def test_no_secret_stands_in_a_manifest() -> None:
    for item in everything({}):
        for one in _environment(item):
            assert "valueFrom" in one or not any(word in one["name"] for word in ("KEY", "TOKEN", "SECRET")), one


def _environment(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = list(value["env"]) if isinstance(value.get("env"), list) else []
        return own + [one for part in value.values() for one in _environment(part)]
    return [one for part in value for one in _environment(part)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Upper"}, {"name": "x" * 28}, {"replicas": 0}, {"max_replicas": 1}, {"canary_percent": 100},
        {"memory": "2 GB"}, {"reach": "telnet"}, {"pre_stop_s": 45}, {"start_timeout_s": 0}, {"launcher": "local"},
        {"cpu_limit": "500m"}, {"run_as_user": -2},
    ],
    ids=str,
)  # fmt: skip
def test_a_knob_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        from_dict(DeployConfig, wrong)


def test_the_longest_name_is_one_for_kubernetes() -> None:
    one = manifests.of(RELEASE, from_dict(DeployConfig, BASE | {"name": "a" * 27}), "kserve")
    assert len(f"{one.deployment}-0123456789-01234") <= 63 and json.dumps(one.objects)
