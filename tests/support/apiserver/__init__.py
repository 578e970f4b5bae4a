"""A small Kubernetes API server over real HTTP, with the parts of a cluster that a launcher meets, for tests.

    with served(Cluster(namespaces={"team": {"katib.kubeflow.org/metrics-collector-injection": "enabled"}},
                        nodes=[Node(name="big", gpus=8)], environment={"PYTHONPATH": ...})) as cluster:
        token = cluster.token(role["rules"], namespace="team")  # as a Role has them; cluster_rules=... of ClusterRoles
        cluster.kubeconfig(tmp_path / "kubeconfig", token, namespace="team")   # without a token: all rights
        cluster.url                                                 # plain http

Pods are real processes of this machine: the command of the manifest with the environment that the operator injects, ended with
their pod, at the latest with the server. `MASTER_ADDR` and `MASTER_PORT` are a Service's in the API, and reachable ones of the
loopback in the process. `limits.memory` is held: what takes more is OOMKilled.

An Experiment's Trials are PyTorchJobs; their metrics are read from the file that the File collector is told of (its folder is a
volume), or from what the container prints. Values are drawn at random whatever the algorithm. A TrainJob needs its
TrainingRuntime.

A Deployment's pods are rolled, and an InferenceService becomes one; what listens on 0.0.0.0 in a pod listens on the pod's own
address of the loopback, readiness probes ask it there, and so does a request to `services/NAME:PORT/proxy/...`. Server-side
apply knows the owners of fields.

What goes wrong:

* `cluster.faults.answer(429, path="pytorchjobs", times=3, retry_after_s=1)`, `.slow(seconds)`, `.gone(seconds)` (connections
  are reset), `.cut("log", 100)` (the next log stream breaks off after 100 bytes; "watch" alike); `.seen` are all requests.
* `cluster.images["example/none:1"] = "missing"` (or "denied", "unreachable").
* `cluster.down.add("training-operator")` (or "katib", "trainer", "kserve"): webhook and controller are away until discarded;
  "training-controller" leaves the webhook. `cluster.set_clock(ahead_s)` sets the clocks of server and nodes.
* `cluster.kill(pod)`, `.kill(pod, oom=True)`, `.evict(pod)`, `.drain(pod)`; pods may be deleted and evicted by the API.
* `cluster.store.compact()`: watches from before are told 410.
* Objects to put in: `cluster.add(kinds.QUOTA, {...})`, Secrets, ConfigMaps, Workflows as owners; a namespace's label
  `pod-security.kubernetes.io/enforce: restricted`; `Cluster(without=["pytorchjobs"])` for a CRD that is not installed.

`schema.problems(manifest)` says what the published schema of its kind finds in a manifest. What the real servers do, and
what of it is played here, is in tests/data/recordings.
"""

from tests.support.apiserver import kinds
from tests.support.apiserver.cluster import Cluster, served
from tests.support.apiserver.scheduler import Node

__all__ = ["Cluster", "Node", "kinds", "served"]
