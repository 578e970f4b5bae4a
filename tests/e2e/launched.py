"""A pipeline of one launched step: imports features and embeddings that a training left in the store, and trains the ranker."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl import Dataset
from tritower.ranker.component import ranker

from pipelines.flavours import equipped
from pipelines.steps import STEPS


@dsl.pipeline(name="launched-ranker", description="The ranker, trained in pods of a PyTorchJob.")
def launched_ranker(
    features: str, embeddings: str, config: dict[str, Any], cluster: dict[str, Any], launcher: str = "pytorchjob"
) -> None:
    found = dsl.importer(artifact_uri=features, artifact_class=Dataset, reimport=False)
    vectors = dsl.importer(artifact_uri=embeddings, artifact_class=Dataset, reimport=False)
    task = ranker(
        features=found.output, embeddings=vectors.output, ranker_members=1, config=config, cluster=cluster, launcher=launcher
    )
    equipped(task, STEPS["ranker"]).set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")


def compiled(folder: Path) -> Path:
    path = folder / "launched-ranker.yaml"
    compiler.Compiler().compile(launched_ranker, str(path))
    return path
