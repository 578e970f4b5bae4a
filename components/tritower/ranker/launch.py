"""Training in child processes on this machine: the same `python -m tritower.ranker` under torchrun as on a cluster."""

import json
import os
import tempfile
from pathlib import Path

from tritower import processes
from tritower.config import to_dict
from tritower.ranker.config import RankerConfig

# glibc would map each tensor of a step anew, or cut the heap's end off after it, depending on what lay there before: clearing
# the pages took up to a quarter of a step.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # more is refused
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}


def run(*, features: Path, embeddings: Path, model: Path, failures: Path, config: RankerConfig) -> None:
    """Run the training to its end. After a failure, the next attempt resumes from the checkpoint.

    Raises:
        TritowerError: what the process that failed raised, such as NonFiniteLossError; the batch is then in `failures`.
        StepError: the process was killed, or did not start.
    """
    with tempfile.TemporaryDirectory(prefix="ranker-") as work:
        arguments = [
            f"--features={features}", f"--embeddings={embeddings}", f"--model={model}", f"--failures={failures}",
            f"--config={json.dumps(to_dict(config))}", f"--work={work}",
        ]  # fmt: skip
        environment = {"OMP_NUM_THREADS": str(threads(config)), **ENVIRONMENT}
        processes.torchrun("tritower.ranker", arguments, processes=config.launch.processes, environment=environment)


def threads(config: RankerConfig) -> int:
    """CPU threads of each process: the knob, else OMP_NUM_THREADS, else one.

    The matrices are small: threads wait for each other more than they compute (on two busy cores two threads took ten times
    the CPU seconds of one). Processes scale instead.
    """
    if config.launch.threads:
        return config.launch.threads
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 1
