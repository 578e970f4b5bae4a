"""Requests to a Service through the API server: to one of its ready pods, in turn, without the caller's token."""

import http.client
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, kinds, rights
from tests.support.apiserver.deployments import is_ready

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_PATH = re.compile(r"^/api/v1/namespaces/([^/]+)/services/([^/:]+)(?::([^/]+))?/proxy(/.*)?$")
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_turn = itertools.count()


@dataclass(frozen=True)
class Through:
    """A request that goes on to a Service."""

    method: str
    namespace: str
    service: str
    port: str
    path: str

    def answer(
        self, cluster: "Cluster", account: rights.Account, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, str]:
        """The pod's code, body and content type. Raises: Refused: 403, 404, 503."""
        name = self.service + (f":{self.port}" if self.port else "")
        rights.require(account, _VERBS[self.method], "", "services/proxy", self.namespace, name)
        address, port = endpoint(cluster, self.namespace, self.service, self.port)
        kept = {key: value for key, value in headers.items() if key.lower() not in ("authorization", "host", "connection")}
        connection = http.client.HTTPConnection(address, port, timeout=30)
        try:
            connection.request(self.method, self.path, body=body or None, headers=kept)
            found = connection.getresponse()
            return found.status, found.read(), found.headers.get("Content-Type", "application/json")
        except (OSError, http.client.HTTPException) as error:
            raise answers.Refused(503, "ServiceUnavailable", f"error trying to reach service: {error}") from None
        finally:
            connection.close()


def request(method: str, path: str, query: str) -> Through | None:
    """None for a path of the API's own."""
    found = _PATH.match(path)
    if not found:
        return None
    rest = (found[4] or "/") + (f"?{query}" if query else "")
    return Through(method, found[1], found[2], found[3] or "", rest)


def endpoint(cluster: "Cluster", namespace: str, name: str, port: str = "") -> tuple[str, int]:
    """Where one of a Service's ready pods listens. Raises: Refused: 404, 503."""
    service = cluster.store.get(kinds.SERVICE, namespace, name)
    if service is None:
        raise answers.not_found("services", name)
    spec = service["spec"]
    wanted = next((one for one in spec["ports"] if port in ("", str(one["port"]), one.get("name"))), None)
    pods = [
        pod
        for pod in cluster.store.all(kinds.POD, namespace)
        if spec["selector"].items() <= (pod["metadata"].get("labels") or {}).items()
        and is_ready(pod)
        and "deletionTimestamp" not in pod["metadata"]
    ]
    if wanted is None or not pods:
        raise answers.Refused(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
    pod = pods[next(_turn) % len(pods)]
    return pod["status"]["podIP"], int(wanted.get("targetPort", wanted["port"]))
