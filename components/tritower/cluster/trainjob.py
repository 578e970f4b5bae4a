"""A TrainJob (trainer.kubeflow.org/v1alpha1) for a job, and the TrainingRuntime that it names."""

from typing import Any

from tritower.cluster import pods
from tritower.cluster.config import ClusterConfig
from tritower.jobs import Job

GROUP, VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
CONTAINER = "node"
"""Of the pods, and of the replicated job in the runtime: the controller takes no other name."""


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
        "activeDeadlineSeconds": int(config.deadline_s),
    } | ({"suspend": True} if config.queue else {})
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


def runtime(job: Job, config: ClusterConfig, *, name: str) -> dict[str, Any]:
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
        "metadata": pods.metadata(name, spec, job, config),
        "spec": spec,
    }
