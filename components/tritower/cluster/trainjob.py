"""A TrainJob (trainer.kubeflow.org/v1alpha1) for a job, and the TrainingRuntime that it names."""

from collections.abc import Mapping
from typing import Any

from tritower.cluster import names, pods
from tritower.cluster.api import Refused
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Kind, Resource, Right
from tritower.cluster.state import Object, Seen, condition
from tritower.jobs import Job

GROUP, VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
CONTAINER = "node"
"""Of the pods, and of the replicated job in the runtime: the controller takes no other name."""
_RUNTIMES = "trainingruntimes"
_BELT_S = 300
_JOBSET, _RANK = "jobset.sigs.k8s.io/", "batch.kubernetes.io/job-completion-index"


def manifest(job: Job, config: ClusterConfig, *, name: str, run: str = "", agent: tuple[str, ...] = ()) -> dict[str, Any]:
    """The custom resource.

    Args:
        job: what runs.
        config: where and how.
        name: of at most 48 characters. Longer ones are accepted, and nothing happens.
        run: the pipeline's run, for a label.
        agent: options of the agent.
    """
    assert len(name) <= 48, name
    trainer: dict[str, Any] = {
        "image": config.image,
        "command": ["python3", "-m", "tritower.cluster.agent", *agent, "--", job.module],
        "args": job.words(),
        "env": pods.environment(job, config, name),
        # Without both numbers the pods get no variable of torchrun's at all.
        "numNodes": config.nodes or job.nodes,
        "numProcPerNode": job.processes,
    }
    resources = pods.resources(job, config)
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": name},
        "trainer": trainer | ({"resourcesPerNode": resources} if resources else {}),
        # The launcher's own limit comes first: this one takes the pods and their logs along.
        "activeDeadlineSeconds": int(config.deadline_s) + _BELT_S,
    } | ({"suspend": True} if config.queue else {})
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


def runtime(job: Job, config: ClusterConfig, *, name: str, run: str = "") -> dict[str, Any]:
    """The TrainingRuntime of a job: the defaults of those that clusters bring lose every log of a failure.

    With restartPolicy Never and failurePolicy a failed pod restarts all of them, `config.restarts` times; the last one stays.
    """
    template = pods.template(job, config, name=name, container=CONTAINER, command=[])
    container = template["spec"]["containers"][0]
    for key in ("command", "env", "resources"):  # of the TrainJob
        container.pop(key, None)
    template["spec"]["restartPolicy"] = "Never"
    ancestor = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job_spec = {"backoffLimit": 0, "template": template}
    jobset = {
        "failurePolicy": {"maxRestarts": config.restarts},
        "ttlSecondsAfterFinished": config.keep_after_s,
        "replicatedJobs": [{"name": CONTAINER, "template": {"metadata": {"labels": ancestor}, "spec": job_spec}}],
    }
    spec = {"mlPolicy": {"numNodes": config.nodes or job.nodes, "torch": {}}, "template": {"spec": jobset}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainingRuntime",
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


class TrainJobs(Kind):
    """TrainJobs of Kubeflow Trainer (2.3), each with a TrainingRuntime of its own.

    While it runs a TrainJob has no condition at all. Its pods are those of an indexed Job of a JobSet; when one fails, all are
    deleted and made anew, as the next attempt, under new names. A pod that is drained counts as one that failed.
    """

    resource = Resource(GROUP, VERSION, PLURAL, KIND)
    operator = "Kubeflow Trainer"
    look = "kubectl get pods -A -l app.kubernetes.io/name=trainer"
    install = 'kubectl apply --server-side -k "https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=v2.3.0"'
    rights: tuple[Right, ...] = ((GROUP, _RUNTIMES, ("create", "get", "delete")),)
    unmade = ("FailedCreate", "TrainJobResourcesCreationFailed")

    def manifest(self, job: Job, config: ClusterConfig, *, name: str, run: str, agent: tuple[str, ...]) -> dict[str, Any]:
        """See `manifest`. The digest is of the runtime as well: half of a job's settings stand there."""
        made = manifest(job, config, name=name, run=run, agent=agent)
        both = {"job": made["spec"], "runtime": runtime(job, config, name=name)["spec"]}
        made["metadata"]["annotations"][names.SPEC_HASH] = names.spec_hash(both)
        return made

    def beside(self, job: Job, config: ClusterConfig, *, name: str, run: str) -> list[dict[str, Any]]:
        """The runtime."""
        return [runtime(job, config, name=name, run=run)]

    def too_early(self, error: Refused) -> bool:
        """The webhook's own view of the runtimes is a moment behind."""
        return "must be created before the TrainJob" in error.problem

    def selector(self, name: str) -> str:
        """JobSet's label for a job's pods: they have none of the Trainer's."""
        return f"{_JOBSET}jobset-name={name}"

    def own(self, pods: list[dict[str, Any]], job: Object) -> list[dict[str, Any]]:
        """Those of the last attempt. Their owner is the Job of a JobSet: the time tells them from those of an earlier job."""
        since = job["metadata"]["creationTimestamp"]
        found = [pod for pod in pods if pod["metadata"]["creationTimestamp"] >= since]
        last = max(map(_attempt, found), default=0)
        return [pod for pod in found if _attempt(pod) == last]

    def told_by(self, name: str) -> tuple[str, ...]:
        """The TrainJob, its JobSet, and the Job that makes the pods."""
        return (name, f"{name}-{CONTAINER}-0")

    def logged(self, seen: Seen) -> Mapping[str, Object]:
        """The pod of index 0, which is rank 0."""
        first = [pod for pod in seen.pods if self.place(pod) == "0"]
        return {"": first[0]} if first else {}

    def place(self, pod: Object) -> str:
        """Its index: its name is another one in each attempt."""
        return str(pod["metadata"]["labels"][_RANK])

    def ended(self, job: Object) -> str:
        """By the conditions alone: `jobsStatus` counts a failure that is about to be made good."""
        return "Succeeded" if condition(job, "Complete") else "Failed" if condition(job, "Failed") else ""

    def queued(self, job: Object) -> bool:
        """The condition comes a moment after the job."""
        return super().queued(job) or bool(job["spec"].get("suspend"))


def _attempt(pod: Object) -> int:
    return int(pod["metadata"]["labels"].get(f"{_JOBSET}restart-attempt", 0))
