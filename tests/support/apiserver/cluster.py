"""The cluster: its objects, its nodes, who may do what, and what goes wrong on request."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.apiserver import collector, deployments, gateway, katib, kinds, kserve, resources, schema, trainer, training
from tests.support.apiserver.environment import Network
from tests.support.apiserver.faults import Faults
from tests.support.apiserver.kinds import Kind
from tests.support.apiserver.kubelet import Kubelet
from tests.support.apiserver.rights import Account, Rights
from tests.support.apiserver.scheduler import Node
from tests.support.apiserver.server import Server
from tests.support.apiserver.store import CLOCK, Store

Object = dict[str, Any]
TAKEN_UP_S = 300.0
"""How long a pod may wait for the kubelet; a busy machine needs a second or two."""


class Cluster:
    """See the package's docstring.

    Args:
        namespaces: labels by name.
        nodes: what there is to run on.
        speed: so much faster than a real cluster's go its clocks: back-offs, graces, deadlines, TTLs. Time stamps are true.
        environment: what every process gets beside its own manifest's (PYTHONPATH, say). Nothing of this process' is inherited
            but PATH.
        without: plurals of custom resources that are not installed.
        bookmark_s: seconds between two bookmarks of a watch.
        accounts: service accounts of every namespace, beside `default`.
    """

    def __init__(
        self,
        *,
        namespaces: Mapping[str, Mapping[str, str]] | Sequence[str] = ("default",),
        nodes: Sequence[Node] = (Node(),),
        speed: float = 10.0,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        bookmark_s: float = 5.0,
        accounts: Sequence[str] = ("tritower-worker",),
    ) -> None:
        self.store, self.rights, self.faults, self.network = Store(), Rights(), Faults(), Network()
        self.speed, self.environment, self.bookmark_s = speed, dict(environment or {}), bookmark_s
        self.images: dict[str, str] = {}
        """Images that cannot be pulled: 'missing', 'denied' or 'unreachable' by name. All others are there."""
        self.programs: dict[str, list[str]] = {}
        """What an image has in place of `python3 -m MODULE`: the same words follow it."""
        self.down: set[str] = set()
        """Operators that are down: 'training-operator', 'katib', 'trainer', 'kserve', 'gateway'; 'training-controller' without
        its webhook."""
        self.algorithms = {"random", "grid", "tpe", "multivariate-tpe", "cmaes", "sobol", "bayesianoptimization", "hyperband"}
        """Those that Katib has a suggestion service for; whichever is asked for, values are drawn at random."""
        self.early_stopping = {"medianstop"}
        """Katib's services for early stopping; none of them stops anything."""
        self.errors: list[BaseException] = []
        """Faults of the server's own; `served` raises the first."""
        self.rounds = 0
        """How often the operators have looked at everything."""
        self.url = ""
        self.kubelet = Kubelet(self)
        labels = namespaces if isinstance(namespaces, Mapping) else {name: {} for name in namespaces}
        for name, own in labels.items():
            meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name} | dict(own)}
            self.store.create(kinds.NAMESPACE, "", {"metadata": meta, "status": {"phase": "Active"}})
            for account in ("default", *accounts):
                self.store.create(kinds.ACCOUNT, name, {"metadata": {"name": account}})
        for node in nodes:
            self.store.create(kinds.NODE, "", node.item())
        for kind in kinds.CUSTOM:
            if kind.plural not in without:
                self.store.create(kinds.CRD, "", _definition(kind))

    @property
    def admin_token(self) -> str:
        """May do all."""
        return next(token for token, account in self.rights.accounts.items() if account is self.rights.admin)

    def token(self, rules: Sequence[Object], *, namespace: str = "default", account: str = "tritower-launcher",
              cluster_rules: Sequence[Object] = ()) -> str:  # fmt: skip
        """A bearer token of a service account. Args: rules: of its Roles in `namespace`, as a Role has them."""
        return self.rights.token(Account(f"system:serviceaccount:{namespace}:{account}", namespace, rules, cluster_rules))

    def kubeconfig(self, path: Path, token: str = "", *, namespace: str = "default") -> Path:
        """Write a kubeconfig for a token (the admin's when empty), and hand back its path."""
        whole = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(whole), encoding="utf-8")
        return path

    def served(self) -> list[Kind]:
        """The kinds whose paths exist."""
        return [*kinds.BUILT_IN, *(kind for kind in kinds.CUSTOM if self.store.get(kinds.CRD, "", kind.resource))]

    def add(self, kind: Kind, item: Object, *, namespace: str = "default") -> Object:
        """Put an object in, past rights and faults. Raises: Refused."""
        schema.check(kind, item)
        return self.store.create(kind, item.get("metadata", {}).get("namespace", namespace), item)

    def set_clock(self, ahead_s: float) -> None:
        """The API server and the nodes take it for so much later than it is, until the cluster is served no more."""
        CLOCK.ahead_s = ahead_s

    def kill(self, pod: str, *, namespace: str = "default", signal: int = 9, oom: bool = False) -> None:
        """Send a signal to the first process of every container of a pod; or end it as the kernel does at its memory limit."""
        for container in self._runner(pod, namespace).containers:
            if "running" in container.state:
                if oom:
                    container.attempts[-1].kill(oom=True)
                else:
                    container.attempts[-1].signal(signal)

    def evict(self, pod: str, *, namespace: str = "default") -> None:
        """As a node does that is short of memory: the pod is Failed with reason Evicted, its processes are killed."""
        message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi."
        self._runner(pod, namespace).evicted = message

    def drain(self, pod: str, *, namespace: str = "default") -> None:
        """As kubectl drain does: the pod is asked to end, in its grace."""
        resources.delete(self, kinds.POD, namespace, pod, {})

    def looked(self, since: int) -> bool:
        """Whether the operators have looked at everything once since `rounds` was `since`, the round of then left out."""
        return self.rounds >= since + 2 or bool(self.errors)

    def _runner(self, pod: str, namespace: str) -> Any:
        """What the kubelet has of a pod. It takes a pod up soon after the API server has it, not at once: this waits for it."""
        deadline = time.monotonic() + TAKEN_UP_S
        while found := self.store.get(kinds.POD, namespace, pod):
            if runner := self.kubelet.runner(found["metadata"]["uid"]):
                return runner
            if self.errors or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        why = f"the kubelet has not taken it up: {self.errors}" if found else "there is none"
        raise LookupError(f"pod {namespace}/{pod}: {why}")


