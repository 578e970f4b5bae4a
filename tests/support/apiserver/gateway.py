"""A Gateway API controller's part: what it says in the status of Gateways and HTTPRoutes, as Traefik 3.7 does.

A Gateway whose listener has a port that the proxy does not listen at is accepted in no part and never Programmed. A route whose
Gateway is not there, or is another controller's, has no entry at all. No request passes through it.
"""

from typing import TYPE_CHECKING, Any

from tests.support.apiserver import kinds
from tests.support.apiserver.store import now

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
CONTROLLER = "traefik.io/gateway-controller"
PORTS = (80, 443)
"""Where the proxy listens."""
_NEW = {
    "status": "Unknown",
    "reason": "Pending",
    "message": "Waiting for controller",
    "lastTransitionTime": "1970-01-01T00:00:00Z",
}
_WAITING = [{"type": one} | _NEW for one in ("Accepted", "Programmed")]
"""What the resource's schema writes into a Gateway that nobody has looked at."""


class Operator:
    """Looks at all of them in turn."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store

    def step(self) -> None:
        """Once through everything."""
        is_down = "gateway" in self._cluster.down
        for one in self._store.all(kinds.GATEWAY):
            conditions = _WAITING if is_down and not one.get("status") else None if is_down else _gateway(one)
            self._tell(kinds.GATEWAY, one, None if conditions is None else {"conditions": conditions})
        for one in () if is_down else self._store.all(kinds.ROUTE):
            self._tell(kinds.ROUTE, one, {"parents": list(self._parents(one))})

    def _tell(self, kind: kinds.Kind, item: Object, status: Object | None) -> None:
        if status is not None and _timeless(status) != _timeless(item.get("status") or {}):
            self._store.edit(kind, item, lambda one: one.update(status=status))

    def _parents(self, route: Object) -> Any:
        home, generation = route["metadata"]["namespace"], route["metadata"]["generation"]
        for parent in route["spec"]["parentRefs"]:
            space = parent.get("namespace", home)
            gateway = self._store.get(kinds.GATEWAY, space, parent["name"])
            if gateway is None:
                continue
            why = "NoMatchingParent"
            for listener in gateway["spec"]["listeners"]:
                places = listener.get("allowedRoutes", {}).get("namespaces", {}).get("from", "Same")
                names, own = route["spec"].get("hostnames", []), listener.get("hostname")
                if listener["port"] not in PORTS or (places == "Same" and space != home):
                    why = "NotAllowedByListeners"
                elif names and own and own not in names:
                    why = "NoMatchingListenerHostname"
                else:
                    why = "Accepted"
                    break
            found = [_condition("Accepted", why == "Accepted", why, "", generation)]
            missing = [
                one["name"] for rule in route["spec"]["rules"] for one in rule["backendRefs"]
                if self._store.get(kinds.SERVICE, home, one["name"]) is None
            ]  # fmt: skip
            said = "".join(
                f'Cannot load HTTPBackendRef {home}/{one}: getting service: service "{one}" not found' for one in missing[-1:]
            )
            found.append(
                _condition("ResolvedRefs", not missing, "BackendNotFound" if missing else "ResolvedRefs", said, generation)
            )
            yield {"parentRef": parent, "controllerName": CONTROLLER, "conditions": found}


def _gateway(item: Object) -> list[Object]:
    generation = item["metadata"]["generation"]
    if any(one["port"] not in PORTS for one in item["spec"]["listeners"]):
        return [_condition("Accepted", False, "ListenersNotValid", "All Listeners must be valid", generation)]
    said = "Gateway successfully scheduled"
    return [_condition(one, True, one, said, generation) for one in ("Accepted", "Programmed")]


def _condition(type_: str, is_true: bool, reason: str, message: str, generation: int) -> Object:
    found = {"type": type_, "status": "True" if is_true else "False", "reason": reason, "message": message}
    return found | {"observedGeneration": generation, "lastTransitionTime": now()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key != "lastTransitionTime"}
    return [_timeless(one) for one in value] if isinstance(value, list) else value
