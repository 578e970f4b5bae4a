"""A training as a job: run by the step itself on this machine, or elsewhere and only followed.

Whoever follows needs no torch, and none of the data: both stay out of the step's pod.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tritower import storage
from tritower.config import to_dict
from tritower.jobs import Job, Resources, follow
from tritower.ranker.config import RankerConfig

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc would map each tensor of a training step anew, or cut the heap's end off after it, depending on what lay there
    # before: clearing the pages took up to a quarter of a step.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # glibc refuses more
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}


def train(
    *,
    features: str,
    embeddings: str,
    model: str,
    scores: str,
    config: RankerConfig,
    artifact_uri: str,
    launcher: str = "local",
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train and score validation and test.

    Args:
        features: location of a folder with train, validation and (optionally) test.
        embeddings: location of a folder with matrix.npy and encoder.json.
        model: model folder to write: a path with the launcher `local`, else a location that the job's pods can open.
        scores: scores folder to write, likewise.
        config: the knobs.
        artifact_uri: see `step.train`.
        launcher: a `jobs.LauncherName`.
        cluster: its settings.

    Returns:
        Validation figures, steps, seconds and rows per second.

    Raises:
        TritowerError: see `step.train` and `jobs.Launcher.run`.
    """
    if launcher == "local":
        from tritower.ranker import step

        places = {"features": features, "embeddings": embeddings, "model": model, "scores": scores}
        return step.train(**places, config=config, artifact_uri=artifact_uri)
    # Unlike `storage.kept` the place does not depend on whether the store can be written from here: a step that is started
    # again must describe the very job that it finds.
    own = storage.beside(artifact_uri)
    training = job(
        features=features, embeddings=embeddings, model=model, config=config, checkpoints=config.launch.checkpoints or own
    )
    training = replace(training, outputs={**training.outputs, "scores": scores})
    told = f"{model.rstrip('/')}/metrics.json"
    return follow(training, launcher, cluster, told=told, kept="" if config.launch.checkpoints else own)


def job(*, features: str, embeddings: str, model: str, config: RankerConfig, checkpoints: str = "") -> Job:
    """A training as any launcher runs it; the locations are as in `train`, of any scheme.

    It keeps checkpoints at `checkpoints` where the config names no place for them. It writes `model`, and beside it, in
    `<model>.failures`, the batch of a loss that is not finite.
    """
    each = threads(config.launch.threads)
    return Job(
        name="ranker",
        module="tritower.ranker",
        arguments=(f"--config={json.dumps(to_dict(config))}", *([f"--checkpoints={checkpoints}"] if checkpoints else [])),
        inputs={"features": features, "embeddings": embeddings},
        outputs={"model": model},
        processes=config.launch.processes,
        environment={"OMP_NUM_THREADS": str(each), **_ENVIRONMENT},
        resources=Resources(
            cpus=each * config.launch.processes, gpus=config.launch.processes if config.launch.device == "cuda" else 0
        ),
    )


def threads(wanted: int) -> int:
    """CPU threads of each process: what is wanted unless 0, else OMP_NUM_THREADS, else one.

    The matrices are small: threads wait for each other more than they compute (on two busy cores two threads took ten times
    the CPU seconds of one). Processes scale instead.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return wanted or (int(given) if given.isdigit() and int(given) else 1)
