"""Pipelines of one launched step, on features and embeddings that a training left in the store."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from tritower.ranker.component import ranker
from tritower.tuning.component import tune

from pipelines.flavours import equipped
from pipelines.steps import STEPS


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


def _small(task: dsl.PipelineTask, step: str) -> None:
    """The launcher's pod: it reads no data."""
    equipped(task, STEPS[step]).set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")


def compiled(pipeline: Any, folder: Path) -> Path:
    path = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path
