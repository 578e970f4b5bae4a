"""A version comes to serve and goes, on the tests' API server: real pods, real answers, and KServe's part as it was seen."""

import threading
import time
from typing import Any

import pytest
from tritower.cluster.api import MERGE, Api
from tritower.config import from_dict
from tritower.deploy import asking, manifests, routing
from tritower.deploy import kinds as own
from tritower.deploy.config import DeployConfig
from tritower.deploy.release import Release
from tritower.deploy.rollout import Rollout
from tritower.deploy.waiting import Waiting
from tritower.errors import JobFailed, LaunchError

from tests.support.apiserver import Cluster, kinds, kserve, proxy
from tests.unit.deploy.conftest import IMAGE

QUICK = {
    "image": IMAGE, "replicas": 1, "poll_s": 0.05, "patience_s": 1, "start_timeout_s": 120, "answer_timeout_s": 60,
    "restarts": 1, "cpu": "10m", "memory": "64Mi", "api_patience_s": 60, "launcher": "auto",
}  # fmt: skip


def rollout(**settings: Any) -> Rollout:
    return Rollout(from_dict(DeployConfig, QUICK | settings))


def deploy(version: str, behaviour: str = "", **settings: Any) -> str:
    """Deploy a version whose server calls itself so."""
    environment = {"VERSION": version, "BEHAVIOUR": behaviour}
    release = Release(bundle=f"s3://bucket/{version}", version=version)
    return rollout(environment=environment, **settings).deploy(release, gate="pass", by="me")


def serving(cluster: Cluster, times: int = 20) -> set[str]:
    """The versions that answer through the Service."""
    import http.client
    import json

    found = set()
    for _ in range(times):
        host, port = proxy.endpoint(cluster, "team", "tritower")
        connection = http.client.HTTPConnection(host, port, timeout=300)
        connection.request("GET", "/v2/models/tritower")
        found.add(json.loads(connection.getresponse().read())["versions"][0])
        connection.close()
    return found


def sets(cluster: Cluster) -> set[str]:
    """Names of the sets that there are."""
    kind = kinds.INFERENCE if cluster.store.all(kinds.INFERENCE) else kinds.DEPLOYMENT
    return {one["metadata"]["name"] for one in cluster.store.all(kind) if "deletionTimestamp" not in one["metadata"]}


def test_a_first_version_serves_and_the_same_once_more_changes_nothing(cluster: Cluster, kind: str) -> None:
    said = deploy("one")
    assert "(bundle one) has all requests; 1 pod(s)" in said
    assert serving(cluster) == {"one"} and len(sets(cluster)) == 1
    version = cluster.store.version
    assert deploy("one") == f"nothing to do: {sets(cluster).pop()} (bundle one) has all requests already"
    assert cluster.store.version == version or not [
        change for change in cluster.store.history if change.version > version and change.kind is not kinds.POD
    ]
    (deployment,) = cluster.store.all(kinds.DEPLOYMENT)
    assert deployment["spec"]["template"]["metadata"]["labels"]["tritower.dev/version"] == "one"
    assert bool(cluster.store.all(kinds.INFERENCE)) == (kind == "kserve")
    assert [one["metadata"]["name"] for one in cluster.store.all(kinds.BUDGET)] == ["tritower"]


def test_an_update_starts_beside_what_serves_and_then_takes_its_place(cluster: Cluster) -> None:
    deploy("one")
    (before,) = sets(cluster)
    said = deploy("two")
    assert "(bundle two) has all requests" in said and serving(cluster) == {"two"}
    assert sets(cluster).isdisjoint({before})
    known = rollout().record()
    assert known.previous == before and [line["what"] for line in known.history] == ["deploy", "deploy"]
    assert known.history[-1] | {"at": "", "set": ""} == {
        "at": "", "set": "", "version": "two", "what": "deploy", "gate": "pass", "by": "me",
    }  # fmt: skip


