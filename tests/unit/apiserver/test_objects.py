"""Objects, lists, watches, rights, faults: as the official client sees them."""

import threading
import time
from typing import Any

import pytest
import urllib3
from kubernetes import client, watch
from kubernetes.client import ApiException

from tests.support.apiserver import Cluster, kinds
from tests.support.apiserver.schema import problems
from tests.support.pytorchjobs import job, shell, until

GROUP = ("kubeflow.org", "v1", "team", "pytorchjobs")
IDLE = shell("sleep 60")


def refused(call: Any, *arguments: Any, **options: Any) -> ApiException:
    with pytest.raises(ApiException) as raised:
        call(*arguments, **options)
    return raised.value


def test_the_life_of_an_object(cluster: Cluster, api: Any) -> None:
    custom = client.CustomObjectsApi(api())
    made = custom.create_namespaced_custom_object(*GROUP, job("one", IDLE, suspend=True), field_validation="Strict")
    meta = made["metadata"]
    assert meta["generation"] == 1 and meta["uid"] and meta["creationTimestamp"] and int(meta["resourceVersion"]) > 0

    patch = {"metadata": {"annotations": {"a": "b"}}}
    patched = custom.patch_namespaced_custom_object(*GROUP, "one", patch)
    assert patched["metadata"]["annotations"] == {"a": "b"} and patched["metadata"]["generation"] == 1
    stale = made | {"metadata": meta | {"labels": {"late": "yes"}}}
    assert refused(custom.replace_namespaced_custom_object, *GROUP, "one", stale).status == 409
    # The client sends a merge patch for custom objects, whatever it is given.
    assert refused(custom.patch_namespaced_custom_object, *GROUP, "one", [{"op": "remove", "path": "/spec"}]).status == 400

    again = refused(custom.create_namespaced_custom_object, *GROUP, job("one", IDLE))
    assert (again.status, again.reason) == (409, "Conflict") and "AlreadyExists" in again.body
    body = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="0000"))
    assert refused(custom.delete_namespaced_custom_object, *GROUP, "one", body=body).status == 409
    assert custom.delete_namespaced_custom_object(*GROUP, "one")["status"] == "Success"
    assert refused(custom.get_namespaced_custom_object, *GROUP, "one").status == 404


def test_a_status_is_written_by_its_subresource_only(cluster: Cluster, api: Any) -> None:
    custom = client.CustomObjectsApi(api())
    cluster.down.add("training-operator")
    cluster.add(kinds.PYTORCHJOB, job("one", IDLE) | {"status": {"startTime": "2026-01-01T00:00:00Z"}}, namespace="team")
    cluster.down.clear()
    whole = custom.get_namespaced_custom_object(*GROUP, "one")
    custom.patch_namespaced_custom_object_status(*GROUP, "one", {"status": {"completionTime": "2026-01-02T00:00:00Z"}})
    custom.patch_namespaced_custom_object(*GROUP, "one", {"status": {"completionTime": "2027-01-02T00:00:00Z"}})
    assert custom.get_namespaced_custom_object(*GROUP, "one")["status"]["completionTime"] == "2026-01-02T00:00:00Z"
    assert whole["spec"] == custom.get_namespaced_custom_object(*GROUP, "one")["spec"]


def test_an_unknown_field_is_refused_when_asked_strictly_and_else_dropped(cluster: Cluster, api: Any) -> None:
    custom = client.CustomObjectsApi(api())
    wrong = job("one", IDLE, suspend=True)
    wrong["spec"]["numProcs"] = 2
    error = refused(custom.create_namespaced_custom_object, *GROUP, wrong, field_validation="Strict")
    assert error.status == 400 and 'strict decoding error: unknown field \\"spec.numProcs\\"' in error.body
    _, code, headers = custom.create_namespaced_custom_object_with_http_info(*GROUP, wrong, dry_run="All")
    assert code == 201 and headers["Warning"] == '299 - "unknown field \\"spec.numProcs\\""'
    assert refused(custom.get_namespaced_custom_object, *GROUP, "one").status == 404
    assert "numProcs" not in custom.create_namespaced_custom_object(*GROUP, wrong)["spec"]
    assert problems(wrong) == ['unknown field "spec.numProcs"']


