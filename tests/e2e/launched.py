"""A pipeline of one launched step: trains the ranker on features and embeddings that a training left in the store."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from tritower.ranker.component import ranker

from pipelines.flavours import equipped
from pipelines.steps import STEPS


@dsl.pipeline(name="launched-ranker", description="The ranker, trained in pods of a PyTorchJob.")
def launched_ranker(
    features: str, embeddings: str, config: dict[str, Any], cluster: dict[str, Any], launcher: str = "pytorchjob"
) -> None:
    places = {"features": features, "embeddings": embeddings}
    task = ranker(**places, ranker_members=1, config=config, cluster=cluster, launcher=launcher)
    equipped(task, STEPS["ranker"]).set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")


def compiled(folder: Path) -> Path:
    path = folder / "launched-ranker.yaml"
    compiler.Compiler().compile(launched_ranker, str(path))
    return path
