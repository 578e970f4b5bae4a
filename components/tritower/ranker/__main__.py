"""One process of a training, under torchrun: `python -m torch.distributed.run ... -m tritower.ranker --features ...`.

A PyTorchJob's workers run the same. Without torchrun it is a training in a single process. Nodes need no disk in common: each
fetches what it reads, and what is written goes to locations.
"""

import argparse
import logging
import sys
import time

import torch

from tritower import child, logs
from tritower.config import from_dict
from tritower.errors import TritowerError
from tritower.ranker import session, step
from tritower.ranker.config import RankerConfig
from tritower.ranker.launching import threads
from tritower.ranker.process_group import joined
from tritower.storage import staging

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Train; returns the exit code (1 for an expected error, logged in one line)."""
    parser = argparse.ArgumentParser(
        prog="python -m tritower.ranker",
        description="Train the triple tower ranker. A location is a path, file://, s3://, minio:// or gs://.",
    )
    parser.add_argument("--features", required=True, help="location of the features step's output")
    parser.add_argument("--embeddings", required=True, help="location of the encoder's matrix")
    parser.add_argument("--model", required=True, help="location of the folder to write, by rank 0")
    parser.add_argument("--scores", default="", help="location for scores of validation and test, by rank 0; none when empty")
    parser.add_argument(
        "--failures", default="", help="location of a folder for the batch of a non-finite loss; default beside --model"
    )
    parser.add_argument(
        "--checkpoints", default="", help="location for checkpoints where the config names none; whoever gives it clears it"
    )
    parser.add_argument(
        "--metrics-file",
        default="",
        help="location of a file for `name=value` lines after each validation, as Katib reads them",
    )
    parser.add_argument("--config", default="{}", help="knobs of RankerConfig as JSON")
    given = parser.parse_args(arguments)
    logs.setup()
    try:
        config = from_dict(RankerConfig, given.config)
        torch.set_num_threads(threads(config.launch.threads))
        inputs = {"features": given.features, "embeddings": given.embeddings}
        outputs = {"model": given.model, "scores": given.scores, "metrics": given.metrics_file}
        with joined(config.launch.device) as group, staging.staged(inputs, outputs, node=group.node) as places:
            metrics = places["metrics"] if given.metrics_file else None
            start = time.perf_counter()
            session.train(
                features=places["features"], embeddings=places["embeddings"], model=places["model"],
                work=places.folder / "rows", failures=given.failures or f"{given.model.rstrip('/')}.failures",
                config=config, group=group, checkpoints=given.checkpoints, metrics_file=metrics,
            )  # fmt: skip
            if given.scores and not group.rank:
                step.score_held_out(**{name: places[name] for name in ("features", "embeddings", "model", "scores")})
            logger.info("training done in %.1f s", time.perf_counter() - start)
    except TritowerError as error:
        logger.error("%s: %s", type(error).__name__, error)
        child.report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