def test_another_number_of_pods_is_no_other_version(cluster: Cluster) -> None:
    deploy("one")
    (before,) = sets(cluster)
    pods = {one["metadata"]["name"] for one in cluster.store.all(kinds.POD)}
    assert "2 pod(s)" in deploy("one", replicas=2)
    assert sets(cluster) == {before}
    now = {one["metadata"]["name"] for one in cluster.store.all(kinds.POD)}
    assert pods < now and len(now) == 2


def test_an_updates_requests_all_get_an_answer(cluster: Cluster) -> None:
    """Twenty requests a second with a new connection each, through one update."""
    deploy("one", pre_stop_s=20)  # an asker on a busy machine is slow from the address to the connection
    lost, seen, is_over = [], [], threading.Event()

    def ask() -> None:
        while not is_over.wait(0.05):
            try:
                seen.extend(serving(cluster, 1))
            except Exception as error:
                lost.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        deploy("two", pre_stop_s=20)
        asked = len(seen)
        until(lambda: len(seen) + len(lost) > asked + 10)
    finally:
        is_over.set()
        asking.join()
    assert not lost and seen[0] == "one" and "one" not in seen[seen.index("two") :]


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("other", "version two does not answer within 1 s: version 0ther does"),
        ("nan", "question 1 of 1 has scores that are no probabilities: [nan, 0.25]"),
        ("none", "question 1 of 1 found no job"),
    ],
)
def test_a_bad_answer_before_there_are_requests(cluster: Cluster, behaviour: str, why: str) -> None:
    deploy("one")
    (before,) = sets(cluster)
    pods = [one["metadata"]["uid"] for one in cluster.store.all(kinds.POD)]
    with pytest.raises(JobFailed) as caught:
        deploy("two", behaviour, answer_timeout_s=1 if behaviour == "other" else 60)
    assert f"(bundle two) was not let in: {why}" in str(caught.value)
    assert caught.value.remedy == f"Its pods are deleted; {before} serves on, as before."
    assert sets(cluster) == {before} and serving(cluster) == {"one"}
    assert pods[0] in [one["metadata"]["uid"] for one in cluster.store.all(kinds.POD)]
    known = rollout().record()
    assert known.stable == before and why in known.history[-1]["failed"]


@pytest.mark.parametrize(
    ("behaviour", "settings", "why"),
    [
        ("unready", {"start_timeout_s": 10}, "0 of 1 pods are ready after 10 s; its log ends: serves"),
        ("crash", {}, "it failed 2 time(s): exit code 3; its log ends: the bundle is damaged: ranker/join.json"),
        ("", {"image": "example/none:1"}, "the image cannot be pulled: "),
        (
            "",
            {"memory": "900Gi", "start_timeout_s": 5},
            "no node takes the pod: 0/1 nodes are available: 1 Insufficient memory",
        ),
    ],
)
def test_a_version_that_never_gets_ready(cluster: Cluster, behaviour: str, settings: dict[str, Any], why: str) -> None:
    """A clock of our own: KServe says Ready all along, and shows nothing for 600 s."""
    cluster.images["example/none:1"] = "missing"
    deploy("one")
    (before,) = sets(cluster)
    with pytest.raises(JobFailed) as caught:
        deploy("two", behaviour, **settings)
    assert f"(bundle two) was not let in: {why}" in str(caught.value), str(caught.value)
    assert f"Its pods are deleted; {before} serves on, as before." in caught.value.remedy
    assert sets(cluster) == {before} and serving(cluster) == {"one"} and rollout().record().stable == before


