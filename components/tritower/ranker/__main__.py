"""One process of a training, under torchrun: `python -m torch.distributed.run ... -m tritower.ranker --features ...`.

A PyTorchJob's workers run the same. Without torchrun it is a training in a single process.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from tritower import child, logs
from tritower.config import from_dict
from tritower.errors import TritowerError
from tritower.ranker import session
from tritower.ranker.config import RankerConfig
from tritower.ranker.process_group import joined
from tritower.storage import manifest

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Train; returns the exit code (1 for an expected error, logged in one line)."""
    parser = argparse.ArgumentParser(prog="python -m tritower.ranker", description="Train the triple tower ranker.")
    parser.add_argument("--features", type=Path, required=True, help="the features step's output")
    parser.add_argument("--embeddings", type=Path, required=True, help="the encoder's matrix")
    parser.add_argument("--model", type=Path, required=True, help="folder to write, by rank 0")
    parser.add_argument("--failures", type=Path, help="folder for the batch of a non-finite loss; default beside --model")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for memory-mapped rows that all processes of a machine share; default a temporary one each",
    )
    parser.add_argument("--metrics-file", type=Path, help="gets `name=value` lines after each validation, for Katib")
    parser.add_argument("--config", default="{}", help="knobs of RankerConfig as JSON")
    given = parser.parse_args(arguments)
    logs.setup()
    work = given.work or Path(tempfile.mkdtemp(prefix="ranker-"))
    try:
        if not given.work:  # otherwise whoever started this process has checked them
            manifest.check(given.features, given.embeddings)
        config = from_dict(RankerConfig, json.loads(given.config))
        if config.launch.threads:
            torch.set_num_threads(config.launch.threads)
        with joined(config.launch.device) as group:
            start = time.perf_counter()
            session.train(
                features=given.features, embeddings=given.embeddings, model=given.model, work=work,
                failures=given.failures or given.model.with_name(f"{given.model.name}.failures"), config=config, group=group,
                shared=given.work is not None, metrics_file=given.metrics_file,
            )  # fmt: skip
            logger.info("training done in %.1f s", time.perf_counter() - start)
    except TritowerError as error:
        logger.error("%s: %s", type(error).__name__, error)
        child.report(error)
        return 1
    finally:
        if not given.work:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
