"""Training in child processes on this machine: the same `python -m tritower.ranker` under torchrun as on a cluster."""

import collections
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tritower.config import to_dict
from tritower.errors import NonFiniteLossError, StepError
from tritower.ranker.config import RankerConfig

logger = logging.getLogger(__name__)
_TAIL_LINES = 40
_LINE = re.compile(r"(?:\[rank \d+\] )?\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ")


def run(*, features: Path, embeddings: Path, model: Path, failures: Path, config: RankerConfig) -> None:
    """Run the training to its end, passing its log on.

    Static rendezvous without restarts: a failed process ends the training at once, and the next attempt resumes from the
    checkpoint.

    Raises:
        NonFiniteLossError: training diverged; the batch is in `failures`.
        StepError: the child failed for another reason; the message ends with the tail of its log.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={config.processes}",
        "--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={_free_port()}", "--max-restarts=0",
        "-m", "tritower.ranker",
        f"--features={features}", f"--embeddings={embeddings}", f"--model={model}", f"--failures={failures}",
        f"--config={json.dumps(to_dict(config))}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads(config)), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
    work = tempfile.TemporaryDirectory(prefix="ranker-")
    with (
        work,
        subprocess.Popen(
            [*command, f"--work={work.name}"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child,
    ):
        try:
            assert child.stdout is not None
            for line in child.stdout:
                tail.append(line.rstrip())
                _pass_on(line.rstrip())
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
    if code:
        _fail(code, list(tail), failures)


def threads(config: RankerConfig) -> int:
    """CPU threads of each process: the knob, else OMP_NUM_THREADS, else one.

    The matrices are small: threads wait for each other more than they compute (on two busy cores two threads took ten times
    the CPU seconds of one). Processes scale instead.
    """
    if config.threads:
        return config.threads
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 1


def _pass_on(line: str) -> None:
    # The child's lines carry their own time and level; ours replace them.
    found = _LINE.match(line)
    level = logging.getLevelNamesMapping()[found[1]] if found else logging.INFO
    logger.log(level, "%s", line[found.end() :] if found else line)


def _fail(code: int, tail: list[str], failures: Path) -> None:
    log = "\n".join(tail)
    saved = sorted(failures.glob("batch-*.safetensors"))
    if saved:
        why = next((line for line in tail if "NonFiniteLossError: " in line), "the loss is not finite")
        raise NonFiniteLossError(
            why.split("NonFiniteLossError: ")[-1].split(". ")[0],
            where=str(saved[0]),
            remedy=f"Look at the saved batch; lower learning_rate. Last lines of the log:\n{log}",
        )
    raise StepError(f"training ended with code {code}", where="ranker", remedy=f"Last lines of its log:\n{log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