def test_a_bundle_that_kserve_cannot_fetch(cluster: Cluster, kind: str) -> None:
    """The server's container waits all along, and shows nothing."""
    if kind != "kserve":
        return
    deploy("one")
    said = "echo starting; echo Storage initialization failed: no keys"
    cluster.programs[kserve.INITIALIZER] = ["sh", "-c", f"({said}) > $0; exit 1", "/dev/termination-log"]
    with pytest.raises(JobFailed) as caught:
        deploy("two", storage_initializer=True)
    why = "storage-initializer failed 2 time(s): exit code 1, starting / Storage initialization failed: no keys"
    assert f"(bundle two) was not let in: {why}" in str(caught.value)
    assert "service account's Secret" in caught.value.remedy and serving(cluster) == {"one"}
    cluster.programs[kserve.INITIALIZER] = ["true"]
    assert "(bundle two) has all requests" in deploy("two", storage_initializer=True)


def test_a_canary_by_numbers_of_pods_is_promoted(cluster: Cluster) -> None:
    deploy("one", replicas=3)
    said = deploy("two", replicas=3, canary_percent=20)
    assert "1 of 4 pods, 25 % of the requests where 20 % were asked for; promote it, or roll back" in said
    assert serving(cluster, 40) == {"one", "two"} and len(sets(cluster)) == 2
    assert "nothing to do: " in deploy("two", replicas=3, canary_percent=20)
    assert "has all requests; 3 pod(s)" in rollout().promote(by="you")
    assert serving(cluster) == {"two"} and len(sets(cluster)) == 1
    with pytest.raises(LaunchError, match="no canary to promote"):
        rollout().promote()


def test_a_canary_is_taken_back(cluster: Cluster) -> None:
    deploy("one")
    (before,) = sets(cluster)
    deploy("two", canary_percent=50)
    assert f"{before} has all" in rollout().rollback(by="you", why="slow")
    assert serving(cluster) == {"one"} and sets(cluster) == {before}
    assert rollout().record().history[-1]["why"] == "slow"


def scale(cluster: Cluster, name: str, count: int) -> None:
    """As an autoscaler does, or kubectl."""
    kind = kinds.DEPLOYMENT
    (found,) = (one for one in cluster.store.all(kind) if one["metadata"]["name"].removesuffix("-predictor") == name)
    cluster.store.edit(kind, found, lambda one: one["spec"].update(replicas=count))
    Waiting(Api(), rollout().config, rollout().record().sets[name]).until_ready(count)


def test_a_canarys_pods_follow_those_beside_it(cluster: Cluster) -> None:
    deploy("one", max_replicas=4)
    (before,) = sets(cluster)
    assert "1 of 2 pods, 50 % of the requests where 50 % were asked for" in deploy("two", max_replicas=4, canary_percent=50)
    scale(cluster, before, 3)
    said = deploy("two", max_replicas=4, canary_percent=50)
    assert "nothing" not in said and "3 of 6 pods, 50 % of the requests where 50 % were asked for" in said
    assert said.split("has ")[1].split(";")[0] in deploy("two", max_replicas=4, canary_percent=50)


