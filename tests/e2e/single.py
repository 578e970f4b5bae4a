"""Pipelines of one launched step, on features and embeddings that a training left in the store."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from tritower.ingest.component import ingest
from tritower.ranker.component import ranker
from tritower.tuning.component import tune

from pipelines.flavours import equipped
from pipelines.steps import STEPS


def _small(task: dsl.PipelineTask, step: str) -> None:
    """The launcher's pod: it reads no data."""
    equipped(task, STEPS[step]).set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")


@dsl.pipeline(name="launched-ranker", description="The ranker, trained in pods of a job.")
def launched_ranker(
    features: str, embeddings: str, config: dict[str, Any], cluster: dict[str, Any], launcher: str = "pytorchjob"
) -> None:
    given = {"features": features, "embeddings": embeddings, "cluster": cluster, "launcher": launcher}
    _small(ranker(ranker_members=1, config=config, **given), "ranker")


@dsl.pipeline(name="launched-tune", description="The search, its trials being jobs.")
def launched_tune(
    features: str, embeddings: str, config: dict[str, Any], cluster: dict[str, Any], launcher: str = "katib"
) -> None:
    given = {"features": features, "embeddings": embeddings, "cluster": cluster, "launcher": launcher}
    _small(tune(ranker_epochs=1, ranker_members=1, config=config, **given), "tune")


@dsl.pipeline(name="ingest-alone", description="Ingest, on executors that are pods.")
def ingest_alone(jobs: str, impressions: str, users: str, data_version: str, engine: str, config: dict[str, Any]) -> None:
    given = {"jobs": jobs, "impressions": impressions, "users": users, "data_version": data_version}
    equipped(ingest(**given, engine=engine, config=config), STEPS["ingest"]).set_caching_options(False)


def compiled(pipeline: Any, folder: Path) -> Path:
    path = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path
