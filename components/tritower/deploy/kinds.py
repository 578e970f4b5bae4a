"""Which kind of set a cluster takes, what a deployer may do there, and what is missing."""

from collections.abc import Iterator

from tritower.cluster import preflight
from tritower.cluster.api import Api, Refused, core, custom
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Right
from tritower.deploy.config import KINDS, DeployConfig
from tritower.errors import ConfigError

KSERVE, GATEWAY = "serving.kserve.io", "gateway.networking.k8s.io"
_PLACES = {
    "Deployment": ("apps", "v1", "deployments"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "InferenceService": (KSERVE, "v1beta1", "inferenceservices"),
    "HTTPRoute": (GATEWAY, "v1", "httproutes"),
    "Gateway": (GATEWAY, "v1", "gateways"),
}
"""Kind -> API group, version, plural."""


def path(kind: str, namespace: str, name: str = "") -> str:
    """Where the API server has objects of a kind, or one."""
    group, version, plural = _PLACES[kind]
    return custom(group, version, namespace, plural, name) if group else core(namespace, plural, name)


def rights(kind: str, config: DeployConfig, *, by_proxy: bool) -> Iterator[Right]:
    """What the deployer's service account may do; `manifests/components/deploy` grants it."""
    yield "", "configmaps", ("get", "create", "patch")
    yield "", "services", ("get", "create", "patch", *(("delete",) if kind == "deployment" else ()))
    yield "policy", "poddisruptionbudgets", ("get", "create", "patch")
    yield "", "pods", ("get", "list")
    yield "", "pods/log", ("get",)
    yield "", "events", ("list",)
    if kind == "kserve":
        yield KSERVE, "inferenceservices", ("get", "list", "create", "patch", "delete")
        yield "apps", "deployments", ("get",)
    else:
        yield "apps", "deployments", ("get", "list", "create", "patch", "delete")
    if kind == "deployment" or config.max_replicas:
        yield "autoscaling", "horizontalpodautoscalers", ("get", "create", "patch", "delete")
    if config.gateway:
        yield GATEWAY, "httproutes", ("get", "create", "patch")
        if "/" not in config.gateway:  # why it takes no requests; in another namespace as far as this process may look
            yield GATEWAY, "gateways", ("get",)
    if by_proxy:
        yield "", "services/proxy", ("get", "create")


def find(server: Api, config: DeployConfig) -> str:
    """`kserve` or `deployment`, as the launcher says or the cluster has it.

    Raises:
        ConfigError: the launcher makes no pods, or KServe's fetching is asked for without KServe.
    """
    launcher = config.launcher
    if launcher not in ("auto", *KINDS):
        problem, remedy = f"nothing can be deployed with the launcher {launcher}", f"Use auto, {', '.join(KINDS)}."
        raise ConfigError(problem, where="launcher", remedy=remedy)
    kind = launcher if launcher != "auto" else "kserve" if _knows(server, "InferenceService") else "deployment"
    if config.storage_initializer and kind != "kserve":
        raise ConfigError("only KServe has a storage initializer", where="storage_initializer",
                          remedy="Leave it out: the server fetches the bundle by itself.")  # fmt: skip
    return kind


def check(server: Api, config: DeployConfig, kind: str, *, account: str, by_proxy: bool) -> None:
    """Look at everything, and tell all that is missing at once.

    Raises:
        LaunchError: something is missing; the remedy has a line of kubectl for each.
    """
    limits = ClusterConfig(namespace=config.namespace, store_secret="")
    missing = preflight.lacking(server, limits, rights(kind, config, by_proxy=by_proxy), account)
    if kind == "kserve" and not _knows(server, "InferenceService"):
        line = "install KServe (https://kserve.github.io), or use the launcher deployment"
        missing.append(("the cluster has no InferenceServices: KServe is not installed", line))
    if config.gateway and not _knows(server, "HTTPRoute"):
        line = "install the Gateway API's resources, or leave `gateway` out: shares are then numbers of pods"
        missing.append(("the cluster has no HTTPRoutes: the Gateway API is not installed", line))
    missing += [*_no_account(server, config), *_no_token(server, config)]
    preflight.refuse(limits, missing)


def _knows(server: Api, kind: str) -> bool:
    """Whether the cluster has a kind: by its list of them, for one that it has not is refused as well to who may not ask."""
    group, version, plural = _PLACES[kind]
    try:
        found = server.get(f"/apis/{group}/{version}")["resources"]
    except Refused as error:
        if error.status not in (403, 404):
            raise
        return error.status == 403  # the right is then among those that are missing
    return any(one["name"] == plural for one in found)


def _no_account(server: Api, config: DeployConfig) -> Iterator[tuple[str, str]]:
    name, space = config.service_account, config.namespace
    if not _there(server, core(space, "serviceaccounts", name)):
        line = f"kubectl -n {space} create serviceaccount {name}"
        yield f"the service account {name} of the pods is not there", line


def _no_token(server: Api, config: DeployConfig) -> Iterator[tuple[str, str]]:
    name, space = config.token_secret, config.namespace
    if name and not _there(server, core(space, "secrets", name)):
        line = f"kubectl -n {space} create secret generic {name} --from-literal=token=$(openssl rand -hex 32)"
        yield f"the Secret {name} with the token that clients must show is not there", line


def _there(server: Api, place: str) -> bool:
    """Whether an object is there, as far as this process may look."""
    try:
        server.get(place)
    except Refused as error:
        if error.status not in (403, 404):
            raise
        return error.status == 403
    return True