def test_a_version_starts_with_as_many_pods_as_the_autoscaler_gave_to_the_one_before(cluster: Cluster, kind: str) -> None:
    """It has all requests at once, and no load by which it could have been given them."""
    deploy("one", max_replicas=4)
    scale(cluster, *sets(cluster), 3)
    assert "(bundle one) has all requests already" in deploy("one", max_replicas=4)
    assert "(bundle two) has all requests; 3 pod(s)" in deploy("two", max_replicas=4)
    until(lambda: len(cluster.store.all(kinds.SCALER)) == 1)  # KServe takes a moment to delete the other
    until(lambda: cluster.store.all(kinds.SCALER)[0]["spec"]["minReplicas"] == 1)
    assert cluster.store.all(kinds.SCALER)[0]["spec"]["maxReplicas"] == 4
    (scaler,) = cluster.store.all(kinds.SCALER)
    assert scaler["spec"]["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    (deployment,) = cluster.store.all(kinds.DEPLOYMENT)
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["metadata"]["name"] == sets(cluster).pop() and deployment["spec"]["replicas"] == 3


def test_an_autoscaler_goes_with_its_set_and_is_not_kserves(cluster: Cluster, kind: str) -> None:
    """KServe writes its own whole again whenever it looks; ours keeps what holds the pods of a new version."""
    deploy("one", max_replicas=4)
    scale(cluster, *sets(cluster), 3)
    (scaler,) = cluster.store.all(kinds.SCALER)
    seen = cluster.rounds
    until(lambda: cluster.looked(seen))
    (after,) = cluster.store.all(kinds.SCALER)
    assert after["spec"] == scaler["spec"] and "ownerReferences" not in after["metadata"]
    deploy("two")  # without one
    until(lambda: not cluster.store.all(kinds.SCALER))
    assert serving(cluster) == {"two"}


def test_the_version_before_comes_back_to_the_byte(cluster: Cluster) -> None:
    def template() -> Any:
        until(lambda: len(cluster.store.all(kinds.DEPLOYMENT)) == 1)  # KServe takes a moment to delete the other
        (one,) = cluster.store.all(kinds.DEPLOYMENT)
        return one["metadata"]["name"], one["spec"]["template"]

    deploy("one")
    before = template()
    deploy("two")
    assert template() != before
    assert "(bundle one) has all requests" in rollout().rollback(by="you", why="fewer clicks")
    assert template() == before and serving(cluster) == {"one"}
    assert "(bundle two) has all requests" in rollout().rollback()  # and back again


def entrance(cluster: Cluster, space: str = "ingress", **listener: Any) -> None:
    """A Gateway that takes routes of every namespace."""
    usual = {"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    spec = {"gatewayClassName": "traefik", "listeners": [usual | listener]}
    cluster.add(kinds.GATEWAY, {"metadata": {"name": "entrance"}, "spec": spec}, namespace=space)


@pytest.mark.parametrize(
    ("space", "listener", "why"),
    [
        ("team", None, "no gateway's controller has taken it up; there is no such Gateway"),
        ("team", {"port": 8000}, "Accepted is False, NotAllowedByListeners; the Gateway takes no requests: Accepted is False, "
                                 "ListenersNotValid: All Listeners must be valid"),
        ("ingress", None, "no gateway's controller has taken it up"),
        ("ingress", {"allowedRoutes": {"namespaces": {"from": "Same"}}}, "Accepted is False, NotAllowedByListeners"),
        ("ingress", {"hostname": "a.example"}, "Accepted is False, NoMatchingListenerHostname"),
    ],
)  # fmt: skip
def test_a_route_that_no_gateway_serves(
    cluster: Cluster, kind: str, space: str, listener: dict[str, Any] | None, why: str
) -> None:
    """The API server takes it all the same. What a Gateway of another namespace says this process may not read."""
    if kind != "kserve":  # where the Gateway API is, too
        return
    deploy("one")
    (before,) = sets(cluster)
    if listener is not None:
        entrance(cluster, space, **listener)
    with pytest.raises(JobFailed) as caught:
        deploy(
            "two", gateway=f"{space}/entrance" if space != "team" else "entrance", answer_timeout_s=1, hostnames=["b.example"]
        )
    said = caught.value.problem.partition(" ")[2]
    assert said == f"(bundle two) was not let in: the HTTPRoute is not in force after 1 s: {why}"
    assert caught.value.where == f"HTTPRoute tritower, Gateway {space}/entrance"
    assert caught.value.remedy.startswith(f"Look at both: kubectl -n {space} describe gateway entrance.")
    assert serving(cluster) == {"one"} and sets(cluster) == {before} and rollout().record().stable == before


def test_a_gateway_whose_controller_is_not_there(cluster: Cluster, kind: str) -> None:
    if kind != "kserve":
        return
    cluster.down.add("gateway")
    entrance(cluster, "team")
    for _ in range(2):  # that it is deployed already is not all that is asked for
        with pytest.raises(LaunchError) as caught:
            deploy("one", gateway="entrance", answer_timeout_s=1)
    waits = "the Gateway takes no requests: Accepted is Unknown, Pending: Waiting for controller"
    assert caught.value.problem.endswith(f"no gateway's controller has taken it up; {waits}")
    cluster.down.clear()
    seen = cluster.rounds
    until(lambda: cluster.looked(seen))
    assert "(bundle one) has all requests" in deploy("one", gateway="entrance")


def test_a_route_to_a_service_that_is_gone(cluster: Cluster, kind: str) -> None:
    if kind != "kserve":
        return
    entrance(cluster)
    deploy("one", gateway="ingress/entrance")
    seen = from_dict(DeployConfig, QUICK | {"gateway": "ingress/entrance", "answer_timeout_s": 1, "namespace": "team"})
    Api().apply(own.path("HTTPRoute", "team", "tritower"), manifests.route(seen, {"gone": 100}), manager="me", force=True)
    with pytest.raises(LaunchError, match="ResolvedRefs is False, BackendNotFound: Cannot load HTTPBackendRef team/gone: "):
        routing.until_taken(Api(), seen)


def test_shares_are_weights_where_there_is_a_gateway(cluster: Cluster, kind: str) -> None:
    if kind != "kserve":  # where the Gateway API is, too
        return

    def weights() -> dict[str, int]:
        (route,) = cluster.store.all(kinds.ROUTE)
        return {one["name"].removesuffix("-predictor"): one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}

    entrance(cluster)
    deploy("one", gateway="ingress/entrance")
    (before,) = sets(cluster)
    assert weights() == {before: 100}
    assert "10 % of the requests, by the weights of the HTTPRoute" in deploy(
        "two", gateway="ingress/entrance", canary_percent=10
    )
    (after,) = sets(cluster) - {before}
    assert weights() == {before: 90, after: 10} and serving(cluster) == {"one"}
    rollout(gateway="ingress/entrance").promote()
    assert weights() == {after: 100} and serving(cluster) == {"two"}


def test_there_is_nothing_to_go_back_to(cluster: Cluster) -> None:
    with pytest.raises(LaunchError, match="no version to go back to"):
        rollout().rollback()
    assert rollout().status() == ["nothing has been deployed"]


def test_what_was_deleted_by_hand_is_made_anew(cluster: Cluster, kind: str) -> None:
    deploy("one")
    (name,) = sets(cluster)
    held = kinds.INFERENCE if kind == "kserve" else kinds.DEPLOYMENT
    cluster.store.delete(held, "team", name, {})
    until(lambda: not [one for one in cluster.store.all(kinds.POD) if "deletionTimestamp" not in one["metadata"]])
    cluster.store.delete(kinds.SERVICE, "team", "tritower", {})
    assert "has all requests" in deploy("one")
    assert sets(cluster) == {name} and serving(cluster) == {"one"}


def test_a_set_that_is_deleted_while_it_starts(cluster: Cluster, kind: str) -> None:
    deploy("one")
    (before,) = sets(cluster)

    def meddle() -> None:
        until(lambda: any(before not in one["metadata"]["name"] for one in cluster.store.all(kinds.DEPLOYMENT)))
        known = len(cluster.faults.seen)
        until(lambda: sum(method == "GET" and "/deployments/" in path for method, path in cluster.faults.seen[known:]) > 1)
        (name,) = sets(cluster) - {before}
        cluster.store.delete(kinds.INFERENCE if kind == "kserve" else kinds.DEPLOYMENT, "team", name, {})

    meddling = threading.Thread(target=meddle)
    meddling.start()
    with pytest.raises(JobFailed, match="the set was deleted while it started"):
        deploy("two", "unready")
    meddling.join()
    assert serving(cluster) == {"one"}


def edit(cluster: Cluster) -> None:
    """Somebody sets the Service's selector by hand."""
    body = {"spec": {"selector": {"tritower.dev/set": "mine"}}}
    query = {"fieldManager": "kubectl-edit"}
    Api().call("PATCH", "/api/v1/namespaces/team/services/tritower", query=query, body=body, content_type=MERGE)


def test_a_field_that_somebody_else_has_set(cluster: Cluster) -> None:
    deploy("one")
    (before,) = sets(cluster)
    edit(cluster)
    with pytest.raises(LaunchError) as caught:
        deploy("two")
    assert 'Apply failed with 1 conflict: conflict with "kubectl-edit" using v1: .spec.selector' in caught.value.problem
    assert "take_over" in caught.value.remedy and caught.value.where == "Service tritower"
    assert f"Its pods are deleted; {before} serves on" in caught.value.remedy and sets(cluster) == {before}
    known = rollout().record()
    assert known.stable == before and set(known.sets) == {before} and "conflict" in known.history[-1]["failed"]
    assert "(bundle two) has all requests" in deploy("two", take_over=True)


def test_a_canary_that_cannot_be_taken_back_is_still_one(cluster: Cluster) -> None:
    """Else the rollback once more would take back what serves."""
    deploy("zero")
    deploy("one")
    (before,) = sets(cluster)
    deploy("two", canary_percent=50)
    edit(cluster)
    with pytest.raises(LaunchError, match="conflict"):
        rollout().rollback()
    assert rollout().record().canary and len(sets(cluster)) == 2
    assert f"{before} has all" in rollout(take_over=True).rollback()
    assert serving(cluster) == {"one"} and sets(cluster) == {before}


def test_of_two_that_deploy_at_one_time_one_stops_before_a_request_moves(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is the other's when this one has asked its questions and would let its version in."""
    deploy("one")
    (before,) = sets(cluster)
    asked = asking.golden

    def overtaken(*given: Any) -> None:
        asked(*given)
        other = rollout()._objects
        other.write(other.record().told(what="deploy", by="you"))

    monkeypatch.setattr(asking, "golden", overtaken)
    with pytest.raises(JobFailed) as caught:
        deploy("two")
    assert "(bundle two) was not let in: somebody else deployed meanwhile by you" in str(caught.value)
    assert caught.value.where == "ConfigMap tritower-rollout"
    assert caught.value.remedy.endswith(f"deploy again. Its pods are deleted; {before} serves on, as before.")
    assert serving(cluster) == {"one"} and sets(cluster) == {before}
    assert rollout().record().history[-1] == {"what": "deploy", "by": "you"}


def test_of_two_that_deploy_at_one_time_the_one_who_waits_is_told_why_its_set_is_gone(cluster: Cluster) -> None:
    deploy("one")
    caught: list[Exception] = []

    def late() -> None:
        try:
            deploy("three", "unready")
        except JobFailed as error:
            caught.append(error)

    waiting = threading.Thread(target=late)
    waiting.start()
    until(lambda: any("three" in str(one["spec"]) for one in cluster.store.all(kinds.DEPLOYMENT)))
    deploy("two")
    waiting.join()
    assert "(bundle three) was not let in: somebody else deployed meanwhile by me" in str(caught[0])
    assert serving(cluster) == {"two"} and f"{sets(cluster).pop()} serves on." in str(caught[0])


def test_who_fails_leaves_the_same_version_that_somebody_else_has_let_in(cluster: Cluster) -> None:
    """Both have made the same set, by the same name."""
    deploy("one")
    overtaken = rollout(environment={"VERSION": "two", "BEHAVIOUR": ""})
    one = manifests.of(Release(bundle="s3://bucket/two", version="two"), overtaken.config, overtaken.kind)
    known = overtaken.record()
    deploy("two")
    assert sets(cluster) == {one.name}
    error = overtaken._given_up(one, known, JobFailed("no answer"), {})
    assert "Its pods are left as they are" in error.remedy and serving(cluster) == {"two"}


def test_kserve_that_is_down_is_named(cluster: Cluster, kind: str) -> None:
    if kind != "kserve":
        return
    cluster.down.add("kserve")
    with pytest.raises(LaunchError, match="failed calling webhook"):
        deploy("one", api_patience_s=1)


def until(true: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