@contextlib.contextmanager
def served(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with its server and its operators. At the end all of its processes have ended."""
    parts = [part.Operator(cluster) for part in (training, katib, trainer, deployments, kserve, gateway)]
    operators = [cluster.kubelet.step, *(part.step for part in parts), lambda: collector.step(cluster)]
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            version = cluster.store.version
            try:
                for step in operators:
                    step()
                cluster.rounds += 1
            except BaseException as error:
                cluster.errors.append(error)
                return
            cluster.store.wait(version, 0.05)

    loop = threading.Thread(target=run, daemon=True)
    with Server(cluster) as server:
        cluster.url = f"http://127.0.0.1:{server.server_port}"
        loop.start()
        try:
            yield cluster
        finally:
            is_over.set()
            loop.join()
            CLOCK.ahead_s = 0.0
            cluster.kubelet.close()
    if cluster.errors:
        raise cluster.errors[0]


def _definition(kind: Kind) -> Object:
    names = {"plural": kind.plural, "kind": kind.kind, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    versions = [{"name": kind.version, "served": True, "storage": True, "subresources": {"status": {}}}]
    spec = {"group": kind.group, "scope": "Namespaced", "names": names, "versions": versions}
    return {
        "metadata": {"name": kind.resource},
        "spec": spec,
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }
