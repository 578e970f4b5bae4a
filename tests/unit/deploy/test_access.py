"""What a deployer must be able to do: the Role that is shipped, each right of it taken away; and what else must be there."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster.api import Api, Refused
from tritower.config import from_dict
from tritower.deploy import kinds as own
from tritower.deploy.config import DeployConfig
from tritower.deploy.rollout import Rollout
from tritower.errors import ConfigError, LaunchError

from tests.support.apiserver import Cluster, kinds, served
from tests.unit.cluster.test_access import act_as
from tests.unit.deploy.conftest import RULES

BASE = {"image": "example/serve:1", "gateway": "entrance", "token_secret": "", "launcher": "auto"}
CONFIG = from_dict(DeployConfig, BASE)
RIGHTS = [
    (kind, group, resource, verb)
    for kind in ("kserve", "deployment")
    for group, resource, verbs in own.rights(kind, CONFIG, by_proxy=True)
    for verb in verbs
]


@pytest.fixture(scope="module")
def empty() -> Iterator[Cluster]:
    """Nothing is made in it by these tests."""
    with served(Cluster(namespaces=["team"], accounts=["tritower-server"])) as one:
        yield one


@pytest.mark.parametrize(("kind", "group", "resource", "verb"), RIGHTS, ids=lambda text: text or "core")
def test_every_right_is_needed_and_named(
    empty: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, group: str, resource: str, verb: str
) -> None:
    rules = copy.deepcopy(RULES)
    (rule,) = (one for one in rules if (one["apiGroups"], one["resources"]) == ([group], [resource]))
    rule["verbs"].remove(verb)
    act_as(empty, rules, tmp_path, monkeypatch)
    with pytest.raises(LaunchError, match=rf"may not {verb} {resource}.*kubectl -n team create role .* --verb={verb}"):
        Rollout(from_dict(DeployConfig, BASE | {"launcher": kind}))
    assert not empty.store.all(kinds.SERVICE) and not empty.store.all(kinds.CONFIG_MAP)


def test_the_role_has_what_the_preflight_looks_for_and_the_token_alone_beside_it() -> None:
    given = [(rule["apiGroups"][0], rule["resources"][0], verb) for rule in RULES for verb in rule["verbs"]]
    token = ("", "secrets", "get")
    assert set(given) == {(group, resource, verb) for _, group, resource, verb in RIGHTS} | {token}
    assert len(given) == len(set(given))
    (rule,) = (one for one in RULES if one["resources"] == ["secrets"])
    assert rule["resourceNames"] == [DeployConfig().token_secret]


def test_a_role_without_the_kserve_that_is_not_there_deploys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Role says that the lines of what is not used may go, and a cluster says 403, not 404, to who may not ask."""
    rules = [rule for rule in RULES if rule["apiGroups"] not in (["serving.kserve.io"], ["gateway.networking.k8s.io"])]
    with served(Cluster(namespaces=["team"], without=["inferenceservices"], accounts=["tritower-server"])) as one:
        act_as(one, rules, tmp_path, monkeypatch)
        with pytest.raises(Refused) as caught:
            Api(10).get("/apis/serving.kserve.io/v1beta1/namespaces/team/inferenceservices/any")
        assert caught.value.status == 403
        assert Rollout(from_dict(DeployConfig, BASE | {"gateway": ""})).kind == "deployment"


def test_all_that_is_missing_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Cluster(namespaces=["team"], without=["inferenceservices", "httproutes"], accounts=[])) as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        with pytest.raises(LaunchError) as caught:
            Rollout(from_dict(DeployConfig, {"image": "a/b:1", "launcher": "kserve", "gateway": "entrance"}))
    said = str(caught.value)
    for part in ("KServe is not installed", "Gateway API is not installed", "service account tritower-server", "Secret"):
        assert part in caught.value.problem
    assert "kubectl -n team create secret generic tritower-serving --from-literal=token=" in said


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"launcher": "none"}, "nothing can be deployed with the launcher none"),
        ({"launcher": "serverless"}, "nothing can be deployed with the launcher serverless"),
        ({"launcher": "deployment", "storage_initializer": True}, "only KServe has a storage initializer"),
        ({"image": ""}, "no image is named"),
    ],
)
def test_a_knob_that_does_not_fit(
    empty: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], why: str
) -> None:
    act_as(empty, RULES, tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=why):
        Rollout(from_dict(DeployConfig, BASE | settings))