def test_a_wrong_type_names_its_field(cluster: Cluster, api: Any) -> None:
    wrong = job("one", IDLE)
    wrong["spec"]["nprocPerNode"] = 1
    error = refused(client.CustomObjectsApi(api()).create_namespaced_custom_object, *GROUP, wrong)
    assert error.status == 422 and 'spec.nprocPerNode in body must be of type string: \\"integer\\"' in error.body
    assert len(problems(wrong)) == 1 and not problems(job("one", IDLE))


def test_selectors_and_pages(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    for number in range(5):
        meta = {"name": f"map-{number}", "labels": {"parity": "odd" if number % 2 else "even", "number": str(number)}}
        core.create_namespaced_config_map("team", {"metadata": meta})

    def names(**query: Any) -> list[str]:
        return [item.metadata.name for item in core.list_namespaced_config_map("team", **query).items]

    assert names(label_selector="parity=odd") == ["map-1", "map-3"]
    assert names(label_selector="parity!=odd,number in (0, 4)") == ["map-0", "map-4"]
    assert names(label_selector="number notin (0,1,2,3)") == ["map-4"]
    assert names(label_selector="!parity") == []
    assert names(field_selector="metadata.name=map-2") == ["map-2"]
    page = core.list_namespaced_config_map("team", limit=2)
    rest = core.list_namespaced_config_map("team", limit=10, _continue=page.metadata._continue)
    assert len(page.items) == 2 and [item.metadata.name for item in rest.items] == ["map-2", "map-3", "map-4"]
    assert refused(core.list_namespaced_config_map, "team", field_selector="data.x=1").status == 400


def test_a_watch_tells_each_change_from_a_version_on(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    core.create_namespaced_config_map("team", {"metadata": {"name": "before"}})
    version = core.list_namespaced_config_map("team").metadata.resource_version
    core.create_namespaced_config_map("team", {"metadata": {"name": "a", "labels": {"x": "1"}}})
    core.patch_namespaced_config_map("a", "team", [{"op": "add", "path": "/data", "value": {"k": "v"}}])
    core.patch_namespaced_config_map("a", "team", {"metadata": {"labels": {"x": "2"}}})
    core.delete_namespaced_config_map("a", "team")
    query = {"resource_version": version, "timeout_seconds": 1}
    told = [
        (e["type"], e["object"].metadata.name) for e in watch.Watch().stream(core.list_namespaced_config_map, "team", **query)
    ]
    assert told == [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    only = [e["type"] for e in watch.Watch().stream(core.list_namespaced_config_map, "team", label_selector="x=1", **query)]
    assert only == ["ADDED", "MODIFIED", "DELETED"]


def test_bookmarks_and_410(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    version = core.list_namespaced_config_map("team").metadata.resource_version
    query = {"resource_version": version, "timeout_seconds": 1, "allow_watch_bookmarks": True}
    told = list(watch.Watch().stream(core.list_namespaced_config_map, "team", **query))
    assert told and {event["type"] for event in told} == {"BOOKMARK"}
    core.create_namespaced_config_map("team", {"metadata": {"name": "a"}})
    cluster.store.compact()
    with pytest.raises(ApiException) as raised:
        list(watch.Watch().stream(core.list_namespaced_config_map, "team", resource_version=version, timeout_seconds=1))
    assert raised.value.status == 410


def test_rights_are_those_of_the_token(cluster: Cluster, api: Any) -> None:
    rules = [{"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["get", "list"], "resourceNames": []}]
    rules += [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
    own = api(cluster.token(rules, namespace="team"))
    custom, core = client.CustomObjectsApi(own), client.CoreV1Api(own)
    assert custom.list_namespaced_custom_object(*GROUP)["items"] == []
    error = refused(custom.create_namespaced_custom_object, *GROUP, job("one", IDLE))
    assert error.status == 403
    user = "system:serviceaccount:team:tritower-launcher"
    assert f'User \\"{user}\\" cannot create resource \\"pytorchjobs\\" in API group \\"kubeflow.org\\"' in error.body
    assert refused(custom.list_namespaced_custom_object, "kubeflow.org", "v1", "other", "pytorchjobs").status == 403
    assert refused(core.list_namespaced_pod, "team").status == 403
    assert refused(core.read_namespaced_pod_log, "none", "team").status == 404

    def may(verb: str, resource: str, part: str = "") -> bool:
        asked = client.V1ResourceAttributes(namespace="team", verb=verb, group="", resource=resource, subresource=part or None)
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        return bool(client.AuthorizationV1Api(own).create_self_subject_access_review(review).status.allowed)

    assert may("get", "pods", "log") and not may("get", "pods") and not may("list", "pods", "log")
    assert refused(client.CoreV1Api(api("nobody")).list_namespaced_pod, "team").status == 401


def test_what_is_not_installed_has_no_path(cluster: Cluster, api: Any) -> None:
    custom, definitions = client.CustomObjectsApi(api()), client.ApiextensionsV1Api(api())
    assert definitions.read_custom_resource_definition("pytorchjobs.kubeflow.org").spec.names.kind == "PyTorchJob"
    definitions.delete_custom_resource_definition("pytorchjobs.kubeflow.org")
    error = refused(custom.list_namespaced_custom_object, *GROUP)
    assert (error.status, error.body) == (404, "404 page not found\n")
    missing = refused(custom.create_namespaced_custom_object, "kubeflow.org", "v1beta1", "no-team", "experiments", {})
    assert missing.status == 404 and 'namespaces \\"no-team\\" not found' in missing.body
    assert custom.list_namespaced_custom_object("kubeflow.org", "v1beta1", "no-team", "trials")["items"] == []


def test_errors_and_delays_on_request(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    cluster.faults.answer(429, method="GET", path="/pods", times=1, message="slow down")
    cluster.faults.answer(500, path="configmaps", times=2)
    cluster.faults.slow(0.3, path="secrets")
    error = refused(core.list_namespaced_pod, "team")
    assert error.status == 429 and "slow down" in error.body
    # With a Retry-After, the client waits and asks again by itself.
    cluster.faults.answer(429, method="GET", path="/pods", times=1, retry_after_s=1)
    begun = time.monotonic()
    assert core.list_namespaced_pod("team").items == [] and time.monotonic() - begun >= 1
    assert [refused(core.list_namespaced_config_map, "team").status for _ in range(2)] == [500, 500]
    assert core.list_namespaced_config_map("team").items == []
    begun = time.monotonic()
    core.list_namespaced_secret("team")
    assert time.monotonic() - begun >= 0.3
    assert ("GET", "/api/v1/namespaces/team/secrets") in cluster.faults.seen


def test_a_server_that_is_gone_resets_connections_and_streams(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    core.list_namespaced_pod("team")
    broken: list[BaseException] = []

    def follow() -> None:
        try:
            list(watch.Watch().stream(core.list_namespaced_pod, "team", timeout_seconds=30))
        except urllib3.exceptions.HTTPError as error:
            broken.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: any("watch=" in path for _, path in cluster.faults.seen))
    cluster.faults.gone(600)
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod("team")
    thread.join(300)
    assert broken
    cluster.faults.back()
    assert core.list_namespaced_pod("team").items == []


def test_a_watch_is_cut(cluster: Cluster, api: Any) -> None:
    core = client.CoreV1Api(api())
    core.create_namespaced_config_map("team", {"metadata": {"name": "a"}})
    cluster.faults.cut("watch", 20)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(watch.Watch().stream(core.list_namespaced_config_map, "team", timeout_seconds=5))
