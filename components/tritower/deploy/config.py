"""Where and how a version of the model server runs: one config for every kind of set."""

import re
from dataclasses import dataclass, field
from typing import Any

from tritower.cluster.quantities import value
from tritower.config import check

KINDS = ("kserve", "deployment")
LAUNCHERS = ("none", "auto", *KINDS)
SERVERLESS = "serverless"
"""Written as YAML only: Knative's revisions are followed by nobody here."""
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,25}[a-z0-9])?")
_QUANTITY = re.compile(r"(\d+(\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """Pods of the model server, how requests come to them, and how long they are waited for."""

    launcher: str = "none"
    """What makes the pods: `kserve` (an InferenceService in the mode Standard), `deployment`, `auto` (kserve where it is), or
    `none`: nothing is deployed, as in runs on this machine."""

    name: str = "tritower"
    """Name of the Service that clients ask, and the beginning of all other names; 27 characters at most."""

    namespace: str = ""
    """Namespace; empty = that of the step or of the kubeconfig."""

    image: str = ""
    """Image of the server, with an immutable tag or a digest; empty = `serve` beside the image that the step itself runs in."""

    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with a registry's credentials."""

    replicas: int = 2
    """Pods, 1 or more; two, so that one is left while the other's node is drained."""

    max_replicas: int = 0
    """Pods up to which an autoscaler may go; 0 = no autoscaler."""

    target_cpu_percent: int = 80
    """Share of the requested cores at which the autoscaler adds pods; KServe's own default."""

    cpu: str = "1"
    """Requested cores of a pod."""

    cpu_limit: str = "4"
    """Most cores of a pod, by which its server counts threads. KServe writes 1 where none is named, whatever is asked for."""

    memory: str = "2Gi"
    """Memory of a pod, requested and as its limit. A second set needs as much once more while a version is rolled out."""

    disk: str = "4Gi"
    """Room for the fetched bundle and for temporary files."""

    storage_initializer: bool = False
    """KServe fetches the bundle (s3://, gs://) to /mnt/models before the server starts; else the server does."""

    serve: dict[str, Any] = field(default_factory=dict)
    """Knobs of ServeConfig beside the address. `poll_s` is 0 unless named: a bundle that is written over would else come to
    serve unasked."""

    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the pods. No secrets."""

    token_secret: str = "tritower-serving"  # noqa: S105 - a Secret's name, not a secret
    """Secret whose key `token` clients must show; without one the server listens on no network. Empty = brought otherwise."""

    store_secret: str = "tritower-store"  # noqa: S105 - a Secret's name, not a secret
    """Secret with the store's endpoint, region, accesskey and secretkey, as far as it has them; empty = workload identity."""

    service_account: str = "tritower-server"
    """The pods' service account; it needs no rights on the cluster."""

    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that the nodes must have."""

    tolerations: tuple[dict[str, Any], ...] = ()
    """Kubernetes tolerations."""

    priority_class: str = ""
    """Name of a PriorityClass."""

    run_as_user: int = 1000
    """User id of the pods; -1 leaves it to the cluster (OpenShift)."""

    canary_percent: int = 0
    """Share of requests that the new version gets until it is promoted, 0 to 99; 0 = all of them at once."""

    gateway: str = ""
    """Gateway (`name` or `namespace/name`) of the Gateway API that an HTTPRoute is bound to; shares are then its weights, and
    not numbers of pods."""

    hostnames: tuple[str, ...] = ()
    """Host names of the HTTPRoute; none = all of the gateway's."""

    questions: tuple[dict[str, Any], ...] = ()
    """Searches, as POST /rank takes them, that a new version must answer; empty = those in the bundle, else an empty query."""

    reach: str = ""
    """How it is asked: `service` (from a pod of the cluster) or `proxy` (through the API server);
    empty = by where this process runs."""

    answer_timeout_s: float = 30.0
    """Seconds for an answer, and for the Service to lead to the new version, above 0."""

    start_timeout_s: float = 900.0
    """Seconds until every pod of a version must be ready, above 0: image, bundle and a node of the autoscaler are within."""

    patience_s: float = 60.0
    """Seconds for which an image, a Secret, a quota may be missing until the version has failed, above 0."""

    restarts: int = 1
    """Failures of a pod, after the first, until the version has failed, 0 or more."""

    pre_stop_s: int = 5
    """Seconds between a pod's leaving the Service and its SIGTERM, 1 or more; with 2 s no request was lost."""

    grace_s: int = 45
    """Seconds a pod has to end, `pre_stop_s` and the server's own 23 within."""

    api_patience_s: float = 300.0
    """Seconds for which the API server may be gone, above 0."""

    poll_s: float = 2.0
    """Seconds between two looks, above 0."""

    take_over: bool = False
    """Set fields that somebody else has set by hand."""

    def __post_init__(self) -> None:
        words = ", ".join(LAUNCHERS)
        check(self.launcher in (*LAUNCHERS, SERVERLESS), "launcher", self.launcher, f"that is one of {words}")
        check(bool(_NAME.fullmatch(self.name)), "name", self.name, "of up to 27 lower case letters, digits and `-`")
        check(1 <= self.replicas <= 100, "replicas", self.replicas, "between 1 and 100")
        most = self.max_replicas
        check(not most or self.replicas <= most <= 1000, "max_replicas", most, "of 0, or of at least `replicas`")
        check(1 <= self.target_cpu_percent <= 100, "target_cpu_percent", self.target_cpu_percent, "between 1 and 100")
        for name in ("cpu", "cpu_limit", "memory", "disk"):
            text = getattr(self, name)
            check(bool(_QUANTITY.fullmatch(text)), name, text, "of Kubernetes', such as 500m or 16Gi")
        enough = value(self.cpu) <= value(self.cpu_limit)
        check(enough, "cpu_limit", self.cpu_limit, "of at least `cpu`")
        check(0 <= self.canary_percent <= 99, "canary_percent", self.canary_percent, "between 0 and 99")
        check(self.reach in ("", "service", "proxy"), "reach", self.reach, "that is service, proxy or empty")
        check(self.restarts >= 0, "restarts", self.restarts, "of at least 0")
        check(self.run_as_user >= -1, "run_as_user", self.run_as_user, "of at least -1")
        check(1 <= self.pre_stop_s < self.grace_s, "pre_stop_s", self.pre_stop_s, "of at least 1, and less than grace_s")
        for name in ("answer_timeout_s", "start_timeout_s", "patience_s", "api_patience_s", "poll_s"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
