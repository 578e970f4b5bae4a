"""A PyTorchJob (kubeflow.org/v1) for a job."""

from collections.abc import Mapping
from typing import Any

from tritower.cluster import pods
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Kind, Resource
from tritower.cluster.state import Object, Seen
from tritower.jobs import Job

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"
CONTAINER = "pytorch"
"""The operator takes no other name."""


def manifest(
    job: Job, config: ClusterConfig, *, name: str, run: str = "", agent: tuple[str, ...] = (), restart: bool = True
) -> dict[str, Any]:
    """The custom resource.

    cleanPodPolicy None: with Running a pod between two attempts goes as the job fails, and the log of the failure with it.
    `backoffLimit` counts the restarts of all pods, which fail together; the last one ends the job, without an attempt after it.

    Args:
        job: what runs, in `nodes` pods of `processes` processes.
        config: where and how.
        name: of at most 50 characters; with role and number it names a Service.
        run: the pipeline's run, for a label.
        agent: options of the agent.
        restart: start a container that failed again, in its pod. A failed job is over at once without.
    """
    assert len(name) <= 50, name
    nodes = config.nodes or job.nodes
    command = ["python3", "-m", "tritower.cluster.agent", *agent, "--", job.module, *job.words()]
    roles = {
        role: {
            "replicas": count,
            "restartPolicy": "OnFailure" if restart else "Never",
            "template": pods.template(job, config, name=name, container=CONTAINER, command=command),
        }
        for role, count in (("Master", 1), ("Worker", nodes - 1))
        if count
    }
    policy: dict[str, Any] = {
        "cleanPodPolicy": "None",
        "backoffLimit": config.restarts * nodes + 1,
        "activeDeadlineSeconds": int(config.deadline_s),
        "ttlSecondsAfterFinished": config.keep_after_s,
    }
    spec = {
        "nprocPerNode": str(job.processes),  # text; `auto` would be every core of the node
        "runPolicy": policy | ({"suspend": True} if config.queue else {}),
        "pytorchReplicaSpecs": roles,
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


class PyTorchJobs(Kind):
    """PyTorchJobs of the training operator (1.9)."""

    resource = Resource(GROUP, VERSION, PLURAL, KIND)
    operator = "the training operator"
    look = "kubectl get pods -A -l control-plane=kubeflow-training-operator"
    install = (
        'kubectl apply --server-side -k "github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.9.4"'
    )
    unmade = ("FailedCreatePod", "FailedCreateService")

    def manifest(self, job: Job, config: ClusterConfig, *, name: str, run: str, agent: tuple[str, ...]) -> dict[str, Any]:
        """See `manifest`."""
        return manifest(job, config, name=name, run=run, agent=agent)

    def selector(self, name: str) -> str:
        """The operator's label for a job's pods."""
        return f"training.kubeflow.org/job-name={name}"

    def logged(self, seen: Seen) -> Mapping[str, Object]:
        """The master, which is rank 0."""
        masters = [pod for pod in seen.pods if pod["metadata"].get("labels", {}).get(_ROLE) == "master"]
        return {"": masters[0]} if masters else {}

    def queued(self, job: Object) -> bool:
        """The condition comes a moment after the job."""
        return super().queued(job) or bool(job["spec"]["runPolicy"].get("suspend"))


_ROLE = "training.kubeflow.org/replica-type"
