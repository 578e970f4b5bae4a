"""The encoder's steps as jobs: run by the step itself on this machine, or elsewhere and only followed.

Whoever follows needs neither torch nor the data: both stay out of the step's pod.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tritower import gpus, storage, threads
from tritower.config import to_dict
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.jobs import Job, Resources, follow


def embed(
    *,
    dataset: str,
    embeddings: str,
    config: EmbedConfig,
    encoder: str,
    artifact_uri: str,
    launcher: str = "local",
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Embed every text of a dataset once; in several nodes each embeds its share.

    Args:
        dataset: location of the folder that ingest wrote.
        embeddings: folder to write: a path with the launcher `local`, else a location that the job's pods can open.
        config: the knobs.
        encoder: location of the model; `config.model` when empty.
        artifact_uri: see `step.embed`.
        launcher: a `jobs.LauncherName`.
        cluster: its settings.

    Returns:
        The content of encoder.json.

    Raises:
        TritowerError: see `step.embed` and `jobs.Launcher.run`.
    """
    if launcher == "local":
        from tritower.encoder import step

        return step.embed(dataset=dataset, embeddings=embeddings, config=config, encoder=encoder, artifact_uri=artifact_uri)
    own = storage.beside(artifact_uri)
    described = job("embed", config, {"dataset": dataset, "encoder": encoder}, {"embeddings": embeddings}, own)
    return follow(_elsewhere(described), launcher, cluster, told=f"{embeddings}/encoder.json", kept="" if config.cache else own)


def finetune(
    *,
    dataset: str,
    model: str,
    report: str,
    config: FinetuneConfig,
    artifact_uri: str,
    launcher: str = "local",
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fine-tune the encoder on the clicks of the train split and keep the better of old and new.

    Args:
        dataset: location of the folder that ingest wrote.
        model: folder to write: a path with the launcher `local`, else a location that the job's pods can open.
        report: HTML file to write, likewise.
        config: the knobs.
        artifact_uri: see `step.finetune`.
        launcher: a `jobs.LauncherName`.
        cluster: its settings.

    Returns:
        The numbers of finetune.json.

    Raises:
        TritowerError: see `step.finetune` and `jobs.Launcher.run`.
    """
    if launcher == "local":
        from tritower.encoder import step

        return step.finetune(dataset=dataset, model=model, report=report, config=config, artifact_uri=artifact_uri)
    own = storage.beside(artifact_uri)
    place = config.checkpoints or own
    described = job("finetune", config, {"dataset": dataset}, {"model": model, "report": report}, place)
    kept = "" if config.checkpoints else own
    told = follow(_elsewhere(described), launcher, cluster, told=f"{model}/finetune.json", kept=kept)
    numbers: dict[str, Any] = told["numbers"]
    return numbers


def headline(numbers: dict[str, Any]) -> dict[str, float]:
    """The figures for a backend's page, which shows ten by name, of what `finetune` returns."""
    names = {"accepted_tuned_encoder": "accepted", "train_clicks": "clicks"}
    for side in ("before", "after"):
        names |= {f"auc_shown_jobs_{side}": f"{side}_auc_shown", f"map_shown_jobs_{side}": f"{side}_map_shown"}
        names |= {f"map_all_jobs_{side}": f"{side}_map_jobs", f"recall_at_10_all_jobs_{side}": f"{side}_recall@10_jobs"}
    return {name: float(numbers[key]) for name, key in sorted(names.items()) if key in numbers}


def job(
    step: str, config: EmbedConfig | FinetuneConfig, inputs: dict[str, str], outputs: dict[str, str], checkpoints: str
) -> Job:
    """A step in `config.processes` processes; the places are locations, empty ones are none."""
    each = max(1, threads.available() // config.processes)
    return Job(
        name=step,
        module="tritower.encoder",
        arguments=(step, f"--config={json.dumps(to_dict(config))}", f"--checkpoints={checkpoints}"),
        inputs={name: place for name, place in inputs.items() if place},
        outputs={name: place for name, place in outputs.items() if place},
        processes=config.processes,
        environment={"OMP_NUM_THREADS": str(each), **gpus.REPEATABLE},
        resources=Resources(cpus=each * config.processes),
    )


def _elsewhere(described: Job) -> Job:
    """The job for pods that have cores of their own: not those of the step's pod say how many threads there are."""
    return replace(described, environment=gpus.REPEATABLE, resources=Resources())
