"""What must be there before a job is made, and the line of kubectl that mends what is not."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from tritower.cluster import given, surroundings
from tritower.cluster.api import Api, Refused, core
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Kind, Right
from tritower.cluster.quantities import value
from tritower.errors import LaunchError

logger = logging.getLogger(__name__)
_COMMON: tuple[Right, ...] = (("", "pods", ("get", "list")), ("", "pods/log", ("get",)), ("", "events", ("list",)))


def rights(kind: Kind) -> list[Right]:
    """What the launcher's service account may do in the job's namespace; `manifests/base` grants it for every kind."""
    return [(kind.resource.group, kind.resource.plural, ("create", "get", "delete")), *kind.rights, *_COMMON]


def check(server: Api, config: ClusterConfig, kind: Kind, *, gpus: int, account: str = "") -> None:
    """Look at everything, and tell all that is missing at once.

    Args:
        server: the API server.
        config: with its namespace.
        kind: of the job.
        gpus: of each pod.
        account: the launcher's service account, for the line that gives it a right.

    Raises:
        LaunchError: something is missing; the remedy has a line of kubectl for each.
    """
    missing = [
        *lacking(server, config, rights(kind), account),
        *_kind(server, config, kind),
        *no_secret(server, config),
        *surroundings.missing(server, config),
        *_gpus(server, config, gpus),
    ]
    refuse(config, missing)


def refuse(config: ClusterConfig, missing: Sequence[tuple[str, str]]) -> None:
    """Raise LaunchError with all that is missing, where anything is: what it is, and its line of kubectl."""
    if missing:
        problems, remedies = zip(*missing, strict=True)
        raise LaunchError(
            "; ".join(problems), where=f"namespace {config.namespace}", remedy=" ; ".join(dict.fromkeys(remedies))
        )


def allowed(server: Api, namespace: str, verb: str, group: str, resource: str, name: str = "") -> bool:
    """Whether the API server says that this process may do something."""
    plural, _, sub = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "subresource": sub, "name": name}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: text for key, text in attributes.items() if text}},
    }
    answer = server.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
    return bool(answer["status"]["allowed"])


def lacking(server: Api, config: ClusterConfig, wanted: Iterable[Right], account: str) -> list[tuple[str, str]]:
    """The rights that this process has not, each with the line of kubectl that gives them to its account."""
    found = []
    for group, resource, verbs in wanted:
        missing = [verb for verb in verbs if not allowed(server, config.namespace, verb, group, resource)]
        if missing:
            what = f"{resource}.{group}" if group else resource
            found.append(
                (f"this service account may not {' or '.join(missing)} {what}", _grant(config, missing, what, account))
            )
    return found


def _grant(config: ClusterConfig, verbs: list[str], what: str, account: str) -> str:
    role, space = f"tritower-{what.split('.')[0].replace('/', '-')}", config.namespace
    subject = f"{space}:{account or 'ACCOUNT'}"
    return (
        f"kubectl -n {space} create role {role} --verb={','.join(verbs)} --resource={what} &&"
        f" kubectl -n {space} create rolebinding {role} --role={role} --serviceaccount={subject}"
    )


def _kind(server: Api, config: ClusterConfig, kind: Kind) -> list[tuple[str, str]]:
    """The resource is asked for one object that nobody has: the answer differs where the kind itself is unknown."""
    try:
        server.get(kind.resource.path(config.namespace, "tritower-preflight"))
    except Refused as error:
        if error.unknown:
            return [(f"the cluster has no {kind.resource.kind}s: {kind.operator} is not installed", kind.install)]
        if error.status not in (403, 404):  # 403: told among the rights
            raise
    return []


def no_secret(server: Api, config: ClusterConfig) -> list[tuple[str, str]]:
    """The store's Secret where it is missing. Where this process may not read it, the pods' own report tells."""
    name = config.store_secret
    if not name or config.store_secret_optional:
        return []
    try:
        server.get(core(config.namespace, "secrets", name))
    except Refused as error:
        if error.status == 403:
            return []
        if error.status != 404:
            raise
        keys = " ".join(f"--from-literal={key}=..." for key in ("endpoint", "accesskey", "secretkey"))
        return [
            (f"the store's Secret {name} is not there", f"kubectl -n {config.namespace} create secret generic {name} {keys}")
        ]
    return []


def _gpus(server: Api, config: ClusterConfig, gpus: int) -> list[tuple[str, str]]:
    if not gpus or config.nodes_may_come:
        return []
    name, most = largest(nodes(server), config.gpu_resource, given.selector(config))
    if name is None or most >= gpus:
        return []
    most_of = f": {name} has most, {most:g}" if name else ""
    column = config.gpu_resource.replace(".", r"\.")
    look = f"kubectl get nodes -o custom-columns='NODE:.metadata.name,HAS:.status.allocatable.{column}'"
    return [(f"no node has {gpus} {config.gpu_resource}{most_of}", f"{look} (nodes_may_come where an autoscaler adds some)")]


def nodes(server: Api) -> list[dict[str, Any]] | None:
    """The cluster's nodes; None where this process may not see them."""
    try:
        return list(server.get("/api/v1/nodes")["items"])
    except Refused as error:
        if error.status not in (403, 404):
            raise
        logger.info("this service account may not list nodes: what they have is not looked at")
        return None


def largest(found: list[dict[str, Any]] | None, resource: str, selector: dict[str, str]) -> tuple[str | None, float]:
    """The node with the most of a resource among those with the labels, and how much it has; "" = none, None = not seen."""
    if found is None:
        return None, 0.0
    fitting = [one for one in found if selector.items() <= one["metadata"].get("labels", {}).items()]
    sizes = [(value(one["status"].get("allocatable", {}).get(resource, "0")), one["metadata"]["name"]) for one in fitting]
    size, name = max(sizes, default=(0.0, ""))
    return name, size
