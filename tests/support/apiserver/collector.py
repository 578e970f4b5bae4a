"""Garbage collection by ownerReferences: background, foreground, orphan."""

from typing import TYPE_CHECKING, Any

from tests.support.apiserver import kinds, resources
from tests.support.apiserver.kinds import Kind
from tests.support.apiserver.store import FOREGROUND, ORPHAN, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_ALL = (*kinds.CUSTOM, *kinds.BUILT_IN)
_OWNED = tuple(kind for kind in _ALL if kind.namespaced and kind is not kinds.EVENT)


def step(cluster: "Cluster") -> None:
    """Go once through all objects."""
    store = cluster.store
    with store.changed:
        everything = [(kind, item) for kind in _OWNED for item in store.all(kind)]
        for kind, item in everything:
            _collect(cluster, kind, item)
        for kind, item in everything:
            meta = item["metadata"]
            if "deletionTimestamp" in meta and FOREGROUND in meta.get("finalizers", []):
                _foreground(cluster, kind, item, everything)
            if "deletionTimestamp" in meta and ORPHAN in meta.get("finalizers", []):
                _orphan(cluster, kind, item, everything)


def _collect(cluster: "Cluster", kind: Kind, item: Object) -> None:
    """Delete what has owners none of which is there."""
    owners = item["metadata"].get("ownerReferences") or []
    states = [_state(cluster, item, owner) for owner in owners]
    if owners and all(state != "there" for state in states) and "deletionTimestamp" not in item["metadata"]:
        for owner, state in zip(owners, states, strict=True):
            if state == "elsewhere":
                home = item["metadata"]["namespace"]
                ref = f"{owner['apiVersion']}/{owner['kind']}, namespace: {home}, name: {owner['name']}, uid: {owner['uid']}"
                message = f'ownerRef [{ref}] does not exist in namespace "{home}"'
                record(
                    cluster.store,
                    item,
                    "OwnerRefInvalidNamespace",
                    message,
                    type_="Warning",
                    source="garbage-collector-controller",
                )
        resources.delete(cluster, kind, item["metadata"]["namespace"], item["metadata"]["name"], {})


def _state(cluster: "Cluster", item: Object, owner: Object) -> str:
    """there, gone or elsewhere. An owner of a kind that is not served counts as there: it is never collected for."""
    kind = next((one for one in _ALL if (one.api_version, one.kind) == (owner["apiVersion"], owner["kind"])), None)
    if kind is None:
        return "there"
    found = cluster.store.get(kind, item["metadata"]["namespace"], owner["name"])
    if found and found["metadata"]["uid"] == owner["uid"]:
        return "there"
    return "elsewhere" if any(one["metadata"]["uid"] == owner["uid"] for one in cluster.store.all(kind)) else "gone"


def _owned_by(item: Object, others: list[tuple[Kind, Object]]) -> list[tuple[Kind, Object]]:
    uid = item["metadata"]["uid"]
    return [one for one in others if any(ref["uid"] == uid for ref in one[1]["metadata"].get("ownerReferences") or [])]


def _foreground(cluster: "Cluster", kind: Kind, item: Object, everything: list[tuple[Kind, Object]]) -> None:
    """Dependants first, then the object."""
    owned = _owned_by(item, everything)
    for child_kind, child in owned:
        if "deletionTimestamp" not in child["metadata"]:
            options = {} if child_kind is kinds.POD else {"propagationPolicy": "Foreground"}
            resources.delete(cluster, child_kind, child["metadata"]["namespace"], child["metadata"]["name"], options)
    if not owned:
        cluster.store.edit(kind, item, lambda one: one["metadata"]["finalizers"].remove(FOREGROUND))


def _orphan(cluster: "Cluster", kind: Kind, item: Object, everything: list[tuple[Kind, Object]]) -> None:
    uid = item["metadata"]["uid"]

    def leave(child: Object) -> None:
        child["metadata"]["ownerReferences"] = [ref for ref in child["metadata"]["ownerReferences"] if ref["uid"] != uid]

    for child_kind, child in _owned_by(item, everything):
        cluster.store.edit(child_kind, child, leave)
    cluster.store.edit(kind, item, lambda one: one["metadata"]["finalizers"].remove(ORPHAN))
